/** One epoch of training, from its start or from a checkpoint. The numbers depend on the identity and on nothing else. */
import type { ExecutionProvider } from '../contracts/execution-providers.ts';
import { decisiveTraining } from '../contracts/training-spec.ts';
import type { TrainingSpec } from '../contracts/training-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { LossPoint } from '../contracts/records.ts';
import type { ModelConfig, WeightFile } from '../lm/config.ts';
import { canonicalJson } from '../store/jsonl.ts';
import { FORMAT_VERSION, readCheckpoint, readCheckpointState, writeCheckpoint } from './checkpoint.ts';
import type { Checkpoint, LoopState } from './checkpoint.ts';
import { diverged, stoppedBatch, whatIsWrong } from './divergence.ts';
import type { Measured, StoppedBatch } from './divergence.ts';
import { developmentLoss, developmentRows, holdOut, judge, measurementDue } from './development.ts';
import type { SplitSamples } from './development.ts';
import type { TooLongRows } from './fitting.ts';
import { freeMemory } from './free-memory.ts';
import type { FreeMemory } from './free-memory.ts';
import { methodOf } from './method.ts';
import type { Method } from './method.ts';
import { withAnswers, withoutSpent, writeAnswers } from './on-policy.ts';
import type { Writing } from './on-policy.ts';
import { adamWStep, clipGradients, learningRateAt } from './optimizer.ts';
import type { ParameterLayout } from './parameters.ts';
import { checkSamples, packRow, splitBatch } from './packing.ts';
import type { PackedRow, TrainingSample } from './packing.ts';
import { checkMemory, estimateMemory } from './preflight.ts';
import type { MemoryEstimate } from './preflight.ts';
import { permutation, RANDOM_STREAM, randomStream } from './random.ts';
import { stepParts } from './samples.ts';
import type { StepParts } from './samples.ts';
import { DEFAULT_MIN_MASS } from './soft-targets/stored.ts';
import type { StoredTargets } from './soft-targets/stored.ts';
import { createStep, StepSessions } from './step.ts';
import type { TrainingStep } from './step.ts';
import type { Trainable } from './trainable.ts';
import type { TeacherModel } from './white-box-teacher.ts';

export interface EpochInput {
  readonly config: ModelConfig;
  readonly weights: WeightFile;
  readonly modelSha256: string;
  readonly datasetSha256: string;
  readonly samples: readonly TrainingSample[];
  /** Rows for the development loss. Absent: the share of `samples` that the spec holds out, if it asks for one. */
  readonly development?: { readonly samples: readonly TrainingSample[]; readonly sha256: string };
  readonly training: TrainingSpec;
  /** Of methods that learn from one. */
  readonly teacher?: TeacherModel;
  /** The teacher's distributions, where they are stored. */
  readonly targets?: StoredTargets;
  /** Of methods whose student writes itself. */
  readonly writing?: Writing;
  readonly seed: number;
  /** 0-based. */
  readonly epoch: number;
  /** Path of a checkpoint of this epoch, or of the end of the one before. */
  readonly from?: string;
  readonly threads: number;
  readonly executionProviders?: readonly ExecutionProvider[];
}

export interface StepDone {
  /** Steps of this epoch that are done, and of how many. */
  readonly epochStep: number;
  readonly steps: number;
  readonly point: LossPoint;
  /** By the number of steps; the clock is the caller's. */
  readonly checkpointDue: boolean;
  readonly writeCheckpoint: (path: string) => void;
}

/** What is known before the first step. */
export interface RunFacts {
  /** Optimizer steps of an epoch. */
  readonly steps: number;
  readonly learnedRows: number;
  readonly developmentRows: number;
  /** Numbers that are trained, of all that the model has. */
  readonly trainedNumbers: number;
  readonly memory: MemoryEstimate;
  readonly free: FreeMemory;
  /** Rows of the dataset that are left out. */
  readonly tooLong?: TooLongRows;
}

export interface EpochHooks {
  /** Before the first step of this start. */
  readonly onStart?: (facts: RunFacts) => void;
  /** After the student has written its own answers to the rows of the next steps. */
  readonly onWritten?: () => void;
  /** After each optimizer step that is followed by another. */
  readonly afterStep: (done: StepDone) => void;
  /** Before DIVERGED is thrown. */
  readonly onDiverged?: (batch: StoppedBatch) => void;
  /** Asked between steps. */
  readonly shouldStop: () => boolean;
}

export interface EpochOutcome {
  /** False: the caller stopped it between two steps. */
  readonly finished: boolean;
  /** `stopped` in it: the development loss ended the training before its last epoch or step. */
  readonly state: LoopState;
  readonly writeCheckpoint: (path: string) => void;
}

