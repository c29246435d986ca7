/** Metadata of a GGUF file as numbers of an architecture: each checked, each error with its key. */
import { StillhouseError } from '../../contracts/errors.ts';
import { MAX_LAYERS } from '../config.ts';
import type { ArchitectureName, ModelConfig, RotaryScaling } from '../config.ts';
import type { GgufFile, GgufValue } from './gguf.ts';

export class GgufMetadata {
  readonly file: GgufFile;
  readonly #prefix: string;

  /** Keys are read below `prefix`, the value of general.architecture. */
  constructor(file: GgufFile, prefix: string) {
    this.file = file;
    this.#prefix = prefix;
  }

  value(key: string): GgufValue | undefined {
    return this.file.metadata.get(`${this.#prefix}.${key}`);
  }

  fail(key: string, expected: string, got: unknown): StillhouseError {
    return new StillhouseError('BAD_INPUT', `${this.file.path}, ${this.#prefix}.${key}: expected ${expected}, got ${JSON.stringify(got)?.slice(0, 80) ?? 'nothing'}`);
  }

  /** A positive number. */
  number(key: string, fallback?: number): number {
    const value = this.value(key) ?? fallback;
    if (typeof value !== 'number' || !Number.isFinite(value) || !(value > 0)) throw this.fail(key, 'a positive number', value);
    return value;
  }

  /** A positive integer. */
  integer(key: string, fallback?: number): number {
    const value = this.number(key, fallback);
    if (!Number.isSafeInteger(value)) throw this.fail(key, 'a positive integer', value);
    return value;
  }
}

function rotaryScaling(metadata: GgufMetadata, headSize: number): RotaryScaling | undefined {
  const divisors = metadata.file.tensors.get('rope_freqs.weight');
  if (divisors !== undefined) {
    if (divisors.shape.length !== 1 || divisors.shape[0] !== headSize / 2) throw metadata.fail('rope_freqs.weight', `a tensor of ${headSize / 2} values`, divisors.shape);
    return { kind: 'divisors', divisors: [...divisors.read()] };
  }
  const kind = metadata.value('rope.scaling.type') ?? 'none';
  if (kind === 'none') return undefined;
  if (kind !== 'linear') throw metadata.fail('rope.scaling.type', 'none or linear', kind);
  return { kind: 'linear', factor: metadata.number('rope.scaling.factor') };
}

/** What all architectures say alike. */
export function commonGgufConfig(metadata: GgufMetadata, architecture: ArchitectureName, defaults: { readonly rotaryBase: number }): ModelConfig {
  const { file } = metadata;
  const layers = metadata.integer('block_count');
  if (layers > MAX_LAYERS) throw metadata.fail('block_count', `at most ${MAX_LAYERS}`, layers);
  const hiddenSize = metadata.integer('embedding_length');
  const attentionHeads = metadata.integer('attention.head_count');
  const headSize = metadata.integer('attention.key_length', hiddenSize / attentionHeads);
  if (headSize % 2 !== 0) throw metadata.fail('attention.key_length', 'an even head size', headSize);
  const values = metadata.integer('attention.value_length', headSize);
  if (values !== headSize) throw metadata.fail('attention.value_length', `the head size ${headSize}`, values);
  const rotated = metadata.integer('rope.dimension_count', headSize);
  if (rotated !== headSize) throw metadata.fail('rope.dimension_count', `the head size ${headSize}`, rotated);
  const vocabularySize = file.tensors.get('token_embd.weight')?.shape[0];
  if (vocabularySize === undefined) throw new StillhouseError('CORRUPT', `${file.path}: expected a tensor token_embd.weight, got none`);
  const scaling = rotaryScaling(metadata, headSize);
  return {
    architecture,
    layers,
    hiddenSize,
    attentionHeads,
    keyValueHeads: metadata.integer('attention.head_count_kv', attentionHeads),
    headSize,
    feedForwardSize: metadata.integer('feed_forward_length'),
    vocabularySize,
    normEpsilon: metadata.number('attention.layer_norm_rms_epsilon'),
    rotary: { base: metadata.number('rope.freq_base', defaults.rotaryBase), ...(scaling === undefined ? {} : { scaling }) },
    tiedEmbeddings: !file.tensors.has('output.weight'),
    maxPositions: metadata.integer('context_length'),
  };
}
