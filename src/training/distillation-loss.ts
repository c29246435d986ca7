/**
 * Losses that compare a student's row of logits with its teacher's (Hinton et al. 2015, section 2; generalised
 * Jensen–Shannon after Agarwal et al. 2023, arXiv 2306.13649, section 2). All are row losses: they run chunk by
 * chunk (row-loss.ts), the teacher's logits too. Letters as there; k stored classes a row.
 */
import type { Graph } from '../graph/graph.ts';
import type { FloatValue, IntValue, Value } from '../graph/ops.ts';
import { TEACHER_ROWS } from './objective.ts';
import { crossEntropy, differentiated, labelled } from './row-loss.ts';
import type { LossWithGradient, RowLoss } from './row-loss.ts';

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
    inputs: [{ name: TEACHER_ROWS, dtype: 'float32', shape: head.shape.slice(1) }],
    classes: (g, logits, input) => ({
      student: head.shape[0] === logits.shape[1] ? logits : g.slice(logits, 1, 0, Number(head.shape[0])),
      teacher: g.matMul(input(TEACHER_ROWS) as FloatValue, head, { transB: true }),
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
  const softened = (g: Graph, x: FloatValue): FloatValue => g.logSoftmax(temperature === 1 ? x : g.mul(x, g.scalar(1 / temperature)));
  const loss: RowLoss['loss'] = (g, logits, input) => {
    const classes = teacher.classes(g, logits, input);
    const { losses } = diverge(g, softened(g, classes.teacher), softened(g, classes.student), divergence);
    const soft = g.mul(losses, g.scalar(alpha * temperature ** 2));
    return alpha < 1 ? g.add(soft, g.mul(crossEntropy.loss(g, logits, input), g.scalar(1 - alpha))) : soft;
  };
  return {
    inputs: [...teacher.inputs, ...(alpha < 1 ? crossEntropy.inputs : [])],
    loss,
    withGradient(g, logits, input) {
      const classes = teacher.classes(g, logits, input);
      // Where tokens are put together into classes, the operators' rules find the way back to the logits.
      if (classes.student !== logits) return differentiated(g, loss, logits, input);
      const q = softened(g, logits);
      const { losses, gradient } = diverge(g, softened(g, classes.teacher), q, divergence);
      const soft = { losses: g.mul(losses, g.scalar(alpha * temperature ** 2)), gradient: g.mul(gradient, g.scalar(alpha * temperature)) };
      if (alpha === 1) return soft;
      const hard = labelled(g, temperature === 1 ? q : g.logSoftmax(logits), input('labels') as IntValue, 1 - alpha);
      return { losses: g.add(soft.losses, hard.losses), gradient: g.add(soft.gradient, hard.gradient) };
    },
  };
}

/**
 * p and q: log-probabilities (C, classes). The gradient is by the logits whose log-softmax q is. With Q = eᑫ it is Q − P for KL(P ‖ Q), and Q·(d − Σ Q·d) for
 * the others, d being what Q is multiplied by: q − p for KL(Q ‖ P), (1 − β)·(q − m) for the mixture, by which the terms in M cancel.
 */
function diverge(g: Graph, p: FloatValue, q: FloatValue, divergence: Divergence): LossWithGradient {
  const [P, Q] = [g.exp(p), g.exp(q)];
  const expected = (of: FloatValue, x: FloatValue): FloatValue => g.reduceSum(g.mul(of, x), [1]); // (C, 1)
  const narrow = (x: FloatValue): FloatValue => g.reshape(x, q.shape.slice(0, 1));
  const centred = (d: FloatValue, mean: FloatValue): FloatValue => g.mul(Q, g.sub(d, mean));
  switch (divergence.kind) {
    case 'forward-kl':
      return { losses: narrow(expected(P, g.sub(p, q))), gradient: g.sub(Q, P) };
    case 'reverse-kl': {
      const d = g.sub(q, p);
      const mean = expected(Q, d);
      return { losses: narrow(mean), gradient: centred(d, mean) };
    }
    case 'jensen-shannon': {
      const { beta } = divergence;
      const m = mixture(g, P, Q, beta);
      const d = g.sub(q, m);
      const mean = expected(Q, d);
      const [ofTeacher, ofStudent] = [g.mul(expected(P, g.sub(p, m)), g.scalar(beta)), g.mul(mean, g.scalar(1 - beta))];
      return { losses: narrow(g.add(ofTeacher, ofStudent)), gradient: g.mul(centred(d, mean), g.scalar(1 - beta)) };
    }
  }
}

/** ln(β·P + (1 − β)·Q) */
function mixture(g: Graph, P: FloatValue, Q: FloatValue, beta: number): FloatValue {
  const scaled = (x: FloatValue, factor: number): FloatValue => g.mul(x, g.scalar(factor));
  return g.log(g.add(g.add(scaled(P, beta), scaled(Q, 1 - beta)), g.scalar(NOTHING)));
}

export type HiddenStateKind = 'mean-square' | 'cosine' | 'standardised';

/** Beside the variance of a coordinate that never changes. */
const VARIANCE_EPSILON = 1e-6;

/**
 * How a student's hidden state resembles its teacher's: rows (R…, H) against (R…, Ht) → (R…). `projection`, (Ht, H), is needed
 * where the widths differ. `weights`, (R…), say how much each row counts in the statistics of `standardised`: the mean of
 * squared differences, each divided by the variance of the teacher's coordinate over the rows.
 */
export function hiddenStateLoss(
  g: Graph,
  input: { readonly kind: HiddenStateKind; readonly student: FloatValue; readonly teacher: FloatValue; readonly projection?: FloatValue; readonly weights: FloatValue },
): FloatValue {
  const { teacher, projection } = input;
  const student = projection === undefined ? input.student : g.matMul(input.student, projection, { transB: true });
  switch (input.kind) {
    case 'mean-square': {
      const difference = g.sub(student, teacher);
      return g.reduceMean(g.mul(difference, difference), [-1], false);
    }
    case 'standardised': {
      const difference = g.mul(g.sub(student, teacher), inverseDeviation(g, teacher, input.weights));
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

/** 1 / σ of each coordinate of x: (R…, Ht) over its rows, weighed → (Ht). */
function inverseDeviation(g: Graph, x: FloatValue, weights: FloatValue): FloatValue {
  const rows = weights.shape.map((_, axis) => axis);
  const shares = g.unsqueeze(g.div(weights, g.sumAll(weights)), [rows.length]);
  const centred = g.sub(x, g.reduceSum(g.mul(x, shares), rows));
  const variance = g.reduceSum(g.mul(g.mul(centred, centred), shares), rows, false);
  return g.exp(g.mul(g.log(g.add(variance, g.scalar(VARIANCE_EPSILON))), g.scalar(-0.5)));
}
