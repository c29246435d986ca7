/** GGUF, version 3 (ggml docs/gguf.md), streamed: the header first, then each tensor a few rows at a time. */
import { StillhouseError } from '../../contracts/errors.ts';
import type { NumberEncoder } from '../weights/encode.ts';
import { elementCount } from '../weights/tensor-file.ts';
import type { OutputFolder } from './output-folder.ts';

export type GgufEntry =
  | readonly [key: string, type: 'uint32' | 'float32', value: number]
  | readonly [key: string, type: 'bool', value: boolean]
  | readonly [key: string, type: 'string', value: string]
  | readonly [key: string, type: 'strings', value: readonly string[]]
  | readonly [key: string, type: 'int32s' | 'float32s', value: readonly number[]];

export interface GgufTensor {
  readonly name: string;
  /** Outermost first. */
  readonly shape: readonly number[];
  readonly encoder: NumberEncoder;
  readonly blocks: () => Iterable<Float32Array>;
}

const VERSION = 3;
const ALIGNMENT_BYTES = 32;
/** gguf_metadata_value_type. */
const VALUE_TYPE = { uint32: 4, int32: 5, float32: 6, bool: 7, string: 8, array: 9 } as const;
/** ggml_type of the formats that are written. */
const TENSOR_TYPE: Readonly<Record<string, number>> = { F32: 0, F16: 1, Q8_0: 8, BF16: 30 };

function bytesOf(length: number, fill: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.alloc(length);
  fill(bytes);
  return bytes;
}
const uint32 = (value: number): Buffer => bytesOf(4, (bytes) => bytes.writeUInt32LE(value));
const uint64 = (value: number): Buffer => bytesOf(8, (bytes) => bytes.writeBigUInt64LE(BigInt(value)));
const float32 = (value: number): Buffer => bytesOf(4, (bytes) => bytes.writeFloatLE(value));
const int32 = (value: number): Buffer => bytesOf(4, (bytes) => bytes.writeInt32LE(value));
const text = (value: string): Buffer => Buffer.concat([uint64(Buffer.byteLength(value)), Buffer.from(value)]);
const array = (type: number, values: readonly Buffer[]): Buffer => Buffer.concat([uint32(VALUE_TYPE.array), uint32(type), uint64(values.length), ...values]);

/** Type and value. */
function encodeValue([, type, value]: GgufEntry): Buffer {
  switch (type) {
    case 'uint32':
      return Buffer.concat([uint32(VALUE_TYPE.uint32), uint32(value)]);
    case 'float32':
      return Buffer.concat([uint32(VALUE_TYPE.float32), float32(value)]);
    case 'bool':
      return Buffer.concat([uint32(VALUE_TYPE.bool), Buffer.from([value ? 1 : 0])]);
    case 'string':
      return Buffer.concat([uint32(VALUE_TYPE.string), text(value)]);
    case 'strings':
      return array(VALUE_TYPE.string, value.map(text));
    case 'int32s':
      return array(VALUE_TYPE.int32, value.map(int32));
    case 'float32s':
      return array(VALUE_TYPE.float32, value.map(float32));
  }
}

const sizeOf = ({ shape, encoder: { format } }: GgufTensor): number => (elementCount(shape) / format.blockValues) * format.blockBytes;
const padded = (sizeBytes: number): number => Math.ceil(sizeBytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;

function header(entries: readonly GgufEntry[], tensors: readonly GgufTensor[]): Buffer {
  let offset = 0;
  const infos = tensors.map((tensor) => {
    const { name, shape, encoder } = tensor;
    const type = TENSOR_TYPE[encoder.format.name];
    if (type === undefined) throw new StillhouseError('INTERNAL', `tensor ${name}: expected one of ${Object.keys(TENSOR_TYPE).join(', ')}, got ${encoder.format.name}`);
    // ggml lists the innermost dimension first.
    const info = Buffer.concat([text(name), uint32(shape.length), ...shape.toReversed().map(uint64), uint32(type), uint64(offset)]);
    offset += padded(sizeOf(tensor));
    return info;
  });
  const metadata = entries.map((entry) => Buffer.concat([text(entry[0]), encodeValue(entry)]));
  return Buffer.concat([Buffer.from('GGUF'), uint32(VERSION), uint64(tensors.length), uint64(entries.length), ...metadata, ...infos]);
}

export async function writeGguf(folder: OutputFolder, name: string, entries: readonly GgufEntry[], tensors: readonly GgufTensor[]): Promise<void> {
  await folder.file(name, async (file) => {
    await file.write(header(entries, tensors));
    for (const tensor of tensors) {
      await file.pad(ALIGNMENT_BYTES);
      const end = file.sizeBytes + sizeOf(tensor);
      for (const values of tensor.blocks()) await file.write(tensor.encoder.encode(values));
      if (file.sizeBytes !== end) throw new StillhouseError('INTERNAL', `${name}, tensor ${tensor.name}: expected ${sizeOf(tensor)} bytes, got ${sizeOf(tensor) + file.sizeBytes - end}`);
    }
    await file.pad(ALIGNMENT_BYTES);
  });
}
