/** Bit streams, the most significant bit of each byte first, with the codes that soft targets need. */
import { StillhouseError } from '../../contracts/errors.ts';

const LONGEST_QUOTIENT = 12;

export class BitWriter {
  #bytes = new Uint8Array(1_024);
  #bit = 0;

  /** The lowest `count` bits of a whole number, at most 32. */
  write(value: number, count: number): void {
    this.#reserve(count);
    for (let left = count; left > 0; ) {
      const free = 8 - (this.#bit & 7);
      const taken = Math.min(free, left);
      const part = Math.floor(value / 2 ** (left - taken)) % 2 ** taken;
      const at = this.#bit >>> 3;
      this.#bytes[at] = (this.#bytes[at] as number) | (part << (free - taken));
      this.#bit += taken;
      left -= taken;
    }
  }

  /** Golomb–Rice: the quotient by 2^k in unary, then k bits (Rice 1979). */
  rice(value: number, k: number): void {
    for (let quotient = Math.floor(value / 2 ** k); quotient > 0; quotient -= Math.min(quotient, 31)) this.write(2 ** Math.min(quotient, 31) - 1, Math.min(quotient, 31));
    this.write(0, 1);
    this.write(value % 2 ** k, k);
  }

  /** The same while the quotient is below LONGEST_QUOTIENT; a larger value is told by so many ones, and in `width` bits. */
  limitedRice(value: number, k: number, width: number): void {
    if (Math.floor(value / 2 ** k) < LONGEST_QUOTIENT) this.rice(value, k);
    else {
      this.write(2 ** LONGEST_QUOTIENT - 1, LONGEST_QUOTIENT);
      this.write(value, width);
    }
  }

  /** Exponential Golomb of order k: short for small values, logarithmic for large ones (Teuhola 1978). */
  expGolomb(value: number, k: number): void {
    const shifted = value + 2 ** k;
    const length = 32 - Math.clz32(shifted);
    this.write(0, length - k - 1);
    this.write(shifted, length);
  }

  /** Filled up with zeros to a whole byte. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, Math.ceil(this.#bit / 8));
  }

  #reserve(bits: number): void {
    const needed = ((this.#bit + bits) >>> 3) + 1;
    if (needed <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, 2 * this.#bytes.length));
    grown.set(this.#bytes);
    this.#bytes = grown;
  }
}

export const riceBits = (value: number, k: number): number => Math.floor(value / 2 ** k) + 1 + k;
export const expGolombBits = (value: number, k: number): number => 2 * (32 - Math.clz32(value + 2 ** k)) - k - 1;
export const limitedRiceBits = (value: number, k: number, width: number): number => (Math.floor(value / 2 ** k) < LONGEST_QUOTIENT ? riceBits(value, k) : LONGEST_QUOTIENT + width);

export class BitReader {
  readonly #bytes: Uint8Array;
  readonly #end: number;
  #bit: number;

  /** Reads from byte `from` and never at or beyond byte `to`. */
  constructor(bytes: Uint8Array, from: number, to: number) {
    this.#bytes = bytes;
    this.#bit = from * 8;
    this.#end = to * 8;
  }

  read(count: number): number {
    if (this.#bit + count > this.#end) throw new StillhouseError('CORRUPT', `expected ${count} more bits of soft targets, got their end`);
    let value = 0;
    for (let left = count; left > 0; ) {
      const free = 8 - (this.#bit & 7);
      const taken = Math.min(free, left);
      value = value * 2 ** taken + (((this.#bytes[this.#bit >>> 3] as number) >>> (free - taken)) & (2 ** taken - 1));
      this.#bit += taken;
      left -= taken;
    }
    return value;
  }

  rice(k: number): number {
    let quotient = 0;
    while (this.read(1) === 1) quotient += 1;
    return quotient * 2 ** k + this.read(k);
  }

  expGolomb(k: number): number {
    let length = k + 1;
    while (this.read(1) === 0) length += 1;
    return 2 ** (length - 1) + this.read(length - 1) - 2 ** k;
  }

  limitedRice(k: number, width: number): number {
    for (let quotient = 0; quotient < LONGEST_QUOTIENT; quotient += 1) if (this.read(1) === 0) return quotient * 2 ** k + this.read(k);
    return this.read(width);
  }
}
