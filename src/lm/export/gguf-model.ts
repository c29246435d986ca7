/** A whole model, or a LoRA adapter, as a GGUF file that llama.cpp loads. */
import { StillhouseError } from '../../contracts/errors.ts';
import type { LoraAdapter } from '../adapter.ts';
import type { ModelTensor } from '../architectures/architecture.ts';
import { ARCHITECTURES, modelTensors } from '../architectures/registry.ts';
import { rotaryDivisors } from '../architectures/rotary.ts';
import type { ModelConfig } from '../config.ts';
import { ENCODERS, type EncodedType, type NumberEncoder } from '../weights/encode.ts';
import { rowLength, type StoredTensor } from '../weights/tensor-file.ts';
import { ggufTokenizer } from './gguf-tokenizer.ts';
import { writeGguf, type GgufEntry, type GgufTensor } from './gguf-writer.ts';
import type { OutputFolder } from './output-folder.ts';
import { baseName, provenanceTexts, type Provenance } from './provenance.ts';
import type { ExportSource } from './source.ts';

/** llama_ftype: what most matrices of a file are. */
const FILE_TYPE: { readonly [Type in EncodedType]: number } = { f32: 0, f16: 1, q8_0: 7, bf16: 32 };
/** GGML_QNT_VERSION. */
const QUANTIZATION_VERSION = 2;

/** `general.*` and our own keys. */
function generalEntries(config: ModelConfig, kind: 'model' | 'adapter', type: EncodedType, provenance: Provenance): readonly GgufEntry[] {
  const { baseModel, base, license, campaign, description } = provenance;
  const name = baseName(provenance);
  // A name of the hub, not a path.
  const [, organisation, repository] = /^([\w.-]+)\/([\w.-]+)$/.exec(name) ?? [];
  return [
    ['general.architecture', 'string', config.architecture],
    ['general.type', 'string', kind],
    ['general.name', 'string', campaign ?? baseModel],
    ...(description === undefined ? [] : [['general.description', 'string', description] as const]),
    ['general.license', 'string', license.toLowerCase()],
    ['general.base_model.count', 'uint32', 1],
    ['general.base_model.0.name', 'string', repository ?? name],
    ...(organisation === undefined ? [] : [['general.base_model.0.organization', 'string', organisation] as const, ['general.base_model.0.repo_url', 'string', `https://huggingface.co/${name}`] as const]),
    ...(base?.revision === undefined ? [] : [['general.base_model.0.version', 'string', base.revision] as const]),
    ['general.file_type', 'uint32', FILE_TYPE[type]],
    ['general.quantization_version', 'uint32', QUANTIZATION_VERSION],
    ...Object.entries(provenanceTexts(provenance)).map(([key, value]) => [key, 'string', value] as const),
  ];
}

/** What `commonGgufConfig` and llama.cpp read. */
function architectureEntries(config: ModelConfig): readonly GgufEntry[] {
  const { architecture, rotary } = config;
  const at = (key: string): string => `${architecture}.${key}`;
  const integers = {
    block_count: config.layers,
    context_length: config.maxPositions,
    embedding_length: config.hiddenSize,
    feed_forward_length: config.feedForwardSize,
    'attention.head_count': config.attentionHeads,
    'attention.head_count_kv': config.keyValueHeads,
    'attention.key_length': config.headSize,
    'attention.value_length': config.headSize,
    'rope.dimension_count': config.headSize,
    vocab_size: config.vocabularySize,
  };
  return [
    ...Object.entries(integers).map(([key, value]) => [at(key), 'uint32', value] as const),
    [at('attention.layer_norm_rms_epsilon'), 'float32', config.normEpsilon],
    [at('rope.freq_base'), 'float32', rotary.base],
    ...(rotary.scaling?.kind === 'linear' ? ([[at('rope.scaling.type'), 'string', 'linear'], [at('rope.scaling.factor'), 'float32', rotary.scaling.factor]] as const) : []),
    ...(ARCHITECTURES[architecture].ggufKeys?.(config) ?? []).map(([key, type, value]) => [at(key), type, value] as const),
  ];
}

