/**
 * What decoders are made of: inputs, attention (grouped queries after Ainslie et al. 2023, rotary positions,
 * sliding windows), gated feed-forward layers, normalisation. An architecture puts the parts in its order.
 * Letters as in src/lm/model.ts; S = P + T tokens that can be attended to.
 */
import { basename } from 'node:path';
import { StillhouseError } from '../../contracts/errors.ts';
import type { Precision } from '../../contracts/precision.ts';
import type { Graph } from '../../graph/graph.ts';
import type { FloatValue, IntValue } from '../../graph/ops.ts';
import { addDims, formatShape, multiplyDims, sameShape } from '../../graph/shape.ts';
import type { Dim, Shape } from '../../graph/shape.ts';
import type { ModelConfig, WeightFile } from '../config.ts';
import { rotaryTables } from './rotary.ts';
import type { RotaryTables } from './rotary.ts';

/** What a mask adds where attention must not look. Finite, so that a fully masked row stays a number. */
export const MASKED = -1e9;

export interface KeyValue {
  /** (B, K, tokens, D), keys after rotation. */
  readonly key: FloatValue;
  readonly value: FloatValue;
}

export interface DecoderInputs {
  /** (B, T) */
  readonly ids: IntValue;
  /** (B, T), counted from the start of each sample. */
  readonly positions: IntValue;
  /** (B, 1, T, S) added to the attention scores. Sliding windows are narrowed further by the graph itself. */
  readonly mask: FloatValue;
  /** One for each layer: (B, K, P, D). */
  readonly past?: readonly KeyValue[];
  /** (B, P); of models with sliding windows. */
  readonly pastPositions?: IntValue;
  /**
   * (2): P and T. With it the past is read where it lies and never copied: what comes back are the keys and values
   * of the new tokens alone, and past entries that hold none are the mask's business. For inference: not differentiable.
   */
  readonly lengths?: IntValue;
  /**
   * (BLOCKS): tokens of each block that attention takes at a time, T in all. The queries of a block meet no key that comes after it,
   * so that less is multiplied than the mask then hides. For rows without a past.
   */
  readonly blocks?: IntValue;
}

/** Two save a quarter of attention's products, at the cost of cutting queries and keys. */
const BLOCKS = 2;
const blockNames = Array.from({ length: BLOCKS }, (_, i) => `T${i}`);

/** The tokens of each block of a row of `width`. */
export const blockLengths = (width: number): readonly number[] => blockNames.map((_, i) => Math.floor((width * (i + 1)) / BLOCKS) - Math.floor((width * i) / BLOCKS));

/** What the symbols of a graph with blocks stand for where rows have `width` tokens. */
export const blockSizes = (width: number): Readonly<Record<string, number>> => Object.fromEntries(blockLengths(width).map((length, i) => [blockNames[i] as string, length]));

/**
 * Gives a weight as a graph value by its Hugging Face name, checked against `shape`. `as`: the value's name in the graph, for
 * a second use of a tensor that the runtime may arrange in its own way without keeping the first use's pages for it.
 */
export type WeightLookup = (name: string, shape: Shape, as?: string) => FloatValue;

/** What a projection computes. `name` is the weight's without `.weight`; `base` gives x·Wᵀ, with its bias where there is one, (…, out) of x (…, in). */
export type LinearHook = (projection: { readonly name: string; readonly x: FloatValue; readonly base: () => FloatValue; readonly inSize: number; readonly outSize: number }) => FloatValue;

/** The external constants of a graph whose session finds `weights.path` in its folder. */
export function weightConstants(g: Graph, weights: WeightFile): WeightLookup {
  const location = basename(weights.path);
  return (name, shape, as = name) => {
    const tensor = weights.tensors.get(name);
    if (tensor === undefined) throw new StillhouseError('NOT_FOUND', `${weights.path}: expected a tensor ${name} ${formatShape(shape)}, got none`);
    if (!sameShape(tensor.shape, shape)) throw new StillhouseError('BAD_INPUT', `${weights.path}: expected ${name} of shape ${formatShape(shape)}, got ${formatShape(tensor.shape)}`);
    return g.external(as, shape, { location, offsetBytes: tensor.offsetBytes, lengthBytes: tensor.lengthBytes });
  };
}

/**
 * Graph inputs `ids`, `positions`, `mask` and, with `past`, `past.N.key`, `past.N.value` and for models with
 * sliding windows `past.positions`; B is a symbol unless given. `apart`: `lengths` besides, `blocks`: `blocks`, see there.
 */
