/**
 * Losses that compare a student's row of logits with its teacher's (Hinton et al. 2015, section 2; generalised
 * Jensen–Shannon after Agarwal et al. 2023, arXiv 2306.13649, section 2). All are row losses: they run chunk by
 * chunk (row-loss.ts), the teacher's logits too. Letters as there; k stored classes a row.
 */
import type { Graph } from '../graph/graph.ts';
import type { FloatValue, IntValue, Value } from '../graph/ops.ts';
import { crossEntropy } from './row-loss.ts';
import type { RowLoss } from './row-loss.ts';

/** What stands in for a probability of zero before its logarithm is taken: far below what float32 resolves beside any other. */
const NOTHING = 1e-30;

/** Where the teacher's distribution comes from, as unnormalised log-probabilities over classes that both are compared by. */
export interface TeacherSource {
  readonly inputs: RowLoss['inputs'];
  /** Both (C, classes). */
  readonly classes: (g: Graph, logits: FloatValue, input: (name: string) => Value) => { readonly student: FloatValue; readonly teacher: FloatValue };
}

/**
 * The teacher's rows before its head, (Ht) each: its logits are made within the chunk. `head`: (V, Ht), or fewer than the
 * student's V where the vocabularies differ in padding; what is beyond is not compared.
 */
export function teacherRows(head: FloatValue): TeacherSource {
  return {
    inputs: [{ name: 'teacherRows', dtype: 'float32', shape: head.shape.slice(1) }],
    classes: (g, logits, input) => ({
      student: head.shape[0] === logits.shape[1] ? logits : g.slice(logits, 1, 0, Number(head.shape[0])),
      teacher: g.matMul(input('teacherRows') as FloatValue, head, { transB: true }),
    }),
  };
}

/**
 * The k likeliest tokens of each row and their natural-log probabilities, as stored or as an API gave them. All other
 * tokens together are one more class, so that probability on them counts. Its log-probability (−∞ for none) is given
 * too: one minus a float32 sum is rounding where little is left, and a temperature would make much of that.
 */
export function teacherTopK(k: number): TeacherSource {
  return {
    inputs: [{ name: 'teacherTokens', dtype: 'int64', shape: [k] }, { name: 'teacherLogProbs', dtype: 'float32', shape: [k] }, { name: 'teacherRest', dtype: 'float32', shape: [] }],
    classes(g, logits, input) {
      const [tokens, stored] = [input('teacherTokens') as IntValue, input('teacherLogProbs') as FloatValue];
      const logProbs = g.logSoftmax(logits); // (C, V)
      const others = g.exp(g.scatterAddElements(logProbs, tokens, g.expandLike(g.floats([-1e9], [1, 1]), stored), 1));
      const withRest = (kept: FloatValue, rest: FloatValue): FloatValue => g.concat([kept, g.log(g.add(rest, g.scalar(NOTHING)))], 1);
      const rest = g.exp(g.unsqueeze(input('teacherRest') as FloatValue, [1])); // (C, 1)
      return { student: withRest(g.gatherElements(logProbs, tokens, 1), g.reduceSum(others, [1])), teacher: withRest(stored, rest) };
    },
  };
}

/** How far two distributions are apart. P is the teacher's, Q the student's. */
export type Divergence =
  /** KL(P ‖ Q): the student covers all that the teacher does. */
  | { readonly kind: 'forward-kl' }
  /** KL(Q ‖ P): the student keeps to what the teacher finds likely. */
  | { readonly kind: 'reverse-kl' }
  /** β·KL(P ‖ M) + (1 − β)·KL(Q ‖ M) with M = β·P + (1 − β)·Q, 0 < β < 1. */
  | { readonly kind: 'jensen-shannon'; readonly beta: number };

export interface DistillationSpec {
  readonly divergence: Divergence;
  /** T: both distributions are softened by it. */
  readonly temperature: number;
  /** Share of the divergence; the rest is the cross-entropy with the label. */
  readonly alpha: number;
  readonly teacher: TeacherSource;
}

/** alpha·T²·divergence(P_T, Q_T) + (1 − alpha)·cross-entropy, in nats. */
export function distillation({ divergence, temperature, alpha, teacher }: DistillationSpec): RowLoss {
  return {
    inputs: [...teacher.inputs, ...(alpha < 1 ? crossEntropy.inputs : [])],
    loss(g, logits, input) {
      const classes = teacher.classes(g, logits, input);
      const softened = (x: FloatValue): FloatValue => g.logSoftmax(g.mul(x, g.scalar(1 / temperature)));
      const apart = diverge(g, softened(classes.teacher), softened(classes.student), divergence);
      const soft = g.mul(apart, g.scalar(alpha * temperature ** 2));
      return alpha < 1 ? g.add(soft, g.mul(crossEntropy.loss(g, logits, input), g.scalar(1 - alpha))) : soft;
    },
  };
}

/** p and q: log-probabilities (C, classes) → (C). */
function diverge(g: Graph, p: FloatValue, q: FloatValue, divergence: Divergence): FloatValue {
  /** Σ eᵃ·(a − b) */
  const kl = (a: FloatValue, b: FloatValue): FloatValue => g.reduceSum(g.mul(g.exp(a), g.sub(a, b)), [1], false);
  switch (divergence.kind) {
    case 'forward-kl':
      return kl(p, q);
    case 'reverse-kl':
      return kl(q, p);
    case 'jensen-shannon': {
      const { beta } = divergence;
      const scaled = (x: FloatValue, factor: number): FloatValue => g.mul(x, g.scalar(factor));
      const mixture = g.log(g.add(g.add(scaled(g.exp(p), beta), scaled(g.exp(q), 1 - beta)), g.scalar(NOTHING)));
      return g.add(scaled(kl(p, mixture), beta), scaled(kl(q, mixture), 1 - beta));
    }
  }
}

export type HiddenStateKind = 'mean-square' | 'cosine';

/** How a student's hidden state resembles its teacher's: rows (R, H) against (R, Ht) → (R). `projection`, (Ht, H), is needed where the widths differ. */
export function hiddenStateLoss(
  g: Graph,
  input: { readonly kind: HiddenStateKind; readonly student: FloatValue; readonly teacher: FloatValue; readonly projection?: FloatValue },
): FloatValue {
  const { teacher, projection } = input;
  const student = projection === undefined ? input.student : g.matMul(input.student, projection, { transB: true });
  switch (input.kind) {
    case 'mean-square': {
      const difference = g.sub(student, teacher);
      return g.reduceMean(g.mul(difference, difference), [-1], false);
    }
    case 'cosine': {
      // Divided by their root mean squares, two vectors have the cosine as the mean of their products.
      const width = Number(teacher.shape.at(-1));
      const unit = (x: FloatValue): FloatValue => g.rmsNorm(x, g.floats(new Float32Array(width).fill(1), [width]), 1e-12);
      return g.sub(g.scalar(1), g.reduceMean(g.mul(unit(student), unit(teacher)), [-1], false));
    }
  }
}
