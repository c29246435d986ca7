/** README.md of an export, with the front matter that the hub reads. */
import { baseName, quantisedBase, type Provenance } from './provenance.ts';
import type { ExportFormat } from './export-model.ts';

const LIBRARY: { readonly [Format in ExportFormat]: string } = {
  peft: 'peft',
  safetensors: 'transformers',
  gguf: 'gguf',
  'gguf-lora': 'gguf',
  onnx: 'onnx',
};

const WHAT: { readonly [Format in ExportFormat]: (base: string) => string } = {
  peft: (base) => `A LoRA adapter (PEFT) for ${base}.`,
  safetensors: (base) => `${base} after training, as a folder that transformers loads.`,
  gguf: (base) => `${base} after training, as a GGUF file that llama.cpp loads.`,
  'gguf-lora': (base) => `A LoRA adapter for a GGUF file of ${base}, which llama.cpp adds when it loads: \`llama-cli -m BASE.gguf --lora FILE\`.`,
  onnx: (base) =>
    `${base} after training, as an ONNX graph with a key/value cache that onnxruntime runs: inputs \`input_ids\`, \`attention_mask\`, \`position_ids\`, \`past_key_values.N.key\`, \`past_key_values.N.value\`; outputs \`logits\`, \`present.N.key\`, \`present.N.value\`.`,
};

/** A scalar of YAML that no character in it can end. */
const quoted = (text: string): string => (/^[A-Za-z0-9][\w./-]*$/.test(text) ? text : JSON.stringify(text));

export interface CardInput {
  readonly format: ExportFormat;
  readonly provenance: Provenance;
  /** Further lines about this export. */
  readonly notes?: readonly string[];
}

export function modelCard({ format, provenance, notes = [] }: CardInput): string {
  const { baseModel, base, keptLayers, license, campaign, description, teacher, datasetSha256, checkpointSha256 } = provenance;
  const name = baseName(provenance);
  const rounded = quantisedBase(provenance, format === 'peft' || format === 'gguf-lora' ? 'adapter' : 'model');
  const facts = [
    ['base model', `${name}${base?.revision === undefined ? '' : ` at ${base.revision}`}${name === baseModel ? '' : `, named ${baseModel} here`}`],
    ['weights of the base model', base === undefined ? undefined : `${base.weightsType}, sha256 ${base.weightsSha256}`],
    ['layers of the base model', keptLayers?.join(', ')],
    ['licence of the base model', license],
    ['teacher', teacher],
    ['campaign', campaign],
    ['dataset', datasetSha256 === undefined ? undefined : `sha256 ${datasetSha256}`],
    ['checkpoint', checkpointSha256 === undefined ? undefined : `sha256 ${checkpointSha256}`],
  ].flatMap(([name, value]) => (value === undefined ? [] : [`- ${name}: ${value}`]));
  return [
    '---',
    `base_model: ${quoted(name)}`,
    `library_name: ${LIBRARY[format]}`,
    `license: ${quoted(license.toLowerCase())}`,
    'pipeline_tag: text-generation',
    '---',
    '',
    `# ${campaign ?? baseModel}`,
    '',
    ...(description === undefined ? [] : [description, '']),
    `${WHAT[format](name)}${teacher === undefined ? '' : ` Distilled from ${teacher} by Stillhouse.`}`,
    '',
    ...facts,
    '',
    ...(rounded === undefined ? [] : [rounded, '']),
    ...(notes.length === 0 ? [] : [...notes, '']),
  ].join('\n');
}
