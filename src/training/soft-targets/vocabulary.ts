/** Vocabularies: what their tokens are as bytes, whether two are the same, and where not. */
import { createHash } from 'node:crypto';
import { StillhouseError } from '../../contracts/errors.ts';

export interface Vocabulary {
  /** Of the model, for messages. */
  readonly name: string;
  /** The tokens as the tokenizer's file writes them, by id. */
  readonly tokens: readonly string[];
}

export function vocabularySha256({ tokens }: Vocabulary): string {
  const hash = createHash('sha256');
  for (const token of tokens) hash.update(token).update('\0');
  return hash.digest('hex');
}

/**
 * Refuses soft targets of one vocabulary for another: BAD_INPUT that names both, how many ids differ and
 * the first of them. A longer vocabulary whose beginning is the shorter one is the same: models pad
 * theirs to round numbers, and the ids beyond are never written.
 */
export function requireSameVocabulary(teacher: Vocabulary, student: Vocabulary): void {
  const common = Math.min(teacher.tokens.length, student.tokens.length);
  let differing = 0;
  let first: number | undefined;
  for (let id = 0; id < common; id += 1) {
    if (teacher.tokens[id] === student.tokens[id]) continue;
    differing += 1;
    first ??= id;
  }
  if (first === undefined) return;
  const shown = (vocabulary: Vocabulary): string => JSON.stringify(vocabulary.tokens[first]);
  throw new StillhouseError(
    'BAD_INPUT',
    `expected teacher and student of one vocabulary, got ${teacher.name} with ${teacher.tokens.length} tokens and ${student.name} with ${student.tokens.length}: ${differing} of ${common} ids differ, the first of them ${first}, ${shown(teacher)} and ${shown(student)}. Choose a teacher of the student's family, or the cross-tokenizer loss`,
    { details: { differing, common, first } },
  );
}

/** The 256 bytes as the printable characters that byte-level BPE writes them with (Radford et al. 2019, gpt-2 encoder.py). */
const BYTE_OF_CHARACTER: ReadonlyMap<number, number> = new Map(
  Array.from({ length: 256 }, (_, byte) => byte)
    .sort((a, b) => Number(isPrintable(b)) - Number(isPrintable(a)) || a - b)
    .map((byte, index, all) => [isPrintable(byte) ? byte : 256 + index - all.filter(isPrintable).length, byte] as const),
);

function isPrintable(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/** The bytes of text that a token stands for; of a special token, whose text is not in that alphabet, its own UTF-8. */
export function tokenBytes(token: string, kind: 'byte-level' | 'sentencepiece'): Uint8Array {
  if (kind === 'sentencepiece') {
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
    return byte === undefined ? Buffer.from(token.replaceAll('▁', ' '), 'utf8') : Uint8Array.of(Number.parseInt(byte, 16));
  }
  const bytes = Array.from(token, (character) => BYTE_OF_CHARACTER.get(character.codePointAt(0) ?? -1));
  return bytes.every((byte) => byte !== undefined) ? Uint8Array.from(bytes) : Buffer.from(token, 'utf8');
}
