/** One runtime session over a model: prefill, packed scoring and decoding are runs of the same graph. */
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import { StillhouseError } from '../contracts/errors.ts';
import type { Precision } from '../contracts/precision.ts';
import { Graph } from '../graph/graph.ts';
import { toOnnx } from '../graph/serialize.ts';
import { withAdapter, type LoraAdapter } from './adapter.ts';
import { decoderInputs, MASKED, weightConstants } from './architectures/decoder.ts';
import { decoder, decoderLogits } from './architectures/registry.ts';
import { RowCache } from './cache.ts';
import type { ModelConfig, WeightFile } from './config.ts';
import { createSession, type SessionOptions } from './session.ts';
import { requireHalfRange } from './half-range.ts';

/** Longest prompt with its answer. Bounds the rotary tables and the attention scores of one run. */
const MAX_CONTEXT_TOKENS = 8_192;

export interface RunInput {
  readonly batch: number; // B
  readonly tokens: number; // T
  readonly ids: BigInt64Array; // (B, T)
  /** What the rows have been before, and where `keep` puts what they are now. */
  readonly cache: RowCache;
  /** The first of the B rows of the cache. Default: 0. */
  readonly firstRow?: number;
  /** (B, T). Default: counted on from each row's past. */
  readonly positions?: BigInt64Array;
  /** (B, 1, T, C + T) added to the attention scores, C the cache's capacity. Default: each token sees its row's past and what of the row is before it. */
  readonly mask?: Float32Array;
  /** Rows of (B·T) whose logits are computed: (R). */
  readonly logitRows: readonly number[];
  /** Tokens whose log-probability is wanted, and for each the index into `logitRows` it follows. */
  readonly targets?: { readonly rows: readonly number[]; readonly ids: readonly number[] };
}

export interface RunWanted {
  readonly logits?: boolean;
  /** The cache takes up the new tokens. */
  readonly keep?: boolean;
  /** Layers whose hidden states are wanted: 0 is the embedding, n what layer n gives. */
  readonly hidden?: readonly number[];
}
export interface RunOutput {
  /** (R, V); empty unless wanted. */
  readonly logits: Float32Array;
  /** Natural-log probabilities of the targets. */
  readonly targetLogProbs: Float32Array;
  /** For each wanted layer (B, T, H), before the final normalisation. */
  readonly hidden: readonly Float32Array[];
}

function buildGraph({ config, weights, adapter, precision = 'float32' }: CreateEngineInput, contextTokens: number): Uint8Array {
  const g = new Graph();
  const constants = weightConstants(g, weights);
  const weight = adapter === undefined ? constants : withAdapter(g, constants, adapter);
  const { hidden, layerHidden, present } = decoder(g, config, weight, decoderInputs(g, config, { apart: true }), { contextTokens, precision });
  const logits = decoderLogits(g, config, weight, hidden, g.input('logitRows', 'int64', ['R']));
  const targetRows = g.input('targetRows', 'int64', ['N']);
  const targetIds = g.input('targetIds', 'int64', ['N']);
  g.output('logits', logits);
  g.output('targetLogProbs', g.neg(g.crossEntropy(g.gather(logits, targetRows), targetIds)));
  present.forEach(({ key, value }, layer) => {
    g.output(`present.${layer}.key`, key);
    g.output(`present.${layer}.value`, value);
  });
  layerHidden.forEach((value, layer) => g.output(`hidden.${layer}`, value));
  return toOnnx(g, 'decoder');
}

const int64 = (values: readonly number[], dims: readonly number[]): Tensor => new Tensor('int64', BigInt64Array.from(values, BigInt), dims);

/** The runtime computes a target where none is wanted too. */
const NO_TARGETS = { rows: [0], ids: [0] } as const;

/** (B, 1, T, C + T): the row's `past` tokens of C are open, and of the new ones those up to each. */
function causalMask(past: readonly number[], capacity: number, tokens: number): Float32Array {
  const span = capacity + tokens;
  const mask = new Float32Array(past.length * tokens * span);
  past.forEach((length, b) => {
    for (let t = 0; t < tokens; t += 1) {
      const at = (b * tokens + t) * span;
      mask.fill(MASKED, at + length, at + capacity);
      mask.fill(MASKED, at + capacity + t + 1, at + span);
    }
  });
  return mask;
}

export class Engine implements AsyncDisposable {
  readonly config: ModelConfig;
  readonly contextTokens: number;
  readonly #precision: Precision;
  readonly #session: InferenceSession;
  readonly #cacheNames: readonly string[];

