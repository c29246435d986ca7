/** What every weight format offers: named tensors that are read one at a time, or a few rows at a time, as float32. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { StillhouseError } from '../../contracts/errors.ts';
import type { NumberFormat } from './dequantize.ts';

/** A tensor that lies in a file. Reading fetches and widens it; nothing is kept. */
export interface StoredTensor {
  readonly name: string;
  /** Row-major, outermost first. */
  readonly shape: readonly number[];
  /** The type as stored, in the format's own spelling. */
  readonly storedAs: string;
  /** Where its bytes lie in the file, as they are stored. */
  readonly place?: { readonly offsetBytes: number; readonly lengthBytes: number };
  readonly read: () => Float32Array;
  /** The same numbers as runs of whole rows, one after another, a few megabytes each. A run is valid until the next one is asked for. */
  readonly blocks: () => Iterable<Float32Array>;
}

type TensorParts = Pick<StoredTensor, 'name' | 'shape' | 'storedAs' | 'place'>;

/** Of one run of rows, unless a single row is longer. */
const BLOCK_VALUES = 1 << 20;

export const elementCount = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** Values of one row: what lies along the last dimension. */
export const rowLength = (shape: readonly number[]): number => shape.at(-1) ?? 1;

/** A tensor of which any run of rows can be read. */
export function rowsTensor(parts: TensorParts, readRows: (first: number, count: number) => Float32Array): StoredTensor {
  const columns = rowLength(parts.shape);
  const rows = columns === 0 ? 0 : elementCount(parts.shape) / columns;
  const step = Math.max(1, Math.floor(BLOCK_VALUES / Math.max(1, columns)));
  return {
    ...parts,
    read: () => readRows(0, rows),
    *blocks() {
      for (let first = 0; first < rows; first += step) yield readRows(first, Math.min(step, rows - first));
    },
  };
}

/** A tensor that can only be read whole. */
export const wholeTensor = (parts: TensorParts, read: () => Float32Array): StoredTensor => ({
  ...parts,
  read,
  *blocks() {
    yield read();
  },
});

/** The rows of a format lie one after another from `offsetBytes` on. */
export function fileTensor(file: BoundedFile, tensor: { readonly name: string; readonly shape: readonly number[]; readonly format: NumberFormat; readonly offsetBytes: number }): StoredTensor {
  const { name, shape, format, offsetBytes } = tensor;
  const columns = rowLength(shape);
  const rowBytes = (columns / format.blockValues) * format.blockBytes;
  const place = { offsetBytes, lengthBytes: columns === 0 ? 0 : (elementCount(shape) / columns) * rowBytes };
  return rowsTensor({ name, shape, storedAs: format.name, place }, (first, count) =>
    format.widen(file.read(offsetBytes + first * rowBytes, count * rowBytes, `tensor ${name}`), count * columns),
  );
}

export const corrupt = (where: string, expected: string, got: string): StillhouseError =>
  new StillhouseError('CORRUPT', `${where}: expected ${expected}, got ${got}`, { details: { where } });

/** Fills `target` from the file's bytes at `offsetBytes`; CORRUPT where it ends before. */
export function readFully(descriptor: number, target: Uint8Array, offsetBytes: number, where: string): void {
  let done = 0;
  while (done < target.byteLength) {
    const count = readSync(descriptor, target, done, Math.min(target.byteLength - done, 1 << 30), offsetBytes + done);
    if (count === 0) throw corrupt(where, `${target.byteLength} bytes at ${offsetBytes}`, `${done}`);
    done += count;
  }
}

/** What a file says of itself, short enough for a message. */
export const shown = (text: string): string => (text.length > 80 ? `${text.slice(0, 80)}…` : text);

/** CORRUPT when two tensors share bytes: no writer does that, and what one of them means would be a guess. */
export function refuseOverlaps(ranges: readonly { readonly name: string; readonly start: number; readonly end: number }[], path: string): void {
  const sorted = ranges.filter(({ start, end }) => end > start).toSorted((a, b) => a.start - b.start);
  for (const [i, range] of sorted.entries()) {
    const before = sorted[i - 1];
    if (before !== undefined && range.start < before.end) throw corrupt(`${path}, tensor ${shown(range.name)}`, `bytes of its own from ${before.end} on`, `${range.start}, inside ${shown(before.name)}`);
  }
}

/**
 * Random reads of one file that never leave it: a range beyond the end is CORRUPT, with the range in
 * the message, before anything is allocated.
 */
export class BoundedFile implements Disposable {
  readonly path: string;
  readonly sizeBytes: number;
  readonly #descriptor: number;

  constructor(path: string) {
    this.path = path;
    try {
      this.#descriptor = openSync(path, 'r');
    } catch (cause) {
      throw new StillhouseError('NOT_FOUND', `${path}: expected a readable weight file, got ${String((cause as NodeJS.ErrnoException).code)}`, { cause });
    }
    this.sizeBytes = fstatSync(this.#descriptor).size;
  }

  read(offsetBytes: number, lengthBytes: number, what: string): Buffer {
    if (!(offsetBytes >= 0 && lengthBytes >= 0 && offsetBytes + lengthBytes <= this.sizeBytes)) {
      throw corrupt(`${this.path}, ${what}`, `bytes ${offsetBytes} to ${offsetBytes + lengthBytes}`, `a file of ${this.sizeBytes} bytes`);
    }
    const buffer = Buffer.allocUnsafeSlow(lengthBytes);
    readFully(this.#descriptor, buffer, offsetBytes, `${this.path}, ${what}`);
    return buffer;
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }
}
