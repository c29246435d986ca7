/**
 * The Llama decoder (Touvron et al. 2023; grouped-query attention after Ainslie et al. 2023) as one
 * function over the graph builder. Letters as in src/lm/model.ts; S = P + T tokens that can be attended to.
 *
 *   const graph = new Graph();
 *   const inputs = llamaInputs(graph, config, { batch: 1, past: true });
 *   const { hidden, present } = llama(graph, config, weightConstants(graph, config, weights), inputs);
 *   graph.output('logits', llamaLogits(graph, config, weight, hidden, rows));   // rows: (R) into (B·T)
 *   const bytes = toOnnx(graph, 'llama');
 *
 * The same graph serves a packed row (B = 1, positions that start again, a block-diagonal mask), packed
 * rows after a shared prefix (B = 1, past of P tokens) and batched decoding (T = 1, past). Padding is the
 * mask's business: a masked entry is `MASKED`, an open one 0.
 */
import { basename } from 'node:path';
import { StillhouseError } from '../../contracts/errors.ts';
import type { Graph } from '../../graph/graph.ts';
import type { FloatValue, IntValue } from '../../graph/ops.ts';
import { addDims, formatShape, multiplyDims, sameShape } from '../../graph/shape.ts';
import type { Dim, Shape } from '../../graph/shape.ts';
import type { ModelConfig, WeightFile } from '../config.ts';

/** What a mask adds where attention must not look. Finite, so that a fully masked row stays a number. */
export const MASKED = -1e9;

/** Positions that the rotary tables of a graph hold when a caller does not say. */
const DEFAULT_CONTEXT_TOKENS = 8_192;

export interface KeyValue {
  /** (B, K, tokens, D), keys after rotation. */
  readonly key: FloatValue;
  readonly value: FloatValue;
}

export interface LlamaInputs {
  /** (B, T) */
  readonly ids: IntValue;
  /** (B, T), counted from the start of each sample. */
  readonly positions: IntValue;
  /** (B, 1, T, S) added to the attention scores. */
  readonly mask: FloatValue;
  /** One for each layer: (B, K, P, D). */
  readonly past?: readonly KeyValue[];
}

/** Gives a weight as a graph value by its Hugging Face name, checked against `shape`. */
export type WeightLookup = (name: string, shape: Shape) => FloatValue;

/** What a projection computes. `name` is the weight's without `.weight`; `base` gives x·Wᵀ (…, out) of x (…, in). */
export type LinearHook = (projection: { readonly name: string; readonly x: FloatValue; readonly base: () => FloatValue; readonly inSize: number; readonly outSize: number }) => FloatValue;

export interface LlamaOptions {
  /** Called for each projection of each layer; LoRA adds its own branch here. */
  readonly linear?: LinearHook;
  /** Positions in the rotary tables. A position beyond them, or a T that exceeds them, is an error of the runtime. */
  readonly contextTokens?: number;
}

export interface LlamaOutputs {
  /** (B, T, H) before the final normalisation. */
  readonly hidden: FloatValue;
  /** One for each layer: (B, K, S, D). */
  readonly present: readonly KeyValue[];
}

/** The external constants of a graph whose session finds `weights.path` in its folder. */
export function weightConstants(g: Graph, weights: WeightFile): WeightLookup {
  const location = basename(weights.path);
  return (name, shape) => {
    const tensor = weights.tensors.get(name);
    if (tensor === undefined) throw new StillhouseError('NOT_FOUND', `${weights.path}: expected a tensor ${name} ${formatShape(shape)}, got none`);
    if (!sameShape(tensor.shape, shape)) throw new StillhouseError('BAD_INPUT', `${weights.path}: expected ${name} of shape ${formatShape(shape)}, got ${formatShape(tensor.shape)}`);
    return g.external(name, shape, { location, offsetBytes: tensor.offsetBytes, lengthBytes: tensor.lengthBytes });
  };
}

