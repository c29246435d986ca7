/**
 * Random numbers by counter: number i of a stream depends on the seed, the stream and i alone, so that a
 * resumed run draws what an uninterrupted one would have drawn.
 */

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
