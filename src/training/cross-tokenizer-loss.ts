/** The loss of a student beside a teacher of another vocabulary. Letters as in row-loss.ts; Vt and Ht are the teacher's. */
import type { CrossTokenizerSpec } from '../contracts/training-spec.ts';
import type { Graph } from '../graph/graph.ts';
import type { FloatValue } from '../graph/ops.ts';
import { crossEntropy } from './row-loss.ts';
import type { RowLoss } from './row-loss.ts';

/**
 * Cross-entropy with the label plus, where the teacher has read the same text, `weight` times the distance of both
 * distributions by rank: Σ_i |p_(i) − q_(i)|, p_(1) ≥ p_(2) ≥ …, the shorter one filled up with zeros (ULD, Boizard et
 * al. 2024, arXiv 2402.12030, section 3.2). head: (Vt, Ht).
 */
export function crossTokenizerLoss({ weight, temperature }: CrossTokenizerSpec, head: FloatValue): RowLoss {
  return {
    inputs: [...crossEntropy.inputs, { name: 'teacherRows', dtype: 'float32', shape: head.shape.slice(1) }, { name: 'partnered', dtype: 'float32', shape: [] }],
    loss(g, logits, input) {
      const ranked = (x: FloatValue): FloatValue => g.sortDescending(g.softmax(g.mul(x, g.scalar(1 / temperature))));
      const apart = distanceByRank(g, ranked(g.matMul(input('teacherRows') as FloatValue, head, { transB: true })), ranked(logits));
      return g.add(crossEntropy.loss(g, logits, input), g.mul(apart, g.mul(input('partnered') as FloatValue, g.scalar(weight))));
    },
  };
}

/** (C, n) and (C, m), both in descending order → (C). What only one has is its distance from nothing. */
function distanceByRank(g: Graph, p: FloatValue, q: FloatValue): FloatValue {
  const [n, m] = [Number(p.shape[1]), Number(q.shape[1])];
  const common = Math.min(n, m);
  const first = (x: FloatValue): FloatValue => (x.shape[1] === common ? x : g.slice(x, 1, 0, common));
  const apart = g.reduceSum(g.abs(g.sub(first(p), first(q))), [1], false);
  return n === m ? apart : g.add(apart, g.reduceSum(g.slice(n > m ? p : q, 1, common, Math.max(n, m)), [1], false));
}
