/**
 * Universal logit distillation (Boizard et al. 2024, arXiv 2402.12030, §3.2): distributions over different
 * vocabularies, compared by their sorted probabilities. A reference in float64; the training graph's
 * loss is checked against it.
 *
 *   ULD = Σ_i | p_(i) − q_(i) |    p_(1) ≥ p_(2) ≥ …, the shorter one filled up with zeros
 *
 * It is the Wasserstein distance of the two under a uniform cost of transport.
 */

/** Descending. */
export const sortedProbabilities = (probabilities: ArrayLike<number>): Float64Array => Float64Array.from(probabilities).sort().reverse();

export function uldLoss(teacher: ArrayLike<number>, student: ArrayLike<number>): number {
  const [p, q] = [sortedProbabilities(teacher), sortedProbabilities(student)];
  let sum = 0;
  for (let rank = 0; rank < Math.max(p.length, q.length); rank += 1) sum += Math.abs((p[rank] ?? 0) - (q[rank] ?? 0));
  return sum;
}

/**
 * ∂ULD/∂z of the student's logits z, q = softmax(z): with g_j = sign(q_j − p at q_j's rank),
 * ∂/∂z_j = q_j · (g_j − Σ_i q_i g_i). Where probabilities are equal the order of ids breaks the tie, and where
 * a difference is 0 its sign counts as 0: one of the subgradients there.
 */
export function uldGradient(teacher: ArrayLike<number>, logits: ArrayLike<number>): Float64Array {
  const q = softmax(logits);
  const p = sortedProbabilities(teacher);
  const ranked = Array.from(q.keys()).sort((a, b) => (q[b] as number) - (q[a] as number) || a - b);
  const signs = new Float64Array(q.length);
  ranked.forEach((id, rank) => (signs[id] = Math.sign((q[id] as number) - (p[rank] ?? 0))));
  const mean = signs.reduce((sum, sign, id) => sum + sign * (q[id] as number), 0);
  return signs.map((sign, id) => (q[id] as number) * (sign - mean));
}

export function softmax(logits: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(logits);
  const largest = values.reduce((most, value) => Math.max(most, value), -Infinity);
  const weights = values.map((value) => Math.exp(value - largest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
