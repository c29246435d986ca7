/** The first stage: import a campaign's rows and keep apart those that only evaluation may see. */
import type { Assets, AssetOptions } from '../assets/assets.ts';
import type { PrepareCampaignInput, PreparedData } from '../contracts/activities.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { InputRow, RejectedSample, RejectionReason, TeacherRequest } from '../contracts/records.ts';
import { sourcesOf } from '../contracts/sampling-spec.ts';
import { getJson, getRows, putRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { apartFromTest, distinctGold, requireGoldLabels } from './gold-rows.ts';
import { readRows } from './import.ts';
import { eachInTurns, inputProblem } from './lengths.ts';
import type { OpenLengths } from './lengths.ts';
import { NearDuplicateIndex } from './near-duplicates.ts';
import { createRandom, shuffled } from './random.ts';
import { normaliseText } from './text.ts';

export interface PrepareDeps {
  readonly store: ArtifactStore;
  readonly assets: Pick<Assets, 'dataset'>;
  /** How long rows are for the student; absent: nobody counts. */
  readonly lengths?: OpenLengths;
}

/**
 * Imports the datasets that the spec names. Development and test rows are drawn by seed, in the
 * classes' own proportions where gold labels exist, the test rows as they are but for repeated texts,
 * the development rows apart from what is like them; the pool, in random order, is what remains
 * without an exact or near duplicate among themselves or among the held-out rows, and fits the filter and the student. The same spec and
 * files give the same artifacts. Throws BAD_INPUT for too few rows or a gold label that the task does
 * not know, NOT_FOUND for a missing file. `options` are handed to the downloads.
 */
export async function prepareCampaign(deps: PrepareDeps, input: PrepareCampaignInput, options: AssetOptions = {}): Promise<PreparedData> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const excluded: RejectedSample[] = [];
  const completions = input.completions === undefined ? [] : await getRows<TeacherRequest>(deps.store, input.completions);
  const { held, rest } = await importRows((dataset) => importDataset(deps, dataset, options), spec, completions.flatMap(({ row }) => row ?? []), excluded);
  const { developmentRows, testRows } = spec.evaluation;
  requireRows(held, spec);
  const [test = [], drawn = []] = drawSets(held, [testRows, developmentRows], createRandom(spec.seed, 'evaluation'));
  const development = apartFromTest(drawn, test, held, spec.filter.nearDuplicateSimilarity, createRandom(spec.seed, 'development'));
  const pool = rest === undefined ? undefined : makePool(await askable(deps, spec, rest, excluded, options), [...test, ...development], spec, excluded);
  return {
    ...(pool === undefined ? {} : { pool: await putRows(deps.store, 'rows', pool) }),
    development: await putRows(deps.store, 'rows', development),
    test: await putRows(deps.store, 'rows', test),
    ...(input.completions === undefined ? {} : { completions: input.completions }),
    ...(excluded.length === 0 ? {} : { excluded: await putRows(deps.store, 'rejected', excluded) }),
    poolRows: pool?.length ?? 0,
    developmentRows,
    testRows,
  };
}

interface Imported {
  /** Rows that development and test are drawn from. */
  readonly held: readonly InputRow[];
  /** Rows for the pool; absent where the teacher writes its own. */
  readonly rest?: readonly InputRow[];
}

