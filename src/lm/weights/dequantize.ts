/**
 * Stored number formats widened to float32. The quantised layouts are ggml's (ggml-common.h and
 * dequantize_row_* of ggml-quants.c): blocks of 32 values with a half-precision scale, and for Q4_1
 * a half-precision minimum.
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
      out[block * QUANT_BLOCK + i] = scale * (pair & 15) + minimum;
      out[block * QUANT_BLOCK + i + 16] = scale * (pair >> 4) + minimum;
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
