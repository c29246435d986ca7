/** A model or an adapter in the format of another ecosystem: one new folder with everything that it needs there. */
import { join } from 'node:path';
import { StillhouseError } from '../../contracts/errors.ts';
import { readAdapter, type LoraAdapter } from '../adapter.ts';
import type { ModelConfig } from '../config.ts';
import { openModel } from '../load.ts';
import { ENCODERS, type EncodedType } from '../weights/encode.ts';
import { readJson } from '../weights/json.ts';
import { openSafetensors } from '../weights/safetensors.ts';
import { writeGgufLora, writeGgufModel } from './gguf-model.ts';
import { writeHuggingFaceFiles } from './hugging-face-folder.ts';
import { modelCard, type CardInput } from './model-card.ts';
import { onnxContextTokens, writeOnnxModel } from './onnx-model.ts';
import { writeFolder, type OutputFolder, type WrittenFile } from './output-folder.ts';
import { baseName, PROVENANCE_FILE, provenanceTexts, type Provenance } from './provenance.ts';
import { writeSafetensors } from './safetensors-writer.ts';
import { openExportSource, type ExportSource } from './source.ts';
import { tokenizerFiles, type TokenizerFiles } from './tokenizer-files.ts';

/** What tells a folder of an adapter from one of a model. */
export const ADAPTER_CONFIG = 'adapter_config.json';
const ADAPTER_STEM = 'adapter_model';

export const EXPORT_FORMATS = ['peft', 'safetensors', 'gguf', 'gguf-lora', 'onnx'] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

/** Number formats of each, the default first. */
export const EXPORT_TYPES = {
  peft: ['f32'],
  safetensors: ['f32', 'bf16', 'f16'],
  gguf: ['f16', 'q8_0', 'bf16', 'f32'],
  'gguf-lora': ['f32', 'f16'],
  onnx: ['f32'],
} as const satisfies { readonly [Format in ExportFormat]: readonly EncodedType[] };
export type ExportType<Format extends ExportFormat> = (typeof EXPORT_TYPES)[Format][number];

/** `type`, checked, or the format's default. BAD_INPUT names what there is. */
export function exportType<Format extends ExportFormat>(format: Format, type?: string): ExportType<Format> {
  const types: readonly ExportType<Format>[] = EXPORT_TYPES[format];
  const found = type === undefined ? types[0] : types.find((one) => one === type);
  if (found === undefined) throw new StillhouseError('BAD_INPUT', `type: expected ${types.join(', ')} for ${format}, got ${JSON.stringify(type)}`);
  return found;
}

/** Writes a folder with its card and provenance; `write` adds what the format needs. */
async function writeExport(target: string, card: CardInput, write: (folder: OutputFolder) => Promise<void>): Promise<readonly WrittenFile[]> {
  return writeFolder(target, async (folder) => {
    await write(folder);
    await folder.text(PROVENANCE_FILE, `${JSON.stringify(card.provenance, null, 2)}\n`);
    await folder.text('README.md', modelCard(card));
  });
}

/** A file's name: what the model is called, as far as it is plain. */
const stem = ({ campaign, baseModel }: Provenance): string => (campaign ?? baseModel.split('/').at(-1) ?? '').replace(/\.gguf$/i, '').replaceAll(/[^\w.-]+/g, '-') || 'model';

export interface ExportedAdapter {
  /** A PEFT adapter folder. */
  readonly adapterPath: string;
  readonly provenance: Provenance;
  /** Put beside the adapter where it is known. */
  readonly tokenizer?: TokenizerFiles;
}

