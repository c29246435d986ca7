/**
 * GGUF, versions 2 and 3 (ggml docs/gguf.md). The header is parsed with every length checked against
 * the file before it is used; tensors are read when asked for.
 */
import { StillhouseError } from '../../contracts/errors.ts';
import { BF16, F16, F32, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, type NumberFormat } from './dequantize.ts';
import { BoundedFile, corrupt, elementCount, fileTensor, refuseOverlaps, shown, type StoredTensor } from './tensor-file.ts';

export type GgufValue = string | number | boolean | readonly GgufValue[];

export interface GgufFile extends Disposable {
  readonly path: string;
  readonly sizeBytes: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/** ggml_type numbers that can be read; the others are named so that the error can say what it met. */
const READABLE_TYPES: ReadonlyMap<number, NumberFormat> = new Map([
  [0, F32], [1, F16], [2, Q4_0], [3, Q4_1], [6, Q5_0], [7, Q5_1], [8, Q8_0], [12, Q4_K], [13, Q5_K], [14, Q6_K], [30, BF16],
]);
const OTHER_TYPES: ReadonlyMap<number, string> = new Map([
  [9, 'Q8_1'], [10, 'Q2_K'], [11, 'Q3_K'], [15, 'Q8_K'], [16, 'IQ2_XXS'], [17, 'IQ2_XS'], [18, 'IQ3_XXS'], [20, 'IQ4_NL'], [23, 'IQ4_XS'],
]);

const WINDOW_BYTES = 1 << 20;
const MAX_DIMENSIONS = 4;
const MAX_ARRAY_DEPTH = 4;

/** Reads forward through the header in windows; refuses lengths that the file cannot hold. */
class HeaderReader {
  readonly #file: BoundedFile;
  #window: Buffer = Buffer.alloc(0);
  #windowStart = 0;
  #at = 0;

  constructor(file: BoundedFile) {
    this.#file = file;
  }

  get position(): number {
    return this.#windowStart + this.#at;
  }

  /** Refuses before anything is allocated for bytes that the file does not have. */
  require(length: number, what: string): void {
    const left = this.#file.sizeBytes - this.position;
    if (length > left) throw this.fail(what, `${length} bytes`, `${left} before the end of the file`);
  }

  fail(what: string, expected: string, got: string): StillhouseError {
    return corrupt(`${this.#file.path}, ${what} at byte ${this.position}`, expected, got);
  }

  /** The next `length` bytes; valid until the next call. */
  take(length: number, what: string): Buffer {
    if (this.#at + length > this.#window.length) {
      const start = this.position;
      this.require(length, what);
      const left = this.#file.sizeBytes - start;
      this.#window = this.#file.read(start, Math.min(left, Math.max(WINDOW_BYTES, length)), what);
      this.#windowStart = start;
      this.#at = 0;
    }
    this.#at += length;
    return this.#window.subarray(this.#at - length, this.#at);
  }

  uint32(what: string): number {
    return this.take(4, what).readUInt32LE(0);
  }

  /** A 64-bit number that JavaScript can hold exactly. */
  uint64(what: string): number {
    return this.#exact(this.take(8, what).readBigUInt64LE(0), what);
  }

  int64(what: string): number {
    return this.#exact(this.take(8, what).readBigInt64LE(0), what);
  }

  text(what: string): string {
    return this.take(this.uint64(`${what}, length`), what).toString('utf8');
  }

  #exact(value: bigint, what: string): number {
    const number = Number(value);
    if (!Number.isSafeInteger(number)) throw this.fail(what, 'an integer below 2^53', value.toString());
    return number;
  }
}

/** gguf_metadata_value_type: the reader of each, and the fewest bytes that one value takes. */
const ARRAY_TYPE = 9;
const VALUE_TYPES: readonly { readonly minBytes: number; readonly read: (header: HeaderReader, what: string) => GgufValue }[] = [
  { minBytes: 1, read: (header, what) => header.take(1, what).readUInt8(0) },
  { minBytes: 1, read: (header, what) => header.take(1, what).readInt8(0) },
  { minBytes: 2, read: (header, what) => header.take(2, what).readUInt16LE(0) },
  { minBytes: 2, read: (header, what) => header.take(2, what).readInt16LE(0) },
  { minBytes: 4, read: (header, what) => header.uint32(what) },
  { minBytes: 4, read: (header, what) => header.take(4, what).readInt32LE(0) },
  { minBytes: 4, read: (header, what) => header.take(4, what).readFloatLE(0) },
  { minBytes: 1, read: (header, what) => header.take(1, what).readUInt8(0) !== 0 },
  { minBytes: 8, read: (header, what) => header.text(what) },
  { minBytes: 12, read: (header, what) => readArray(header, what, 1) },
  { minBytes: 8, read: (header, what) => header.uint64(what) },
  { minBytes: 8, read: (header, what) => header.int64(what) },
  { minBytes: 8, read: (header, what) => header.take(8, what).readDoubleLE(0) },
];

