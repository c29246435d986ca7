/** A model or an adapter in the format of another ecosystem: one new folder with everything that it needs there. */
import { StillhouseError } from '../../contracts/errors.ts';
import type { LoraAdapter } from '../adapter.ts';
import type { ModelConfig } from '../config.ts';
import type { EncodedType } from '../weights/encode.ts';
import { writeGgufLora, writeGgufModel } from './gguf-model.ts';
import { writeHuggingFaceFiles } from './hugging-face-folder.ts';
import { modelCard } from './model-card.ts';
import { onnxContextTokens, writeOnnxModel } from './onnx-model.ts';
import { writeFolder, type OutputFolder, type WrittenFile } from './output-folder.ts';
import { PROVENANCE_FILE, type Provenance } from './provenance.ts';
import type { ExportSource } from './source.ts';

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

/** Writes a whole model with its card and provenance; `write` adds what the format needs. */
async function writeExport(target: string, card: string, provenance: Provenance, write: (folder: OutputFolder) => Promise<void>): Promise<readonly WrittenFile[]> {
  return writeFolder(target, async (folder) => {
    await write(folder);
    await folder.text(PROVENANCE_FILE, `${JSON.stringify(provenance, null, 2)}\n`);
    await folder.text('README.md', card);
  });
}

/** Writes a model whose tensors are wherever `source` reads them. The target must not exist or be empty. */
export async function exportSafetensors(source: ExportSource, target: string, type: ExportType<'safetensors'>): Promise<readonly WrittenFile[]> {
  const { provenance } = source;
  return writeExport(target, modelCard({ format: 'safetensors', provenance }), provenance, (folder) => writeHuggingFaceFiles(folder, source, { type }));
}

/** A file's name: what the model is called, as far as it is plain. */
const stem = ({ campaign, baseModel }: Provenance): string => (campaign ?? baseModel.split('/').at(-1) ?? '').replaceAll(/[^\w.-]+/g, '-').replace(/\.gguf$/i, '') || 'model';

/** One GGUF file, its name ending in its type. */
export async function exportGguf(source: ExportSource, target: string, type: ExportType<'gguf'>): Promise<readonly WrittenFile[]> {
  const { provenance } = source;
  const name = `${stem(provenance)}.${type.toUpperCase()}.gguf`;
  return writeExport(target, modelCard({ format: 'gguf', provenance }), provenance, (folder) => writeGgufModel(folder, name, source, type));
}

/** The adapter alone, for llama.cpp to add to a GGUF file of the base model. */
export async function exportGgufLora(input: { readonly config: ModelConfig; readonly adapter: LoraAdapter; readonly provenance: Provenance }, target: string, type: ExportType<'gguf-lora'>): Promise<readonly WrittenFile[]> {
  const { provenance } = input;
  const name = `${stem(provenance)}.lora.${type.toUpperCase()}.gguf`;
  return writeExport(target, modelCard({ format: 'gguf-lora', provenance }), provenance, (folder) => writeGgufLora(folder, name, { ...input, type }));
}

/** model.onnx with its weights beside it, for onnxruntime; named as Optimum's exports are. */
export async function exportOnnx(source: ExportSource, target: string): Promise<readonly WrittenFile[]> {
  const { provenance, config } = source;
  const notes = [`Float32. Positions 0 to ${onnxContextTokens(config) - 1}. The graph uses operators of the domain com.microsoft that every build of onnxruntime has.`];
  return writeExport(target, modelCard({ format: 'onnx', provenance, notes }), provenance, (folder) => writeOnnxModel(folder, source));
}
