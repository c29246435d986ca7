/** The choice of the next token from its logits. */
import { StillhouseError } from '../contracts/errors.ts';
import type { GenerationRequest } from './model.ts';

/** Gives the next token; `logits` is (V) and is not changed. */
export type Sampler = (logits: Float32Array) => number;

/** Uniform numbers in [0, 1) from a 32-bit state (Mulberry32, Ettinger 2017). */
function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The first of the largest. */
function argmax(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i += 1) if ((logits[i] ?? -Infinity) > (logits[best] ?? -Infinity)) best = i;
  return best;
}

function sample(logits: Float32Array, request: GenerationRequest, draw: number): number {
  const { temperature, topK = 0, topP = 1 } = request;
  const highest = logits[argmax(logits)] ?? 0;
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - highest) / temperature));
  // Tokens whose weight cannot move a double's sum are left out before sorting.
  let order = Array.from(weights.keys()).filter((id) => (weights[id] ?? 0) > 1e-18);
  order.sort((a, b) => (weights[b] ?? 0) - (weights[a] ?? 0) || a - b);
  if (topK > 0) order = order.slice(0, topK);
  const total = order.reduce((sum, id) => sum + (weights[id] ?? 0), 0);
  let kept = 0;
  let mass = 0;
  while (kept < order.length && (kept === 0 || mass < topP * total)) mass += weights[order[kept++] ?? 0] ?? 0;
  let left = draw * mass;
  for (const id of order.slice(0, kept)) {
    left -= weights[id] ?? 0;
    if (left < 0) return id;
  }
  return order[kept - 1] ?? 0;
}

/**
 * Greedy at temperature 0. Otherwise the largest `topK` and of those the fewest whose probability reaches
 * `topP` (Holtzman et al. 2020), drawn by a generator that the seed and the prompt's index decide.
 */
export function createSampler(request: GenerationRequest, index: number): Sampler {
  const { temperature, topP = 1, topK = 0 } = request;
  if (!(temperature >= 0)) throw new StillhouseError('BAD_INPUT', `temperature: expected 0 or more, got ${temperature}`);
  if (!(topP > 0 && topP <= 1)) throw new StillhouseError('BAD_INPUT', `topP: expected a number above 0 and up to 1, got ${topP}`);
  if (!Number.isInteger(topK) || topK < 0) throw new StillhouseError('BAD_INPUT', `topK: expected 0 or a positive integer, got ${topK}`);
  if (temperature === 0) return argmax;
  const next = uniform(Math.imul((request.seed ?? 0) ^ Math.imul(index + 1, 0x9e3779b1), 0x85ebca6b));
  return (logits) => sample(logits, request, next());
}
