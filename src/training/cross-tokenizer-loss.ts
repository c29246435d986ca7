/** The loss of a student beside a teacher of another vocabulary. Letters as in row-loss.ts; Vt and Ht are the teacher's. */
import type { CrossTokenizerSpec } from '../contracts/training-spec.ts';
import type { Graph } from '../graph/graph.ts';
import type { FloatValue } from '../graph/ops.ts';
import { TEACHER_ROWS } from './objective.ts';
import { crossEntropy } from './row-loss.ts';
import type { RowLoss } from './row-loss.ts';

/**
 * Cross-entropy with the label plus, where the teacher has read the same text, `weight` times the distance of both
 * distributions by rank: Σ_i |p_(i) − q_(i)|, p_(1) ≥ p_(2) ≥ …, the shorter one filled up with zeros (ULD, Boizard et
 * al. 2024, arXiv 2402.12030, section 3.2). With `ranks` what is left after so many of them is one more class: to sort whole
 * vocabularies can take longer than the rest of a step. head: (Vt, Ht).
 */
export function crossTokenizerLoss({ weight, temperature, ranks = Infinity }: CrossTokenizerSpec, head: FloatValue): RowLoss {
  return {
    inputs: [...crossEntropy.inputs, { name: TEACHER_ROWS, dtype: 'float32', shape: head.shape.slice(1) }, { name: 'partnered', dtype: 'float32', shape: [] }],
    loss(g, logits, input) {
      const softened = (x: FloatValue): FloatValue => g.softmax(g.mul(x, g.scalar(1 / temperature)));
      const apart = distanceByRank(g, softened(g.matMul(input(TEACHER_ROWS) as FloatValue, head, { transB: true })), softened(logits), ranks);
      return g.add(crossEntropy.loss(g, logits, input), g.mul(apart, g.mul(input('partnered') as FloatValue, g.scalar(weight))));
    },
  };
}

/** (C, n) and (C, m) → (C). */
function distanceByRank(g: Graph, p: FloatValue, q: FloatValue, ranks: number): FloatValue {
  const [n, m] = [Number(p.shape[1]), Number(q.shape[1])];
  const common = Math.min(n, m);
  const sum = (x: FloatValue): FloatValue => g.reduceSum(x, [1], false);
  if (ranks < common) {
    const [first, second] = [g.largest(p, ranks), g.largest(q, ranks)];
    // Both sum to 1: what is left of them differs as what was taken does.
    return g.add(sum(g.abs(g.sub(first, second))), g.abs(g.sub(sum(first), sum(second))));
  }
  const [first, second] = [g.largest(p, n), g.largest(q, m)];
  const front = (x: FloatValue): FloatValue => (x.shape[1] === common ? x : g.slice(x, 1, 0, common));
  const apart = sum(g.abs(g.sub(front(first), front(second))));
  return n === m ? apart : g.add(apart, sum(g.slice(n > m ? first : second, 1, common, Math.max(n, m))));
}
