/**
 * Losses of single rows of logits, and the head that computes them chunk by chunk: no more than one chunk of
 * (rows × vocabulary) values is ever there, with its gradient. Letters as in src/lm/model.ts; N chunks of C rows each.
 */
import { gradients } from '../graph/gradients.ts';
import type { Graph } from '../graph/graph.ts';
import type { DataType, FloatValue, IntValue, Value } from '../graph/ops.ts';
import { multiplyDims } from '../graph/shape.ts';
import type { Dim, Shape } from '../graph/shape.ts';

/** A loss that depends on one row of logits and on what is known about that row. */
export interface RowLoss {
  /** What is given for each row, by name; `shape` is that of one row. */
  readonly inputs: readonly { readonly name: string; readonly dtype: DataType; readonly shape: Shape }[];
  /** logits: (C, V), each input (C, …) → (C) nats. Built of operators that have gradients. */
  readonly loss: (g: Graph, logits: FloatValue, input: (name: string) => Value) => FloatValue;
  /** The same with its gradient (C, V), where that passes over the logits less often than the operators' own rules do. */
  readonly withGradient?: (g: Graph, logits: FloatValue, input: (name: string) => Value) => LossWithGradient;
}

/** (C) nats, and what each changes by with its row of logits, (C, V). */
export interface LossWithGradient {
  readonly losses: FloatValue;
  readonly gradient: FloatValue;
  /** A factor of each row of `gradient`, (C, 1), which is still to be applied. Absent: 1. */
  readonly factor?: FloatValue;
}

/** −log softmax(logits)[label], whose gradient is softmax(logits) − one-hot(label). */
export const crossEntropy: RowLoss = {
  inputs: [{ name: 'labels', dtype: 'int64', shape: [] }],
  loss: (g, logits, input) => g.crossEntropy(logits, input('labels') as IntValue),
  // With z = logits − max and s = Σ eᶻ: loss = ln s − z[label], gradient = (eᶻ − s·one-hot) / s. Nodes are made in the order
  // in which the runtime, latest first, lets each overwrite what it reads: one (C, V) is there at a time.
  withGradient(g, logits, input) {
    const labels = input('labels') as IntValue;
    const at = g.unsqueeze(labels, [1]);
    const shifted = g.sub(logits, g.reduceMax(logits, [-1]));
    const powers = g.exp(shifted);
    const sum = sumOfRows(g, powers);
    const logSum = g.log(sum);
    const losses = g.reshape(g.sub(logSum, g.gatherElements(shifted, at, 1)), labels.shape);
    return { losses, gradient: g.scatterAddElements(powers, at, g.neg(sum), 1), factor: g.div(g.scalar(1), sum) };
  },
};

/** The most terms that are added up in one run. */
const MOST_RUN = 256;

/** (C, V) → (C, 1), run by run and then over the runs (a prime length is one): in one go the many small terms of a vocabulary are lost beside the sum so far. */
function sumOfRows(g: Graph, x: FloatValue): FloatValue {
  const [rows, length] = x.shape as readonly [Dim, number];
  let run = Math.min(MOST_RUN, length);
  while (length % run !== 0) run -= 1;
  const sums = g.reduceSum(g.reshape(x, [multiplyDims([rows, length / run]), run]), [-1]);
  return g.reduceSum(g.reshape(sums, [rows, length / run]), [-1]);
}

/** `share` times the cross-entropy of labels (C) under log-probabilities (C, V). */
export function labelled(g: Graph, logProbs: FloatValue, labels: IntValue, share: number): LossWithGradient {
  const scaled = (x: FloatValue): FloatValue => (share === 1 ? x : g.mul(x, g.scalar(share)));
  const at = g.unsqueeze(labels, [1]);
  const losses = g.neg(scaled(g.gatherElements(logProbs, at, 1))); // (C, 1)
  const gradient = g.scatterAddElements(scaled(g.exp(logProbs)), at, g.expandLike(g.floats([-share], [1, 1]), losses), 1);
  return { losses: g.reshape(losses, labels.shape), gradient };
}

