/**
 * On-policy distillation (GKD, Agarwal et al. 2023, arXiv 2306.13649, algorithm 1): a share of the rows of each step are
 * answers that the student has written itself, with the weights that it had a few steps before; the teacher then says how
 * likely it finds each of their tokens. What was written is part of the run's state, so that a run that goes on learns
 * from the same answers.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { OnPolicySpec, TrainingSpec } from '../contracts/training-spec.ts';
import { createEngine } from '../lm/engine.ts';
import type { Engine } from '../lm/engine.ts';
import { loraAName, loraBName, loraScale, loraTargets } from '../lm/architectures/lora.ts';
import type { LoraPair } from '../lm/adapter.ts';
import type { ModelConfig, WeightFile } from '../lm/config.ts';
import { generateFromTokens } from '../lm/generation.ts';
import type { SessionOptions } from '../lm/session.ts';
import type { ChatTokenizer } from '../lm/tokenizer.ts';
import { writeFlat } from './checkpoint.ts';
import type { LoopState } from './checkpoint.ts';
import { packsWeights } from './packed-weights.ts';
import type { TrainingSample } from './packing.ts';
import { tensorView } from './parameters.ts';
import type { ParameterLayout } from './parameters.ts';
import { RANDOM_STREAM, randomStream } from './random.ts';

/** What a student writes with. */
export interface Writing {
  readonly tokenizer: Pick<ChatTokenizer, 'decode' | 'endIds'>;
  /** For a file of its present weights while it writes. */
  readonly folder: string;
  /** Ids from here on are padding that no answer may hold. */
  readonly vocabularySize: number;
}

/** The answers of one stretch of steps. */
export type Written = NonNullable<LoopState['written']>;

/** The student as it is now. */
export interface PresentStudent extends Pick<SessionOptions, 'threads' | 'executionProviders'> {
  readonly config: ModelConfig;
  /** Those that training began with. */
  readonly weights: WeightFile;
  readonly training: TrainingSpec;
  readonly layout: ParameterLayout;
  readonly parameters: Float32Array;
}

/** A stretch of an epoch: samples in the order in which they are learned, of which step `at` takes the first. */
export interface Stretch {
  readonly epoch: number;
  readonly seed: number;
  readonly at: number;
  readonly samples: readonly TrainingSample[];
}

/** Answers written together: between two of them a run can be stopped. */
const GROUP_ROWS = 16;

/** Is the sample at this place of an epoch's order answered by the student itself? Drawn by counter, for each place by itself. */
export function isOwn({ share }: OnPolicySpec, { seed, epoch }: Pick<Stretch, 'seed' | 'epoch'>, place: number): boolean {
  return randomStream(seed, RANDOM_STREAM.ownRows, epoch).uniform(place) <= share;
}

/**
 * The student's answers to its own rows of a stretch; undefined where it was stopped before the last of them. They depend
 * on the weights, the seed, the epoch and the places alone, and end with the chat's end token or at `maxTokens`.
 */
export async function writeAnswers(student: PresentStudent, writing: Writing, onPolicy: OnPolicySpec, stretch: Stretch, shouldStop: () => boolean): Promise<Written | undefined> {
  const { training } = student;
  const { epoch, seed, at, samples } = stretch;
  const own = samples.flatMap((sample, i) => (isOwn(onPolicy, stretch, at * training.batchSize + i) ? [{ sample, place: at * training.batchSize + i }] : []));
  const until = at + Math.ceil(samples.length / training.batchSize);
  if (own.length === 0) return { until, answers: [] };
  const path = join(writing.folder, 'writing.weights');
  try {
    await using engine = await openEngine(student, path);
    const answers: { place: number; ids: number[] }[] = [];
    for (let from = 0; from < own.length; from += GROUP_ROWS) {
      if (shouldStop()) return undefined;
      const group = own.slice(from, from + GROUP_ROWS);
      const draws = Math.floor(randomStream(seed, RANDOM_STREAM.ownAnswers, epoch, at).uniform(from) * 2 ** 32);
      const written = await generateFromTokens(engine, writing.tokenizer, group.map(({ sample }) => sample.ids.slice(0, sample.responseStart)), { maxNewTokens: onPolicy.maxTokens, temperature: onPolicy.temperature, seed: draws });
      written.forEach(({ tokens, finishReason }, i) => {
        const { sample, place } = group[i] as (typeof group)[number];
        answers.push({ place, ids: answerIds(tokens, finishReason === 'stop', writing, training.maxTokens - sample.responseStart) });
      });
    }
    return { until, answers };
  } finally {
    rmSync(path, { force: true });
  }
}

/** What is learned of an answer: one token or more, `most` of them at the most. */
function answerIds(tokens: readonly number[], ended: boolean, { tokenizer, vocabularySize }: Writing, most: number): number[] {
  const padding = tokens.findIndex((id) => id >= vocabularySize);
  const end = tokenizer.endIds.slice(0, 1);
  const whole = padding >= 0 ? [...tokens.slice(0, padding), ...end] : [...tokens, ...(ended ? end : [])];
  return whole.slice(0, most);
}

/** The batch of a step with the student's answers in the places of the dataset's. */
export function withAnswers(batch: readonly TrainingSample[], firstPlace: number, written: Written | undefined): readonly TrainingSample[] {
  if (written === undefined) return batch;
  const { answers } = written;
  const byPlace = new Map(answers.map(({ place, ids }) => [place, ids]));
  return batch.map((sample, i) => {
    const ids = byPlace.get(firstPlace + i);
    return ids === undefined ? sample : { ...sample, ids: [...sample.ids.slice(0, sample.responseStart), ...ids] };
  });
}

/** The state without answers that no step from `epochStep` on learns from. */
export function withoutSpent(state: LoopState, epochStep: number): LoopState {
  const { written, ...rest } = state;
  return written === undefined || written.until > epochStep ? state : rest;
}

/** An adapter is merged when the session is made; all weights go through a file, which sessions map. */
function openEngine({ config, weights, training: { lora, precision }, layout, parameters, threads, executionProviders }: PresentStudent, path: string): Promise<Engine> {
  const options = { config, threads, precision, packWeights: packsWeights(config), ...(executionProviders === undefined ? {} : { executionProviders }) };
  if (lora === undefined) {
    writeFlat(path, parameters);
    return createEngine({ ...options, weights: { path, tensors: new Map(layout.tensors.map(({ name, shape, offset, length }) => [name, { shape, offsetBytes: 4 * offset, lengthBytes: 4 * length }])) } });
  }
  const byName = new Map(layout.tensors.map((tensor) => [tensor.name, { shape: tensor.shape, values: tensorView(parameters, tensor) }]));
  const pairs = new Map(loraTargets(config, lora.targets).map(({ name }): [string, LoraPair] => [`${name}.weight`, { a: byName.get(loraAName(name)) as LoraPair['a'], b: byName.get(loraBName(name)) as LoraPair['b'] }]));
  return createEngine({ ...options, weights, adapter: { scale: loraScale(lora), pairs } });
}
