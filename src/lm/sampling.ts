/** The choice of the next token from its logits. */
import { StillhouseError } from '../contracts/errors.ts';
import type { SamplingSettings } from './model.ts';
import { randomStream } from './random.ts';

/** Gives token number `step` of an answer; `logits` is (V) and is not changed. */
export type Sampler = (logits: Float32Array, step: number) => number;

/** Names the streams of this module among those of a seed. */
const SAMPLING_STREAM = 4;

/** Below this share of the highest, a token cannot move a double's sum. */
const NEGLIGIBLE = 1e-18;

/** The first of the largest. */
export function argmax(logits: Float32Array): number {
  let best = 0;
  let highest = -Infinity;
  for (let i = 0; i < logits.length; i += 1) {
    const logit = logits[i] as number;
    if (logit > highest) [best, highest] = [i, logit];
  }
  return best;
}

function sample(logits: Float32Array, settings: SamplingSettings, draw: number): number {
  const { temperature, topK = 0, topP = 1, minP = 0 } = settings;
  const highest = logits[argmax(logits)] ?? 0;
  const least = highest + temperature * Math.log(Math.max(NEGLIGIBLE, minP));
  const candidates: { readonly id: number; readonly weight: number }[] = [];
  for (let id = 0; id < logits.length; id += 1) {
    const logit = logits[id] as number;
    if (logit >= least) candidates.push({ id, weight: Math.exp((logit - highest) / temperature) });
  }
  candidates.sort((a, b) => b.weight - a.weight || a.id - b.id);
  const considered = topK > 0 ? candidates.slice(0, topK) : candidates;
  const total = considered.reduce((sum, { weight }) => sum + weight, 0);
  let kept = 0;
  let mass = 0;
  while (kept < considered.length && (kept === 0 || mass < topP * total)) mass += considered[kept++]?.weight ?? 0;
  let left = draw * mass;
  for (const { id, weight } of considered.slice(0, kept)) {
    left -= weight;
    if (left <= 0) return id;
  }
  return considered[kept - 1]?.id ?? 0;
}

/** BAD_INPUT names the setting that is out of its range. */
export function checkSampling({ temperature, topP = 1, topK = 0, minP = 0, seed = 0 }: SamplingSettings): void {
  if (!(temperature >= 0 && temperature < Infinity)) throw new StillhouseError('BAD_INPUT', `temperature: expected 0 or more, got ${temperature}`);
  if (!(topP > 0 && topP <= 1)) throw new StillhouseError('BAD_INPUT', `topP: expected a number above 0 and up to 1, got ${topP}`);
  if (!Number.isInteger(topK) || topK < 0) throw new StillhouseError('BAD_INPUT', `topK: expected 0 or a positive integer, got ${topK}`);
  if (!(minP >= 0 && minP <= 1)) throw new StillhouseError('BAD_INPUT', `minP: expected a number from 0 to 1, got ${minP}`);
  if (!Number.isSafeInteger(seed) || seed < 0) throw new StillhouseError('BAD_INPUT', `seed: expected 0 or a positive integer, got ${seed}`);
}

/**
 * Greedy at temperature 0. Otherwise what is at least `minP` times as probable as the most probable (Nguyen et al.
 * 2024), of that the largest `topK`, and of those the fewest whose probability reaches `topP` (Holtzman et al. 2020).
 * The draw depends on the seed, the prompt's index in its request and the step alone, not on what runs beside it.
 */
export function createSampler(settings: SamplingSettings, index: number): Sampler {
  if (settings.temperature === 0) return argmax;
  const random = randomStream(settings.seed ?? 0, SAMPLING_STREAM, index);
  return (logits, step) => sample(logits, settings, random.uniform(step));
}
