/** What the trainer's process and its parent say to each other, through the IPC channel of child_process.fork. */
import type { TrainingSpec } from '../contracts/training-spec.ts';
import type { ExecutionProvider } from '../contracts/execution-providers.ts';
import type { LayerChoice } from '../lm/layers.ts';
import type { WireError } from '../lm/protocol.ts';
import type { RunFacts } from './epoch.ts';
import type { PartsProgress } from './parts.ts';
import type { EpochProgress, EpochResult } from './trainer.ts';

/** A model as the process opens it. */
export interface ModelOrder extends LayerChoice {
  readonly modelPath: string;
  readonly modelName: string;
}

/** Everything is a local path: the process knows no store. */
export interface TrainingOrder extends ModelOrder {
  /** Folder below which float32 weights are kept. */
  readonly cache: string;
  readonly threads: number;
  readonly executionProviders?: readonly ExecutionProvider[];
  readonly training: TrainingSpec;
  /** Of methods that learn from a model. */
  readonly teacher?: ModelOrder;
  readonly seed: number;
  readonly epoch: number;
  /** Sample[] as JSONL. */
  readonly datasetPath: string;
  readonly datasetSha256: string;
  readonly fromPath?: string;
  /** Rows for the development loss, Sample[] as JSONL; else the share that the training spec holds out. */
  readonly development?: { readonly path: string; readonly sha256: string };
  readonly leftSeconds?: number;
  /** Where checkpoints are put for the parent to take. */
  readonly outFolder: string;
}

export type ToTrainer =
  | { readonly kind: 'start'; readonly order: TrainingOrder }
  /** Finish the step, write a checkpoint, end. */
  | { readonly kind: 'stop' };

/** Files that the parent stores and removes. */
export interface WrittenCheckpoint {
  readonly checkpointPath: string;
}

export type FromTrainer =
  /** So many rows of the dataset have stored distributions of the teacher by now. */
  | ({ readonly kind: 'preparing' } & PartsProgress)
  | ({ readonly kind: 'started' } & RunFacts)
  | ({ readonly kind: 'progress' } & Omit<EpochProgress, 'checkpoint'> & Partial<WrittenCheckpoint>)
  | ({ readonly kind: 'finished' | 'interrupted'; readonly step: number; readonly curvePath: string } & Omit<EpochResult, 'checkpoint' | 'lossCurve'> & WrittenCheckpoint)
  /** Followed by `failed`: the rows of the step that was the last, as JSON. */
  | { readonly kind: 'diverged'; readonly batchPath: string }
  | { readonly kind: 'failed'; readonly error: WireError };
