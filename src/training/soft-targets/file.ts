/**
 * A dataset's soft targets as one artifact, addressed by its content: equal targets give equal bytes.
 *
 *   8 bytes    "STILLSFT"
 *   u32        version 1
 *   u32        H: length of the header
 *   H bytes    header, canonical JSON
 *   R × u32    length of each row's block in bytes
 *   R blocks   u32 positions P, then P positions as in codec.ts
 *
 * Numbers are little-endian. Position p of a row is the teacher's distribution of token p of the row's
 * answer, given all before it.
 */
import { z } from 'zod';
import { StillhouseError } from '../../contracts/errors.ts';
import { canonicalJson } from '../../store/jsonl.ts';
import { BitReader, BitWriter } from './bits.ts';
import { readPosition, writePosition } from './codec.ts';
import type { TopK } from './top-k.ts';

const MAGIC = Buffer.from('STILLSFT');
const VERSION = 1;
const PREAMBLE_BYTES = MAGIC.length + 8;

const headerSchema = z.strictObject({
  /** Tokens at each position; the whole vocabulary where it is no smaller. */
  k: z.int().min(1),
  vocabularySize: z.int().min(1),
  /** SHA-256 of the teacher's tokens in the order of their ids: src/training/soft-targets/vocabulary.ts. */
  vocabularySha256: z.string().regex(/^[0-9a-f]{64}$/),
  /** Whose targets they are, for people and for provenance. */
  teacher: z.string().min(1),
  /** The artifact whose rows they belong to, in its order. */
  datasetSha256: z.string().regex(/^[0-9a-f]{64}$/),
  rows: z.int().min(0),
  positions: z.int().min(0),
});
export type SoftTargetsHeader = Readonly<z.output<typeof headerSchema>>;

export interface SoftTargetsRow {
  /** The answer's tokens as the teacher read them. */
  readonly tokens: Uint32Array;
  /** As many as there are tokens. */
  readonly positions: readonly TopK[];
}

/** Rows are added in the order of the dataset; a row whose answer has no token is empty. */
export class SoftTargetsWriter {
  readonly #about: Omit<SoftTargetsHeader, 'rows' | 'positions'>;
  readonly #blocks: Uint8Array[] = [];
  #positions = 0;

  constructor(about: Omit<SoftTargetsHeader, 'rows' | 'positions'>) {
    this.#about = about;
  }

  add({ tokens, positions }: SoftTargetsRow): void {
    const { k, vocabularySize } = this.#about;
    const size = Math.min(k, vocabularySize);
    const wrong = positions.find((position) => position.ids.length !== size);
    if (tokens.length !== positions.length || wrong !== undefined) {
      throw new StillhouseError('INTERNAL', `row ${this.#blocks.length}: expected ${size} tokens at each of ${tokens.length} positions, got ${wrong === undefined ? `${positions.length} positions` : `${wrong.ids.length} tokens`}`);
    }
    const head = Buffer.alloc(4);
    head.writeUInt32LE(tokens.length, 0);
    const bits = new BitWriter();
    positions.forEach((position, index) => writePosition(bits, tokens[index] as number, position, vocabularySize));
    this.#blocks.push(Buffer.concat([head, bits.finish()]));
    this.#positions += tokens.length;
  }

  finish(): Buffer {
    const header = Buffer.from(canonicalJson({ ...this.#about, rows: this.#blocks.length, positions: this.#positions } satisfies SoftTargetsHeader));
    const front = Buffer.alloc(PREAMBLE_BYTES + header.length + 4 * this.#blocks.length);
    MAGIC.copy(front, 0);
    front.writeUInt32LE(VERSION, MAGIC.length);
    front.writeUInt32LE(header.length, MAGIC.length + 4);
    header.copy(front, PREAMBLE_BYTES);
    this.#blocks.forEach((block, index) => front.writeUInt32LE(block.length, PREAMBLE_BYTES + header.length + 4 * index));
    return Buffer.concat([front, ...this.#blocks]);
  }
}

export interface SoftTargets {
  readonly header: SoftTargetsHeader;
  /** Decoded when it is asked for. */
  row(index: number): SoftTargetsRow;
}

/** CORRUPT, saying where, for anything that a SoftTargetsWriter has not written. */
export function readSoftTargets(bytes: Buffer): SoftTargets {
  const corrupt = (message: string): StillhouseError => new StillhouseError('CORRUPT', `soft targets: ${message}`);
  if (bytes.length < PREAMBLE_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw corrupt(`expected ${MAGIC.toString()} at the beginning, got ${bytes.length} bytes of something else`);
  const version = bytes.readUInt32LE(MAGIC.length);
  if (version !== VERSION) throw corrupt(`expected version ${VERSION}, got ${version}`);
  const headerEnd = PREAMBLE_BYTES + bytes.readUInt32LE(MAGIC.length + 4);
  const parsed = headerSchema.safeParse(jsonOf(bytes.subarray(PREAMBLE_BYTES, headerEnd)));
  if (!parsed.success) throw corrupt(`header: ${parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ')}`);
  const header = parsed.data;
  const blocksFrom = headerEnd + 4 * header.rows;
  if (blocksFrom > bytes.length) throw corrupt(`expected lengths of ${header.rows} rows, got ${bytes.length} bytes in all`);
  const ends: number[] = [];
  for (let row = 0, end = blocksFrom; row < header.rows; row += 1) ends.push((end += bytes.readUInt32LE(headerEnd + 4 * row)));
  if ((ends.at(-1) ?? blocksFrom) !== bytes.length) throw corrupt(`expected ${ends.at(-1) ?? blocksFrom} bytes, got ${bytes.length}`);
  return {
    header,
    row: (index) => {
      const [from, to] = [ends[index - 1] ?? blocksFrom, ends[index]];
      if (to === undefined || index < 0) throw new StillhouseError('NOT_FOUND', `expected a row below ${header.rows}, got ${index}`);
      return rowOf(bytes, from, to, header);
    },
  };
}

function rowOf(bytes: Buffer, from: number, to: number, { k, vocabularySize }: SoftTargetsHeader): SoftTargetsRow {
  const count = from + 4 <= to ? bytes.readUInt32LE(from) : Infinity;
  // A position takes more than a byte: a count that is too large is found before anything is made for it.
  if (count > to - from) throw new StillhouseError('CORRUPT', `soft targets: expected a row of ${to - from} bytes, got one of ${count} tokens`);
  const reader = new BitReader(bytes, from + 4, to);
  const size = Math.min(k, vocabularySize);
  const read = Array.from({ length: count }, () => readPosition(reader, size, vocabularySize));
  return { tokens: Uint32Array.from(read, ({ token }) => token), positions: read.map(({ distribution }) => distribution) };
}

function jsonOf(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}