export function decoderInputs(g: Graph, config: ModelConfig, options: { readonly batch?: number; readonly past?: boolean; readonly apart?: boolean; readonly blocks?: boolean } = {}): DecoderInputs {
  const batch: Dim = options.batch ?? 'B';
  const tokens: Dim = options.blocks === true ? addDims(blockNames) : 'T';
  const withPast = options.past === true || options.apart === true;
  const cache: Shape = [batch, config.keyValueHeads, 'P', config.headSize];
  return {
    ids: g.input('ids', 'int64', [batch, tokens]),
    positions: g.input('positions', 'int64', [batch, tokens]),
    mask: g.input('mask', 'float32', [batch, 1, tokens, withPast ? addDims(['P', tokens]) : tokens]),
    ...(withPast
      ? { past: Array.from({ length: config.layers }, (_, layer) => ({ key: g.input(`past.${layer}.key`, 'float32', cache), value: g.input(`past.${layer}.value`, 'float32', cache) })) }
      : {}),
    ...(options.apart === true ? { lengths: g.input('lengths', 'int64', [2]) } : {}),
    ...(options.blocks === true ? { blocks: g.input('blocks', 'int64', [BLOCKS]) } : {}),
    ...(withPast && config.slidingWindow !== undefined ? { pastPositions: g.input('past.positions', 'int64', [batch, 'P']) } : {}),
  };
}

/** How the layers of one kind see their context. */
interface AttentionScope {
  readonly rotary: RotaryTables;
  /** Of each block (B, 1, G·T, S), of its queries and the keys that they may meet: the mask once for each query head of a group. */
  readonly groupMasks: readonly FloatValue[];
}

/** A decoder under construction: what its parts share. */
export interface Decoder {
  readonly g: Graph;
  readonly config: ModelConfig;
  readonly weight: WeightLookup;
  readonly linear: LinearHook;
  /** x: (…, in), a weight (out, in) → (…, out). */
  readonly product: (x: FloatValue, weight: FloatValue) => FloatValue;
  readonly positions: IntValue;
  /** (B, S), where it is known: positions of all that can be attended to. */
  readonly keyPositions: IntValue | undefined;
  /** (2): P and T, where the past stays apart. */
  readonly lengths: IntValue | undefined;
  readonly blocks: IntValue | undefined;
  /** Marks attention shares as made again in a backward pass, where keeping those of all layers would take too much. */
  readonly shares: (build: () => FloatValue) => FloatValue;
  readonly scope: (layer: number) => AttentionScope;
}

export interface DecoderOptions {
  /** Called for each projection of each layer; LoRA adds its own branch here. */
  readonly linear?: LinearHook;
  /** Of the products with the projections' weights. Default: float32. */
  readonly precision?: Precision;
  /** Positions in the rotary tables. A position beyond them is an error of the runtime. */
  readonly contextTokens: number;
}

/** Attention shares of all layers at the longest row, without what blocks spare: up to this, they are kept for the backward pass. */
const KEPT_SHARES_BYTES = 2 ** 29;

export function beginDecoder(g: Graph, config: ModelConfig, weight: WeightLookup, inputs: DecoderInputs, options: DecoderOptions): Decoder {
  const { attentionHeads, keyValueHeads, headSize, slidingWindow } = config;
  const group = attentionHeads / keyValueHeads;
  if (!Number.isInteger(group)) throw new StillhouseError('BAD_INPUT', `model: expected attention heads to be a multiple of key/value heads, got ${attentionHeads} and ${keyValueHeads}`);
  const { contextTokens } = options;
  const { positions, pastPositions } = inputs;
  const keyPositions = inputs.past === undefined ? positions : pastPositions === undefined ? undefined : g.concat([pastPositions, positions], 1);
  const grouped = (mask: FloatValue): readonly FloatValue[] =>
    cut(g, mask, 2, inputs.blocks).map((rows, block) => {
      const met = upTo(g, rows, 3, inputs.blocks, block);
      return g.concat(Array.from({ length: group }, () => met), 2);
    });
  const whole: AttentionScope = { rotary: rotaryTables(g, config.rotary, headSize, contextTokens), groupMasks: grouped(inputs.mask) };
  const local = (): AttentionScope => {
    const { tokens, rotary } = slidingWindow as NonNullable<typeof slidingWindow>;
    const narrow = contextTokens > tokens && keyPositions !== undefined;
    return {
      rotary: rotaryTables(g, rotary, headSize, contextTokens),
      groupMasks: narrow ? grouped(g.add(inputs.mask, windowMask(g, positions, keyPositions, tokens, contextTokens))) : whole.groupMasks,
    };
  };
  const window = slidingWindow?.layers.includes(true) === true ? local() : undefined;
  return {
    g,
    config,
    weight,
    linear: options.linear ?? (({ base }) => base()),
    product: (x, matrix) => (options.precision === 'float16' ? g.halfMatMul(x, matrix, { transB: true }) : g.matMul(x, matrix, { transB: true })),
    positions,
    keyPositions,
    lengths: inputs.lengths,
    blocks: inputs.blocks,
    shares: 4 * config.layers * attentionHeads * contextTokens ** 2 > KEPT_SHARES_BYTES ? (build) => g.recomputed(build) : (build) => build(),
    scope: (layer) => (window !== undefined && slidingWindow?.layers[layer] === true ? window : whole),
  };
}

