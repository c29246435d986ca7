/** Does a training fit this machine's memory, before its first step; will it end in the time that is left, after the first few? An honest refusal beats a killed process. */
import type { TrainingSpec } from '../contracts/training-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { freeMemory } from './free-memory.ts';
import type { FreeMemory } from './free-memory.ts';
import { estimateReadingBytes, estimateStepBytes } from './memory.ts';
import { methodOf } from './method.ts';
import type { MethodInput } from './method.ts';
import { readTokens } from './packing.ts';
import type { TrainingSample } from './packing.ts';
import type { TeacherModel } from './white-box-teacher.ts';

const FLOAT_BYTES = 4;
/** Each trained number: itself, its gradient as it is summed, both moments. */
const TRAINED_COPIES = 4;

export interface MemoryEstimate {
  /** Of a step, its weights and what the backward pass keeps. */
  readonly stepBytes: number;
  /** Of the trained tensors, their gradients and moments, and the best so far where a development loss is measured. */
  readonly trainedBytes: number;
  readonly neededBytes: number;
  /** Of the largest row that may go through the model at once. */
  readonly rowTokens: number;
}

/** The largest row of tokens that may go through a model at once, and how many of them are learned. */
function largestRow(training: Pick<TrainingSpec, 'batchSize' | 'rowTokens' | 'maxTokens' | 'onPolicy'>, samples: readonly TrainingSample[]): { readonly width: number; readonly labels: number } {
  const parts = samples.flatMap(({ rationale, ...sample }) => (rationale === undefined ? [sample] : [sample, rationale]));
  // What the student writes itself may be longer than what the dataset has.
  const written = (part: { readonly responseStart: number }): number => Math.min(training.onPolicy?.maxTokens ?? 0, training.maxTokens - part.responseStart);
  const longest = parts.reduce((most, part) => Math.max(most, readTokens(part), part.responseStart + written(part)), 0);
  const longestAnswer = parts.reduce((most, part) => Math.max(most, part.ids.length - part.responseStart, written(part)), 0);
  const partsPerStep = Math.ceil((training.batchSize * parts.length) / samples.length);
  const width = Math.max(longest, Math.min(training.rowTokens, partsPerStep * longest));
  return { width, labels: Math.min(width, partsPerStep * longestAnswer) };
}

/** Of a teacher that reads the rows before the student is trained: as many at once as go through it. */
export function estimateReading(teacher: Pick<TeacherModel, 'config' | 'precision'>, training: TrainingSpec, samples: readonly TrainingSample[]): MemoryEstimate {
  const { width, labels } = largestRow({ ...training, batchSize: samples.length }, samples);
  const stepBytes = estimateReadingBytes(teacher, { batch: 1, width, labels });
  return { stepBytes, trainedBytes: 0, neededBytes: stepBytes, rowTokens: width };
}

export function estimateMemory(run: MethodInput & { readonly training: TrainingSpec }, samples: readonly TrainingSample[]): MemoryEstimate {
  const { training } = run;
  const { width: rowTokens, labels } = largestRow(training, samples);
  const stepBytes = estimateStepBytes(run, { batch: 1, width: rowTokens, labels });
  const trainedNumbers = methodOf(run).trainable.layout.length;
  const trainedBytes = FLOAT_BYTES * trainedNumbers * (TRAINED_COPIES + (training.development === undefined ? 0 : 1));
  return { stepBytes, trainedBytes, neededBytes: stepBytes + trainedBytes, rowTokens };
}

const gigabytes = (bytes: number): string => (bytes / 1e9).toFixed(1);

/** TOO_LARGE, with the numbers, when the estimate is above what is free. */
export function checkMemory(estimate: MemoryEstimate, free: FreeMemory = freeMemory()): void {
  const { stepBytes, trainedBytes, neededBytes, rowTokens } = estimate;
  if (neededBytes <= free.freeBytes) return;
  throw new StillhouseError(
    'TOO_LARGE',
    `training: expected a run that fits the ${gigabytes(free.freeBytes)} GB of memory that ${free.of === 'container' ? "the container's limit leaves" : 'are free on this machine'}, got one of about ${gigabytes(neededBytes)} GB (${gigabytes(stepBytes)} for a step of ${rowTokens} tokens, ${gigabytes(trainedBytes)} for what is trained, its gradients and moments); lower rowTokens and maxTokens, or take a smaller student`,
    { details: { ...estimate, ...free } },
  );
}

/** Steps that are timed before the whole is estimated, after a first one that also warms up. */
export const TIMED_STEPS = 2;

/** Of the steps that follow: the mean of those after the first, and a step's part of the time that the student writes for so many of them. */
export function secondsPerStep(stepSeconds: readonly number[], { writingSeconds, forSteps }: { readonly writingSeconds: number; readonly forSteps: number }): number {
  const timed = stepSeconds.slice(1);
  return timed.reduce((sum, seconds) => sum + seconds, 0) / timed.length + writingSeconds / forSteps;
}

export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5_400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3_600).toFixed(1)} h`;
}

/** A few steps tell the time of all of them about as well as this. */
const MARGIN = 1.1;

/** TOO_LARGE, with the numbers, when the estimate is above what is left. */
export function checkTime({ secondsPerStep, steps }: { readonly secondsPerStep: number; readonly steps: number }, leftSeconds: number): void {
  const seconds = secondsPerStep * steps;
  if (seconds <= leftSeconds) return;
  throw new StillhouseError('TOO_LARGE', `training: expected ${steps} steps in the ${duration(leftSeconds)} that are left, got about ${duration(seconds)} (${secondsPerStep.toFixed(secondsPerStep < 1 ? 2 : 1)} s a step, measured); raise the limit of hours, lower epochs, or take a smaller student`, {
    details: { secondsPerStep, steps, seconds: Math.round(seconds), leftSeconds: Math.round(leftSeconds), hoursNeeded: (MARGIN * seconds) / 3_600 },
  });
}
