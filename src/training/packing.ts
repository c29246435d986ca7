/**
 * Packing: the samples of a batch one after another in one row without padding. Positions start again with
 * each sample and a block-diagonal mask keeps samples apart. What all prompts of a row begin with is computed
 * once: every sample attends to it, and its gradient is the sum over the samples, as it would be without sharing.
 */
import { StillhouseError } from '../contracts/errors.ts';
import { MASKED } from '../lm/architectures/decoder.ts';

export interface TrainingSample {
  readonly id: string;
  readonly ids: readonly number[];
  /** Index of the first token that is learned; at least 1. */
  readonly responseStart: number;
}

/** One row of T tokens with R labels. */
export interface PackedRow {
  readonly tokens: number;
  readonly ids: BigInt64Array; // (T)
  readonly positions: BigInt64Array; // (T)
  readonly mask: Float32Array; // (T, T)
  /** Which tokens predict, and what. */
  readonly rows: BigInt64Array; // (R)
  readonly labels: BigInt64Array; // (R)
}

/** BAD_INPUT with the ids of samples that are too long or have nothing to learn. */
export function checkSamples(samples: readonly TrainingSample[], maxTokens: number): void {
  const long = samples.filter((sample) => sample.ids.length > maxTokens);
  const first = long[0];
  if (first !== undefined) {
    const names = long.slice(0, 5).map((sample) => `${sample.id} (${sample.ids.length})`).join(', ');
    throw new StillhouseError('BAD_INPUT', `dataset: expected rows of at most maxTokens = ${maxTokens} tokens, got ${long.length} longer: ${names}`, { details: { ids: long.map((sample) => sample.id).slice(0, 100) } });
  }
  const empty = samples.find((sample) => sample.responseStart < 1 || sample.responseStart >= sample.ids.length);
  if (empty !== undefined) throw new StillhouseError('BAD_INPUT', `dataset: expected a prompt and an answer in row ${empty.id}, got ${empty.responseStart} prompt tokens of ${empty.ids.length}`);
  if (samples.length === 0) throw new StillhouseError('BAD_INPUT', 'dataset: expected one row or more, got none');
}

/** Splits a batch, in its order, into rows of at most `maxRowTokens` (a longer sample has its own). */
export function splitBatch(samples: readonly TrainingSample[], maxRowTokens: number): readonly (readonly TrainingSample[])[] {
  const rows: TrainingSample[][] = [];
  let filled = Infinity;
  for (const sample of samples) {
    if (filled + sample.ids.length > maxRowTokens) {
      rows.push([]);
      filled = 0;
    }
    rows.at(-1)?.push(sample);
    filled += sample.ids.length;
  }
  return rows;
}

/** Tokens that all prompts begin with; a row of one sample shares nothing. */
function sharedPrefix(samples: readonly TrainingSample[]): number {
  const [first, ...others] = samples;
  if (first === undefined || others.length === 0) return 0;
  const limit = Math.min(...samples.map((sample) => sample.responseStart)) - 1;
  let length = 0;
  while (length < limit && others.every((sample) => sample.ids[length] === first.ids[length])) length++;
  return length;
}

export function packRow(samples: readonly TrainingSample[]): PackedRow {
  const shared = sharedPrefix(samples);
  const ids: number[] = samples[0]?.ids.slice(0, shared) as number[];
  const positions = ids.map((_, i) => i);
  const starts: number[] = ids.map(() => 0); // where the block that a token attends to begins
  const rows: number[] = [];
  const labels: number[] = [];
  for (const sample of samples) {
    const start = ids.length;
    for (let i = shared; i < sample.ids.length - 1; i++) {
      ids.push(sample.ids[i] as number);
      positions.push(i);
      starts.push(start);
      if (i + 1 < sample.responseStart) continue;
      rows.push(start + i - shared);
      labels.push(sample.ids[i + 1] as number);
    }
  }
  return {
    tokens: ids.length,
    ids: toInt64(ids),
    positions: toInt64(positions),
    mask: blockMask(starts, shared),
    rows: toInt64(rows),
    labels: toInt64(labels),
  };
}

function toInt64(values: readonly number[]): BigInt64Array {
  return BigInt64Array.from(values, (value) => BigInt(value));
}

/** 0 where token i attends to token j: the shared prefix, and its own block up to itself. */
function blockMask(starts: readonly number[], shared: number): Float32Array {
  const tokens = starts.length;
  const mask = new Float32Array(tokens * tokens).fill(MASKED);
  starts.forEach((start, i) => {
    mask.fill(0, i * tokens, i * tokens + Math.min(shared, i + 1));
    mask.fill(0, i * tokens + start, i * tokens + i + 1);
  });
  return mask;
}
