/**
 * Keys and values of rows that generate together. The runtime reads them where they lie; those of new tokens are
 * written behind, so that a step copies what is new and nothing else.
 */
import { Tensor } from 'onnxruntime-node';
import type { ModelConfig } from './config.ts';

/** Room grows by a quarter, and by no less: attention runs over the room, not over the tokens. */
const GROWTH = 1.25;
const ROOM_STEP_TOKENS = 32;

export class RowCache {
  /** Tokens of each row. */
  readonly lengths: number[];
  readonly #config: ModelConfig;
  /** C: tokens that a row has room for. */
  #capacity = 0;
  /** For each layer key and value: (rows, K, C, D). */
  #buffers: readonly Float32Array<ArrayBuffer>[];

  constructor(config: ModelConfig, rows: number, capacity = 0) {
    this.#config = config;
    this.lengths = Array.from({ length: rows }, () => 0);
    this.#capacity = capacity;
    this.#buffers = this.#allocate(capacity);
  }

  get capacity(): number {
    return this.#capacity;
  }

  /** Rows `first` to `first + rows` − 1, key and value of each layer: (rows, K, C, D) over the same memory. */
  tensors(first: number, rows: number): readonly Tensor[] {
    const row = this.#rowLength(this.#capacity);
    const dims = [rows, this.#config.keyValueHeads, this.#capacity, this.#config.headSize];
    return this.#buffers.map((buffer) => new Tensor('float32', buffer.subarray(first * row, (first + rows) * row), dims));
  }

  /** Makes room for `tokens` tokens in every row. */
  reserve(tokens: number): void {
    if (tokens <= this.#capacity) return;
    const capacity = Math.ceil(Math.max(tokens, this.#capacity * GROWTH) / ROOM_STEP_TOKENS) * ROOM_STEP_TOKENS;
    const grown = this.#allocate(capacity);
    this.#buffers.forEach((buffer, i) => {
      this.lengths.forEach((length, row) => copyTokens({ buffer, capacity: this.#capacity, row }, { buffer: grown[i] as Float32Array, capacity, row }, length, this.#config));
    });
    this.#buffers = grown;
    this.#capacity = capacity;
  }

  /** Puts `fresh`, for each layer key and value (rows, K, T, D), behind the tokens of rows `first` and after. */
  append(first: number, rows: number, tokens: number, fresh: readonly Float32Array[]): void {
    this.reserve(Math.max(...this.lengths.slice(first, first + rows)) + tokens);
    const { keyValueHeads, headSize } = this.#config;
    const part = tokens * headSize;
    this.#buffers.forEach((buffer, i) => {
      const source = fresh[i] as Float32Array;
      for (let b = 0; b < rows; b += 1) {
        for (let head = 0; head < keyValueHeads; head += 1) {
          const from = (b * keyValueHeads + head) * part;
          const to = (((first + b) * keyValueHeads + head) * this.#capacity + (this.lengths[first + b] as number)) * headSize;
          buffer.set(source.subarray(from, from + part), to);
        }
      }
    });
    for (let b = 0; b < rows; b += 1) this.lengths[first + b] = (this.lengths[first + b] as number) + tokens;
  }

  /** Row `to` becomes what row `from` is. */
  moveRow(from: number, to: number): void {
    const row = this.#rowLength(this.#capacity);
    for (const buffer of this.#buffers) buffer.copyWithin(to * row, from * row, (from + 1) * row);
    this.lengths[to] = this.lengths[from] as number;
  }

  clearRow(row: number): void {
    this.lengths[row] = 0;
  }

  /** Row `row` becomes row 0 of `prefix`. */
  startRow(row: number, prefix: RowCache): void {
    const length = prefix.lengths[0] as number;
    this.reserve(length);
    this.#buffers.forEach((buffer, i) =>
      copyTokens({ buffer: prefix.#buffers[i] as Float32Array, capacity: prefix.#capacity, row: 0 }, { buffer, capacity: this.#capacity, row }, length, this.#config),
    );
    this.lengths[row] = length;
  }

  #rowLength(capacity: number): number {
    return this.#config.keyValueHeads * capacity * this.#config.headSize;
  }

  #allocate(capacity: number): readonly Float32Array<ArrayBuffer>[] {
    return Array.from({ length: this.#config.layers * 2 }, () => new Float32Array(this.lengths.length * this.#rowLength(capacity)));
  }
}

interface Place {
  readonly buffer: Float32Array;
  readonly capacity: number;
  readonly row: number;
}

/** The first `tokens` tokens of a row, head by head. */
function copyTokens(from: Place, to: Place, tokens: number, { keyValueHeads, headSize }: ModelConfig): void {
  for (let head = 0; head < keyValueHeads; head += 1) {
    const start = (from.row * keyValueHeads + head) * from.capacity * headSize;
    to.buffer.set(from.buffer.subarray(start, start + tokens * headSize), (to.row * keyValueHeads + head) * to.capacity * headSize);
  }
}
