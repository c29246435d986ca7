/** What there is to write, whatever the format: a whole model whose tensors are read as they are written. */
import type { LoraAdapter } from '../adapter.ts';
import type { ModelConfig } from '../config.ts';
import { openModel } from '../load.ts';
import type { StoredTensor } from '../weights/tensor-file.ts';
import { mergeAdapter } from './merge.ts';
import type { Provenance } from './provenance.ts';
import { tokenizerFiles, type TokenizerFiles } from './tokenizer-files.ts';

export interface ExportSource {
  readonly config: ModelConfig;
  /** By Hugging Face names, all that `config` calls for. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly tokenizer: TokenizerFiles;
  /** Tokens that end an answer, the chat's own first. */
  readonly endIds: readonly number[];
  /** Put before plain text, where the model has one. */
  readonly beginId?: number;
  readonly provenance: Provenance;
}

/** The model at `path` with an adapter added to its weights; closes the files when disposed. */
export function openExportSource(input: { readonly path: string; readonly adapter?: LoraAdapter; readonly provenance: Provenance }): ExportSource & Disposable {
  const { path, adapter, provenance } = input;
  const model = openModel(path);
  try {
    const { config, tokenizer } = model;
    const [beginId] = tokenizer.encode('', { begin: true });
    return {
      config,
      tensors: adapter === undefined ? model.tensors : mergeAdapter(model.tensors, adapter),
      tokenizer: tokenizerFiles(path),
      endIds: tokenizer.endIds,
      ...(beginId === undefined ? {} : { beginId }),
      provenance,
      [Symbol.dispose]: () => model[Symbol.dispose](),
    };
  } catch (error) {
    model[Symbol.dispose]();
    throw error;
  }
}
