/**
 * Small models of every architecture whose weights are a recipe: bytes by the counter-based generator, turned into
 * numbers or into quantised blocks. fixtures/architectures_reference.py follows the same recipe in Python.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TrainingSample } from '../../src/training/packing.ts';
import { randomStream } from '../../src/training/random.ts';
import { floatEntry, ggufBytes, stringEntry, stringsEntry, uintEntry } from './gguf.ts';
import type { GgufTensorBytes } from './gguf.ts';

type NamedShape = readonly [name: string, shape: readonly number[]];
export interface LogitsReference {
  readonly positions: readonly number[];
  /** One row for each position, at the columns of the reference. */
  readonly logits: readonly (readonly number[])[];
  readonly logSumExp: readonly number[];
}
export interface ArchitectureReference {
  /** config.json as transformers wrote it. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly ggufMetadata: { readonly uint: Readonly<Record<string, number>>; readonly float: Readonly<Record<string, number>> };
  readonly rotaryDivisors?: readonly number[];
  readonly gguf: { readonly tensors: readonly NamedShape[]; readonly byType: Readonly<Record<string, LogitsReference>> };
  readonly huggingFace: { readonly tensors: readonly NamedShape[]; readonly logits: LogitsReference; readonly greedy: readonly GreedyReference[]; readonly hidden: readonly (readonly number[])[] };
  readonly training: {
    readonly first: { readonly lossNats: number; readonly gradients: Readonly<Record<string, { readonly norm: number; readonly every: readonly number[] }>> };
    readonly curve: readonly number[];
  };
}
/** What a folder is written from. */
export interface FolderReference {
  readonly config: ArchitectureReference['config'];
  readonly huggingFace: Pick<ArchitectureReference['huggingFace'], 'tensors'>;
}
export interface GreedyReference {
  readonly ids: readonly number[];
  readonly tokens: readonly number[];
  /** Of a chosen token over the next. */
  readonly leastMargin: number;
}
export interface Reference {
  readonly settings: Readonly<Record<'seed' | 'batchSize' | 'epochs' | 'learningRate' | 'warmupRatio' | 'maxGradientNorm' | 'weightDecay' | 'r' | 'alpha', number>>;
  readonly ids: readonly number[];
  readonly columns: readonly number[];
  readonly samples: readonly TrainingSample[];
  /** Blocks of each quantised type: the tensor index of the recipe, and what the Python package reads in them. */
  readonly blocks: Readonly<Record<string, { readonly index: number; readonly values: readonly number[] }>>;
  readonly architectures: Readonly<Record<string, ArchitectureReference>>;
}

export const readReference = (): Reference => JSON.parse(readFileSync(new URL('../numerics/fixtures/architectures-reference.json', import.meta.url), 'utf8')) as Reference;

const SEED = 23;
const WEIGHTS_STREAM = 700;

type Kind = 'matrix' | 'bias' | 'norm' | 'offset';
const kindOf = (name: string, offsetNorms: boolean): Kind => (name.endsWith('bias') ? 'bias' : !name.includes('norm') ? 'matrix' : offsetNorms ? 'offset' : 'norm');
const elements = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

function recipeBytes(count: number, index: number): Uint8Array {
  const random = randomStream(SEED, WEIGHTS_STREAM, index);
  return Uint8Array.from({ length: count }, (_, i) => Math.min(255, Math.floor(random.uniform(i) * 256)));
}

/** Numbers that float32, float16 and bfloat16 hold exactly. */
function plainValues(count: number, index: number, kind: Kind): Float32Array {
  const value = { matrix: (b: number) => (b - 128) / 1024, bias: (b: number) => (b - 128) / 512, norm: (b: number) => ((b % 64) - 32) / 128 + 1, offset: (b: number) => ((b % 64) - 32) / 128 }[kind];
  return Float32Array.from(recipeBytes(count, index), value);
}

/** ggml_type, values and bytes of a block, and byte, exponent field and sign of each half-precision scale in it. */
const QUANTISED: Readonly<Record<string, readonly [type: number, values: number, bytes: number, scales: readonly (readonly [at: number, exponent: number, negative: boolean])[]]>> = {
  Q4_0: [2, 32, 18, [[0, 9, false]]],
  Q4_1: [3, 32, 20, [[0, 9, false], [2, 12, true]]],
  Q5_0: [6, 32, 22, [[0, 8, false]]],
  Q5_1: [7, 32, 24, [[0, 8, false], [2, 12, true]]],
  Q8_0: [8, 32, 34, [[0, 5, false]]],
  Q4_K: [12, 256, 144, [[0, 4, false], [2, 7, false]]],
  Q5_K: [13, 256, 176, [[0, 3, false], [2, 7, false]]],
  Q6_K: [14, 256, 210, [[208, 2, false]]],
};
const PLAIN_TYPES: Readonly<Record<string, number>> = { F32: 0, F16: 1, BF16: 30 };
export const GGUF_TYPES = [...Object.keys(PLAIN_TYPES), ...Object.keys(QUANTISED)];

export function quantisedBytes(count: number, index: number, typeName: string): Uint8Array {
  const [, values, size, scales] = QUANTISED[typeName] ?? [0, 1, 0, []];
  const bytes = recipeBytes((count / values) * size, index);
  for (let block = 0; block < bytes.length; block += size) {
    for (const [at, exponent, negative] of scales) bytes[block + at + 1] = ((bytes[block + at + 1] ?? 0) & 3) | (exponent << 2) | (negative ? 128 : 0);
  }
  return bytes;
}

/** Exact for the recipe's numbers: none of them has more bits than the type. */
function encodePlain(values: Float32Array, typeName: string): Uint8Array {
  if (typeName === 'F32') return new Uint8Array(values.buffer);
  const halves = new Uint16Array(values.length);
  const bits = new Uint32Array(values.buffer);
  values.forEach((value, i) => {
    if (typeName === 'BF16') halves[i] = (bits[i] ?? 0) >>> 16;
    else if (value !== 0) {
      const exponent = Math.floor(Math.log2(Math.abs(value)));
      halves[i] = (value < 0 ? 0x8000 : 0) | ((exponent + 15) << 10) | (Math.abs(value) / 2 ** exponent - 1) * 1024;
    }
  });
  return new Uint8Array(halves.buffer);
}

function ggufTensor([name, shape]: NamedShape, index: number, typeName: string): GgufTensorBytes {
  const kind = kindOf(name, false);
  const quantised = kind === 'matrix' ? QUANTISED[typeName] : undefined;
  if (quantised !== undefined) return { name, shape, type: quantised[0], bytes: quantisedBytes(elements(shape), index, typeName) };
  const stored = kind === 'matrix' ? typeName : 'F32';
  return { name, shape, type: PLAIN_TYPES[stored] ?? 0, bytes: encodePlain(plainValues(elements(shape), index, kind), stored) };
}

const VOCABULARY = 96;
const tokenTexts = ['<|end|>', 'a', 'b', 'ab', ...Array.from({ length: VOCABULARY - 4 }, (_, i) => `t${i}`)];

/** Writes the model with matrices of this type; vectors are float32, as converters write them. */
export function writeGgufModel(path: string, name: string, reference: ArchitectureReference, typeName: string): string {
  const { uint, float } = reference.ggufMetadata;
  const entries = [
    stringEntry('general.architecture', name),
    ...Object.entries(uint).map(([key, value]) => uintEntry(`${name}.${key}`, value)),
    ...Object.entries(float).map(([key, value]) => floatEntry(`${name}.${key}`, value)),
    stringEntry('tokenizer.ggml.model', 'gpt2'),
    stringEntry('tokenizer.ggml.pre', 'smollm'),
    stringsEntry('tokenizer.ggml.tokens', tokenTexts),
    stringsEntry('tokenizer.ggml.merges', ['a b']),
    uintEntry('tokenizer.ggml.eos_token_id', 0),
  ];
  const tensors = reference.gguf.tensors.map((tensor, index) => ggufTensor(tensor, index, typeName));
  if (reference.rotaryDivisors !== undefined) {
    const values = Float32Array.from(reference.rotaryDivisors);
    tensors.push({ name: 'rope_freqs.weight', shape: [values.length], type: 0, bytes: new Uint8Array(values.buffer) });
  }
  writeFileSync(path, ggufBytes(entries, tensors));
  return path;
}

function safetensorsBytes(tensors: readonly { readonly name: string; readonly shape: readonly number[]; readonly bytes: Uint8Array }[], dtype: string): Buffer {
  let offset = 0;
  const header = Object.fromEntries(tensors.map(({ name, shape, bytes }) => [name, { dtype, shape, data_offsets: [offset, (offset += bytes.length)] }]));
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...tensors.map(({ bytes }) => bytes)]);
}

