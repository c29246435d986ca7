/**
 * The development loss: rows that are never learned from, measured with nothing dropped out. The weights with the
 * lowest one are kept beside the present ones, and training may stop when no measurement brings a lower one.
 */
import type { TrainingSpec } from '../contracts/training-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { LoopState } from './checkpoint.ts';
import { packRow, splitBatch } from './packing.ts';
import type { PackedRow, TrainingSample } from './packing.ts';
import { permutation, RANDOM_STREAM, randomStream } from './random.ts';
import type { TrainingStep } from './step.ts';

export interface SplitSamples {
  readonly learned: readonly TrainingSample[];
  readonly development: readonly TrainingSample[];
}

/** The share of the samples that the spec holds out, drawn by the seed; in both parts the samples keep their order. */
export function holdOut(samples: readonly TrainingSample[], share: number, seed: number): SplitSamples {
  const count = Math.ceil(share * samples.length);
  if (count >= samples.length) throw new StillhouseError('BAD_INPUT', `dataset: expected rows enough to hold out ${share} of them for the development loss and to learn from the others, got ${samples.length}`);
  const held = new Set(permutation(samples.length, randomStream(seed, RANDOM_STREAM.heldOut)).slice(0, count));
  return { learned: samples.filter((_, i) => !held.has(i)), development: samples.filter((_, i) => held.has(i)) };
}

/** Rows to measure, packed once. */
export function developmentRows(samples: readonly TrainingSample[], maxRowTokens: number): readonly PackedRow[] {
  return splitBatch(samples, maxRowTokens).map(packRow);
}

/** Mean loss of the rows' answer tokens in nats. */
export async function developmentLoss(step: TrainingStep, rows: readonly PackedRow[], parameters: Float32Array): Promise<number> {
  let lossNats = 0;
  for (const row of rows) lossNats += await step.loss(row, parameters);
  return lossNats / rows.reduce((sum, row) => sum + row.labels.length, 0);
}

/** Is the loss measured after this step? `globalStep` counts from 1. */
export function measurementDue({ development }: TrainingSpec, globalStep: number, endsEpoch: boolean): boolean {
  return endsEpoch || (development?.everySteps !== undefined && globalStep % development.everySteps === 0);
}

/** What a measurement says about the run: the lowest loss so far, and whether it is over. */
export type Verdict = Pick<LoopState, 'best' | 'measurementsSinceBest' | 'stopped'>;

export function judge({ development }: TrainingSpec, before: Verdict, step: number, developmentNats: number): Verdict {
  if (before.best === undefined || developmentNats < before.best.developmentNats) return { best: { step, developmentNats }, measurementsSinceBest: 0, stopped: false };
  const measurementsSinceBest = before.measurementsSinceBest + 1;
  return { best: before.best, measurementsSinceBest, stopped: development?.patience !== undefined && measurementsSinceBest >= development.patience };
}
