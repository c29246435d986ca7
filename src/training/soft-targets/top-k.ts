/** A teacher's distribution over the next token, cut to its k most probable tokens with the mass of all the others. */
import { StillhouseError } from '../../contracts/errors.ts';

export interface TopK {
  /** Ascending. */
  readonly ids: Uint32Array;
  /** Natural logarithms, in the order of `ids`. */
  readonly logProbs: Float64Array;
  /** Probability of all tokens that are not listed. */
  readonly tailMass: number;
}

/**
 * logits: (V) float32. Softmax in float64; of equal logits the lower ids are kept, so that equal logits
 * give equal targets. BAD_INPUT, naming `where`, when a logit is NaN or +∞ or when no token has any mass.
 */
export function topK(logits: Float32Array, k: number, where: string): TopK {
  let largest = -Infinity;
  for (const [id, logit] of logits.entries()) {
    if (Number.isNaN(logit) || logit === Infinity) throw new StillhouseError('BAD_INPUT', `${where}: expected finite logits of the teacher, got ${logit} for token ${id}`);
    if (logit > largest) largest = logit;
  }
  if (largest === -Infinity) throw new StillhouseError('BAD_INPUT', `${where}: expected a teacher that gives some token a mass, got none among ${logits.length} tokens`);
  let total = 0;
  for (const logit of logits) total += Math.exp(logit - largest);
  const logTotal = largest + Math.log(total);
  const kept = k >= logits.length ? Uint32Array.from(logits.keys()) : mostProbable(logits, k);
  const logProbs = Float64Array.from(kept, (id) => (logits[id] as number) - logTotal);
  return { ids: kept, logProbs, tailMass: k >= logits.length ? 0 : tailOf(logits, kept, logTotal) };
}

/** The mass of the tokens that are left out, summed directly: 1 − Σ would lose it where it is small. */
function tailOf(logits: Float32Array, kept: Uint32Array, logTotal: number): number {
  let next = 0;
  let tail = 0;
  for (let id = 0; id < logits.length; id += 1) {
    if (kept[next] === id) next += 1;
    else tail += Math.exp((logits[id] as number) - logTotal);
  }
  return Math.min(1, tail);
}

/** Ids of the k largest logits, ascending: a heap of k candidates with the smallest on top. */
function mostProbable(logits: Float32Array, k: number): Uint32Array {
  const heap = new Uint32Array(k);
  // True when token a leaves before token b: a smaller logit, or a higher id with an equal one.
  const below = (a: number, b: number): boolean => (logits[a] as number) < (logits[b] as number) || (logits[a] === logits[b] && a > b);
  let size = 0;
  const sink = (from: number): void => {
    for (let at = from; ; ) {
      const left = 2 * at + 1;
      if (left >= size) return;
      const right = left + 1;
      const child = right < size && below(heap[right] as number, heap[left] as number) ? right : left;
      if (!below(heap[child] as number, heap[at] as number)) return;
      [heap[at], heap[child]] = [heap[child] as number, heap[at] as number];
      at = child;
    }
  };
  for (let id = 0; id < logits.length; id += 1) {
    if (size < k) {
      heap[size] = id;
      size += 1;
      if (size === k) for (let at = (k >>> 1) - 1; at >= 0; at -= 1) sink(at);
    } else if (below(heap[0] as number, id)) {
      heap[0] = id;
      sink(0);
    }
  }
  return heap.sort();
}