/** Writes a Hugging Face folder, in two shards with an index where `sharded`. */
export function writeFolderModel(folder: string, reference: FolderReference, dtype: 'F32' | 'F16' | 'BF16', sharded = false): string {
  mkdirSync(folder, { recursive: true });
  const place = (name: string, content: string | Uint8Array): void => writeFileSync(join(folder, name), content);
  const offsetNorms = reference.config['model_type'] === 'gemma3_text';
  const tensors = reference.huggingFace.tensors.map(([name, shape], index) => ({ name, shape, bytes: encodePlain(plainValues(elements(shape), index, kindOf(name, offsetNorms)), dtype) }));
  if (sharded) {
    const shards = [tensors.filter((_, i) => i % 2 === 0), tensors.filter((_, i) => i % 2 === 1)];
    const nameOf = (i: number): string => `model-0000${i + 1}-of-00002.safetensors`;
    shards.forEach((shard, i) => place(nameOf(i), safetensorsBytes(shard, dtype)));
    place('model.safetensors.index.json', JSON.stringify({ metadata: {}, weight_map: Object.fromEntries(shards.flatMap((shard, i) => shard.map(({ name }) => [name, nameOf(i)]))) }));
  } else place('model.safetensors', safetensorsBytes(tensors, dtype));
  place('config.json', JSON.stringify(reference.config));
  const vocab = Object.fromEntries(tokenTexts.map((token, id) => [token, id]));
  const added = [{ id: 0, content: '<|end|>', single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }];
  place('tokenizer.json', JSON.stringify({ version: '1.0', truncation: null, padding: null, added_tokens: added, normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, model: { type: 'BPE', vocab, merges: [['a', 'b']] } }));
  place('tokenizer_config.json', JSON.stringify({ eos_token: '<|end|>' }));
  return folder;
}