async function importRows(load: (dataset: string) => Promise<InputRow[]>, spec: CampaignSpec, completions: readonly InputRow[], excluded: RejectedSample[]): Promise<Imported> {
  const { source: evaluation } = spec.evaluation;
  const rows = await sourceRows(load, spec, completions);
  if (evaluation.kind === 'dataset') {
    const gold = await load(evaluation.dataset);
    const labels = spec.evaluation.scorer.kind === 'label' && spec.task.output.kind === 'label' ? spec.task.output.labels : undefined;
    if (labels !== undefined) requireGoldLabels(gold, labels, evaluation.dataset);
    const held = distinctGold(gold, labels !== undefined, evaluation.dataset, (row, detail) => excluded.push(exclusion(row, 'exact-duplicate', detail)));
    return { held, ...(rows === undefined ? {} : { rest: rows }) };
  }
  if (rows === undefined) {
    throw new StillhouseError('BAD_INPUT', 'evaluation.source.kind: expected dataset where sampling.source.kind is description, got held-out');
  }
  const unique = shuffled(distinct(rows, spec.filter.nearDuplicateSimilarity, excluded), createRandom(spec.seed, 'held-out'));
  if (unique.length <= evaluation.rows) {
    throw new StillhouseError('BAD_INPUT', `evaluation.source.rows: expected fewer than the ${unique.length} distinct rows of ${datasetName(spec)}, got ${evaluation.rows}`);
  }
  return { held: unique.slice(0, evaluation.rows), rest: unique.slice(evaluation.rows) };
}

/** The rows of all sources that have some, in their order, each with the number of its source where there are several. */
async function sourceRows(load: (dataset: string) => Promise<InputRow[]>, spec: CampaignSpec, completions: readonly InputRow[]): Promise<InputRow[] | undefined> {
  const sources = sourcesOf(spec.sampling.source);
  const lists: InputRow[][] = [];
  for (const [index, { source }] of sources.entries()) {
    if (source.kind === 'description') continue;
    const rows = source.kind === 'stored-completions' ? completions : await load(source.dataset);
    lists.push(rows.map((row) => (sources.length === 1 ? row : { ...row, source: index })));
  }
  return lists.length === 0 ? undefined : lists.flat();
}

async function importDataset(deps: PrepareDeps, dataset: string, options: AssetOptions): Promise<InputRow[]> {
  const path = await deps.assets.dataset(dataset, options);
  const rows: InputRow[] = [];
  for await (const row of dataset.startsWith('catalogue:') ? readRows(path, dataset.slice('catalogue:'.length)) : readRows(path)) rows.push(row);
  if (rows.length === 0) throw new StillhouseError('BAD_INPUT', `expected rows in ${dataset}, got none (${path})`);
  return rows;
}

/** Rows without those that repeat an earlier one; what repeats is added to `excluded`. */
function distinct(rows: readonly InputRow[], similarity: number, excluded: RejectedSample[]): InputRow[] {
  const exact = new Map<string, string>();
  const near = new NearDuplicateIndex(similarity);
  return rows.filter((row) => {
    const key = normaliseText(row.input);
    const twin = exact.get(key);
    if (twin !== undefined) {
      excluded.push(exclusion(row, 'exact-duplicate', `the same text as ${twin}`));
      return false;
    }
    exact.set(key, row.id);
    const match = near.addIfNew(row.id, row.input);
    if (match !== undefined) excluded.push(exclusion(row, 'near-duplicate', `similarity ${match.similarity.toFixed(3)} to ${match.id}`));
    return match === undefined;
  });
}

function requireRows(held: readonly InputRow[], spec: CampaignSpec): void {
  const { developmentRows, testRows } = spec.evaluation;
  if (held.length < developmentRows + testRows) {
    throw new StillhouseError('BAD_INPUT', `evaluation: expected at least developmentRows + testRows = ${developmentRows} + ${testRows} = ${developmentRows + testRows} distinct rows in ${datasetName(spec)}, got ${held.length}`);
  }
}

function datasetName(spec: CampaignSpec): string {
  if (spec.evaluation.source.kind === 'dataset') return spec.evaluation.source.dataset;
  return sourcesOf(spec.sampling.source).map(({ source }) => ('dataset' in source ? source.dataset : `the ${source.kind.replace('-', ' ')}`)).join(' and ');
}

/**
 * Disjoint random sets of the given sizes, each with the classes in the proportions of all rows
 * (largest remainders); rows without gold are one class. Each set comes in random order, so that its
 * first n rows are a fair sample too.
 */
