/** The trainer port: one epoch at a time, resumable, bitwise repeatable. Nothing outside src/training may know which trainer runs. */
import type { ArtifactRef } from '../contracts/artifacts.ts';
import type { LocalStudentSpec } from '../contracts/campaign-spec.ts';
import type { TrainingSpec } from '../contracts/training-spec.ts';
import type { WeightFile } from '../lm/config.ts';

export interface EpochJob {
  readonly student: LocalStudentSpec;
  readonly training: TrainingSpec;
  readonly seed: number;
  /** 0-based. */
  readonly epoch: number;
  readonly dataset: ArtifactRef;
  /** The newest checkpoint: of an earlier epoch, or of this one. */
  readonly from?: ArtifactRef;
  /** For all epochs that are left: what a few measured steps show to take longer is refused. */
  readonly leftSeconds?: number;
}

export interface EpochProgress {
  /** Optimizer steps of this epoch that are done, and of how many. */
  readonly step: number;
  readonly steps: number;
  readonly lossNats: number;
  readonly tokensPerSecond: number;
  /** Where the development loss was measured after this step. */
  readonly developmentNats?: number;
  /** A checkpoint that is durable in the store by now. */
  readonly checkpoint?: ArtifactRef;
}

export interface EpochResult {
  readonly checkpoint: ArtifactRef;
  readonly lossCurve: ArtifactRef;
  readonly steps: number;
  readonly tokens: number;
  readonly lossFirstNats: number;
  readonly lossLastNats: number;
  readonly seconds: number;
  /** The development loss ended the training: there is no next epoch. */
  readonly stopped: boolean;
  /** Rows of the dataset that were left out because they are longer than the spec's maxTokens. */
  readonly tooLongRows?: number;
  /** The lowest development loss so far, whose weights the checkpoint gives as the student. `step` counts from 1 through all epochs. */
  readonly best?: { readonly step: number; readonly developmentNats: number };
}

/** What was trained: an adapter of the student's model as a PEFT folder, or all of its weights in one file. */
export type TrainedStudent =
  | { readonly kind: 'adapter'; readonly adapterPath: string; readonly sizeBytes: number }
  | { readonly kind: 'full'; readonly weights: WeightFile; readonly sizeBytes: number };

export interface Trainer {
  trainEpoch(job: EpochJob, options: { readonly signal?: AbortSignal; readonly onProgress?: (progress: EpochProgress) => void }): Promise<EpochResult>;
  /** The student of a checkpoint in the form in which a model is opened; files that this takes are written below `folder`. */
  studentOf(checkpoint: ArtifactRef, student: LocalStudentSpec, folder: string): Promise<TrainedStudent>;
}
