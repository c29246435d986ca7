/** What training draws by counter (src/lm/random.ts), so that a resumed run draws what an uninterrupted one would have. */
import { randomStream } from '../lm/random.ts';
import type { RandomStream } from '../lm/random.ts';

export { randomStream };

/** What the draws are for; the first part of a stream's name. */
export const RANDOM_STREAM = { initialWeights: 1, dataOrder: 2, dropout: 3, heldOut: 4, projections: 5, ownRows: 6, ownAnswers: 7 } as const;

/** 0 … length − 1 in random order (Fisher and Yates). */
export function permutation(length: number, random: RandomStream): number[] {
  const order = Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = Math.min(i, Math.floor(random.uniform(i) * (i + 1)));
    [order[i], order[j]] = [order[j] as number, order[i] as number];
  }
  return order;
}

/**
 * Fills `mask` with 0 at a share `probability` of places and 1 / (1 − probability) elsewhere. The gaps
 * between zeros are drawn from their geometric distribution: a draw for each zero, not for each element.
 */
export function fillDropoutMask(mask: Float32Array, probability: number, random: RandomStream): void {
  mask.fill(1 / (1 - probability));
  const logKept = Math.log(1 - probability);
  let at = -1;
  for (let draw = 0; ; draw++) {
    at += 1 + Math.floor(Math.log(random.uniform(draw)) / logKept);
    if (at >= mask.length) return;
    mask[at] = 0;
  }
}
