/** The training step as a graph: loss and the gradient of each trained tensor for one packed row. */
import { gradients } from '../graph/gradients.ts';
import { Graph } from '../graph/graph.ts';
import type { FloatValue } from '../graph/ops.ts';
import { toOnnx } from '../graph/serialize.ts';
import { decoderInputs } from '../lm/architectures/decoder.ts';
import type { WeightLookup } from '../lm/architectures/decoder.ts';
import { decoder, decoderLogits } from '../lm/architectures/registry.ts';
import type { ModelConfig } from '../lm/config.ts';
import type { Trainable } from './trainable.ts';

export const dropoutInputName = (target: string): string => `dropout.${target}`;
export const gradientOutputName = (parameter: string): string => `gradient.${parameter}`;

/**
 * Inputs: `ids`, `positions` (1, T), `mask` (1, 1, T, T), `rows`, `labels` (R), `scale` () that multiplies the
 * sum of the rows' losses, each parameter by its name, and with dropout a mask (1, T, in) for each target.
 * Outputs: `loss` () in nats, and with `backward` the `gradient.NAME` of each parameter.
 */
export function trainingStepGraph(options: {
  readonly config: ModelConfig;
  readonly trainable: Trainable;
  /** Without it the loss alone is computed, and nothing is dropped out. */
  readonly backward: boolean;
  /** The most tokens that a row may hold. */
  readonly maxRowTokens: number;
  readonly weights: (g: Graph) => WeightLookup;
}): Uint8Array {
  const { config, trainable, backward } = options;
  const g = new Graph();
  const inputs = decoderInputs(g, config, { batch: 1 });
  const rows = g.input('rows', 'int64', ['R']);
  const labels = g.input('labels', 'int64', ['R']);
  const scale = g.input('scale', 'float32', []);
  const parameters = new Map(trainable.layout.tensors.map((tensor) => [tensor.name, g.input(tensor.name, 'float32', tensor.shape)]));
  const dropsOut = backward && trainable.dropout.targets.length > 0;
  const { weight, ...hooks } = trainable.bind(g, {
    weight: options.weights(g),
    parameter: (name) => parameters.get(name) as FloatValue,
    ...(dropsOut ? { dropout: (target: string, like: FloatValue) => g.input(dropoutInputName(target), 'float32', like.shape) } : {}),
  });
  const { hidden } = decoder(g, config, weight, inputs, { ...hooks, contextTokens: options.maxRowTokens });
  const losses = g.crossEntropy(decoderLogits(g, config, weight, hidden, rows), labels); // (R)
  g.output('loss', g.mul(g.sumAll(losses), scale));
  if (!backward) return toOnnx(g, 'loss');
  const wanted = [...parameters];
  const results = gradients(g, losses, wanted.map(([, value]) => value), g.expandLike(g.unsqueeze(scale, [0]), losses));
  wanted.forEach(([name], i) => g.output(gradientOutputName(name), results[i] as FloatValue));
  return toOnnx(g, 'training-step');
}
