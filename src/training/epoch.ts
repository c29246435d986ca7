/** One epoch of training, from its start or from a checkpoint. The numbers depend on the identity and on nothing else. */
import type { TrainingSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { LossPoint } from '../contracts/records.ts';
import type { ModelConfig, WeightFile } from '../lm/config.ts';
import { canonicalJson } from '../store/jsonl.ts';
import { encodeCheckpoint, FORMAT_VERSION, readCheckpoint } from './checkpoint.ts';
import type { Checkpoint, LoopState } from './checkpoint.ts';
import { checkMemory } from './memory.ts';
import { adamWStep, clipGradients, learningRateAt } from './optimizer.ts';
import { checkSamples, packRow, splitBatch } from './packing.ts';
import type { TrainingSample } from './packing.ts';
import { permutation, RANDOM_STREAM, randomStream } from './random.ts';
import { createStep } from './step.ts';
import type { TrainingStep } from './step.ts';
import { trainableOf } from './trainable.ts';
import type { Trainable } from './trainable.ts';

export interface EpochInput {
  readonly config: ModelConfig;
  readonly weights: WeightFile;
  readonly modelSha256: string;
  readonly datasetSha256: string;
  readonly samples: readonly TrainingSample[];
  readonly training: TrainingSpec;
  readonly seed: number;
  /** 0-based. */
  readonly epoch: number;
  /** Path of a checkpoint of this epoch, or of the end of the one before. */
  readonly from?: string;
  readonly threads: number;
  /** Tokens of one packed row, at least `training.maxTokens`. Another value sums gradients in another order. */
  readonly maxRowTokens?: number;
}

export interface EpochHooks {
  /** After each optimizer step. `checkpoint` makes the bytes of one at this point. */
  readonly afterStep: (done: { readonly epochStep: number; readonly steps: number; readonly point: LossPoint; readonly checkpointDue: boolean; readonly checkpoint: () => Buffer }) => void;
  /** Asked between steps. */
  readonly shouldStop: () => boolean;
}

export interface EpochOutcome {
  readonly finished: boolean;
  readonly state: LoopState;
  readonly checkpoint: Buffer;
}

export async function trainEpoch(input: EpochInput, hooks: EpochHooks): Promise<EpochOutcome> {
  const { config, training, samples, seed, epoch } = input;
  checkSamples(samples, training.maxTokens);
  const longest = samples.reduce((most, sample) => Math.max(most, sample.ids.length), 0);
  const longestAnswer = samples.reduce((most, sample) => Math.max(most, sample.ids.length - sample.responseStart), 0);
  checkMemory(config, longest, longestAnswer);
  const trainable = trainableOf(config, training);
  const { layout } = trainable;
  const start = startingPoint(input, trainable);
  const { parameters, adam } = start;
  let state = start.state;
  const order = permutation(samples.length, randomStream(seed, RANDOM_STREAM.dataOrder, epoch));
  const steps = state.stepsPerEpoch;
  const checkpoint = (): Buffer => encodeCheckpoint(layout, { state, parameters, adam });
  if (state.epochStep === steps) return { finished: true, state, checkpoint: checkpoint() };

  await using step = await createStep(input, trainable);
  const gradients = new Float32Array(layout.length);
  while (state.epochStep < steps) {
    if (hooks.shouldStop()) return { finished: false, state, checkpoint: checkpoint() };
    const at = state.epochStep;
    const globalStep = epoch * steps + at;
    const batch = order.slice(at * training.batchSize, (at + 1) * training.batchSize).map((i) => samples[i] as TrainingSample);
    const { lossNats, tokens } = await batchGradients(step, batch, { parameters, gradients, seed, globalStep });
    const learningRate = learningRateAt(training, globalStep, steps * training.epochs);
    const gradientNorm = clipGradients(gradients, training.maxGradientNorm);
    if (!Number.isFinite(lossNats) || !Number.isFinite(gradientNorm)) {
      throw new StillhouseError('DIVERGED', `training, epoch ${epoch}, step ${globalStep + 1}: expected a finite loss, got ${lossNats} with gradient norm ${gradientNorm}; lower learningRate (${training.learningRate})`, {
        details: { epoch, step: globalStep + 1, ids: batch.map((sample) => sample.id) },
      });
    }
    adamWStep(parameters, gradients, adam, { step: globalStep + 1, learningRate, weightDecay: training.weightDecay });
    const point: LossPoint = { epoch, step: globalStep + 1, lossNats, learningRate, tokens, gradientNorm };
    state = { ...state, epochStep: at + 1, curve: [...state.curve, point] };
    hooks.afterStep({ epochStep: at + 1, steps, point, checkpointDue: (at + 1) % training.checkpointEverySteps === 0 && at + 1 < steps, checkpoint });
    await new Promise((resolve) => setImmediate(resolve)); // messages of the parent are read here
  }
  return { finished: true, state, checkpoint: checkpoint() };
}

/** Mean loss of the batch's answer tokens, and its gradient summed over the rows that the batch is packed into. */
async function batchGradients(
  step: TrainingStep,
  batch: readonly TrainingSample[],
  run: { readonly parameters: Float32Array; readonly gradients: Float32Array; readonly seed: number; readonly globalStep: number },
): Promise<{ readonly lossNats: number; readonly tokens: number }> {
  const rows = splitBatch(batch, step.maxRowTokens).map(packRow);
  const labels = rows.reduce((sum, row) => sum + row.labels.length, 0);
  run.gradients.fill(0);
  let lossNats = 0;
  for (const [index, row] of rows.entries()) {
    lossNats += await step.accumulate({ row, scale: 1 / labels, parameters: run.parameters, gradients: run.gradients, dropout: [run.seed, run.globalStep, index] });
  }
  return { lossNats, tokens: rows.reduce((sum, row) => sum + row.tokens, 0) };
}

const tuned = ({ lora }: TrainingSpec): LoopState['tune'] => (lora === undefined ? { kind: 'full' } : { kind: 'lora', ...lora });

function startingPoint(input: EpochInput, { layout, initial }: Trainable): Checkpoint {
  const { training, samples, seed, epoch } = input;
  const stepsPerEpoch = Math.ceil(samples.length / training.batchSize);
  const { checkpointEverySteps: _cadence, ...decisive } = training;
  const identity = { modelSha256: input.modelSha256, datasetSha256: input.datasetSha256, seed, training: canonicalJson(decisive) };
  if (input.from === undefined) {
    if (epoch !== 0) throw new StillhouseError('BAD_INPUT', `training: expected a checkpoint to start epoch ${epoch} from, got none`);
    const state: LoopState = { version: FORMAT_VERSION, identity, tune: tuned(training), epoch, epochStep: 0, stepsPerEpoch, curve: [] };
    return { state, parameters: initial(input.weights, seed), adam: { mean: new Float32Array(layout.length), square: new Float32Array(layout.length) } };
  }
  const from = readCheckpoint(input.from, layout);
  if (canonicalJson(from.state.identity) !== canonicalJson(identity)) {
    throw new StillhouseError('BAD_INPUT', `training: expected a checkpoint of this model, dataset, seed and training spec, got one of ${canonicalJson(from.state.identity)} for ${canonicalJson(identity)}`);
  }
  if (from.state.epoch === epoch) return from;
  if (from.state.epoch !== epoch - 1 || from.state.epochStep !== from.state.stepsPerEpoch) {
    throw new StillhouseError('BAD_INPUT', `training: expected a checkpoint of epoch ${epoch} or of the end of epoch ${epoch - 1}, got step ${from.state.epochStep} of ${from.state.stepsPerEpoch} of epoch ${from.state.epoch}`);
  }
  return { ...from, state: { ...from.state, epoch, epochStep: 0 } };
}
