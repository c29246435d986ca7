/** One runtime session over a model: prefill, packed scoring and decoding are runs of the same graph. */
import { randomUUID } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { StillhouseError } from '../contracts/errors.ts';
import { Graph } from '../graph/graph.ts';
import { toOnnx } from '../graph/serialize.ts';
import { withAdapter, type LoraAdapter } from './adapter.ts';
import { decoderInputs, weightConstants } from './architectures/decoder.ts';
import { decoder, decoderLogits } from './architectures/registry.ts';
import type { ModelConfig, WeightFile } from './config.ts';

/** Longest prompt with its answer. Bounds the rotary tables and the attention scores of one run. */
const MAX_CONTEXT_TOKENS = 8_192;

/** What the cache of a model with sliding windows holds besides: (B, P). */
const POSITIONS = 'positions';

/** Keys and values of every layer, key before value: (B, K, P, D) each; with sliding windows also the positions. */
export interface Cache {
  readonly tensors: readonly Tensor[];
  readonly tokens: number;
}

export interface RunInput {
  readonly batch: number; // B
  readonly tokens: number; // T
  readonly ids: BigInt64Array; // (B, T)
  readonly positions: BigInt64Array; // (B, T)
  readonly mask: Float32Array; // (B, 1, T, P + T)
  readonly cache: Cache;
  /** Rows of (B·T) whose logits are computed: (R). */
  readonly logitRows: readonly number[];
  /** Tokens whose log-probability is wanted, and for each the index into `logitRows` it follows. */
  readonly targets?: { readonly rows: readonly number[]; readonly ids: readonly number[] };
}

export interface RunWanted {
  readonly logits?: boolean;
  readonly cache?: boolean;
}
export interface RunOutput {
  /** (R, V); empty unless wanted. */
  readonly logits: Float32Array;
  /** Natural-log probabilities of the targets. */
  readonly targetLogProbs: Float32Array;
  readonly cache: Cache | undefined;
}

function buildGraph(config: ModelConfig, weights: WeightFile, adapter: LoraAdapter | undefined, contextTokens: number): Uint8Array {
  const g = new Graph();
  const constants = weightConstants(g, weights);
  const weight = adapter === undefined ? constants : withAdapter(g, constants, adapter);
  const { hidden, present, presentPositions } = decoder(g, config, weight, decoderInputs(g, config, { past: true }), { contextTokens });
  const logits = decoderLogits(g, config, weight, hidden, g.input('logitRows', 'int64', ['R']));
  const targetRows = g.input('targetRows', 'int64', ['N']);
  const targetIds = g.input('targetIds', 'int64', ['N']);
  g.output('logits', logits);
  g.output('targetLogProbs', g.neg(g.crossEntropy(g.gather(logits, targetRows), targetIds)));
  present.forEach(({ key, value }, layer) => {
    g.output(`present.${layer}.key`, key);
    g.output(`present.${layer}.value`, value);
  });
  if (presentPositions !== undefined) g.output(`present.${POSITIONS}`, presentPositions);
  return toOnnx(g, 'decoder');
}

/** The runtime resolves external data beside the model's file, so the graph is put there while it loads. */
async function createSession(bytes: Uint8Array, folder: string, threads: number): Promise<InferenceSession> {
  const path = join(folder, `graph-${randomUUID()}.onnx`);
  try {
    writeFileSync(path, bytes);
    return await InferenceSession.create(path, {
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      enableMemPattern: false,
      graphOptimizationLevel: 'all',
      logSeverityLevel: 3,
    });
  } catch (cause) {
    throw new StillhouseError('INTERNAL', `model graph: expected the runtime to load it, got: ${String(cause)}`, { cause });
  } finally {
    rmSync(path, { force: true });
  }
}

const int64 = (values: readonly number[], dims: readonly number[]): Tensor => new Tensor('int64', BigInt64Array.from(values, BigInt), dims);

export class Engine implements AsyncDisposable {
  readonly config: ModelConfig;
  readonly contextTokens: number;
  readonly #session: InferenceSession;
  readonly #cacheNames: string[];

  constructor(config: ModelConfig, contextTokens: number, session: InferenceSession) {
    this.config = config;
    this.contextTokens = contextTokens;
    this.#session = session;
    this.#cacheNames = Array.from({ length: config.layers }, (_, layer) => [`${layer}.key`, `${layer}.value`]).flat();
    if (config.slidingWindow !== undefined) this.#cacheNames.push(POSITIONS);
  }

  /** A cache of no tokens. */
  emptyCache(batch: number): Cache {
    const { keyValueHeads, headSize } = this.config;
    const empty = new Tensor('float32', new Float32Array(0), [batch, keyValueHeads, 0, headSize]);
    const noPositions = new Tensor('int64', new BigInt64Array(0), [batch, 0]);
    return { tensors: this.#cacheNames.map((name) => (name === POSITIONS ? noPositions : empty)), tokens: 0 };
  }

  async run(input: RunInput, wanted: RunWanted): Promise<RunOutput> {
    const { batch, tokens, cache, targets = { rows: [0], ids: [0] } } = input;
    const feeds: Record<string, Tensor> = {
      ids: new Tensor('int64', input.ids, [batch, tokens]),
      positions: new Tensor('int64', input.positions, [batch, tokens]),
      mask: new Tensor('float32', input.mask, [batch, 1, tokens, cache.tokens + tokens]),
      logitRows: int64(input.logitRows, [input.logitRows.length]),
      targetRows: int64(targets.rows, [targets.rows.length]),
      targetIds: int64(targets.ids, [targets.ids.length]),
    };
    this.#cacheNames.forEach((name, index) => {
      feeds[`past.${name}`] = cache.tensors[index] as Tensor;
    });
    const fetches = ['targetLogProbs', ...(wanted.logits === true ? ['logits'] : []), ...(wanted.cache === true ? this.#cacheNames.map((name) => `present.${name}`) : [])];
    const outputs = await this.#session.run(feeds, fetches);
    return {
      logits: wanted.logits === true ? (outputs['logits']?.data as Float32Array) : new Float32Array(0),
      targetLogProbs: outputs['targetLogProbs']?.data as Float32Array,
      cache: wanted.cache === true ? { tensors: this.#cacheNames.map((name) => outputs[`present.${name}`] as Tensor), tokens: cache.tokens + tokens } : undefined,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session.release();
  }
}

export interface CreateEngineInput {
  readonly config: ModelConfig;
  readonly weights: WeightFile;
  readonly adapter?: LoraAdapter;
  readonly threads: number;
}

export async function createEngine(input: CreateEngineInput): Promise<Engine> {
  const { config, weights, adapter, threads } = input;
  const unknown = [...(adapter?.pairs.keys() ?? [])].find((name) => !weights.tensors.has(name));
  if (unknown !== undefined) throw new StillhouseError('BAD_INPUT', `adapter: expected weights of the model, got ${unknown}`);
  const contextTokens = Math.min(config.maxPositions, MAX_CONTEXT_TOKENS);
  const session = await createSession(buildGraph(config, weights, adapter, contextTokens), dirname(weights.path), threads);
  return new Engine(config, contextTokens, session);
}
