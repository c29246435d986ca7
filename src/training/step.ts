/** The training step as a session of the native runtime. */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import type { TrainingSpec } from '../contracts/training-spec.ts';
import { toOnnx } from '../graph/serialize.ts';
import { weightConstants } from '../lm/architectures/decoder.ts';
import type { ModelConfig, WeightFile } from '../lm/config.ts';
import { createSession, type SessionOptions } from '../lm/session.ts';
import { requireHalfRange } from '../lm/half-range.ts';
import { packsWeights } from './packed-weights.ts';
import { EmbeddingRows } from './embedding-rows.ts';
import { CROSS_ENTROPY, widestVocabulary } from './objective.ts';
import type { Objective } from './objective.ts';
import type { PackedRow } from './packing.ts';
import { tensorView } from './parameters.ts';
import type { Trainable } from './trainable.ts';
import { fillDropoutMask, RANDOM_STREAM, randomStream } from './random.ts';
import { rowFeeds } from './row-feeds.ts';
import type { Feeds } from './row-feeds.ts';
import { dropoutInputName, EMBEDDED, gradientOutputName, trainingStepGraph } from './step-graph.ts';
import { openTeacher } from './white-box-teacher.ts';
import type { Observed, TeacherModel } from './white-box-teacher.ts';

export interface TrainingStep extends AsyncDisposable {
  /** Tokens of one packed row: `training.rowTokens`, or `training.maxTokens` where that is more. */
  readonly maxRowTokens: number;
  /**
   * Adds the row's gradient to `gradients` and returns its weighted loss: that of its learned tokens times `scale`, that of
   * hidden states times `hiddenScale`. `dropout` names the random stream.
   */
  accumulate(input: {
    readonly row: PackedRow;
    readonly scale: number;
    /** Default: `scale`. */
    readonly hiddenScale?: number;
    readonly parameters: Float32Array;
    readonly gradients: Float32Array;
    readonly dropout: readonly [seed: number, step: number, row: number];
  }): Promise<number>;
  /** The sum of the row's losses in nats, nothing dropped out; no gradient is computed. */
  loss(row: PackedRow, parameters: Float32Array): Promise<number>;
}

interface StepInput extends Pick<SessionOptions, 'threads' | 'executionProviders'> {
  readonly config: ModelConfig;
  readonly weights: WeightFile;
  readonly training: TrainingSpec;
  /** Default: cross-entropy. The development loss is that in any case. */
  readonly objective?: Objective;
  /** What the objective is given of a teacher, and whose constants its graph has. */
  readonly teacher?: { readonly model: TeacherModel; readonly observed?: Observed };
}

/** A step that is put away while its memory is needed, and opened again. */
export class StepSessions implements AsyncDisposable {
  readonly #open: () => Promise<TrainingStep>;
  #step: Promise<TrainingStep> | undefined;

  constructor(open: () => Promise<TrainingStep>) {
    this.#open = open;
  }