function valueType(header: HeaderReader, what: string): { readonly number: number; readonly type: (typeof VALUE_TYPES)[number] } {
  const number = header.uint32(`${what}, type`);
  const type = VALUE_TYPES[number];
  if (type === undefined) throw header.fail(`${what}, type`, `a value type from 0 to ${VALUE_TYPES.length - 1}`, String(number));
  return { number, type };
}

function readArray(header: HeaderReader, what: string, depth: number): GgufValue {
  if (depth > MAX_ARRAY_DEPTH) throw header.fail(what, `at most ${MAX_ARRAY_DEPTH} nested arrays`, 'more');
  const { number, type } = valueType(header, what);
  const count = header.uint64(`${what}, count`);
  header.require(count * type.minBytes, what);
  const values: GgufValue[] = [];
  for (let i = 0; i < count; i += 1) values.push(number === ARRAY_TYPE ? readArray(header, what, depth + 1) : type.read(header, what));
  return values;
}

function readMetadata(header: HeaderReader, count: number): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < count; i += 1) {
    const key = header.text(`metadata key ${i}`);
    metadata.set(key, valueType(header, shown(key)).type.read(header, shown(key)));
  }
  return metadata;
}

interface TensorEntry {
  readonly name: string;
  readonly shape: readonly number[];
  readonly format: NumberFormat;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

function readTensorEntry(header: HeaderReader, index: number, path: string): TensorEntry {
  const name = header.text(`tensor ${index}, name`);
  const where = `tensor ${shown(name)}`;
  const dimensions = header.uint32(`${where}, dimensions`);
  if (dimensions < 1 || dimensions > MAX_DIMENSIONS) throw header.fail(where, `1 to ${MAX_DIMENSIONS} dimensions`, String(dimensions));
  // ggml lists the innermost dimension first.
  const shape = Array.from({ length: dimensions }, () => header.uint64(`${where}, size`)).reverse();
  const typeNumber = header.uint32(`${where}, type`);
  const format = READABLE_TYPES.get(typeNumber);
  const offsetBytes = header.uint64(`${where}, offset`);
  if (format === undefined) {
    const readable = [...READABLE_TYPES.values()].map((type) => type.name).join(', ');
    throw new StillhouseError('BAD_INPUT', `${path}, ${where}: expected one of ${readable}, got ${OTHER_TYPES.get(typeNumber) ?? `type ${typeNumber}`}`);
  }
  const values = elementCount(shape);
  if (!Number.isSafeInteger(values) || (shape.at(-1) ?? 0) % format.blockValues !== 0) {
    throw header.fail(where, `rows of whole blocks of ${format.blockValues} values`, `shape [${shape.join(', ')}]`);
  }
  return { name, shape, format, offsetBytes, lengthBytes: (values / format.blockValues) * format.blockBytes };
}

/** Parses the header. CORRUPT when the file is cut off or a length in it cannot be true; BAD_INPUT for a quantisation that is not supported. */
export function openGguf(path: string): GgufFile {
  const file = new BoundedFile(path);
  try {
    const header = new HeaderReader(file);
    const magic = header.take(4, 'magic').toString('latin1');
    if (magic !== 'GGUF') throw corrupt(`${path}, magic at byte 0`, '"GGUF"', JSON.stringify(magic));
    const version = header.uint32('version');
    if (version !== 2 && version !== 3) throw header.fail('version', '2 or 3', String(version));
    const tensorCount = header.uint64('tensor count');
    const metadata = readMetadata(header, header.uint64('metadata count'));
    const entries: TensorEntry[] = [];
    for (let i = 0; i < tensorCount; i += 1) entries.push(readTensorEntry(header, i, path));
    const alignment = metadata.get('general.alignment') ?? 32;
    if (typeof alignment !== 'number' || !Number.isInteger(alignment) || alignment < 1) {
      throw header.fail('general.alignment', 'a positive integer', JSON.stringify(alignment));
    }
    const dataStart = Math.ceil(header.position / alignment) * alignment;
    const tensors = new Map<string, StoredTensor>();
    for (const { name, shape, format, offsetBytes, lengthBytes } of entries) {
      const start = dataStart + offsetBytes;
      if (tensors.has(name)) throw corrupt(`${path}, tensor ${shown(name)}`, 'one of that name', 'two');
      if (start + lengthBytes > file.sizeBytes) {
        throw corrupt(`${path}, tensor ${shown(name)}`, `bytes ${start} to ${start + lengthBytes}`, `a file of ${file.sizeBytes} bytes`);
      }
      tensors.set(name, fileTensor(file, { name, shape, format, offsetBytes: start }));
    }
    refuseOverlaps(entries.map(({ name, offsetBytes, lengthBytes }) => ({ name, start: offsetBytes, end: offsetBytes + lengthBytes })), path);
    return { path, sizeBytes: file.sizeBytes, metadata, tensors, [Symbol.dispose]: () => file[Symbol.dispose]() };
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}
