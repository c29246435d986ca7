/**
 * Packing: the samples of a batch become one row without padding. Positions start again with each sample,
 * and a block-diagonal causal mask keeps samples apart, so that each sees exactly what it would see alone.
 */
import { MASKED } from '../lm/architectures/llama.ts';

/** A tokenized chat: tokens from `responseStart` on are learned. */
export interface TrainingSequence {
  readonly id: string;
  readonly ids: readonly number[];
  readonly responseStart: number;
}

export interface PackedBatch {
  /** N, the tokens of all samples. */
  readonly tokens: number;
  readonly ids: BigInt64Array; // (1, N)
  readonly positions: BigInt64Array; // (1, N)
  readonly mask: Float32Array; // (1, 1, N, N)
  /** Where a prediction is learned: the row before each response token. */
  readonly rows: BigInt64Array; // (R)
  /** What is to be predicted there. */
  readonly labels: BigInt64Array; // (R)
}

export function packBatch(sequences: readonly TrainingSequence[]): PackedBatch {
  const tokens = sequences.reduce((sum, { ids }) => sum + ids.length, 0);
  const ids = new BigInt64Array(tokens);
  const positions = new BigInt64Array(tokens);
  const mask = new Float32Array(tokens * tokens).fill(MASKED);
  const rows: bigint[] = [];
  const labels: bigint[] = [];
  let start = 0;
  for (const sequence of sequences) {
    sequence.ids.forEach((id, position) => {
      const at = start + position;
      ids[at] = BigInt(id);
      positions[at] = BigInt(position);
      mask.fill(0, at * tokens + start, at * tokens + at + 1);
      // The first token has nothing before it to predict it from.
      if (position >= Math.max(1, sequence.responseStart)) {
        rows.push(BigInt(at - 1));
        labels.push(BigInt(id));
      }
    });
    start += sequence.ids.length;
  }
  return { tokens, ids, positions, mask, rows: BigInt64Array.from(rows), labels: BigInt64Array.from(labels) };
}