/** The adapter as it is, its base model named as PEFT looks for it, its provenance in the metadata of its weights. All writers here want a target that does not exist or is empty. */
export async function exportPeft({ adapterPath, provenance, tokenizer = new Map() }: ExportedAdapter, target: string): Promise<readonly WrittenFile[]> {
  const { base } = provenance;
  readAdapter(adapterPath);
  const config = readJson(join(adapterPath, ADAPTER_CONFIG)) as Readonly<Record<string, unknown>>;
  using weights = openSafetensors(join(adapterPath, `${ADAPTER_STEM}.safetensors`));
  return await writeExport(target, { format: 'peft', provenance }, async (folder) => {
    await folder.text(ADAPTER_CONFIG, `${JSON.stringify({ ...config, base_model_name_or_path: baseName(provenance), ...(base?.revision === undefined ? {} : { revision: base.revision }) }, null, 2)}\n`);
    await writeSafetensors(folder, weights.tensors.values(), { encoder: ENCODERS.f32, metadata: { format: 'pt', ...provenanceTexts(provenance) }, stem: ADAPTER_STEM, shardBytes: Infinity });
    for (const [name, content] of tokenizer) await folder.text(name, content);
  });
}

/** A folder that transformers loads. */
export async function exportSafetensors(source: ExportSource, target: string, type: ExportType<'safetensors'>): Promise<readonly WrittenFile[]> {
  return writeExport(target, { format: 'safetensors', provenance: source.provenance }, (folder) => writeHuggingFaceFiles(folder, source, { type }));
}

/** One GGUF file, its name ending in its type. */
export async function exportGguf(source: ExportSource, target: string, type: ExportType<'gguf'>): Promise<readonly WrittenFile[]> {
  const { provenance } = source;
  return writeExport(target, { format: 'gguf', provenance }, (folder) => writeGgufModel(folder, `${stem(provenance)}.${type.toUpperCase()}.gguf`, source, type));
}

/** The adapter alone, for llama.cpp to add to a GGUF file of the base model. */
export async function exportGgufLora(input: { readonly config: ModelConfig; readonly adapter: LoraAdapter; readonly provenance: Provenance }, target: string, type: ExportType<'gguf-lora'>): Promise<readonly WrittenFile[]> {
  const { provenance } = input;
  return writeExport(target, { format: 'gguf-lora', provenance }, (folder) => writeGgufLora(folder, `${stem(provenance)}.lora.${type.toUpperCase()}.gguf`, { ...input, type }));
}

/** model.onnx with its weights beside it, for onnxruntime; named as Optimum's exports are. */
export async function exportOnnx(source: ExportSource, target: string): Promise<readonly WrittenFile[]> {
  const { provenance, config } = source;
  const notes = [`Float32. Positions 0 to ${onnxContextTokens(config) - 1}. The graph uses operators of the domain com.microsoft that every build of onnxruntime has.`];
  return writeExport(target, { format: 'onnx', provenance, notes }, (folder) => writeOnnxModel(folder, source));
}

export interface ExportRequest {
  readonly format: ExportFormat;
  /** Default: the format's first. */
  readonly type?: string;
  /** The model's path: a GGUF file or a Hugging Face folder. */
  readonly path: string;
  /** A PEFT adapter folder for it. */
  readonly adapterPath?: string;
  readonly provenance: Provenance;
}

/** Any of the formats from a model on disk, with or without an adapter. BAD_INPUT for an adapter's format without one. */
export async function exportModel({ format, type, path, adapterPath, provenance }: ExportRequest, target: string): Promise<readonly WrittenFile[]> {
  const checkedType = exportType(format, type);
  if (format === 'peft' || format === 'gguf-lora') {
    if (adapterPath === undefined) throw new StillhouseError('BAD_INPUT', `${format}: expected an adapter to export, got a whole model, as students of some layers or with all weights trained are; its formats are safetensors, gguf and onnx`);
    if (format === 'peft') return await exportPeft({ adapterPath, provenance, tokenizer: tokenizerFiles(path) }, target);
    using model = openModel(path);
    return await exportGgufLora({ config: model.config, adapter: readAdapter(adapterPath), provenance }, target, exportType(format, type));
  }
  using source = openExportSource({ path, provenance, ...(adapterPath === undefined ? {} : { adapter: readAdapter(adapterPath) }) });
  switch (format) {
    case 'safetensors':
      return await exportSafetensors(source, target, exportType(format, checkedType));
    case 'gguf':
      return await exportGguf(source, target, exportType(format, checkedType));
    case 'onnx':
      return await exportOnnx(source, target);
  }
}
