/** Rows that are too long for a training: it goes on without them, and says which they are. */
import { StillhouseError } from '../contracts/errors.ts';
import { longestTokens } from './packing.ts';
import type { TrainingSample } from './packing.ts';

export interface TooLongRows {
  readonly count: number;
  /** The first of them. */
  readonly first: readonly { readonly id: string; readonly tokens: number }[];
}

export interface FittingRows {
  /** Those that fit, as JSONL. */
  readonly rows: string;
  readonly samples: readonly TrainingSample[];
  readonly tooLong: TooLongRows;
}

const NAMED = 5;

export const tooLongText = ({ count, first }: TooLongRows): string => `${count}: ${first.map(({ id, tokens }) => `${id} (${tokens} tokens)`).join(', ')}${count > first.length ? ', …' : ''}`;

/** `samples`: the rows as they are read, one for each line. BAD_INPUT where none is short enough. */
export function fittingRows(rows: string, samples: readonly TrainingSample[], maxTokens: number): FittingRows {
  const lines = rows.split('\n').filter((line) => line !== '');
  const measured = samples.map((sample, i) => ({ sample, line: lines[i] ?? '', tokens: longestTokens(sample) }));
  const [fit, long] = [measured.filter(({ tokens }) => tokens <= maxTokens), measured.filter(({ tokens }) => tokens > maxTokens)];
  const tooLong = { count: long.length, first: long.slice(0, NAMED).map(({ sample: { id }, tokens }) => ({ id, tokens })) };
  if (fit.length === 0 && long.length > 0) throw new StillhouseError('BAD_INPUT', `dataset: expected one row or more of at most training.maxTokens = ${maxTokens} tokens, got longer ones alone, ${tooLongText(tooLong)}`);
  return { rows: fit.map(({ line }) => `${line}\n`).join(''), samples: fit.map(({ sample }) => sample), tooLong };
}

/** What two looks at one dataset have left out. */
export const bothTooLong = (a: TooLongRows, b: TooLongRows): TooLongRows => ({ count: a.count + b.count, first: [...a.first, ...b.first].slice(0, NAMED) });
