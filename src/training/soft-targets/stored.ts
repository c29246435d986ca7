/** Stored distributions as a step is given them: for each learned token the k likeliest and the mass of all others. */
import { StillhouseError } from '../../contracts/errors.ts';
import type { RowValues, TrainingSample } from '../packing.ts';
import type { TopK } from './top-k.ts';

/** Of `training.logit`. */
export const DEFAULT_TOP_K = 50;
export const DEFAULT_MIN_MASS = 0.9;

/** A teacher's distributions of a dataset's answers: of the k likeliest tokens each, or what its head makes them of. */
export interface StoredTargets {
  readonly source: { readonly kind: 'top-k'; readonly k: number } | { readonly kind: 'rows' };
  /** BAD_INPUT, with the row, for the first that does not fit its answer or lists less than `minMass`. */
  check(minMass: number): void;
  /** One for each learned token of the sample, as `teacherTopK(k)` or `teacherRows` takes them. */
  valuesOf(sample: TrainingSample): RowValues;
}

/** teacherTokens (R, k) int64, teacherLogProbs (R, k) and teacherRest (R) float32. */
export function targetValues(positions: readonly TopK[], k: number): RowValues {
  const tokens = new BigInt64Array(positions.length * k);
  const logProbs = new Float32Array(positions.length * k);
  const rest = new Float32Array(positions.length);
  positions.forEach(({ ids, logProbs: of, tailMass }, row) => {
    for (let i = 0; i < k; i += 1) {
      tokens[row * k + i] = BigInt(ids[i] as number);
      logProbs[row * k + i] = of[i] as number;
    }
    rest[row] = Math.log(tailMass);
  });
  return { teacherTokens: { shape: [k], data: tokens }, teacherLogProbs: { shape: [k], data: logProbs }, teacherRest: { shape: [], data: rest } };
}

/**
 * BAD_INPUT, with the row, where the distributions are not those of the sample's answer, where one has no mass or none that is a number, or
 * where on average over the answer the listed tokens hold less than `minMass`.
 */
export function requireFitting({ id, ids, responseStart }: TrainingSample, tokens: ArrayLike<number>, positions: readonly TopK[], minMass: number): void {
  const where = `soft targets, row ${id}`;
  const answer = ids.slice(responseStart);
  const differs = answer.findIndex((token, i) => tokens[i] !== token);
  if (tokens.length !== answer.length || positions.length !== answer.length || differs >= 0) {
    throw new StillhouseError('BAD_INPUT', `${where}: expected distributions of its ${answer.length} answer tokens, got ${differs >= 0 && differs < tokens.length ? `one of token ${tokens[differs]} in place of ${answer[differs]} at position ${differs}` : `${tokens.length}`}`);
  }
  let listed = 0;
  positions.forEach(({ logProbs, tailMass }, position) => {
    const mass = logProbs.reduce((sum, logProb) => sum + Math.exp(logProb), 0);
    if (!(mass > 0 && mass + tailMass < 1.01 && tailMass >= 0)) throw new StillhouseError('BAD_INPUT', `${where}, position ${position}: expected a distribution whose mass is 1, got ${mass} on ${logProbs.length} tokens and ${tailMass} on the others`);
    listed += mass;
  });
  const share = listed / positions.length;
  if (share < minMass) throw new StillhouseError('BAD_INPUT', `${where}: expected the stored tokens to hold at least minMass = ${minMass} of the teacher's mass, got ${share.toFixed(3)}; raise training.logit.topK or lower minMass`);
}