/** Graph inputs `ids`, `positions`, `mask` and, with `past`, `past.N.key` and `past.N.value`; B is a symbol unless given. */
export function llamaInputs(g: Graph, config: ModelConfig, options: { readonly batch?: number; readonly past?: boolean } = {}): LlamaInputs {
  const batch: Dim = options.batch ?? 'B';
  const withPast = options.past === true;
  const cache: Shape = [batch, config.keyValueHeads, 'P', config.headSize];
  return {
    ids: g.input('ids', 'int64', [batch, 'T']),
    positions: g.input('positions', 'int64', [batch, 'T']),
    mask: g.input('mask', 'float32', [batch, 1, 'T', withPast ? addDims(['P', 'T']) : 'T']),
    ...(withPast
      ? { past: Array.from({ length: config.layers }, (_, layer) => ({ key: g.input(`past.${layer}.key`, 'float32', cache), value: g.input(`past.${layer}.value`, 'float32', cache) })) }
      : {}),
  };
}

interface Builder {
  readonly g: Graph;
  readonly config: ModelConfig;
  readonly weight: WeightLookup;
  readonly linear: LinearHook;
  /** (contextTokens, D/2) */
  readonly cos: FloatValue;
  readonly sin: FloatValue;
  /** (B, 1, G·T, S): the mask once for each query head of a group. */
  readonly groupMask: FloatValue;
  readonly positions: IntValue;
}

export function llama(g: Graph, config: ModelConfig, weight: WeightLookup, inputs: LlamaInputs, options: LlamaOptions = {}): LlamaOutputs {
  const group = config.attentionHeads / config.keyValueHeads;
  if (!Number.isInteger(group)) throw new StillhouseError('BAD_INPUT', `model: expected attention heads to be a multiple of key/value heads, got ${config.attentionHeads} and ${config.keyValueHeads}`);
  const { cos, sin } = rotaryTables(g, config, options.contextTokens ?? Math.min(config.maxPositions, DEFAULT_CONTEXT_TOKENS));
  const groupMask = g.concat(Array.from({ length: group }, () => inputs.mask), 2);
  const builder: Builder = { g, config, weight, linear: options.linear ?? (({ base }) => base()), cos, sin, groupMask, positions: inputs.positions };
  let hidden = g.gather(weight('model.embed_tokens.weight', [config.vocabularySize, config.hiddenSize]), inputs.ids); // (B, T, H)
  const present: KeyValue[] = [];
  for (let layer = 0; layer < config.layers; layer++) {
    const attended = attention(builder, hidden, layer, inputs.past?.[layer]);
    present.push(attended.present);
    hidden = feedForward(builder, attended.hidden, layer);
  }
  return { hidden, present };
}

