/**
 * Safetensors (huggingface/safetensors, format section of the README): an unsigned 64-bit header
 * length, a JSON header, then the tensors' bytes.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { StillhouseError } from '../../contracts/errors.ts';
import { BF16, F16, F32, type NumberFormat } from './dequantize.ts';
import { isRecord, MAX_JSON_BYTES, parseJson, readJson } from './json.ts';
import { BoundedFile, corrupt, elementCount, fileTensor, refuseOverlaps, shown, type StoredTensor } from './tensor-file.ts';

export interface SafetensorsFile extends Disposable {
  readonly path: string;
  readonly sizeBytes: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

const READABLE_TYPES: ReadonlyMap<string, NumberFormat> = new Map([['F32', F32], ['F16', F16], ['BF16', BF16]]);
/** The format's own limit. */
const MAX_HEADER_BYTES = MAX_JSON_BYTES;

/** More than any model's tensor has. */
const MAX_DIMENSIONS = 8;

const isSizes = (value: unknown): value is number[] => Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && Number(size) >= 0);

function readHeader(file: BoundedFile): { readonly header: Record<string, unknown>; readonly dataStart: number } {
  const length = Number(file.read(0, 8, 'header length').readBigUInt64LE(0));
  if (length > MAX_HEADER_BYTES || 8 + length > file.sizeBytes) {
    throw corrupt(`${file.path}, header length`, `at most ${Math.min(MAX_HEADER_BYTES, file.sizeBytes - 8)} bytes`, String(length));
  }
  const text = file.read(8, length, 'header').toString('utf8');
  const header = parseJson(text, `${file.path}, header`);
  if (!isRecord(header)) throw corrupt(`${file.path}, header`, 'a JSON object', JSON.stringify(header).slice(0, 40));
  return { header, dataStart: 8 + length };
}

function storedTensor(file: BoundedFile, name: string, entry: unknown, dataStart: number): { readonly tensor: StoredTensor; readonly start: number; readonly end: number } {
  const where = `${file.path}, tensor ${shown(name)}`;
  if (!isRecord(entry) || !isSizes(entry['shape']) || entry['shape'].length > MAX_DIMENSIONS || !isSizes(entry['data_offsets']) || entry['data_offsets'].length !== 2 || typeof entry['dtype'] !== 'string') {
    throw corrupt(where, `dtype, shape of at most ${MAX_DIMENSIONS} dimensions and two data_offsets`, shown(JSON.stringify(entry) ?? 'nothing'));
  }
  const shape = entry['shape'];
  const format = READABLE_TYPES.get(entry['dtype']);
  if (format === undefined) {
    throw new StillhouseError('BAD_INPUT', `${where}: expected one of ${[...READABLE_TYPES.keys()].join(', ')}, got ${shown(entry['dtype'])}`);
  }
  const [from = -1, to = -1] = entry['data_offsets'];
  const lengthBytes = elementCount(shape) * format.blockBytes;
  if (to - from !== lengthBytes) throw corrupt(where, `${lengthBytes} bytes for [${shape.join(', ')}] ${format.name}`, `offsets ${from} to ${to}`);
  if (dataStart + to > file.sizeBytes) throw corrupt(where, `bytes up to ${dataStart + to}`, `a file of ${file.sizeBytes} bytes`);
  return { tensor: fileTensor(file, { name, shape, format, offsetBytes: dataStart + from }), start: dataStart + from, end: dataStart + to };
}

export function openSafetensors(path: string): SafetensorsFile {
  const file = new BoundedFile(path);
  try {
    const { header, dataStart } = readHeader(file);
    const { __metadata__: metadata = {}, ...entries } = header;
    if (!isRecord(metadata) || !Object.values(metadata).every((value) => typeof value === 'string')) throw corrupt(`${path}, __metadata__`, 'texts by name', shown(JSON.stringify(metadata)));
    const placed = Object.entries(entries).map(([name, entry]) => storedTensor(file, name, entry, dataStart));
    refuseOverlaps(placed.map(({ tensor, ...range }) => ({ ...range, name: tensor.name })), path);
    const tensors = new Map(placed.map(({ tensor }) => [tensor.name, tensor]));
    return { path, sizeBytes: file.sizeBytes, metadata: metadata as Record<string, string>, tensors, [Symbol.dispose]: () => file[Symbol.dispose]() };
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

/** In the folder itself: no separator, no parent, no longer than file systems take. */
const FILE_NAME = /^(?!\.{1,2}$)[^/\\\0]{1,255}$/;

/** The weight files of a Hugging Face folder: `model.safetensors`, or the shards that the index names. NOT_FOUND where neither is there. */
export function safetensorsPaths(folder: string): readonly string[] {
  const index = join(folder, 'model.safetensors.index.json');
  if (!existsSync(index)) {
    const single = join(folder, 'model.safetensors');
    if (existsSync(single)) return [single];
    const adapter = existsSync(join(folder, 'adapter_config.json')) ? ` a PEFT adapter alone, which \`still export --model NAME --adapter ${folder} --format safetensors FOLDER\` merges into its model` : ' neither';
    throw new StillhouseError('NOT_FOUND', `${folder}: expected model.safetensors or model.safetensors.index.json, got${adapter}`);
  }
  const parsed = readJson(index);
  const map = isRecord(parsed) ? parsed['weight_map'] : undefined;
  if (!isRecord(map)) throw corrupt(index, 'an object weight_map', shown(JSON.stringify(map) ?? 'nothing'));
  const names = [...new Set(Object.values(map))].map((name) => {
    if (typeof name !== 'string' || !FILE_NAME.test(name)) throw corrupt(`${index}, weight_map`, 'file names', shown(JSON.stringify(name) ?? 'nothing'));
    return name;
  });
  return names.toSorted((a, b) => (a < b ? -1 : 1)).map((name) => join(dirname(index), name));
}

export interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export interface HeaderTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly lengthBytes: number;
  /** dtype as safetensors spells it. */
  readonly type: string;
}

/** Length and header of a file whose tensors follow in the order of `sorted`: by name, padded to 8 bytes, so that equal tensors give equal bytes. */
export function safetensorsHeader<T extends HeaderTensor>(tensors: readonly T[], metadata: Readonly<Record<string, string>>): { readonly bytes: Buffer; readonly sorted: readonly T[] } {
  const sorted = tensors.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const header: Record<string, unknown> = { __metadata__: metadata };
  let offset = 0;
  for (const { name, shape, lengthBytes, type } of sorted) {
    header[name] = { dtype: type, shape, data_offsets: [offset, offset + lengthBytes] };
    offset += lengthBytes;
  }
  const text = Buffer.from(JSON.stringify(header), 'utf8');
  const bytes = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, ' ');
  bytes.writeBigUInt64LE(BigInt(bytes.length - 8), 0);
  text.copy(bytes, 8);
  return { bytes, sorted };
}

/** The bytes of a float32 safetensors file: names sorted, so that equal tensors give equal bytes. */
export function encodeSafetensors(tensors: readonly NamedTensor[], metadata: Readonly<Record<string, string>> = { format: 'pt' }): Buffer {
  for (const { name, shape, values } of tensors) {
    if (elementCount(shape) !== values.length) throw new StillhouseError('INTERNAL', `tensor ${name}: expected ${elementCount(shape)} values for [${shape.join(', ')}], got ${values.length}`);
  }
  const { bytes, sorted } = safetensorsHeader(tensors.map((tensor) => ({ ...tensor, type: F32.name, lengthBytes: tensor.values.byteLength })), metadata);
  return Buffer.concat([bytes, ...sorted.map(({ values }) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength))]);
}
