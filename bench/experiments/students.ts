/** Students of an experiment: trained as `still train` trains them, asked as a campaign asks them. */
import { mkdir, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { createAssets } from '../../src/assets/create-assets.ts';
import { readConfig } from '../../src/config.ts';
import { validate } from '../../src/contracts/parse-spec.ts';
import { trainSpecSchema } from '../../src/contracts/train-spec.ts';
import type { TaskSpec } from '../../src/contracts/campaign-spec.ts';
import { studentMessages } from '../../src/dataset/student-prompt.ts';
import { createModelHost } from '../../src/lm/host.ts';
import type { LanguageModel, OpenModelOptions } from '../../src/lm/model.ts';
import { readCheckpointState } from '../../src/training/checkpoint.ts';
import { trainedStudent } from '../../src/training/export.ts';
import { trainLocally } from '../../src/training/local-run.ts';

/** Rows in one call to the model. */
const ROWS_PER_CALL = 64;

export type Asking = Pick<TaskSpec, 'instruction' | 'system'>;

export interface LearnedRow {
  readonly input: string;
  readonly output: string;
  readonly rationale?: string;
}

export interface StudentPlan extends Asking {
  /** As in a training file. */
  readonly student: { readonly model: string; readonly layers?: readonly number[] };
  readonly training: object;
  readonly seed: number;
}

export interface TrainingFacts {
  readonly steps: number;
  /** Tokens that went through the model, padding included. */
  readonly tokens: number;
  /** Of the last start alone, where it went on from a checkpoint. */
  readonly seconds: number;
  readonly lossFirstNats: number;
  readonly lossLastNats: number;
}

const config = readConfig();
const assets = createAssets(config);
const threads = config.threads ?? availableParallelism();

export interface TrainedStudent {
  /** To be opened from its checkpoint. */
  readonly model: OpenModelOptions;
  /** The student as a model of its own, or its adapter. */
  readonly folder: string;
  readonly facts: TrainingFacts;
}

/** Trains one student below `out`, on from the last checkpoint that is there. */
export async function trainStudent({ student, ...plan }: StudentPlan, rows: readonly LearnedRow[], out: string): Promise<TrainedStudent> {
  await mkdir(out, { recursive: true });
  const dataset = join(out, 'rows.jsonl');
  await writeFile(dataset, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  const spec = validate(trainSpecSchema, { ...plan, student, dataset, out: join(out, 'run') }, 'experiment');
  const { teacher } = spec.training;
  const startedMs = performance.now();
  const { folder, checkpoint, ...run } = await trainLocally(spec, {
    model: await assets.model(student.model),
    ...(teacher === undefined ? {} : { teacher: await assets.model(teacher.model) }),
    cache: config.cache,
    threads,
    executionProviders: config.executionProviders,
    onProgress: ({ epoch, step, steps, lossNats, tokensPerSecond }) => void process.stderr.write(`\repoch ${epoch + 1}, step ${step} of ${steps}: loss ${lossNats.toFixed(4)}, ${tokensPerSecond.toFixed(0)} tokens/s `),
  }).then(({ student: folder, ...run }) => ({ ...run, folder }));
  process.stderr.write('\n');
  const tokens = readCheckpointState(checkpoint).curve.reduce((sum, point) => sum + point.tokens, 0);
  const facts = { steps: run.steps, tokens, seconds: (performance.now() - startedMs) / 1_000, lossFirstNats: run.lossFirstNats, lossLastNats: run.lossLastNats };
  const trained = await trainedStudent(checkpoint, student.model, join(out, 'adapter'));
  return { model: trained.kind === 'adapter' ? { ...student, adapterPath: trained.adapterPath } : { ...student, weights: trained.weights }, folder, facts };
}

export interface Answers {
  /** Index of each row's most probable label. */
  readonly chosen: readonly number[];
  /** Natural-log probabilities over the labels, which sum to 1. */
  readonly logProbs: readonly (readonly number[])[];
  readonly promptTokens: number;
  readonly seconds: number;
}

export function openStudent(model: OpenModelOptions): Promise<LanguageModel> {
  return createModelHost({ assets, cache: config.cache, executionProviders: config.executionProviders, precision: config.precision, threads }).open(model);
}

/** The labels' probabilities after each input. */
export async function answers(model: OpenModelOptions, asking: Asking, inputs: readonly string[], labels: readonly string[]): Promise<Answers> {
  await using opened = await openStudent(model);
  // Awaited here: it is closed when this returns.
  return await answersOf(opened, asking, inputs, labels);
}

export async function answersOf(model: LanguageModel, asking: Asking, inputs: readonly string[], labels: readonly string[]): Promise<Answers> {
  const logProbs: number[][] = [];
  let promptTokens = 0;
  const startedMs = performance.now();
  for (let at = 0; at < inputs.length; at += ROWS_PER_CALL) {
    const prompts = inputs.slice(at, at + ROWS_PER_CALL).map((input) => ({ messages: studentMessages(asking, input) }));
    for (const scores of await model.scoreLabels({ prompts, labels })) {
      logProbs.push(normalise(scores.logProbs));
      promptTokens += scores.promptTokens;
    }
  }
  const seconds = (performance.now() - startedMs) / 1_000;
  return { chosen: logProbs.map((row) => row.indexOf(Math.max(...row))), logProbs, promptTokens, seconds };
}

function normalise(logProbs: readonly number[]): number[] {
  const largest = Math.max(...logProbs);
  const total = largest + Math.log(logProbs.reduce((sum, value) => sum + Math.exp(value - largest), 0));
  return logProbs.map((value) => Math.round((value - total) * 1e5) / 1e5);
}

/** Where experiments keep their cells unless they are told. */
export const benchFolder = join(config.cache, 'bench');

export const datasetPath = (name: string): Promise<string> => assets.dataset(name);
