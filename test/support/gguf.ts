/** A GGUF writer of the tests' own (ggml docs/gguf.md, version 3). */

export const u32 = (value: number): Buffer => { const b = Buffer.alloc(4); b.writeUInt32LE(value); return b; };
export const u64 = (value: number | bigint): Buffer => { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(value)); return b; };
export const f32 = (value: number): Buffer => { const b = Buffer.alloc(4); b.writeFloatLE(value); return b; };
export const text = (value: string): Buffer => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);

export const stringEntry = (key: string, value: string): Buffer => Buffer.concat([text(key), u32(8), text(value)]);
export const uintEntry = (key: string, value: number): Buffer => Buffer.concat([text(key), u32(4), u32(value)]);
export const floatEntry = (key: string, value: number): Buffer => Buffer.concat([text(key), u32(6), f32(value)]);
export const boolEntry = (key: string, value: boolean): Buffer => Buffer.concat([text(key), u32(7), Buffer.from([value ? 1 : 0])]);
const arrayEntry = (key: string, type: number, values: readonly Buffer[]): Buffer => Buffer.concat([text(key), u32(9), u32(type), u64(values.length), ...values]);
export const stringsEntry = (key: string, values: readonly string[]): Buffer => arrayEntry(key, 8, values.map(text));
export const floatsEntry = (key: string, values: readonly number[]): Buffer => arrayEntry(key, 6, values.map(f32));
export const uintsEntry = (key: string, values: readonly number[]): Buffer => arrayEntry(key, 4, values.map(u32));

export interface GgufTensorBytes {
  readonly name: string;
  /** Outermost first. */
  readonly shape: readonly number[];
  /** ggml_type. */
  readonly type: number;
  readonly bytes: Uint8Array;
}

const ALIGNMENT = 32;
const padded = (length: number): number => Math.ceil(length / ALIGNMENT) * ALIGNMENT;

export function ggufBytes(entries: readonly Buffer[], tensors: readonly GgufTensorBytes[]): Buffer {
  let offset = 0;
  const infos = tensors.map(({ name, shape, type, bytes }) => {
    const info = Buffer.concat([text(name), u32(shape.length), ...shape.toReversed().map(u64), u32(type), u64(offset)]);
    offset += padded(bytes.length);
    return info;
  });
  const header = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(entries.length), ...entries, ...infos]);
  const start = padded(header.length);
  const out = Buffer.alloc(start + offset);
  header.copy(out);
  let at = start;
  for (const { bytes } of tensors) {
    out.set(bytes, at);
    at += padded(bytes.length);
  }
  return out;
}
