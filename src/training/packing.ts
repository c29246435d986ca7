/**
 * Packing: the samples of a batch one after another in few rows, nearly without padding. Positions start again with
 * each sample and a block-diagonal mask keeps samples apart. What all prompts begin with is computed once in
 * each row: every sample attends to it, and its gradient is the sum over the samples, as it would be without sharing.
 */
import { StillhouseError } from '../contracts/errors.ts';
import { MASKED } from '../lm/architectures/decoder.ts';

interface Tokens {
  readonly ids: readonly number[];
  /** Index of the first token that is learned; at least 1. */
  readonly responseStart: number;
}

export interface TrainingSample extends Tokens {
  readonly id: string;
  /** The reasoning that led to the answer, as a task of its own. */
  readonly rationale?: Tokens;
  /** As a teacher of another vocabulary reads it. */
  readonly reading?: TeacherReading;
}

/** The same chat in the teacher's tokens. */
export interface TeacherReading extends Tokens {
  /** For each token that the student learns, which of the teacher's answer tokens begins at the same place; −1 for none. */
  readonly partners: readonly number[];
}

/** What is known of each of R learned tokens beside its label, by name: (R, …shape) each. */
export type RowValues = Readonly<Record<string, { readonly shape: readonly number[]; readonly data: Float32Array | BigInt64Array }>>;

export interface PackingSample extends Tokens {
  readonly id: string;
  /** Of each of its losses; 1 unless given. */
  readonly weight?: number;
  /** Of its learned tokens in their order; all samples of a row have the same. */
  readonly values?: RowValues;
  /** All samples of a row have one, or none has. */
  readonly reading?: TeacherReading;
}

/** Samples in B rows of T tokens with R labels. */
export interface PackedRow {
  readonly samples: readonly string[]; // their ids
  readonly batch: number; // B
  readonly width: number; // T
  /** B·T, padding included. */
  readonly tokens: number;
  readonly ids: BigInt64Array; // (B, T)
  readonly positions: BigInt64Array; // (B, T)
  readonly mask: Float32Array; // (B, T, T)
  /** Which of the B·T tokens predict, and what. */
  readonly rows: BigInt64Array; // (R)
  readonly labels: BigInt64Array; // (R)
  /** What each loss counts. */
  readonly weights: Float32Array; // (R)
  /** In the order of `rows`. */
  readonly values: RowValues;
  /** How many samples read each token: 0 for padding. */
  readonly readers: Float32Array; // (B, T)
  /** What a teacher of another vocabulary reads, and which of its tokens predicts beside each of `rows`: any, where it has no partner. */
  readonly teacher?: { readonly row: PackedRow; readonly rows: BigInt64Array };
}

/** BAD_INPUT with the ids of samples that are too long or have nothing to learn. Whoever reads a dataset leaves long ones out before: fitting.ts. */
export function checkSamples(samples: readonly TrainingSample[], maxTokens: number): void {
  const long = samples.filter((sample) => longestTokens(sample) > maxTokens);
  const first = long[0];
  if (first !== undefined) {
    const names = long.slice(0, 5).map((sample) => `${sample.id} (${longestTokens(sample)}${longestTokens(sample) > sample.ids.length && sample.reading !== undefined ? ' as the teacher reads it' : ''})`).join(', ');
    throw new StillhouseError('BAD_INPUT', `dataset: expected rows of at most maxTokens = ${maxTokens} tokens, got ${long.length} longer: ${names}`, { details: { ids: long.map((sample) => sample.id).slice(0, 100) } });
  }
  const empty = samples.find((sample) => sample.responseStart < 1 || sample.responseStart >= sample.ids.length);
  if (empty !== undefined) throw new StillhouseError('BAD_INPUT', `dataset: expected a prompt and an answer in row ${empty.id}, got ${empty.responseStart} prompt tokens of ${empty.ids.length}`);
  if (samples.length === 0) throw new StillhouseError('BAD_INPUT', 'dataset: expected one row or more, got none');
}

