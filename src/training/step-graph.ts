/** The training step as a graph: loss and the gradient of each adapter matrix for one packed row. */
import type { TrainingSpec } from '../contracts/campaign-spec.ts';
import { gradients } from '../graph/gradients.ts';
import { Graph } from '../graph/graph.ts';
import type { FloatValue } from '../graph/ops.ts';
import { toOnnx } from '../graph/serialize.ts';
import { decoderInputs } from '../lm/architectures/decoder.ts';
import type { WeightLookup } from '../lm/architectures/decoder.ts';
import { loraLinear } from '../lm/architectures/lora.ts';
import { decoder, decoderLogits } from '../lm/architectures/registry.ts';
import type { ModelConfig } from '../lm/config.ts';
import type { ParameterLayout } from './parameters.ts';

export const dropoutInputName = (target: string): string => `dropout.${target}`;
export const gradientOutputName = (parameter: string): string => `gradient.${parameter}`;

/**
 * Inputs: `ids`, `positions` (1, T), `mask` (1, 1, T, T), `rows`, `labels` (R), `scale` () that multiplies the
 * sum of the rows' losses, each parameter by its name, and with dropout a mask (1, T, in) for each target.
 * Outputs: `loss` () in nats, and `gradient.NAME` for each parameter.
 */
export function trainingStepGraph(options: {
  readonly config: ModelConfig;
  readonly layout: ParameterLayout;
  readonly lora: TrainingSpec['lora'];
  /** The most tokens that a row may hold. */
  readonly maxRowTokens: number;
  readonly weights: (g: Graph) => WeightLookup;
}): Uint8Array {
  const { config, layout, lora } = options;
  const g = new Graph();
  const weight = options.weights(g);
  const inputs = decoderInputs(g, config, { batch: 1 });
  const rows = g.input('rows', 'int64', ['R']);
  const labels = g.input('labels', 'int64', ['R']);
  const scale = g.input('scale', 'float32', []);
  const parameters = new Map(layout.tensors.map((tensor) => [tensor.name, g.input(tensor.name, 'float32', tensor.shape)]));
  const linear = loraLinear(g, lora, {
    parameter: (name) => parameters.get(name) as FloatValue,
    ...(lora.dropout > 0 ? { dropout: (target: string, like: FloatValue) => g.input(dropoutInputName(target), 'float32', like.shape) } : {}),
  });
  const { hidden } = decoder(g, config, weight, inputs, { linear, contextTokens: options.maxRowTokens });
  const losses = g.crossEntropy(decoderLogits(g, config, weight, hidden, rows), labels); // (R)
  g.output('loss', g.mul(g.sumAll(losses), scale));
  const wanted = [...parameters];
  const results = gradients(g, losses, wanted.map(([, value]) => value), g.expandLike(g.unsqueeze(scale, [0]), losses));
  wanted.forEach(([name], i) => g.output(gradientOutputName(name), results[i] as FloatValue));
  return toOnnx(g, 'training-step');
}
