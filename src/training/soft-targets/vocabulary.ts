/** Vocabularies: whether two are the same, and where not. */
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
    `expected teacher and student of one vocabulary, got ${teacher.name} with ${teacher.tokens.length} tokens and ${student.name} with ${student.tokens.length}: ${differing} of ${common} ids differ, the first of them ${first}, ${shown(teacher)} and ${shown(student)}. Choose a teacher of the student's family, or training.method: cross-tokenizer`,
    { details: { differing, common, first } },
  );
}
