/** A packed row as what a graph is given. N chunks of C learned rows each. */
import { Tensor } from 'onnxruntime-node';
import { blockLengths } from '../lm/architectures/decoder.ts';
import { elementCount } from '../lm/weights/tensor-file.ts';
import type { HiddenTokens } from './objective.ts';
import type { PackedRow } from './packing.ts';
import { chunkRows } from './row-loss.ts';

export type Feeds = Readonly<Record<string, Tensor>>;

export interface RowFeeds {
  /** `ids`, `positions` (B, T), `mask` (B, 1, T, T), `blocks`, `rows` (N, C). */
  readonly model: Feeds & { readonly ids: Tensor };
  /** The same as the teacher reads it. */
  readonly observed: Feeds;
  /** `weights` times `scale`, `labels` and what else is known of each learned token: (N, C, …). */
  readonly known: (scale: number) => Feeds;
  /** `hiddenWeights` (B, T), times `scale`: of `all` tokens how many samples read each, of those that predict an `answer` one. */
  readonly hiddenWeights: (tokens: HiddenTokens, scale: number) => Feeds;
}

/** Learned rows in chunks as the head of a vocabulary of this size takes them, with zeros, whose weight is zero, to the end of the last. */
export function rowFeeds(row: PackedRow, vocabularySize: number): RowFeeds {
  const { chunks, size } = chunkRows(row.rows.length, vocabularySize);
  const chunked = (values: BigInt64Array | Float32Array, shape: readonly number[] = []): Tensor => {
    const length = chunks * size * elementCount(shape);
    const dims = [chunks, size, ...shape];
    if (values instanceof Float32Array) {
      const padded = new Float32Array(length);
      padded.set(values);
      return new Tensor('float32', padded, dims);
    }
    const padded = new BigInt64Array(length);
    padded.set(values);
    return new Tensor('int64', padded, dims);
  };
  const tokensOf = ({ batch, width, ids, positions, mask }: PackedRow) => {
    const blocks = BigInt64Array.from(blockLengths(width), BigInt);
    return {
      ids: new Tensor('int64', ids, [batch, width]),
      positions: new Tensor('int64', positions, [batch, width]),
      mask: new Tensor('float32', mask, [batch, 1, width, width]),
      blocks: new Tensor('int64', blocks, [blocks.length]),
    };
  };
  const model = { ...tokensOf(row), rows: chunked(row.rows) };
  return {
    model,
    observed: row.teacher === undefined ? model : { ...tokensOf(row.teacher.row), rows: chunked(row.teacher.rows) },
    known: (scale) => ({
      weights: chunked(row.weights.map((weight) => weight * scale)),
      labels: chunked(row.labels),
      ...Object.fromEntries(Object.entries(row.values).map(([name, { shape, data }]) => [name, chunked(data, shape)])),
    }),
    hiddenWeights: (tokens, scale) => ({ hiddenWeights: new Tensor('float32', (tokens === 'all' ? row.readers : predicting(row)).map((weight) => weight * scale), [row.batch, row.width]) }),
  };
}

/** 1 at each token after which something is learned: (B, T). */
function predicting({ rows, tokens }: PackedRow): Float32Array<ArrayBuffer> {
  const weights = new Float32Array(tokens);
  for (const row of rows) weights[Number(row)] = 1;
  return weights;
}
