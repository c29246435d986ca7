/** Texts compared: identity of a row, and the form in which two texts count as the same. */
import { createHash } from 'node:crypto';

/** A row's id: the first 16 hex digits of the SHA-256 of the NFC text. */
export function rowId(input: string): string {
  return createHash('sha256').update(input.normalize('NFC')).digest('hex').slice(0, 16);
}

/**
 * NFKC, case folded (by way of upper case, so that ß and ſ fold too), runs of white space as one
 * space, none at the ends. Full-width Latin letters and digits become ASCII.
 */
export function normaliseText(text: string): string {
  return text.normalize('NFKC').toUpperCase().toLowerCase().normalize('NFKC').replace(/\s+/gu, ' ').trim();
}

/** Characters as a reader counts them, not UTF-16 units. */
export function countCharacters(text: string): number {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}
