/**
 * Random numbers by counter: number i of a stream depends on the seed, the stream and i alone, so that a
 * resumed run draws what an uninterrupted one would have drawn.
 */

/** What the draws are for; the first part of a stream's name. */
export const RANDOM_STREAM = { initialWeights: 1, dataOrder: 2, dropout: 3, heldOut: 4 } as const;

const GOLDEN_RATIO = 0x9e3779b9;

/** A bijection of 32-bit integers with low bias (C. Wellons, "hash-prospector", lowbias32 successor). */
function mix(value: number): number {
  let x = value ^ (value >>> 16);
  x = Math.imul(x, 0x21f0aaad);
  x ^= x >>> 15;
  x = Math.imul(x, 0xd35a2d97);
  return x ^ (x >>> 15);
}

export interface RandomStream {
  /** Uniform in (0, 1], in steps of 2⁻³². */
  uniform(index: number): number;
}

export function randomStream(seed: number, ...stream: readonly number[]): RandomStream {
  let first = mix(seed >>> 0);
  let second = mix(Math.floor(seed / 2 ** 32) ^ GOLDEN_RATIO);
  for (const part of stream) {
    first = mix(first ^ mix(part + GOLDEN_RATIO));
    second = mix((second + first) ^ part);
  }
  return { uniform: (index) => ((mix(mix(index ^ first) + second) >>> 0) + 1) / 2 ** 32 };
}

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
