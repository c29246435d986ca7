/**
 * float32 narrowed to stored number formats. Rounding is that of the tools that users compare with: halves to the
 * nearest even as NumPy and PyTorch do, Q8_0 as the Python package gguf (quants.py, Q8_0.quantize_blocks), which is
 * what llama.cpp's convert_hf_to_gguf.py writes.
 */
import { StillhouseError } from '../../contracts/errors.ts';
import { BF16, F16, F32, Q8_0, type NumberFormat } from './dequantize.ts';

export interface NumberEncoder {
  readonly format: NumberFormat;
  /** `values` are whole blocks of the format. The bytes may share memory with `values`. */
  readonly encode: (values: Float32Array) => Uint8Array;
}

const bytesOf = (values: Float32Array | Float16Array | Uint16Array): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

function narrowToBfloat16(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i += 1) {
    const one = bits[i] ?? 0;
    // A NaN stays one: rounding could carry it into infinity.
    out[i] = (one & 0x7fffffff) > 0x7f800000 ? (one >>> 16) | 64 : (one + 0x7fff + ((one >>> 16) & 1)) >>> 16;
  }
  return bytesOf(out);
}

const { fround } = Math;

/** One scale d = max|x| / 127 for each block; q = x / d rounded half away from zero. All steps in float32, d stored as a half. */
function quantizeQ8_0(values: Float32Array): Uint8Array {
  const { blockValues, blockBytes } = Q8_0;
  if (values.length % blockValues !== 0) throw new StillhouseError('INTERNAL', `Q8_0: expected whole blocks of ${blockValues} values, got ${values.length}`);
  const blocks = values.length / blockValues;
  const out = new Uint8Array(blocks * blockBytes);
  const signed = new Int8Array(out.buffer);
  const scales = new Float16Array(1);
  const scaleBytes = new Uint8Array(scales.buffer);
  for (let block = 0; block < blocks; block += 1) {
    const from = block * blockValues;
    let largest = 0;
    for (let i = 0; i < blockValues; i += 1) largest = Math.max(largest, Math.abs(values[from + i] ?? 0));
    const scale = fround(largest / 127);
    const inverse = scale === 0 ? 0 : fround(1 / scale);
    const at = block * blockBytes;
    scales[0] = scale;
    out.set(scaleBytes, at);
    for (let i = 0; i < blockValues; i += 1) {
      const quotient = fround((values[from + i] ?? 0) * inverse);
      const magnitude = Math.abs(quotient);
      const floor = Math.floor(magnitude);
      const rounded = floor + Math.floor(fround(2 * fround(magnitude - floor)));
      signed[at + 2 + i] = quotient < 0 ? -rounded : rounded;
    }
  }
  return out;
}

export type EncodedType = 'f32' | 'f16' | 'bf16' | 'q8_0';

export const ENCODERS: { readonly [Type in EncodedType]: NumberEncoder } = {
  f32: { format: F32, encode: bytesOf },
  f16: { format: F16, encode: (values) => bytesOf(new Float16Array(values)) },
  bf16: { format: BF16, encode: narrowToBfloat16 },
  q8_0: { format: Q8_0, encode: quantizeQ8_0 },
};
