/**
 * Soft targets: at each position of an answer the token that was written and the most probable tokens
 * with their log-probabilities, as an endpoint gives them (`top_logprobs`), packed.
 *
 * Format, before raw deflate (RFC 1951); numbers are LEB128 varints:
 *   version 1 · positions P · tokens T · T × (byte length, bytes)
 *   P × alternatives K of the position
 *   P × written token: 0…K−1 the alternative that it is, K + t token t of the table, where it is none
 *   ΣK × token of the alternative, by position, the most probable first
 *   ΣK × level of the alternative: of the first its own, of the others the difference to the one before
 *   levels of written tokens that are no alternative, in order
 * A level is round(−2048 · log p), at most 65535: a step of 0.0005 nats down to −32.
 */
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { StillhouseError } from '../contracts/errors.ts';

export interface TokenLogProb {
  /** As text; of a token that is a part of a character only, what its bytes alone look like. */
  readonly token: string;
  /** Its bytes, where they are known; those of `token` else. */
  readonly bytes?: ArrayLike<number>;
  /** Natural logarithm. */
  readonly logProb: number;
}

export interface SoftTarget extends TokenLogProb {
  /** The most probable first. */
  readonly alternatives: readonly TokenLogProb[];
}

const VERSION = 1;
const LEVELS_PER_NAT = 2_048;
const LOWEST_LEVEL = 65_535;

const levelOf = (logProb: number): number => Math.min(LOWEST_LEVEL, Math.max(0, Math.round(-logProb * LEVELS_PER_NAT)));

/** Base64 of the packed form. The same targets give the same bytes. */
export function packSoftTargets(targets: readonly SoftTarget[]): string {
  const sorted = targets.map((target) => ({ ...target, alternatives: target.alternatives.toSorted((a, b) => b.logProb - a.logProb) }));
  const table = new Map<string, number>();
  // The bytes as Latin-1: a token is not always UTF-8.
  const keyOf = ({ token, bytes }: TokenLogProb): string => (bytes === undefined ? Buffer.from(token, 'utf8') : Buffer.from(bytes)).toString('latin1');
  const indexOf = (key: string): number => {
    const known = table.get(key) ?? table.size;
    table.set(key, known);
    return known;
  };
  const counts: number[] = [];
  const written: number[] = [];
  const tokens: number[] = [];
  const levels: number[] = [];
  const strays: number[] = [];
  for (const target of sorted) {
    const keys = target.alternatives.map(keyOf);
    const at = keys.indexOf(keyOf(target));
    counts.push(keys.length);
    written.push(at >= 0 ? at : keys.length + indexOf(keyOf(target)));
    if (at < 0) strays.push(levelOf(target.logProb));
    let before = 0;
    for (const [index, { logProb }] of target.alternatives.entries()) {
      tokens.push(indexOf(keys[index] as string));
      const level = levelOf(logProb);
      levels.push(level - before);
      before = level;
    }
  }
  const out: number[] = [];
  for (const value of [VERSION, sorted.length, table.size]) writeVarint(out, value);
  for (const key of table.keys()) {
    const bytes = Buffer.from(key, 'latin1');
    writeVarint(out, bytes.length);
    for (const byte of bytes) out.push(byte);
  }
  for (const column of [counts, written, tokens, levels, strays]) for (const value of column) writeVarint(out, value);
  return deflateRawSync(Buffer.from(out), { level: 9 }).toString('base64');
}

/** Reads what packSoftTargets wrote; CORRUPT for anything else. */
export function unpackSoftTargets(packed: string): readonly SoftTarget[] {
  const reader = new Reader(inflate(packed));
  const version = reader.varint();
  if (version !== VERSION) throw new StillhouseError('CORRUPT', `expected soft targets of version ${VERSION}, got version ${version}`);
  const positions = reader.varint();
  const table = Array.from({ length: reader.varint() }, () => reader.bytes());
  const column = (length: number): readonly number[] => Array.from({ length }, () => reader.varint());
  const counts = column(positions);
  const written = column(positions);
  const all = counts.reduce((sum, count) => sum + count, 0);
  const tokens = column(all);
  const levels = column(all);
  const tokenAt = (index: number | undefined, level: number): TokenLogProb => {
    const bytes = table[index ?? -1];
    if (bytes === undefined) throw new StillhouseError('CORRUPT', `expected soft targets of ${table.length} tokens, got token ${index}`);
    return { token: bytes.toString('utf8'), bytes, logProb: level === 0 ? 0 : -level / LEVELS_PER_NAT };
  };
  let from = 0;
  return counts.map((count, position): SoftTarget => {
    let level = 0;
    const alternatives = Array.from({ length: count }, (_, index): TokenLogProb => {
      level += levels[from + index] as number;
      return tokenAt(tokens[from + index], level);
    });
    from += count;
    const chosen = written[position] as number;
    const target = alternatives[chosen] ?? tokenAt(chosen - count, reader.varint());
    return { ...target, alternatives };
  });
}

function inflate(packed: string): Buffer {
  try {
    return inflateRawSync(Buffer.from(packed, 'base64'));
  } catch (error) {
    throw new StillhouseError('CORRUPT', `expected packed soft targets, got ${JSON.stringify(packed.slice(0, 24))}`, { cause: error });
  }
}

function writeVarint(out: number[], value: number): void {
  let rest = value;
  while (rest >= 0x80) {
    out.push((rest & 0x7f) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  out.push(rest);
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = this.#bytes[this.#at];
      if (byte === undefined) throw new StillhouseError('CORRUPT', `expected more than ${this.#bytes.length} bytes of soft targets, got their end`);
      this.#at += 1;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }

  bytes(): Buffer {
    const length = this.varint();
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}
