/**
 * The architectures, and a decoder of any of them as one function over the graph builder.
 *
 *   const graph = new Graph();
 *   const inputs = decoderInputs(graph, config, { batch: 1, past: true });
 *   const weight = weightConstants(graph, weights);
 *   const { hidden, present } = decoder(graph, config, weight, inputs);
 *   graph.output('logits', decoderLogits(graph, config, weight, hidden, rows));   // rows: (R) into (B·T)
 *   const bytes = toOnnx(graph, 'decoder');
 *
 * The same graph serves a packed row (B = 1, positions that start again, a block-diagonal mask), packed
 * rows after a shared prefix (B = 1, past of P tokens) and batched decoding (T = 1, past). Padding is the
 * mask's business: a masked entry is `MASKED`, an open one 0.
 */
import type { Graph } from '../../graph/graph.ts';
import type { FloatValue, IntValue } from '../../graph/ops.ts';
import { multiplyDims } from '../../graph/shape.ts';
import type { ArchitectureName, ModelConfig } from '../config.ts';
import type { Architecture, ModelTensor } from './architecture.ts';
import { onePlus } from './architecture.ts';
import { beginDecoder, norm } from './decoder.ts';
import type { DecoderInputs, DecoderOptions, KeyValue, WeightLookup } from './decoder.ts';
import { gemma3 } from './gemma3.ts';
import { llama } from './llama.ts';
import { qwen2 } from './qwen2.ts';
import { qwen3 } from './qwen3.ts';

export const ARCHITECTURES: { readonly [Name in ArchitectureName]: Architecture } = { llama, qwen2, qwen3, gemma3 };

/** Positions that the rotary tables of a graph hold when a caller does not say. */
const DEFAULT_CONTEXT_TOKENS = 8_192;

/** The embedding's name in checkpoints: (V, H). */
export const EMBEDDING = 'model.embed_tokens.weight';

export interface DecoderOutputs {
  /** (B, T, H) before the final normalisation. */
  readonly hidden: FloatValue;
  /** The embedding, and what each layer gives: (B, T, H) each. */
  readonly layerHidden: readonly FloatValue[];
  /** One for each layer: (B, K, S, D); (B, K, T, D) where the past stays apart. */
  readonly present: readonly KeyValue[];
  /** (B, S); of models with sliding windows, where the positions of the past are known. */
  readonly presentPositions?: IntValue;
}

/** `embedded`: rows of the embedding (B, T, H), where the caller looks them up and not the graph. */
export function decoder(
  g: Graph,
  config: ModelConfig,
  weight: WeightLookup,
  inputs: DecoderInputs,
  options: Partial<DecoderOptions> & { readonly embedded?: FloatValue } = {},
): DecoderOutputs {
  const { embeddingScale, layer: runLayer } = ARCHITECTURES[config.architecture];
  const contextTokens = options.contextTokens ?? Math.min(config.maxPositions, DEFAULT_CONTEXT_TOKENS);
  const d = beginDecoder(g, config, weight, inputs, { ...options, contextTokens });
  const embedded = options.embedded ?? g.gather(weight(EMBEDDING, [config.vocabularySize, config.hiddenSize]), inputs.ids); // (B, T, H)
  let hidden = embeddingScale === undefined ? embedded : g.mul(embedded, g.scalar(embeddingScale(config)));
  const layerHidden: FloatValue[] = [hidden];
  const present: KeyValue[] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    const done = runLayer(d, hidden, layer, inputs.past?.[layer]);
    present.push(done.present);
    hidden = done.hidden;
    layerHidden.push(hidden);
  }
  return { hidden, layerHidden, present, ...(d.keyPositions === undefined ? {} : { presentPositions: d.keyPositions }) };
}

/** What the head sees: the given rows of (B·T) alone, after the final normalisation. rows: (R…) → (R…, H) */
export function headRows(g: Graph, config: ModelConfig, weight: WeightLookup, hidden: FloatValue, rows: IntValue): FloatValue {
  const { hiddenSize } = config;
  const flat = g.reshape(hidden, [multiplyDims(hidden.shape.slice(0, 2)), hiddenSize]);
  return norm({ g, config, weight }, g.gather(flat, rows), 'model.norm', hiddenSize, ARCHITECTURES[config.architecture].normOffset);
}

/** (V, H): logits are rows · headᵀ. */
export function headWeight({ tiedEmbeddings, vocabularySize, hiddenSize }: ModelConfig, weight: WeightLookup): FloatValue {
  const shape = [vocabularySize, hiddenSize];
  return tiedEmbeddings ? weight(EMBEDDING, shape, 'lm_head.weight') : weight('lm_head.weight', shape);
}

/** Final normalisation and head for the given rows of (B·T) alone. rows: (R) → (R, V) */
export function decoderLogits(g: Graph, config: ModelConfig, weight: WeightLookup, hidden: FloatValue, rows: IntValue): FloatValue {
  return g.matMul(headRows(g, config, weight, hidden, rows), headWeight(config, weight), { transB: true });
}

/** Every tensor that a model of this shape has, one at a time: a configuration may claim any number of layers. */
export function* modelTensors(config: ModelConfig): Generator<ModelTensor> {
  const { hiddenSize: H, vocabularySize: V } = config;
  const { layerTensors, normOffset } = ARCHITECTURES[config.architecture];
  yield { name: EMBEDDING, ggufName: 'token_embd.weight', shape: [V, H] };
  for (let layer = 0; layer < config.layers; layer += 1) yield* layerTensors(config, layer);
  yield { name: 'model.norm.weight', ggufName: 'output_norm.weight', shape: [H], ...(normOffset === 0 ? {} : { conversion: onePlus }) };
  if (!config.tiedEmbeddings) yield { name: 'lm_head.weight', ggufName: 'output.weight', shape: [V, H] };
}
