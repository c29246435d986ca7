/**
 * A smaller model out of some layers of a larger one (Sanh et al. 2019, DistilBERT, section 3): its configuration and
 * its weights are those of the kept layers, numbered anew. Nothing is copied: kept weights lie where they lay.
 */
import { StillhouseError } from '../contracts/errors.ts';
import type { ModelConfig } from './config.ts';

/** Which layers of a model are kept: those that are listed, counted from 0, or so many of them, the first ones and the last. */
export interface LayerChoice {
  readonly layers?: readonly number[] | undefined;
  readonly keepLayers?: number | undefined;
}

/** The first `kept` − 1 layers and the last, which learns again in fewer steps than layers left out between (docs/methods.md); one alone is the first. */
export function firstAndLast(kept: number, total: number): readonly number[] {
  return Array.from({ length: kept }, (_, i) => (i > 0 && i === kept - 1 ? total - 1 : i));
}

/** The kept layers in their order; undefined where all are. BAD_INPUT for layers that the model does not have. */
export function chosenLayers(choice: LayerChoice, total: number, model: string): readonly number[] | undefined {
  const { layers, keepLayers } = choice;
  if (keepLayers !== undefined) {
    if (keepLayers > total) throw new StillhouseError('BAD_INPUT', `student ${model}, keepLayers: expected at most its ${total} layers, got ${keepLayers}`);
    return keepLayers === total ? undefined : firstAndLast(keepLayers, total);
  }
  const beyond = layers?.find((layer) => layer >= total);
  if (beyond !== undefined) throw new StillhouseError('BAD_INPUT', `student ${model}, layers: expected layers from 0 to ${total - 1}, got ${beyond}`);
  return layers;
}

/** The configuration of the kept layers. */
export function keepLayersOf(config: ModelConfig, kept: readonly number[]): ModelConfig {
  const { slidingWindow } = config;
  return {
    ...config,
    layers: kept.length,
    ...(slidingWindow === undefined ? {} : { slidingWindow: { ...slidingWindow, layers: kept.map((layer) => slidingWindow.layers[layer] === true) } }),
  };
}

const LAYER_NAME = /^model\.layers\.(\d+)\./;

/** The tensors of the kept layers under their new numbers, and those that belong to no layer; in the order of the larger model. */
export function keepTensors<T>(tensors: ReadonlyMap<string, T>, kept: readonly number[]): ReadonlyMap<string, T> {
  const numbers = new Map(kept.map((layer, i) => [layer, i]));
  const smaller = new Map<string, T>();
  for (const [name, tensor] of tensors) {
    const [prefix, layer] = LAYER_NAME.exec(name) ?? [];
    const number = layer === undefined ? undefined : numbers.get(Number(layer));
    if (prefix === undefined) smaller.set(name, tensor);
    else if (number !== undefined) smaller.set(`model.layers.${number}.${name.slice(prefix.length)}`, tensor);
  }
  return smaller;
}

/** What a model of these layers alone is called: `model (15 of 30 layers: 0, 2, …)`. */
export function keptName(model: string, kept: readonly number[], total: number): string {
  return `${model} (${kept.length} of ${total} layers: ${kept.join(', ')})`;
}
