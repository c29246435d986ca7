/** The rows that evaluation scores by: each text once, each with a gold output that the scorer knows. */
import { StillhouseError } from '../contracts/errors.ts';
import type { InputRow } from '../contracts/records.ts';
import { labelOf } from './labels.ts';
import { NearDuplicateIndex } from './near-duplicates.ts';
import { excerpt } from './pairs.ts';
import { shuffled } from './random.ts';
import { normaliseText } from './text.ts';

/** Rows and labels that a message names before it says how many more there are. */
const NAMED = 5;
const NAMED_LABELS = 12;

const listed = (items: readonly string[], most: number): string => `${items.slice(0, most).join(', ')}${items.length > most ? ` and ${items.length - most} more` : ''}`;

/** BAD_INPUT, with the first rows and how many there are, unless each gold output is spelled as one of the labels. */
export function requireGoldLabels(rows: readonly InputRow[], labels: readonly string[], name: string): void {
  const known = new Set(labels);
  const wrong = rows.filter(({ gold }) => gold === undefined || !known.has(gold));
  if (wrong.length === 0) return;
  const shown = wrong.map(({ origin, gold }) => {
    const meant = gold === undefined ? undefined : labelOf(gold, labels);
    return `${origin} has ${gold === undefined ? 'none' : excerpt(gold)}${meant === undefined ? '' : ` where the task says ${JSON.stringify(meant)}`}`;
  });
  throw new StillhouseError('BAD_INPUT', `${name}: expected each row to have a gold label spelled as one of ${listed(labels, NAMED_LABELS)}, got ${wrong.length} of ${rows.length} rows that have not: ${listed(shown, NAMED)}`);
}

/**
 * Each text once, the first row that has it. Near duplicates stay: they belong to what the classes of real inputs are
 * like. With `labels` a text under two gold labels is BAD_INPUT, since one of them scores a right answer as wrong;
 * without, a text may have several good outputs, of which the first is kept.
 */
export function distinctGold(rows: readonly InputRow[], labelled: boolean, name: string, onRepeat: (row: InputRow, detail: string) => void): readonly InputRow[] {
  const first = new Map<string, InputRow>();
  const conflicts: string[] = [];
  for (const row of rows) {
    const key = normaliseText(row.input);
    const twin = first.get(key);
    if (twin === undefined) first.set(key, row);
    else if (labelled && twin.gold !== row.gold) conflicts.push(`${twin.origin} ${excerpt(twin.gold ?? '')} and ${row.origin} ${excerpt(row.gold ?? '')}`);
    else onRepeat(row, `the same text as ${twin.id}${twin.gold === row.gold ? '' : ', with another gold output'}`);
  }
  if (conflicts.length > 0) {
    throw new StillhouseError('BAD_INPUT', `${name}: expected one gold label for each text, got ${conflicts.length} ${conflicts.length === 1 ? 'row' : 'rows'} that ${conflicts.length === 1 ? 'repeats' : 'repeat'} a text with another: ${listed(conflicts, NAMED)}`);
  }
  return [...first.values()];
}

/**
 * The development rows without near duplicates of test rows, since what steers a campaign should not have seen what
 * judges it: each such row gives way to one of the same class that no set has, as long as there is one.
 */
export function apartFromTest(development: readonly InputRow[], test: readonly InputRow[], all: readonly InputRow[], similarity: number, random: () => number): readonly InputRow[] {
  const near = new NearDuplicateIndex(similarity);
  for (const { id, input } of test) near.add(id, input);
  const close = new Set(development.filter(({ input }) => near.find(input) !== undefined));
  if (close.size === 0) return development;
  const drawn = new Set([...development, ...test]);
  const spare = Map.groupBy(shuffled(all.filter((row) => !drawn.has(row)), random), ({ gold }) => gold);
  return development.map((row) => {
    if (!close.has(row)) return row;
    const others = spare.get(row.gold) ?? [];
    const at = others.findIndex(({ input }) => near.find(input) === undefined);
    return at < 0 ? row : (others.splice(at, 1)[0] as InputRow);
  });
}
