/** The training step as a graph: loss and the gradient of each trained tensor for packed samples. N chunks of C learned tokens. */
import type { Precision } from '../contracts/precision.ts';
import { gradients } from '../graph/gradients.ts';
import { Graph } from '../graph/graph.ts';
import type { FloatValue } from '../graph/ops.ts';
import { decoderInputs } from '../lm/architectures/decoder.ts';
import type { WeightLookup } from '../lm/architectures/decoder.ts';
import { decoder, EMBEDDING, headRows, headWeight } from '../lm/architectures/registry.ts';
import type { Shape } from '../graph/shape.ts';
import type { ModelConfig } from '../lm/config.ts';
import { hiddenStateLoss } from './distillation-loss.ts';
import { projectionName, teacherHiddenName } from './objective.ts';
import type { HiddenObjective, Objective } from './objective.ts';
import { chunkedLoss } from './row-loss.ts';
import type { Trainable } from './trainable.ts';

/** Rows of a frozen embedding. */
export const EMBEDDED = 'embedded';
export const dropoutInputName = (target: string): string => `dropout.${target}`;
export const gradientOutputName = (parameter: string): string => `gradient.${parameter}`;

/**
 * Inputs: `ids`, or `embedded` (B, T, H) where the embedding is not trained, `positions` (B, T), `mask` (B, 1, T, T), `blocks`, `rows` into (B·T) and `weights` of their losses (N, C), what the
 * objective is given for each of them by name (N, C, …), each parameter by its name, and with dropout a mask (B, T, in) for each target.
 * Where hidden states are compared: `hiddenWeights` (B, T), what the loss of each token counts, and `teacherHidden.LAYER` (B, T, Ht).
 * Outputs: `loss` () in nats, and with `backward` the `gradient.NAME` of each parameter.
 */
export function trainingStepGraph(options: {
  readonly config: ModelConfig;
  readonly trainable: Trainable;
  readonly objective: Objective;
  /** Without it the loss alone is computed, and nothing is dropped out. */
  readonly backward: boolean;
  /** The most tokens that a row may hold. */
  readonly maxRowTokens: number;
  /** Of the products with the projections' weights, and of their gradients. */
  readonly precision: Precision;
  readonly weights: (g: Graph) => WeightLookup;
}): Graph {
  const { config, trainable, backward } = options;
  const g = new Graph();
  const inputs = decoderInputs(g, config, { blocks: true });
  const tokens = inputs.ids.shape; // (B, T)
  const rows = g.input('rows', 'int64', ['N', 'C']);
  const weights = g.input('weights', 'float32', ['N', 'C']);
  const parameters = new Map(trainable.layout.tensors.map((tensor) => [tensor.name, g.input(tensor.name, 'float32', tensor.shape)]));
  const dropsOut = backward && trainable.dropout.targets.length > 0;
  const { weight, ...hooks } = trainable.bind(g, {
    weight: options.weights(g),
    parameter: (name) => parameters.get(name) as FloatValue,
    ...(dropsOut ? { dropout: (target: string, like: FloatValue) => g.input(dropoutInputName(target), 'float32', like.shape) } : {}),
  });
  const embedded = parameters.has(EMBEDDING) ? {} : { embedded: g.input(EMBEDDED, 'float32', [...tokens, config.hiddenSize]) };
  const { hidden, layerHidden } = decoder(g, config, weight, inputs, { ...hooks, ...embedded, precision: options.precision, contextTokens: options.maxRowTokens });
  const learned = headRows(g, config, weight, hidden, rows); // (N, C, H)
  const head = headWeight(config, weight);
  const chunked = chunkedLoss(g, { rows: learned, weights, head, given: (name, dtype, shape) => g.input(name, dtype, shape), loss: options.objective.rowLoss(g), backward });
  const { hidden: compared } = options.objective;
  const features = compared === undefined ? [] : hiddenStateRoots(g, compared, tokens, layerHidden, (name) => parameters.get(name) as FloatValue);
  g.output('loss', features.reduce((sum, { of, seed }) => g.add(sum, g.sumAll(g.mul(of, seed))), g.sumAll(chunked.losses)));
  if (chunked.backward === undefined) return g;
  const { rows: dLearned, head: dHead } = chunked.backward;
  const wanted = [...parameters];
  const roots = [{ of: learned, seed: dLearned }, ...(dHead === undefined ? [] : [{ of: head, seed: dHead }]), ...features];
  const results = gradients(g, roots, wanted.map(([, value]) => value));
  wanted.forEach(([name], i) => g.output(gradientOutputName(name), results[i] as FloatValue));
  return g;
}

/** The loss of each pair at each token, (B, T), and what it counts. */
function hiddenStateRoots(g: Graph, { kind, pairs, width, projected }: HiddenObjective, tokens: Shape, layerHidden: readonly FloatValue[], parameter: (name: string) => FloatValue): readonly { readonly of: FloatValue; readonly seed: FloatValue }[] {
  const seed = g.input('hiddenWeights', 'float32', tokens);
  const teacher = new Map([...new Set(pairs.map((pair) => pair.teacher))].map((layer) => [layer, g.input(teacherHiddenName({ teacher: layer }), 'float32', [...tokens, width])]));
  return pairs.map((pair) => ({
    of: hiddenStateLoss(g, {
      kind,
      student: layerHidden[pair.student] as FloatValue,
      teacher: teacher.get(pair.teacher) as FloatValue,
      weights: seed,
      ...(projected ? { projection: parameter(projectionName(pair)) } : {}),
    }),
    seed,
  }));
}