export function drawSets(rows: readonly InputRow[], sizes: readonly number[], random: () => number): readonly (readonly InputRow[])[] {
  const classes = new Map<string, InputRow[]>();
  for (const row of rows) {
    const key = row.gold ?? '';
    classes.set(key, [...(classes.get(key) ?? []), row]);
  }
  const queues = [...classes.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, members]) => shuffled(members, random));
  return sizes.map((size) => {
    const quotas = apportion(size, queues.map((queue) => queue.length));
    return shuffled(queues.flatMap((queue, index) => queue.splice(0, quotas[index])), random);
  });
}

/** `seats` given out in proportion to `weights` by largest remainders; never more than a weight. */
function apportion(seats: number, weights: readonly number[]): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const exact = weights.map((weight) => (seats * weight) / total);
  const given = exact.map(Math.floor);
  const order = exact.map((value, index) => ({ index, remainder: value - Math.floor(value) })).sort((a, b) => b.remainder - a.remainder || a.index - b.index);
  let left = seats - given.reduce((sum, count) => sum + count, 0);
  for (const { index } of order) {
    if (left === 0) break;
    given[index] = (given[index] as number) + 1;
    left -= 1;
  }
  return given;
}

/** Rows that it is worth asking about: what the filter or the student's training would turn away afterwards is not bought. */
async function askable({ lengths }: PrepareDeps, spec: CampaignSpec, rows: readonly InputRow[], excluded: RejectedSample[], options: AssetOptions): Promise<readonly InputRow[]> {
  const counted = await lengths?.(spec, options);
  const problems = await eachInTurns(rows, ({ input }) => {
    const problem = inputProblem(spec.filter, input);
    if (problem !== undefined) return problem;
    const detail = counted?.ofInput(input);
    return detail === undefined ? undefined : { reason: 'length' as const, detail };
  }, options.signal);
  problems.forEach((problem, index) => {
    if (problem !== undefined) excluded.push(exclusion(rows[index] as InputRow, problem.reason, problem.detail));
  });
  const left = rows.filter((_, index) => problems[index] === undefined);
  const first = problems.find((problem) => problem !== undefined);
  if (left.length === 0 && first !== undefined) {
    throw new StillhouseError('BAD_INPUT', `sampling.source: expected rows that filter and training.maxTokens let through, got none of ${rows.length}; the first: ${first.detail}`);
  }
  return left;
}

/** Random order, no gold, nothing that repeats a held-out row or an earlier pool row. */
function makePool(rows: readonly InputRow[], held: readonly InputRow[], spec: CampaignSpec, excluded: RejectedSample[]): InputRow[] {
  const similarity = spec.filter.nearDuplicateSimilarity;
  const exact = new Map(held.map((row) => [normaliseText(row.input), row.id]));
  const near = new NearDuplicateIndex(similarity);
  for (const row of held) near.add(row.id, row.input);
  const apart = rows.filter((row) => {
    const twin = exact.get(normaliseText(row.input));
    if (twin !== undefined) {
      excluded.push(exclusion(row, 'held-out', `the same text as held-out ${twin}`));
      return false;
    }
    const match = near.find(row.input);
    if (match !== undefined) excluded.push(exclusion(row, 'near-held-out', `similarity ${match.similarity.toFixed(3)} to held-out ${match.id}`));
    return match === undefined;
  });
  const pool = distinct(apart, similarity, excluded);
  if (pool.length === 0) throw new StillhouseError('BAD_INPUT', `sampling.source: expected rows that are not held out for evaluation, got none of ${rows.length}`);
  return shuffled(pool, createRandom(spec.seed, 'pool')).map(({ gold: _gold, ...row }) => row);
}

function exclusion(row: InputRow, reason: RejectionReason, detail: string): RejectedSample {
  return { id: row.id, input: row.input, output: '', reason, detail: `${row.origin}: ${detail}`, round: 0, requestId: '' };
}
