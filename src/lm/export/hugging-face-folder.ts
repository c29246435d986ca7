/** A model as a Hugging Face folder that transformers loads: configuration, weights, tokenizer, chat template. */
import { ARCHITECTURES } from '../architectures/registry.ts';
import type { ModelConfig } from '../config.ts';
import { ENCODERS } from '../weights/encode.ts';
import { commonHuggingFaceFields } from '../weights/hugging-face-config.ts';
import type { OutputFolder, WrittenFile } from './output-folder.ts';
import { provenanceTexts } from './provenance.ts';
import { writeSafetensors } from './safetensors-writer.ts';
import type { ExportSource } from './source.ts';

export type FolderType = 'f32' | 'f16' | 'bf16';

const TORCH_TYPE: { readonly [Type in FolderType]: string } = { f32: 'float32', f16: 'float16', bf16: 'bfloat16' };

/** config.json as `huggingFaceConfig` reads it back. BAD_INPUT for a rotary scaling that it cannot say. */
export function toHuggingFaceConfig(config: ModelConfig, ids: { readonly ends: readonly number[]; readonly begin?: number }, type: FolderType): object {
  const { huggingFaceClass, huggingFaceFields, modelTypes } = ARCHITECTURES[config.architecture];
  return {
    architectures: [huggingFaceClass],
    model_type: modelTypes[0],
    ...commonHuggingFaceFields(config, 'config.json'),
    ...huggingFaceFields(config),
    ...endFields(ids),
    torch_dtype: TORCH_TYPE[type],
  };
}

const endFields = ({ ends, begin }: { readonly ends: readonly number[]; readonly begin?: number }): object => ({
  ...(begin === undefined ? {} : { bos_token_id: begin }),
  eos_token_id: [...ends],
});

/** Configuration, generation settings and tokenizer: what an ONNX folder shares with one of safetensors. */
export async function writeFolderFiles(folder: OutputFolder, source: ExportSource, type: FolderType): Promise<void> {
  const { config, endIds: ends, beginId: begin } = source;
  const ids = { ends, ...(begin === undefined ? {} : { begin }) };
  const json = (name: string, value: object): Promise<WrittenFile> => folder.text(name, `${JSON.stringify(value, null, 2)}\n`);
  await json('config.json', toHuggingFaceConfig(config, ids, type));
  await json('generation_config.json', endFields(ids));
  for (const [name, content] of source.tokenizer) await folder.text(name, content);
}

export async function writeHuggingFaceFiles(folder: OutputFolder, source: ExportSource, options: { readonly type: FolderType; readonly shardBytes?: number }): Promise<void> {
  const { type, shardBytes } = options;
  await writeFolderFiles(folder, source, type);
  await writeSafetensors(folder, source.tensors.values(), {
    encoder: ENCODERS[type],
    metadata: { format: 'pt', ...provenanceTexts(source.provenance) },
    ...(shardBytes === undefined ? {} : { shardBytes }),
  });
}
