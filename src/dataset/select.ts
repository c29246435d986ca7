/** The next round's inputs: where the student is least sure, and what resembles its mistakes. */
import type { SelectInputsInput, SelectedInputs } from '../contracts/activities.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import type { InputRow, Prediction, TeacherRequest } from '../contracts/records.ts';
import { getJson, getRows, putRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { labelOf } from './labels.ts';
import { createRandom, shuffled } from './random.ts';
import { shinglesOf } from './near-duplicates.ts';

/**
 * Orders the pool rows that were not asked about yet: uncertainty sampling (Lewis and Gale 1994; the
 * smallest margin between the two likeliest labels) alternating with the rows most similar to
 * development rows that the student got wrong, then the rest at random. Without label
 * log-probabilities, as for free text, or without mistakes, that part is left to chance by seed. At
 * most `rowsPerLaterRound` rows are kept; none left gives an empty selection.
 */
export async function selectInputs(deps: { readonly store: ArtifactStore }, input: SelectInputsInput): Promise<SelectedInputs> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const asked = new Set<string>();
  for (const ref of input.earlier) {
    for (const request of await getRows<TeacherRequest>(deps.store, ref)) if (request.row !== undefined) asked.add(request.row.id);
  }
  const pool = input.data.pool === undefined ? [] : await getRows<InputRow>(deps.store, input.data.pool);
  const rows = pool.filter((row) => !asked.has(row.id));
  const predictions = await getRows<Prediction>(deps.store, input.poolPredictions);
  const development = await getRows<InputRow>(deps.store, input.data.development);
  const mistakes = wrongRows(spec, development, await getRows<Prediction>(deps.store, input.developmentPredictions));
  const random = shuffled(rows, createRandom(spec.seed, `selection ${input.earlier.length}`));
  const ranked = interleave([leastSure(rows, predictions), mostSimilar(rows, mistakes)], random);
  const selection = ranked.slice(0, spec.sampling.rowsPerLaterRound ?? Math.ceil(spec.sampling.rows / 2));
  return { selection: await putRows(deps.store, 'rows', selection), rows: selection.length };
}

function wrongRows(spec: CampaignSpec, development: readonly InputRow[], predictions: readonly Prediction[]): readonly InputRow[] {
  const { output } = spec.task;
  if (output.kind !== 'label') return [];
  const answers = new Map(predictions.map((prediction) => [prediction.id, labelOf(prediction.output, output.labels)]));
  return development.filter((row) => row.gold !== undefined && answers.has(row.id) && answers.get(row.id) !== row.gold);
}

/** Rows by ascending margin; rows without log-probabilities are left out. */
export function leastSure(rows: readonly InputRow[], predictions: readonly Prediction[]): readonly InputRow[] {
  const margins = new Map<string, number>();
  for (const { id, labelLogProbs } of predictions) {
    if (labelLogProbs === undefined || labelLogProbs.length < 2) continue;
    const [first, second] = [...labelLogProbs].sort((a, b) => b - a) as [number, number];
    margins.set(id, first - second);
  }
  return byScore(rows.filter((row) => margins.has(row.id)), (row) => -(margins.get(row.id) as number));
}

/** Rows by their greatest TF-IDF cosine over character trigrams to any of the targets; rows that share nothing are left out. */
export function mostSimilar(rows: readonly InputRow[], targets: readonly InputRow[]): readonly InputRow[] {
  if (targets.length === 0) return [];
  const rowGrams = rows.map((row) => shinglesOf(row.input));
  const targetGrams = targets.map((row) => shinglesOf(row.input));
  const frequency = new Map<number, number>();
  for (const grams of [...rowGrams, ...targetGrams]) for (const gram of grams) frequency.set(gram, (frequency.get(gram) ?? 0) + 1);
  const documents = rows.length + targets.length;
  const weight = (gram: number): number => Math.log((1 + documents) / (1 + (frequency.get(gram) as number))) + 1;
  const norm = (grams: ReadonlySet<number>): number => Math.sqrt([...grams].reduce((sum, gram) => sum + weight(gram) ** 2, 0));
  const postings = new Map<number, number[]>();
  targetGrams.forEach((grams, index) => {
    for (const gram of grams) postings.set(gram, [...(postings.get(gram) ?? []), index]);
  });
  const targetNorms = targetGrams.map(norm);
  const scores = new Map(rows.map((row, index) => {
    const products = new Float64Array(targets.length);
    const grams = rowGrams[index] as ReadonlySet<number>;
    for (const gram of grams) for (const target of postings.get(gram) ?? []) products[target] = (products[target] as number) + weight(gram) ** 2;
    const length = norm(grams);
    return [row.id, products.reduce((best, product, target) => Math.max(best, product / (length * (targetNorms[target] as number))), 0)];
  }));
  return byScore(rows.filter((row) => (scores.get(row.id) as number) > 0), (row) => scores.get(row.id) as number);
}

/** Highest score first; of equals in the order given. */
function byScore<T>(items: readonly T[], score: (item: T) => number): readonly T[] {
  return items.map((item, index) => ({ item, index, value: score(item) })).sort((a, b) => b.value - a.value || a.index - b.index).map(({ item }) => item);
}

/** One from each ranking in turn, each row once, then what `rest` adds. */
function interleave(rankings: readonly (readonly InputRow[])[], rest: readonly InputRow[]): readonly InputRow[] {
  const taken = new Map<string, InputRow>();
  const cursors = rankings.map((ranking) => ranking[Symbol.iterator]());
  for (let live = cursors.length; live > 0; ) {
    live = 0;
    for (const cursor of cursors) {
      let next = cursor.next();
      while (next.done !== true && taken.has(next.value.id)) next = cursor.next();
      if (next.done === true) continue;
      taken.set(next.value.id, next.value);
      live += 1;
    }
  }
  for (const row of rest) if (!taken.has(row.id)) taken.set(row.id, row);
  return [...taken.values()];
}
