/** Text on a terminal: what comes from outside steers nothing, and lines are as wide as they are shown, not as they are long. */
import { stripVTControlCharacters } from 'node:util';
import stringWidth from 'string-width';

const GRAPHEMES = new Intl.Segmenter(undefined, { granularity: 'grapheme' });

/** Control characters, and those that turn the direction of what follows, by spaces; sequences that a terminal would obey are left out. */
export const printable = (text: string): string => stripVTControlCharacters(text).replaceAll(/[\p{Cc}\u2028\u2029\u202A-\u202E\u2066-\u2069]/gu, ' ');

/** The same of a text of several lines, which stay, as tabs do. */
export const printableLines = (text: string): string => stripVTControlCharacters(text).split(/([\n\t])/).map((part) => (part === '\n' || part === '\t' ? part : printable(part))).join('');

/** Spaces up to so many columns. */
export const padded = (text: string, columns: number): string => text + ' '.repeat(Math.max(0, columns - stringWidth(text)));
export const columnsOf = (text: string): number => stringWidth(text);

/** The beginning that fits so many columns, with an ellipsis where something was cut off. */
export function cut(text: string, columns: number): string {
  if (stringWidth(text) <= columns) return text;
  let shown = '';
  let used = 0;
  for (const { segment } of GRAPHEMES.segment(text)) {
    const width = stringWidth(segment);
    if (used + width > columns - 1) break;
    shown += segment;
    used += width;
  }
  return columns < 1 ? '' : `${shown}…`;
}