export async function trainEpoch(input: EpochInput, hooks: EpochHooks): Promise<EpochOutcome> {
  const { training, seed, epoch } = input;
  const method = methodOf(input);
  const { trainable } = method;
  const { layout } = trainable;
  const { learned, development } = splitSamples(input);
  input.targets?.check(training.logit?.minMass ?? DEFAULT_MIN_MASS);
  const memory = estimateMemory(input, [...learned, ...development]);
  const free = freeMemory();
  checkMemory(memory, free);
  const run = startingPoint(input, learned.length, trainable);
  const { parameters, adam } = run;
  let { state, best } = run;
  const order = permutation(learned.length, randomStream(seed, RANDOM_STREAM.dataOrder, epoch));
  const samplesFrom = (step: number, count: number): TrainingSample[] => order.slice(step * training.batchSize, (step + count) * training.batchSize).map((i) => learned[i] as TrainingSample);
  const steps = state.stepsPerEpoch;
  const write = (path: string): void => writeCheckpoint(path, layout, { state, parameters, adam, ...(best === undefined ? {} : { best }) });
  if (state.epochStep === steps || state.stopped) return { finished: true, state, writeCheckpoint: write };

  hooks.onStart?.({ steps, learnedRows: learned.length, developmentRows: development.length, trainedNumbers: layout.length, memory, free });
  await using sessions = new StepSessions(() => openStep(input, method));
  let measured: readonly PackedRow[] | undefined;
  const gradients = new Float32Array(layout.length);
  /** Ends the training where it no longer learns. */
  const refuse = async (numbers: Measured, point: LossPoint, batch: readonly TrainingSample[]): Promise<void> => {
    const why = whatIsWrong(numbers, [...state.curve, point], training);
    if (why === undefined) return;
    const about = { why, epoch, step: point.step };
    hooks.onDiverged?.(await stoppedBatch(await sessions.step(), parameters, batch, { ...about, measured: { ...numbers, 'a learning rate of': point.learningRate } }));
    throw diverged(about, batch);
  };
  while (state.epochStep < steps && !state.stopped) {
    if (hooks.shouldStop()) return { finished: false, state, writeCheckpoint: write };
    const at = state.epochStep;
    const globalStep = epoch * steps + at;
    const answered = await withOwnAnswers(input, { state, layout, parameters, sessions, samples: (count) => samplesFrom(at, count) }, hooks);
    if (answered === undefined) return { finished: false, state, writeCheckpoint: write };
    state = answered;
    const batch = withAnswers(samplesFrom(at, 1), at * training.batchSize, state.written);
    const step = await sessions.step();
    const { lossNats, tokens } = await batchGradients(step, stepParts(batch, training, input.targets), { parameters, gradients, seed, globalStep });
    const learningRate = learningRateAt(training, globalStep, steps * training.epochs);
    const gradientNorm = clipGradients(gradients, training.maxGradientNorm);
    let point: LossPoint = { epoch, step: globalStep + 1, lossNats, learningRate, tokens, gradientNorm };
    await refuse({ 'a loss of': lossNats, 'a gradient norm of': gradientNorm }, point, batch);
    for (const tensor of layout.tensors) adamWStep(parameters, gradients, adam, tensor, { step: globalStep + 1, learningRate, weightDecay: training.weightDecay });
    if (development.length > 0 && measurementDue(training, globalStep + 1, at + 1 === steps)) {
      measured ??= developmentRows(development, step.maxRowTokens);
      const developmentNats = await developmentLoss(step, measured, parameters);
      await refuse({ 'a development loss of': developmentNats }, point, batch);
      point = { ...point, developmentNats };
      state = { ...state, ...judge(training, state, point.step, developmentNats) };
      if (state.best?.step === point.step) best = keep(best, parameters);
    }
    state = { ...withoutSpent(state, at + 1), epochStep: at + 1, curve: [...state.curve, point] };
    const more = at + 1 < steps && !state.stopped;
    hooks.afterStep({ epochStep: at + 1, steps, point, checkpointDue: more && (at + 1) % training.checkpointEverySteps === 0, writeCheckpoint: write });
    await new Promise((resolve) => setImmediate(resolve)); // messages of the parent are read here
  }
  return { finished: true, state, writeCheckpoint: write };
}

/** On policy, where the state has none: the student's own answers for the next steps, written while the step's memory is free. undefined: it was stopped. */
async function withOwnAnswers(
  input: EpochInput,
  run: { readonly state: LoopState; readonly layout: ParameterLayout; readonly parameters: Float32Array; readonly sessions: StepSessions; readonly samples: (steps: number) => readonly TrainingSample[] },
  { shouldStop, onWritten }: EpochHooks,
): Promise<LoopState | undefined> {
  const { writing, epoch, seed, training: { onPolicy } } = input;
  if (onPolicy === undefined || run.state.written !== undefined) return run.state;
  if (writing === undefined) throw new StillhouseError('INTERNAL', 'training: expected a tokenizer and a folder for a student that writes, got none');
  await run.sessions.putAway();
  const written = await writeAnswers({ ...input, ...run }, writing, onPolicy, { epoch, seed, at: run.state.epochStep, samples: run.samples(onPolicy.refreshEverySteps) }, shouldStop);
  if (written === undefined) return undefined;
  onWritten?.();
  return { ...run.state, written };
}

