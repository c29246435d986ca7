/** What every weight format offers: named tensors that are read one at a time, as float32. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { StillhouseError } from '../../contracts/errors.ts';

/** A tensor that lies in a file. `read` fetches and widens it; nothing is kept. */
export interface StoredTensor {
  readonly name: string;
  /** Row-major, outermost first. */
  readonly shape: readonly number[];
  /** The type as stored, in the format's own spelling. */
  readonly storedAs: string;
  readonly read: () => Float32Array;
}

export const elementCount = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

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