  step(): Promise<TrainingStep> {
    return (this.#step ??= this.#open());
  }

  async putAway(): Promise<void> {
    const open = await this.#step;
    this.#step = undefined;
    await open?.[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.putAway();
  }
}

export async function createStep(input: StepInput, trainable: Trainable): Promise<TrainingStep> {
  const { config, weights, training, objective = CROSS_ENTROPY, teacher } = input;
  const { layout, dropout } = trainable;
  if (training.precision === 'float16') requireHalfRange(weights);
  const maxRowTokens = Math.max(training.rowTokens, training.maxTokens);
  const open = (backward: boolean): Promise<InferenceSession> =>
    createSession(
      toOnnx(trainingStepGraph({ config, trainable, objective: backward ? objective : CROSS_ENTROPY, backward, maxRowTokens, precision: training.precision, weights: (g) => weightConstants(g, weights) }), backward ? 'training-step' : 'loss'),
      teacher === undefined ? weights : [weights, teacher.model.weights],
      { ...input, packWeights: packsWeights(config) },
    );
  const session = await open(true);
  const embedding = session.inputNames.includes(EMBEDDED) ? new EmbeddingRows(weights, config) : undefined;
  const observer = teacher?.observed === undefined ? undefined : await openTeacher(teacher.model, teacher.observed, maxRowTokens, { ...input, packWeights: packsWeights(teacher.model.config) });
  // The runtime writes a row's gradients here instead of into memory of its own.
  const rowGradients = new Float32Array(layout.length);
  const rowGradientTensors: Record<string, Tensor | null> = { loss: null };
  for (const tensor of layout.tensors) rowGradientTensors[gradientOutputName(tensor.name)] = new Tensor('float32', tensorView(rowGradients, tensor), tensor.shape);
  let lossSession: Promise<InferenceSession> | undefined;
  const masks = dropout.targets.map(() => new Float32Array(0));

  /** A mask (B, T, in) for each target, in buffers that are kept from step to step. */
  const dropoutMasks = ({ batch, width }: PackedRow, [seed, step, row]: readonly [number, number, number]): [string, Tensor][] =>
    dropout.targets.map((target, i) => {
      const length = batch * width * target.inSize;
      if ((masks[i]?.length ?? 0) < length) masks[i] = new Float32Array(length);
      const mask = (masks[i] as Float32Array<ArrayBuffer>).subarray(0, length);
      fillDropoutMask(mask, dropout.probability, randomStream(seed, RANDOM_STREAM.dropout, step, row, i));
      return [dropoutInputName(target.name), new Tensor('float32', mask, [batch, width, target.inSize])];
    });

  /** What of the feeds the session's graph has as inputs: an objective may not need all that is known of a row. */
  const asked = ({ inputNames }: InferenceSession, feeds: Feeds & { readonly ids: Tensor }): Feeds => {
    const all = { ...feeds, ...(embedding === undefined ? {} : { [EMBEDDED]: embedding.of(feeds.ids) }) };
    return Object.fromEntries(Object.entries(all).filter(([name]) => inputNames.includes(name)));
  };
  const parameterFeeds = (parameters: Float32Array): Feeds => Object.fromEntries(layout.tensors.map((tensor) => [tensor.name, new Tensor('float32', tensorView(parameters, tensor), tensor.shape)]));

  return {
    maxRowTokens,
    async accumulate({ row, scale, hiddenScale = scale, parameters, gradients, dropout: stream }) {
      const { model, observed: read, known, hiddenWeights } = rowFeeds(row, widestVocabulary(config, objective));
      const observed = (await observer?.observe(read, row.samples)) ?? {};
      const { hidden } = objective;
      const compared = hidden === undefined ? {} : hiddenWeights(hidden.tokens, ((hidden.tokens === 'all' ? hiddenScale : scale) * hidden.weight) / hidden.pairs.length);
      const feeds = { ...model, ...known(scale), ...observed, ...compared, ...parameterFeeds(parameters), ...Object.fromEntries(dropoutMasks(row, stream)) };
      const results = await session.run(asked(session, feeds), rowGradientTensors);
      for (let i = 0; i < gradients.length; i++) gradients[i] = (gradients[i] as number) + (rowGradients[i] as number);
      return results['loss']?.data[0] as number;
    },
    async loss(row, parameters) {
      lossSession ??= open(false);
      const { model, known } = rowFeeds(row, config.vocabularySize);
      const opened = await lossSession;
      const results = await opened.run(asked(opened, { ...model, ...known(1), ...parameterFeeds(parameters) }));
      return results['loss']?.data[0] as number;
    },
    [Symbol.asyncDispose]: async () => {
      embedding?.[Symbol.dispose]();
      await session.release();
      await observer?.[Symbol.asyncDispose]();
      await (await lossSession)?.release();
    },
  };
}