export interface ChunkedLoss {
  /** (N, C) nats, each times its weight. */
  readonly losses: FloatValue;
  /** The gradients of their sum: (N, C, H), and (V, H) where the head is trained. */
  readonly backward?: { readonly rows: FloatValue; readonly head?: FloatValue };
}

/**
 * The loss of rows through the head, one chunk of rows after another. Loss and gradient come from the same run of a
 * chunk, so that nothing of it has to be kept. rows: (N, C, H), weights: (N, C), head: (V, H).
 */
export function chunkedLoss(
  g: Graph,
  input: { readonly rows: FloatValue; readonly weights: FloatValue; readonly head: FloatValue; readonly given: (name: string, dtype: DataType, shape: Shape) => Value; readonly loss: RowLoss; readonly backward: boolean },
): ChunkedLoss {
  const { rows, weights, head, loss } = input;
  const chunks = rows.shape.slice(0, 2);
  const given = loss.inputs.map(({ name, dtype, shape }) => input.given(name, dtype, [...chunks, ...shape]));
  const trainsHead = input.backward && head.source.kind !== 'external' && head.source.kind !== 'constant';
  const { states, results } = g.scan({ states: trainsHead ? [g.zerosLike(head)] : [], sequences: [rows, weights, ...given] }, (body, [row, rowWeight, ...values], [dHead]) => {
    const [x, seed] = [row as FloatValue, rowWeight as FloatValue];
    const byName = new Map(loss.inputs.map(({ name }, i) => [name, values[i] as Value]));
    const logits = body.matMul(x, head, { transB: true }); // (C, V)
    const valueOf = (name: string): Value => byName.get(name) as Value;
    if (!input.backward) return { states: [], results: [body.mul(loss.loss(body, logits, valueOf), seed)] };
    const { losses, gradient, factor } = loss.withGradient?.(body, logits, valueOf) ?? differentiated(body, loss.loss, logits, valueOf);
    // What is one number for each row meets what is narrow, (C, H), and not the row of logits.
    const weight = body.unsqueeze(seed, [1]);
    const column = factor === undefined ? weight : body.mul(weight, factor);
    const weighted = body.mul(losses, seed);
    const dRow = body.mul(body.matMul(gradient, head), column);
    const states = dHead === undefined ? [] : [body.add(dHead, body.matMul(gradient, body.mul(x, column), { transA: true }))];
    return { states, results: [weighted, dRow] };
  });
  const [losses, dRows] = results as readonly [FloatValue, FloatValue?];
  return { losses, ...(dRows === undefined ? {} : { backward: { rows: dRows, ...(states[0] === undefined ? {} : { head: states[0] }) } }) };
}

/** The gradient of a loss by its operators' rules. */
export function differentiated(g: Graph, loss: RowLoss['loss'], logits: FloatValue, input: (name: string) => Value): LossWithGradient {
  const losses = loss(g, logits, input);
  return { losses, gradient: gradients(g, [{ of: losses }], [logits])[0] as FloatValue };
}

/** Bytes of one chunk of logits. */
const CHUNK_BYTES = 24 * 2 ** 20;
/** However large the vocabulary: the head's weights are read, and put in order for the processor, twice for each chunk. */
const CHUNK_ROWS = 128;

/** N chunks of C rows that hold `rows` rows, all but as many each. */
export function chunkRows(rows: number, vocabularySize: number): { readonly chunks: number; readonly size: number } {
  const most = Math.max(CHUNK_ROWS, Math.floor(CHUNK_BYTES / (4 * vocabularySize)));
  const chunks = Math.max(1, Math.ceil(rows / most));
  return { chunks, size: Math.max(1, Math.ceil(rows / chunks)) };
}