/** Vectors stay float32; a matrix whose rows are no whole blocks of the type becomes F16, as convert_hf_to_gguf.py decides. */
function encoderOf(shape: readonly number[], type: EncodedType): NumberEncoder {
  if (shape.length < 2) return ENCODERS.f32;
  return rowLength(shape) % ENCODERS[type].format.blockValues === 0 ? ENCODERS[type] : ENCODERS.f16;
}

function ggufTensor({ ggufName, shape, conversion }: ModelTensor, stored: StoredTensor, type: EncodedType): GgufTensor {
  const blocks = conversion === undefined ? stored.blocks : (): Iterable<Float32Array> => [conversion.toGguf(stored.read(), shape)];
  return { name: ggufName, shape, encoder: encoderOf(shape, type), blocks };
}

/** What llama.cpp divides rotary frequencies by, where a scaling is not one of its own kinds. */
function rotaryTensor(config: ModelConfig): readonly GgufTensor[] {
  const kind = config.rotary.scaling?.kind;
  if (kind !== 'llama3' && kind !== 'divisors') return [];
  const divisors = rotaryDivisors(config.rotary, config.headSize);
  return [{ name: 'rope_freqs.weight', shape: [divisors.length], encoder: ENCODERS.f32, blocks: () => [divisors] }];
}

export async function writeGgufModel(folder: OutputFolder, name: string, source: ExportSource, type: EncodedType): Promise<void> {
  const { config, tensors, provenance } = source;
  const written = [...modelTensors(config)].map((tensor): GgufTensor => {
    const stored = tensors.get(tensor.name);
    if (stored === undefined) throw new StillhouseError('INTERNAL', `export: expected a tensor ${tensor.name}, got none`);
    return ggufTensor(tensor, stored, type);
  });
  await writeGguf(folder, name, [...generalEntries(config, 'model', type, provenance), ...architectureEntries(config), ...ggufTokenizer(source)], [...written, ...rotaryTensor(config)]);
}

/**
 * llama.cpp adds (alpha / r) · B·A to the weight NAME for tensors NAME.lora_a (r, in) and NAME.lora_b (out, r); rows of
 * B are in the order of the weight's. alpha is given so that the scale is the adapter's, rank-stabilised or not.
 */
export async function writeGgufLora(folder: OutputFolder, name: string, input: { readonly config: ModelConfig; readonly adapter: LoraAdapter; readonly provenance: Provenance; readonly type: EncodedType }): Promise<void> {
  const { config, adapter, provenance, type } = input;
  const known = new Map([...modelTensors(config)].map((tensor) => [tensor.name, tensor]));
  let rank = 1;
  const tensors = [...adapter.pairs].flatMap(([weight, { a, b }]): GgufTensor[] => {
    const tensor = known.get(weight);
    if (tensor === undefined || tensor.shape[0] !== b.shape[0] || tensor.shape[1] !== a.shape[1]) {
      throw new StillhouseError('BAD_INPUT', `adapter, ${weight}: expected matrices for ${tensor === undefined ? 'a weight of the model' : `[${tensor.shape.join(', ')}]`}, got [${String(b.shape[0])}, ${String(a.shape[1])}]`);
    }
    rank = a.shape[0] ?? 1;
    const rows = tensor.conversion?.toGguf(b.values, b.shape) ?? b.values;
    const encoder = ENCODERS[type];
    return [
      { name: `${tensor.ggufName}.lora_a`, shape: a.shape, encoder, blocks: () => [a.values] },
      { name: `${tensor.ggufName}.lora_b`, shape: b.shape, encoder, blocks: () => [rows] },
    ];
  });
  const entries: GgufEntry[] = [...generalEntries(config, 'adapter', type, provenance), ['adapter.type', 'string', 'lora'], ['adapter.lora.alpha', 'float32', adapter.scale * rank]];
  await writeGguf(folder, name, entries, tensors);
}