/** Of all that a training reads of the sample. */
export const longestTokens = (sample: TrainingSample): number => Math.max(readTokens(sample), sample.rationale?.ids.length ?? 0);

/** By the student, or by the teacher where that takes more. */
export const readTokens = ({ ids, reading }: Pick<TrainingSample, 'ids' | 'reading'>): number => Math.max(ids.length, reading?.ids.length ?? 0);

/** Splits a batch, in its order, into rows of at most `maxRowTokens` (a longer sample has its own). */
export function splitBatch<T extends PackingSample>(samples: readonly T[], maxRowTokens: number): readonly (readonly T[])[] {
  const rows: T[][] = [];
  let filled = Infinity;
  for (const sample of samples) {
    if (filled + readTokens(sample) > maxRowTokens) {
      rows.push([]);
      filled = 0;
    }
    rows.at(-1)?.push(sample);
    filled += readTokens(sample);
  }
  return rows;
}

/** Tokens that all prompts begin with; a row of one sample shares nothing. */
function sharedPrefix(samples: readonly PackingSample[]): number {
  const [first, ...others] = samples;
  if (first === undefined || others.length === 0) return 0;
  const limit = Math.min(...samples.map((sample) => sample.responseStart)) - 1;
  let length = 0;
  while (length < limit && others.every((sample) => sample.ids[length] === first.ids[length])) length++;
  return length;
}

/**
 * A token costs as much again, in time, where it attends to this many. Measured for SmolLM2-135M: 1,230;
 * larger models spend a smaller share on attention.
 */
const ATTENTION_TOKENS = 2_000;

/**
 * Samples in rows: one long row has no padding and the shared prefix once, but each token of it attends, in the
 * arithmetic, to the whole row. The cheapest number of rows is taken, each filled longest sample first.
 */
function arrange(samples: readonly PackingSample[], shared: number): readonly (readonly PackingSample[])[] {
  const own = (sample: PackingSample): number => sample.ids.length - 1 - shared;
  const longestFirst = samples.toSorted((a, b) => own(b) - own(a));
  const candidates = samples.map((_, i) => {
    const bins = Array.from({ length: i + 1 }, () => ({ tokens: shared, samples: [] as PackingSample[] }));
    for (const sample of longestFirst) {
      const emptiest = bins.reduce((least, bin) => (bin.tokens < least.tokens ? bin : least));
      emptiest.samples.push(sample);
      emptiest.tokens += own(sample);
    }
    const width = Math.max(...bins.map(({ tokens }) => tokens));
    return { rows: bins.map((bin) => bin.samples), cost: bins.length * width * (1 + width / ATTENTION_TOKENS) };
  });
  return candidates.reduce((best, candidate) => (candidate.cost < best.cost ? candidate : best)).rows;
}

export function packRow(samples: readonly PackingSample[]): PackedRow {
  const shared = sharedPrefix(samples);
  const arranged = arrange(samples, shared);
  const filled = arranged.map((row) => fillRow(row, shared));
  const width = Math.max(...filled.map(({ ids }) => ids.length));
  const batch = filled.length;
  const packed = { samples: samples.map(({ id }) => id), batch, width, tokens: batch * width, ids: new BigInt64Array(batch * width), positions: new BigInt64Array(batch * width), mask: new Float32Array(batch * width * width).fill(MASKED), readers: new Float32Array(batch * width) };
  filled.forEach(({ ids, positions, starts }, b) => {
    packed.ids.set(toInt64(ids), b * width);
    packed.positions.set(toInt64(positions), b * width);
    packed.readers.fill(arranged[b]?.length ?? 0, b * width, b * width + shared).fill(1, b * width + shared, b * width + ids.length);
    for (let i = 0; i < width; i++) {
      const row = (b * width + i) * width;
      packed.mask.fill(0, row, row + Math.min(shared, i + 1));
      packed.mask.fill(0, row + (starts[i] ?? i), row + i + 1);
    }
  });
  const teacher = readByTeacher(arranged.flat());
  return {
    ...packed,
    rows: toInt64(filled.flatMap(({ rows }, b) => rows.map((row) => b * width + row))),
    labels: toInt64(filled.flatMap(({ labels }) => labels)),
    weights: Float32Array.from(filled.flatMap(({ weights }) => weights)),
    values: { ...joinValues(arranged.flat()), ...(teacher === undefined ? {} : { partnered: { shape: [], data: teacher.partnered } }) },
    ...(teacher === undefined ? {} : { teacher }),
  };
}