  constructor({ config, precision = 'float32' }: Pick<CreateEngineInput, 'config' | 'precision'>, contextTokens: number, session: InferenceSession) {
    this.config = config;
    this.contextTokens = contextTokens;
    this.#precision = precision;
    this.#session = session;
    this.#cacheNames = Array.from({ length: config.layers }, (_, layer) => [`${layer}.key`, `${layer}.value`]).flat();
  }

  createCache(rows = 1, capacity = 0): RowCache {
    return new RowCache(this.config, rows, capacity);
  }

  async run(input: RunInput, wanted: RunWanted): Promise<RunOutput> {
    const { batch, tokens, cache, firstRow = 0 } = input;
    const hidden = (wanted.hidden ?? []).map((layer) => `hidden.${layer}`);
    const kept = wanted.keep === true ? this.#cacheNames.map((name) => `present.${name}`) : [];
    const outputs = await this.#session.run(this.#feeds(input, firstRow), ['targetLogProbs', ...(wanted.logits === true ? ['logits'] : []), ...kept, ...hidden]);
    const dataOf = (name: string): Float32Array => outputs[name]?.data as Float32Array;
    if (kept.length > 0) cache.append(firstRow, batch, tokens, kept.map(dataOf));
    const output = { logits: wanted.logits === true ? dataOf('logits') : new Float32Array(0), targetLogProbs: dataOf('targetLogProbs'), hidden: hidden.map(dataOf) };
    if (this.#precision === 'float16') this.#requireFinite(output);
    return output;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session.release();
  }

  /** A number that float16 does not hold spoils all logits of its row: one of each tells. */
  #requireFinite({ logits, targetLogProbs }: RunOutput): void {
    const seen = [...targetLogProbs, ...Array.from({ length: logits.length / this.config.vocabularySize }, (_, row) => logits[row * this.config.vocabularySize] as number)];
    const wrong = seen.find((value) => !Number.isFinite(value));
    if (wrong !== undefined) throw new StillhouseError('BAD_INPUT', `model, precision float16: expected finite logits, got ${wrong}: a number inside of it is beyond the range of float16; STILLHOUSE_PRECISION=float32 computes it`);
  }

  #feeds(input: RunInput, firstRow: number): Record<string, Tensor> {
    const { batch, tokens, cache, targets = NO_TARGETS } = input;
    const { capacity } = cache;
    const past = cache.lengths.slice(firstRow, firstRow + batch);
    const positions = input.positions ?? BigInt64Array.from({ length: batch * tokens }, (_, at) => BigInt((past[Math.floor(at / tokens)] as number) + (at % tokens)));
    const feeds: Record<string, Tensor> = {
      ids: new Tensor('int64', input.ids, [batch, tokens]),
      positions: new Tensor('int64', positions, [batch, tokens]),
      mask: new Tensor('float32', input.mask ?? causalMask(past, capacity, tokens), [batch, 1, tokens, capacity + tokens]),
      lengths: int64([capacity, tokens], [2]),
      logitRows: int64(input.logitRows, [input.logitRows.length]),
      targetRows: int64(targets.rows, [targets.rows.length]),
      targetIds: int64(targets.ids, [targets.ids.length]),
    };
    // A cached token's position is its place.
    if (this.config.slidingWindow !== undefined) feeds['past.positions'] = new Tensor('int64', BigInt64Array.from({ length: batch * capacity }, (_, at) => BigInt(at % capacity)), [batch, capacity]);
    const tensors = cache.tensors(firstRow, batch);
    this.#cacheNames.forEach((name, i) => (feeds[`past.${name}`] = tensors[i] as Tensor));
    return feeds;
  }
}

export interface CreateEngineInput extends SessionOptions {
  readonly config: ModelConfig;
  readonly weights: WeightFile;
  readonly adapter?: LoraAdapter;
  /** Default: float32. */
  readonly precision?: Precision;
}

export async function createEngine(input: CreateEngineInput): Promise<Engine> {
  const { config, weights, adapter, precision } = input;
  const unknown = [...(adapter?.pairs.keys() ?? [])].find((name) => !weights.tensors.has(name));
  if (unknown !== undefined) throw new StillhouseError('BAD_INPUT', `adapter: expected weights of the model, got ${unknown}`);
  if (precision === 'float16') requireHalfRange(weights);
  const contextTokens = Math.min(config.maxPositions, MAX_CONTEXT_TOKENS);
  return new Engine(input, contextTokens, await createSession(buildGraph(input, contextTokens), weights, input));
}