/** The blocks of a value along one axis; the value itself where there are none. */
const cut = (g: Graph, x: FloatValue, axis: number, blocks: IntValue | undefined): readonly FloatValue[] => (blocks === undefined ? [x] : g.split(x, axis, blockNames, blocks));

/** What of a value lies in a block and those before it. */
const upTo = (g: Graph, x: FloatValue, axis: number, blocks: IntValue | undefined, block: number): FloatValue =>
  blocks === undefined || block === BLOCKS - 1 ? x : g.concat(cut(g, x, axis, blocks).slice(0, block + 1), axis);

/** (B, 1, T, S): MASKED where a key lies `tokens` or more before its query. */
function windowMask(g: Graph, positions: IntValue, keyPositions: IntValue, tokens: number, contextTokens: number): FloatValue {
  const distance = g.sub(g.unsqueeze(positions, [2]), g.unsqueeze(keyPositions, [1])); // (B, T, S)
  // Indexed by distance; a negative one, of a key after its query, counts from the end of the table.
  const byDistance = new Float32Array(2 * contextTokens).fill(MASKED, tokens, contextTokens);
  return g.unsqueeze(g.gather(g.floats(byDistance, [2 * contextTokens]), distance), [1]);
}

/** x: (…, size) divided by its root mean square and multiplied by the weight `name`; `offset` is added to the weight. */
export function norm(d: Pick<Decoder, 'g' | 'config' | 'weight'>, x: FloatValue, name: string, size: number, offset = 0): FloatValue {
  const { g, config } = d;
  const weight = d.weight(`${name}.weight`, [size]);
  return g.recomputed(() => g.rmsNorm(x, offset === 0 ? weight : g.add(weight, g.scalar(offset)), config.normEpsilon));
}

/** Is it the weight of a projection, by its Hugging Face name? */
export const isProjectionWeight = (name: string): boolean => name.endsWith('_proj.weight');

export function project(d: Decoder, x: FloatValue, name: string, sizes: readonly [inSize: number, outSize: number], bias = false): FloatValue {
  const { g, weight, linear } = d;
  const [inSize, outSize] = sizes;
  const product = (): FloatValue => d.product(x, weight(`${name}.weight`, [outSize, inSize]));
  const base = (): FloatValue => (bias ? g.add(product(), weight(`${name}.bias`, [outSize])) : product());
  return linear({ name, x, base, inSize, outSize });
}

export interface AttentionOptions {
  /** Do the projections of queries, keys and values have biases? */
  readonly bias?: boolean;
  /** Are queries and keys normalised head by head, and what is added to the weights of that? */
  readonly headNorm?: { readonly offset: number };
}