/** The teacher's readings as a row of their own, for the student's learned tokens in their order. `partnered`: 1 for those that have a partner, else 0. */
function readByTeacher(samples: readonly PackingSample[]): { readonly row: PackedRow; readonly rows: BigInt64Array; readonly partnered: Float32Array } | undefined {
  if (samples[0]?.reading === undefined) return undefined;
  // Packing changes the order of samples: the teacher's answer tokens are found again by their numbers.
  let numbers = 0;
  const partners: number[] = [];
  const numbered = samples.map(({ id, reading }): PackingSample => {
    if (reading === undefined) throw new StillhouseError('INTERNAL', `row ${id}: expected a teacher's reading as the other rows of its step have, got none`);
    const first = numbers;
    partners.push(...reading.partners.map((partner) => (partner < 0 ? -1 : first + partner)));
    numbers += reading.ids.length - reading.responseStart;
    const data = BigInt64Array.from({ length: numbers - first }, (_, i) => BigInt(first + i));
    return { id, ids: reading.ids, responseStart: reading.responseStart, values: { number: { shape: [], data } } };
  });
  const row = packRow(numbered);
  const places = new Map<number, bigint>();
  row.values['number']?.data.forEach((number, i) => places.set(Number(number), row.rows[i] as bigint));
  return { row, rows: BigInt64Array.from(partners, (number) => places.get(number) ?? 0n), partnered: Float32Array.from(partners, (number) => (number < 0 ? 0 : 1)) };
}

/** The samples' values one after another: within a sample its learned tokens lie in their order. */
function joinValues(samples: readonly PackingSample[]): RowValues {
  const names = Object.entries(samples[0]?.values ?? {});
  return Object.fromEntries(
    names.map(([name, { shape }]) => {
      const parts = samples.map(({ id, values }) => {
        const value = values?.[name];
        if (value === undefined) throw new StillhouseError('INTERNAL', `row ${id}: expected values ${name} as the other rows of its step have, got none`);
        return value.data;
      });
      const length = parts.reduce((sum, part) => sum + part.length, 0);
      const data = parts[0] instanceof BigInt64Array ? new BigInt64Array(length) : new Float32Array(length);
      let at = 0;
      for (const part of parts) {
        data.set(part as never, at);
        at += part.length;
      }
      return [name, { shape, data }];
    }),
  );
}

/** One row: the shared prefix, then each sample's own tokens but the last, which predicts nothing. */
function fillRow(samples: readonly PackingSample[], shared: number) {
  const ids: number[] = samples[0]?.ids.slice(0, shared) as number[];
  const positions = ids.map((_, i) => i);
  const starts: number[] = ids.map(() => 0); // where the block that a token attends to begins
  const rows: number[] = [];
  const labels: number[] = [];
  const weights: number[] = [];
  for (const sample of samples) {
    const start = ids.length;
    for (let i = shared; i < sample.ids.length - 1; i++) {
      ids.push(sample.ids[i] as number);
      positions.push(i);
      starts.push(start);
      if (i + 1 < sample.responseStart) continue;
      rows.push(start + i - shared);
      labels.push(sample.ids[i + 1] as number);
      weights.push(sample.weight ?? 1);
    }
  }
  return { ids, positions, starts, rows, labels, weights };
}

function toInt64(values: readonly number[]): BigInt64Array {
  return BigInt64Array.from(values, (value) => BigInt(value));
}
