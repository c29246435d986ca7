/** Seeded randomness: the same seed and name give the same sequence on every machine. */
import { createHash } from 'node:crypto';

/** A generator of numbers in [0, 1). */
export type Random = () => number;

/** sfc32 (Doty-Humphrey, PractRand), its state taken from the SHA-256 of seed and name. */
export function createRandom(seed: number, name: string): Random {
  const state = createHash('sha256').update(`${seed}:${name}`).digest();
  let a = state.readInt32LE(0);
  let b = state.readInt32LE(4);
  let c = state.readInt32LE(8);
  let counter = state.readInt32LE(12);
  return () => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 0x1_0000_0000;
  };
}

/** A new array in random order (Fisher–Yates). */
export function shuffled<T>(items: readonly T[], random: Random): T[] {
  const result = [...items];
  for (let last = result.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1));
    [result[last], result[other]] = [result[other] as T, result[last] as T];
  }
  return result;
}