/** x: (B, T, H), normalised already → (B, T, H), and the keys and values that the next tokens attend to. */
export function attention(d: Decoder, x: FloatValue, layer: number, past: KeyValue | undefined, options: AttentionOptions = {}): { readonly output: FloatValue; readonly present: KeyValue } {
  const { g, config } = d;
  const { hiddenSize: H, attentionHeads, keyValueHeads, headSize } = config;
  const { rotary, groupMasks } = d.scope(layer);
  const name = `model.layers.${layer}.self_attn`;
  const [batch, tokens] = x.shape as readonly [Dim, Dim, Dim];
  const heads = (v: FloatValue, count: number): FloatValue => g.transpose(g.reshape(v, [batch, tokens, count, headSize]), [0, 2, 1, 3]); // (B, heads, T, D)
  const rotated = (which: 'q' | 'k', count: number): FloatValue => {
    const projected = project(d, x, `${name}.${which}_proj`, [H, count * headSize], options.bias);
    return g.rotary(options.headNorm === undefined ? projected : headNorm(d, projected, `${name}.${which}_norm`, count, options.headNorm.offset), d.positions, rotary.cos, rotary.sin);
  };
  const query = rotated('q', attentionHeads);
  const newKeys = heads(rotated('k', keyValueHeads), keyValueHeads);
  const newValues = heads(project(d, x, `${name}.v_proj`, [H, keyValueHeads * headSize], options.bias), keyValueHeads);
  const fresh: KeyValue = { key: newKeys, value: newValues };
  // Keys and values in the parts that lie together: (B, K, …, D), the sum of whose tokens is S.
  const parts: readonly KeyValue[] =
    past === undefined ? [fresh] : d.lengths === undefined ? [{ key: g.concat([past.key, newKeys], 2), value: g.concat([past.value, newValues], 2) }] : [past, fresh];
  const alpha = config.attentionScale ?? 1 / Math.sqrt(headSize);
  // One block after another; without blocks all tokens are one.
  const mixed = cut(g, heads(query, attentionHeads), 2, d.blocks).map((block, i) => {
    const rows = multiplyDims([attentionHeads / keyValueHeads, block.shape[2] as Dim]); // G·T
    const queries = g.reshape(block, [batch, keyValueHeads, rows, headSize]);
    const met = g.recomputed(() => parts.map(({ key, value }) => ({ key: upTo(g, key, 2, d.blocks, i), value: upTo(g, value, 2, d.blocks, i) })));
    // (B, K, G·T, S)
    const shares = d.shares(() => g.softmax(g.add(g.concat(met.map(({ key }) => g.matMul(queries, key, { transB: true, alpha })), 3), groupMasks[i] as FloatValue)));
    const split = d.lengths === undefined || met.length === 1 ? [shares] : g.split(shares, 3, met.map(({ key }) => key.shape[2] as Dim), d.lengths);
    const mix = met.map(({ value }, part) => g.matMul(split[part] as FloatValue, value)).reduce((sum, part) => g.add(sum, part)); // (B, K, G·T, D)
    return g.reshape(mix, block.shape, block);
  });
  const joined = g.transpose(g.concat(mixed, 2, d.blocks), [0, 2, 1, 3]); // (B, T, heads, D)
  const flat = g.reshape(joined, [batch, tokens, attentionHeads * headSize]);
  return { output: project(d, flat, `${name}.o_proj`, [attentionHeads * headSize, H]), present: parts.at(-1) ?? fresh };
}

/** x: (B, T, heads·D), each head normalised by itself. */
function headNorm(d: Decoder, x: FloatValue, name: string, heads: number, offset: number): FloatValue {
  const { headSize } = d.config;
  const [batch, tokens] = x.shape as readonly [Dim, Dim, Dim];
  const split = d.g.reshape(x, [batch, tokens, heads, headSize]);
  return d.g.reshape(norm(d, split, name, headSize, offset), [batch, tokens, heads * headSize]);
}

/** The tanh form of GELU: x·½(1 + tanh z) = x·σ(2z) with z = √(2/π)·(x + 0.044715 x³). */
export function geluTanh(g: Graph, x: FloatValue): FloatValue {
  const slope = 2 * Math.sqrt(2 / Math.PI);
  const doubled = g.mul(x, g.add(g.mul(g.mul(x, x), g.scalar(0.044715 * slope)), g.scalar(slope)));
  return g.mul(x, g.sigmoid(doubled));
}

/** x: (B, T, H), normalised already → down(activation(gate(x)) · up(x)) (Shazeer 2020). */
export function feedForward(d: Decoder, x: FloatValue, layer: number, activation: (g: Graph, x: FloatValue) => FloatValue): FloatValue {
  const { g } = d;
  const { hiddenSize: H, feedForwardSize: F } = d.config;
  const name = `model.layers.${layer}.mlp`;
  const gate = project(d, x, `${name}.gate_proj`, [H, F]); // (B, T, F)
  const up = project(d, x, `${name}.up_proj`, [H, F]);
  return project(d, g.recomputed(() => g.mul(activation(g, gate), up)), `${name}.down_proj`, [F, H]);
}
