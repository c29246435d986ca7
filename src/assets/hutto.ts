/**
 * Two datasets of real sentences, made from the ground-truth files of the VADER paper (Hutto and
 * Gilbert, ICWSM 2014): film sentences and product sentences, each with the mean of about twenty
 * human ratings from −4 to 4.
 *
 * Rules: entities decoded, runs of spaces joined, `''` made a quotation mark; shorter than 12
 * characters dropped; one row for each text (letters and digits compared, case ignored). The order is
 * that of the SHA-256 of the text, so that it is fixed and has nothing to do with the source's order.
 * The first 1,500 with |mean| ≥ 1 become gold rows, labelled by the sign: closer to zero the raters
 * themselves do not agree. The next 5,000 of any rating become the pool, without labels: a real pool
 * holds unclear sentences too.
 */
import { createHash } from 'node:crypto';
import { StillhouseError } from '../contracts/errors.ts';

export const GOLD_MARGIN = 1;
export const GOLD_ROWS = 1_500;
export const POOL_ROWS = 5_000;
const MIN_CHARACTERS = 12;

export const HUTTO_MEMBERS = ['hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt', 'hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt'] as const;

const ENTITIES: Readonly<Record<string, string>> = { '&amp;': '&', '&quot;': '"', '&lt;': '<', '&gt;': '>', '&apos;': "'", '&nbsp;': ' ' };

export function cleanSentence(text: string): string {
  return text
    .replaceAll(/&#(\d+);/g, (_whole, code: string) => String.fromCodePoint(Number(code)))
    .replaceAll(/&(?:amp|quot|lt|gt|apos|nbsp);/g, (entity) => ENTITIES[entity] ?? entity)
    .replaceAll("''", '"')
    .replaceAll(/\s+/g, ' ')
    .trim()
    .normalize('NFC');
}

interface RatedSentence {
  readonly input: string;
  readonly mean: number;
  readonly order: string;
}

/** Lines `id TAB mean TAB sentence`; CORRUPT with the line number otherwise. */
function parseGroundTruth(text: string, file: string): RatedSentence[] {
  const rows: RatedSentence[] = [];
  text.replace(/^\uFEFF/, '').split(/\r?\n/).forEach((line, index) => {
    if (line.trim() === '') return;
    const [, mean, ...rest] = line.split('\t');
    const value = Number(mean);
    if (mean === undefined || rest.length === 0 || !Number.isFinite(value)) {
      throw new StillhouseError('CORRUPT', `${file}, line ${index + 1}: expected id, mean rating and sentence between tabs, got ${JSON.stringify(line.slice(0, 80))}`);
    }
    const input = cleanSentence(rest.join('\t'));
    rows.push({ input, mean: value, order: createHash('sha256').update(input).digest('hex') });
  });
  return rows;
}

/** The two datasets as JSONL text: `{ input, gold }` and `{ input }` rows without a sentence in common. */
export function buildHuttoDatasets(groundTruths: readonly { readonly file: string; readonly text: string }[]): { readonly gold: string; readonly pool: string } {
  const seen = new Set<string>();
  const rows = groundTruths
    .flatMap(({ file, text }) => parseGroundTruth(text, file))
    .filter(({ input }) => {
      const key = input.toLowerCase().replaceAll(/[^\p{L}\p{N}]+/gu, ' ').trim();
      if (input.length < MIN_CHARACTERS || key === '' || seen.has(key)) return false;
      seen.add(key);
      return true;
    })
    .sort((a, b) => (a.order < b.order ? -1 : 1));
  const gold = rows.filter(({ mean }) => Math.abs(mean) >= GOLD_MARGIN).slice(0, GOLD_ROWS);
  const held = new Set(gold);
  const pool = rows.filter((row) => !held.has(row)).slice(0, POOL_ROWS);
  const lines = (values: readonly unknown[]): string => values.map((value) => `${JSON.stringify(value)}\n`).join('');
  return {
    gold: lines(gold.map(({ input, mean }) => ({ input, gold: mean > 0 ? 'positive' : 'negative' }))),
    pool: lines(pool.map(({ input }) => ({ input }))),
  };
}
