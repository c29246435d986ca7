/** What there is to write, whatever the format: a whole model whose tensors are read as they are written. */
import type { LoraAdapter } from '../adapter.ts';
import type { ModelConfig, WeightFile } from '../config.ts';
import type { LayerChoice } from '../layers.ts';
import { keepModelLayers, openModel, selectTensors } from '../load.ts';
import { openWeightFile } from '../weights/materialize.ts';
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

export interface ExportSourceInput {
  /** A GGUF file or a Hugging Face folder. */
  readonly path: string;
  /** Some of its layers alone. */
  readonly choice?: LayerChoice;
  /** Trained weights in place of the model's own: the same tensors. */
  readonly weights?: WeightFile;
  /** Added to the weights. */
  readonly adapter?: LoraAdapter;
  readonly provenance: Provenance;
}

/** The model at `path` as it is after training; closes the files when disposed. */
export function openExportSource(input: ExportSourceInput): ExportSource & Disposable {
  const { path, adapter, weights, provenance } = input;
  const resources = new DisposableStack();
  const model = resources.use(openModel(path));
  try {
    const { tokenizer } = model;
    const { config, tensors: own } = keepModelLayers(model, input.choice ?? {}, path);
    const [beginId] = tokenizer.encode('', { begin: true });
    const tensors = weights === undefined ? own : selectTensors(config, resources.use(openWeightFile(weights)).tensors, weights.path);
    return {
      config,
      tensors: adapter === undefined ? tensors : mergeAdapter(tensors, adapter),
      tokenizer: tokenizerFiles(path),
      endIds: tokenizer.endIds,
      ...(beginId === undefined ? {} : { beginId }),
      provenance,
      [Symbol.dispose]: () => resources.dispose(),
    };
  } catch (error) {
    resources.dispose();
    throw error;
  }
}