/** Final normalisation and head for the given rows of (B·T) alone. rows: (R) → (R, V) */
export function llamaLogits(g: Graph, config: ModelConfig, weight: WeightLookup, hidden: FloatValue, rows: IntValue): FloatValue {
  const { hiddenSize, vocabularySize } = config;
  const flat = g.reshape(hidden, [multiplyDims(hidden.shape.slice(0, 2)), hiddenSize]);
  const normed = g.rmsNorm(g.gather(flat, rows), weight('model.norm.weight', [hiddenSize]), config.normEpsilon); // (R, H)
  const head = weight(config.tiedEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight', [vocabularySize, hiddenSize]);
  return g.matMul(normed, head, { transB: true });
}

function rotaryTables(g: Graph, config: ModelConfig, contextTokens: number): { readonly cos: FloatValue; readonly sin: FloatValue } {
  const half = config.headSize / 2;
  const cos = new Float32Array(contextTokens * half);
  const sin = new Float32Array(contextTokens * half);
  // Frequencies and angles are rounded to float32 at the places where Hugging Face's implementation rounds them.
  for (let i = 0; i < half; i++) {
    const frequency = Math.fround(1 / Math.fround(config.rotary.base ** Math.fround((2 * i) / config.headSize)));
    for (let position = 0; position < contextTokens; position++) {
      const angle = Math.fround(position * frequency);
      cos[position * half + i] = Math.cos(angle);
      sin[position * half + i] = Math.sin(angle);
    }
  }
  return { cos: g.floats(cos, [contextTokens, half]), sin: g.floats(sin, [contextTokens, half]) };
}

function project(builder: Builder, x: FloatValue, name: string, inSize: number, outSize: number): FloatValue {
  const base = (): FloatValue => builder.g.matMul(x, builder.weight(`${name}.weight`, [outSize, inSize]), { transB: true });
  return builder.linear({ name, x, base, inSize, outSize });
}

/** x: (B, T, H) → x + attention(norm(x)) */
function attention(builder: Builder, x: FloatValue, layer: number, past: KeyValue | undefined): { readonly hidden: FloatValue; readonly present: KeyValue } {
  const { g, config, weight, cos, sin, positions } = builder;
  const { hiddenSize, attentionHeads, keyValueHeads, headSize } = config;
  const name = `model.layers.${layer}.self_attn`;
  const [batch, tokens] = x.shape as readonly [Dim, Dim, Dim];
  const heads = (v: FloatValue, count: number): FloatValue => g.transpose(g.reshape(v, [batch, tokens, count, headSize]), [0, 2, 1, 3]); // (B, heads, T, D)

  const normed = g.rmsNorm(x, weight(`model.layers.${layer}.input_layernorm.weight`, [hiddenSize]), config.normEpsilon);
  const query = g.rotary(project(builder, normed, `${name}.q_proj`, hiddenSize, attentionHeads * headSize), positions, cos, sin);
  const key = g.rotary(project(builder, normed, `${name}.k_proj`, hiddenSize, keyValueHeads * headSize), positions, cos, sin);
  const value = project(builder, normed, `${name}.v_proj`, hiddenSize, keyValueHeads * headSize);

  const newKeys = heads(key, keyValueHeads);
  const newValues = heads(value, keyValueHeads);
  const keys = past === undefined ? newKeys : g.concat([past.key, newKeys], 2); // (B, K, S, D)
  const values = past === undefined ? newValues : g.concat([past.value, newValues], 2);

  const groupRows = multiplyDims([attentionHeads / keyValueHeads, tokens]); // G·T
  const queries = g.reshape(heads(query, attentionHeads), [batch, keyValueHeads, groupRows, headSize]);
  const scores = g.add(g.matMul(queries, keys, { transB: true, alpha: 1 / Math.sqrt(headSize) }), builder.groupMask); // (B, K, G·T, S)
  const mixed = g.matMul(g.softmax(scores), values); // (B, K, G·T, D)
  const joined = g.transpose(g.reshape(mixed, [batch, attentionHeads, tokens, headSize]), [0, 2, 1, 3]);
  const flat = g.reshape(joined, [batch, tokens, attentionHeads * headSize]);
  const hidden = g.add(x, project(builder, flat, `${name}.o_proj`, attentionHeads * headSize, hiddenSize));
  return { hidden, present: { key: keys, value: values } };
}

/** x: (B, T, H) → x + down(silu(gate(norm(x))) · up(norm(x))) */
function feedForward(builder: Builder, x: FloatValue, layer: number): FloatValue {
  const { g, config, weight } = builder;
  const { hiddenSize, feedForwardSize } = config;
  const name = `model.layers.${layer}.mlp`;
  const normed = g.rmsNorm(x, weight(`model.layers.${layer}.post_attention_layernorm.weight`, [hiddenSize]), config.normEpsilon);
  const gate = project(builder, normed, `${name}.gate_proj`, hiddenSize, feedForwardSize); // (B, T, F)
  const up = project(builder, normed, `${name}.up_proj`, hiddenSize, feedForwardSize);
  const active = g.mul(g.mul(gate, g.sigmoid(gate)), up);
  return g.add(x, project(builder, active, `${name}.down_proj`, feedForwardSize, hiddenSize));
}
