/**
 * Stored number formats widened to float32. The quantised layouts are ggml's (ggml-common.h and
 * dequantize_row_* of ggml-quants.c): blocks of 32 values with a half-precision scale and, where the name
 * ends in _1, a half-precision minimum; blocks of 256 values (k-quants) with scales of parts besides.
 * Products are rounded to float32 where ggml rounds them.
 */

/** float32 of every half-precision bit pattern, so that widening is one look-up. */
const HALF_VALUES: Float32Array = (() => {
  const table = new Float32Array(65_536);
  for (let bits = 0; bits < 65_536; bits += 1) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 0x1f;
    const fraction = bits & 0x3ff;
    if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) table[bits] = fraction === 0 ? sign * Infinity : NaN;
    else table[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return table;
})();

export const halfToFloat = (bits: number): number => HALF_VALUES[bits] ?? NaN;

export interface NumberFormat {
  readonly name: string;
  /** Values and bytes of one block; 1 value for plain types. */
  readonly blockValues: number;
  readonly blockBytes: number;
  readonly widen: (bytes: Buffer, count: number) => Float32Array;
}

const QUANT_BLOCK = 32;
const K_BLOCK = 256;
/** Values of a k-quant block that share a scale and a minimum; of Q6_K, a scale. */
const K_PART = 32;
const Q6_K_PART = 16;
/** Bytes that hold the scales and minima of the eight parts of Q4_K and Q5_K. */
const K_SCALES_BYTES = 12;

const { fround } = Math;

function widenFloat32(bytes: Buffer, count: number): Float32Array {
  // The bytes come from an allocation of their own, so the offset is a multiple of four.
  return new Float32Array(bytes.buffer, bytes.byteOffset, count);
}

function widenFloat16(bytes: Buffer, count: number): Float32Array {
  const out = new Float32Array(count);
  for (let i = 0; i < count; i += 1) out[i] = halfToFloat(bytes.readUInt16LE(2 * i));
  return out;
}

function widenBfloat16(bytes: Buffer, count: number): Float32Array {
  const out = new Uint32Array(count);
  for (let i = 0; i < count; i += 1) out[i] = bytes.readUInt16LE(2 * i) << 16;
  return new Float32Array(out.buffer);
}

/** value = scale · q, q a signed byte. */
function widenQ8_0(bytes: Buffer, count: number): Float32Array {
  const out = new Float32Array(count);
  for (let block = 0, at = 0; block < count / QUANT_BLOCK; block += 1, at += 34) {
    const scale = halfToFloat(bytes.readUInt16LE(at));
    for (let i = 0; i < QUANT_BLOCK; i += 1) out[block * QUANT_BLOCK + i] = scale * (((bytes[at + 2 + i] ?? 0) << 24) >> 24);
  }
  return out;
}

/** value = scale · (q − 8); a byte holds value i in its low nibble and value i + 16 in its high one. */
function widenQ4_0(bytes: Buffer, count: number): Float32Array {
  const out = new Float32Array(count);
  for (let block = 0, at = 0; block < count / QUANT_BLOCK; block += 1, at += 18) {
    const scale = halfToFloat(bytes.readUInt16LE(at));
    for (let i = 0; i < 16; i += 1) {
      const pair = bytes[at + 2 + i] ?? 0;
      out[block * QUANT_BLOCK + i] = scale * ((pair & 15) - 8);
      out[block * QUANT_BLOCK + i + 16] = scale * ((pair >> 4) - 8);
    }
  }
  return out;
}

/** value = scale · q + minimum, nibbles as in Q4_0. */
function widenQ4_1(bytes: Buffer, count: number): Float32Array {
  const out = new Float32Array(count);
  for (let block = 0, at = 0; block < count / QUANT_BLOCK; block += 1, at += 20) {
    const scale = halfToFloat(bytes.readUInt16LE(at));
    const minimum = halfToFloat(bytes.readUInt16LE(at + 2));
    for (let i = 0; i < 16; i += 1) {
      const pair = bytes[at + 4 + i] ?? 0;
      out[block * QUANT_BLOCK + i] = fround(scale * (pair & 15)) + minimum;
      out[block * QUANT_BLOCK + i + 16] = fround(scale * (pair >> 4)) + minimum;
    }
  }
  return out;
}

/** Adds bit 4 of each value to Q4_0 and Q4_1: bit i of four bytes before the nibbles belongs to value i. */
function widenQ5(hasMinimum: boolean): NumberFormat['widen'] {
  const blockBytes = hasMinimum ? 24 : 22;
  const bitsAt = hasMinimum ? 4 : 2;
  return (bytes, count) => {
    const out = new Float32Array(count);
    for (let block = 0, at = 0; block < count / QUANT_BLOCK; block += 1, at += blockBytes) {
      const scale = halfToFloat(bytes.readUInt16LE(at));
      // value = scale · q + minimum, or scale · (q − 16)
      const minimum = hasMinimum ? halfToFloat(bytes.readUInt16LE(at + 2)) : 0;
      const zero = hasMinimum ? 0 : 16;
      const bits = bytes.readUInt32LE(at + bitsAt);
      for (let i = 0; i < 16; i += 1) {
        const pair = bytes[at + bitsAt + 4 + i] ?? 0;
        const low = (pair & 15) | (((bits >>> i) & 1) << 4);
        const high = (pair >> 4) | (((bits >>> (i + 16)) & 1) << 4);
        out[block * QUANT_BLOCK + i] = fround(scale * (low - zero)) + minimum;
        out[block * QUANT_BLOCK + i + 16] = fround(scale * (high - zero)) + minimum;
      }
    }
    return out;
  };
}