/** Which samples are learned from and which are measured, all of them fit for it. */
function splitSamples({ samples, development, training, seed }: EpochInput): SplitSamples {
  checkSamples(samples, training.maxTokens);
  if (development !== undefined) checkSamples(development.samples, training.maxTokens);
  if (development !== undefined) return { learned: samples, development: development.samples };
  return training.development === undefined ? { learned: samples, development: [] } : holdOut(samples, training.development.share, seed);
}

function openStep({ config, weights, training, threads, executionProviders, teacher }: EpochInput, { trainable, objective, observed }: Method): Promise<TrainingStep> {
  return createStep(
    {
      config, weights, training, threads, objective,
      ...(executionProviders === undefined ? {} : { executionProviders }),
      ...(teacher === undefined ? {} : { teacher: { model: teacher, ...(observed === undefined ? {} : { observed }) } }),
    },
    trainable,
  );
}

/** A copy of the parameters, in the place of the copy before. */
function keep(place: Float32Array | undefined, parameters: Float32Array): Float32Array {
  if (place === undefined) return parameters.slice();
  place.set(parameters);
  return place;
}

/**
 * The loss of a batch and its gradient, accumulated over the rows that the batch is packed into: one
 * of at most `step.maxRowTokens` is in memory at a time.
 */
async function batchGradients(
  step: TrainingStep,
  { samples, scale, hiddenScale }: StepParts,
  run: { readonly parameters: Float32Array; readonly gradients: Float32Array; readonly seed: number; readonly globalStep: number },
): Promise<{ readonly lossNats: number; readonly tokens: number }> {
  const rows: readonly PackedRow[] = splitBatch(samples, step.maxRowTokens).map(packRow);
  run.gradients.fill(0);
  let lossNats = 0;
  for (const [index, row] of rows.entries()) {
    lossNats += await step.accumulate({ row, scale, hiddenScale, parameters: run.parameters, gradients: run.gradients, dropout: [run.seed, run.globalStep, index] });
  }
  return { lossNats, tokens: rows.reduce((sum, row) => sum + row.tokens, 0) };
}

export { decisiveTraining };

const tuned = ({ lora }: TrainingSpec): LoopState['tune'] => (lora === undefined ? { kind: 'full' } : { kind: 'lora', ...lora });

function identityOf({ training, development, modelSha256, datasetSha256, seed, teacher }: EpochInput): LoopState['identity'] {
  return { modelSha256, datasetSha256, ...(development === undefined ? {} : { developmentSha256: development.sha256 }), ...(teacher === undefined ? {} : { teacherSha256: teacher.sha256 }), seed, training: canonicalJson(decisiveTraining(training)) };
}

/** Where two identities differ, each with both values: `training.learningRate (0.0002, now 0.001)`. */
function differences(before: LoopState['identity'], now: LoopState['identity']): readonly string[] {
  const flat = ({ training, ...rest }: LoopState['identity']): Readonly<Record<string, unknown>> =>
    ({ ...rest, ...Object.fromEntries(Object.entries(JSON.parse(training) as object).map(([key, value]) => [`training.${key}`, value as unknown])) });
  const [old, present] = [flat(before), flat(now)];
  const shown = (value: unknown): string => (value === undefined ? 'none' : canonicalJson(value).slice(0, 80));
  return [...new Set([...Object.keys(old), ...Object.keys(present)])].filter((key) => canonicalJson(old[key] ?? null) !== canonicalJson(present[key] ?? null)).map((key) => `${key} (${shown(old[key])}, now ${shown(present[key])})`);
}

function requireSame(before: LoopState['identity'], now: LoopState['identity']): void {
  if (canonicalJson(before) === canonicalJson(now)) return;
  throw new StillhouseError('STALE', `training: expected a checkpoint of this model, dataset, seed and training spec, got one with another ${differences(before, now).join(', ')}`);
}

function startingPoint(input: EpochInput, learned: number, { layout, initial }: Trainable): Checkpoint {
  const { training, epoch } = input;
  const stepsPerEpoch = Math.ceil(learned / training.batchSize);
  const identity = identityOf(input);
  if (input.from === undefined) {
    if (epoch !== 0) throw new StillhouseError('BAD_INPUT', `training: expected a checkpoint to start epoch ${epoch} from, got none`);
    const state: LoopState = { version: FORMAT_VERSION, identity, tune: tuned(training), epoch, epochStep: 0, stepsPerEpoch, curve: [], measurementsSinceBest: 0, stopped: false };
    return { state, parameters: initial(input.weights, input.seed), adam: { mean: new Float32Array(layout.length), square: new Float32Array(layout.length) } };
  }
  // The settings are compared first: other ones may have other tensors.
  requireSame(readCheckpointState(input.from).identity, identity);
  const from = readCheckpoint(input.from, layout);
  if (from.state.epoch === epoch || from.state.stopped) return from;
  if (from.state.epoch !== epoch - 1 || from.state.epochStep !== from.state.stepsPerEpoch) {
    throw new StillhouseError('STALE', `training: expected a checkpoint of epoch ${epoch} or of the end of epoch ${epoch - 1}, got step ${from.state.epochStep} of ${from.state.stepsPerEpoch} of epoch ${from.state.epoch}`);
  }
  return { ...from, state: { ...from.state, epoch, epochStep: 0 } };
}