/** Six-bit scale and minimum of part j of Q4_K and Q5_K (get_scale_min_k4): the last four borrow the upper bits of the first eight bytes. */
function partScale(bytes: Buffer, at: number, j: number): readonly [scale: number, minimum: number] {
  const byte = (i: number): number => bytes[at + i] ?? 0;
  if (j < 4) return [byte(j) & 63, byte(j + 4) & 63];
  return [(byte(j + 4) & 15) | ((byte(j - 4) >> 6) << 4), (byte(j + 4) >> 4) | ((byte(j) >> 6) << 4)];
}

/**
 * value = d · scale · q − dmin · minimum. Nibbles of part 2k are the low ones of 32 bytes, of part 2k + 1 the
 * high ones of the same; bit j of 32 bytes before them is bit 4 of part j in Q5_K.
 */
function widenK(hasFifthBit: boolean): NumberFormat['widen'] {
  const bitsAt = 4 + K_SCALES_BYTES;
  const nibblesAt = bitsAt + (hasFifthBit ? K_PART : 0);
  const blockBytes = nibblesAt + K_BLOCK / 2;
  return (bytes, count) => {
    const out = new Float32Array(count);
    for (let block = 0, at = 0; block < count / K_BLOCK; block += 1, at += blockBytes) {
      const d = halfToFloat(bytes.readUInt16LE(at));
      const dmin = halfToFloat(bytes.readUInt16LE(at + 2));
      for (let part = 0; part < K_BLOCK / K_PART; part += 1) {
        const [partFactor, partMinimum] = partScale(bytes, at + 4, part);
        const scale = fround(d * partFactor);
        const minimum = fround(dmin * partMinimum);
        const from = at + nibblesAt + (part >> 1) * K_PART;
        const shift = (part & 1) * 4;
        const to = block * K_BLOCK + part * K_PART;
        for (let i = 0; i < K_PART; i += 1) {
          const fifth = hasFifthBit ? (((bytes[at + bitsAt + i] ?? 0) >> part) & 1) << 4 : 0;
          out[to + i] = fround(scale * ((((bytes[from + i] ?? 0) >> shift) & 15) | fifth)) - minimum;
        }
      }
    }
    return out;
  };
}

/**
 * value = d · scale · (q − 32), 16 values to a signed scale. Of each half of 128 values, 64 bytes hold low nibbles
 * of four runs of 32 (low, low, high, high) and 32 bytes two upper bits of each run; scales and d come last.
 */
function widenQ6_K(bytes: Buffer, count: number): Float32Array {
  const out = new Float32Array(count);
  for (let block = 0, at = 0; block < count / K_BLOCK; block += 1, at += 210) {
    const d = halfToFloat(bytes.readUInt16LE(at + 208));
    for (let run = 0; run < 8; run += 1) {
      const half = run >> 2;
      const quarter = run & 3;
      const low = at + half * 64 + (quarter & 1) * 32;
      const high = at + 128 + half * 32;
      const nibbleShift = (quarter >> 1) * 4;
      for (let i = 0; i < 32; i += 1) {
        const index = run * 32 + i;
        const scale = fround(d * (((bytes[at + 192 + Math.floor(index / Q6_K_PART)] ?? 0) << 24) >> 24));
        const q = (((bytes[low + i] ?? 0) >> nibbleShift) & 15) | ((((bytes[high + i] ?? 0) >> (2 * quarter)) & 3) << 4);
        out[block * K_BLOCK + index] = scale * (q - 32);
      }
    }
  }
  return out;
}

export const F32: NumberFormat = { name: 'F32', blockValues: 1, blockBytes: 4, widen: widenFloat32 };
export const F16: NumberFormat = { name: 'F16', blockValues: 1, blockBytes: 2, widen: widenFloat16 };
export const BF16: NumberFormat = { name: 'BF16', blockValues: 1, blockBytes: 2, widen: widenBfloat16 };
export const Q4_0: NumberFormat = { name: 'Q4_0', blockValues: QUANT_BLOCK, blockBytes: 18, widen: widenQ4_0 };
export const Q4_1: NumberFormat = { name: 'Q4_1', blockValues: QUANT_BLOCK, blockBytes: 20, widen: widenQ4_1 };
export const Q8_0: NumberFormat = { name: 'Q8_0', blockValues: QUANT_BLOCK, blockBytes: 34, widen: widenQ8_0 };
export const Q5_0: NumberFormat = { name: 'Q5_0', blockValues: QUANT_BLOCK, blockBytes: 22, widen: widenQ5(false) };
export const Q5_1: NumberFormat = { name: 'Q5_1', blockValues: QUANT_BLOCK, blockBytes: 24, widen: widenQ5(true) };
export const Q4_K: NumberFormat = { name: 'Q4_K', blockValues: K_BLOCK, blockBytes: 144, widen: widenK(false) };
export const Q5_K: NumberFormat = { name: 'Q5_K', blockValues: K_BLOCK, blockBytes: 176, widen: widenK(true) };
export const Q6_K: NumberFormat = { name: 'Q6_K', blockValues: K_BLOCK, blockBytes: 210, widen: widenQ6_K };
