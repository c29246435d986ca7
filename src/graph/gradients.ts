/**
 * Reverse-mode differentiation: from a scalar back to the values that were asked for, and to nothing
 * else. A rule is told which of its inputs lie on such a path and computes gradients for those alone.
 */
import { StillhouseError } from '../contracts/errors.ts';
import type { Graph } from './graph.ts';
import type { FloatValue, GraphNode, IntValue, OpType, Value } from './ops.ts';
import { formatShape, multiplyDims } from './shape.ts';

interface RuleArguments<Op extends OpType> {
  readonly g: Graph;
  readonly node: GraphNode<Op>;
  /** The gradient of the node's first output; the others are statistics that no loss depends on. */
  readonly dY: FloatValue;
  /** Per input: is its gradient wanted? */
  readonly needs: readonly boolean[];
}
/** One gradient for each differentiable input, in order; what is not needed may be null. */
type GradientRule<Op extends OpType> = (args: RuleArguments<Op>) => readonly (FloatValue | null)[];
/** null: no gradient flows through. */
export type GradientTable = { readonly [Op in OpType]: GradientRule<Op> | null };

const input = (node: GraphNode, i: number): FloatValue => node.inputs[i] as FloatValue;
const indices = (node: GraphNode, i: number): IntValue => node.inputs[i] as IntValue;
const output = (node: GraphNode, i = 0): FloatValue => node.outputs[i] as FloatValue;
const when = (needed: boolean | undefined, make: () => FloatValue): FloatValue | null => (needed === true ? make() : null);

/** Sums a gradient over the dimensions along which `like` was repeated. */
function unbroadcast(g: Graph, gradient: FloatValue, like: FloatValue): FloatValue {
  const extra = gradient.shape.length - like.shape.length;
  const axes = gradient.shape.flatMap((dim, i) => (i < extra || (like.shape[i - extra] === 1 && dim !== 1) ? [i] : []));
  return axes.length === 0 ? gradient : g.reshape(g.reduceSum(gradient, axes), like.shape, like);
}

/** (…, M, N) → (…·M, N). */
function flattenRows(g: Graph, x: FloatValue): FloatValue {
  return g.reshape(x, [multiplyDims(x.shape.slice(0, -1)), x.shape.at(-1) ?? 1]);
}

export const GRADIENTS: GradientTable = {
  // y = a + b: da = dy, db = dy
  Add: ({ g, node, dY, needs }) => [when(needs[0], () => unbroadcast(g, dY, input(node, 0))), when(needs[1], () => unbroadcast(g, dY, input(node, 1)))],
  // y = a − b: da = dy, db = −dy
  Sub: ({ g, node, dY, needs }) => [when(needs[0], () => unbroadcast(g, dY, input(node, 0))), when(needs[1], () => unbroadcast(g, g.neg(dY), input(node, 1)))],
  // y = a·b: da = dy·b, db = dy·a
  Mul: ({ g, node, dY, needs }) => [
    when(needs[0], () => unbroadcast(g, g.mul(dY, input(node, 1)), input(node, 0))),
    when(needs[1], () => unbroadcast(g, g.mul(dY, input(node, 0)), input(node, 1))),
  ],
  // y = a/b: da = dy/b, db = −dy·y/b
  Div: ({ g, node, dY, needs }) => [
    when(needs[0], () => unbroadcast(g, g.div(dY, input(node, 1)), input(node, 0))),
    when(needs[1], () => unbroadcast(g, g.neg(g.div(g.mul(dY, output(node)), input(node, 1))), input(node, 1))),
  ],
  // y = −x: dx = −dy
  Neg: ({ g, dY }) => [g.neg(dY)],
  // y = eˣ: dx = dy·y
  Exp: ({ g, node, dY }) => [g.mul(dY, output(node))],
  // y = σ(x): dx = dy·y·(1 − y)
  Sigmoid: ({ g, node, dY }) => [g.mul(dY, g.mul(output(node), g.sub(g.scalar(1), output(node))))],
  // y = α·op(A)·op(B): dop(A) = α·dy·op(B)ᵀ, dop(B) = α·op(A)ᵀ·dy; transposed again where op transposes
  FusedMatMul: ({ g, node, dY, needs }) => matMulGradients(g, node, dY, needs),
  // y = softmax(x): dx = y·(dy − Σ dy·y)
  Softmax: ({ g, node, dY }) => {
    const y = output(node);
    return [g.mul(y, g.sub(dY, g.reduceSum(g.mul(dY, y), [node.attributes.axis])))];
  },
  // y = x·ι·w with ι = 1/sqrt(mean(x²) + ε): dx = ι·(dy·w − x·ι·mean(dy·y)), because mean(dy·w·x·ι) = mean(dy·y); dw = Σ dy·x·ι
  SimplifiedLayerNormalization: ({ g, node, dY, needs }) => {
    const [x, w, y, inverse] = [input(node, 0), input(node, 1), output(node), output(node, 1)];
    const mean = (): FloatValue => g.reduceMean(g.mul(dY, y), [-1]);
    return [
      when(needs[0], () => g.mul(inverse, g.sub(g.mul(dY, w), g.mul(x, g.mul(inverse, mean()))))),
      when(needs[1], () => unbroadcast(g, g.mul(dY, g.mul(x, inverse)), w)),
    ];
  },
  // y = R(θ)·x: dx = R(θ)ᵀ·dy = R(−θ)·dy
  RotaryEmbedding: ({ g, node, dY }) => [g.rotary(dY, indices(node, 1), input(node, 2), g.neg(input(node, 3)))],
  // y = −log p[label] with p = softmax(x): dx = dy·(p − one-hot(label))
  SoftmaxCrossEntropyLoss: ({ g, node, dY }) => {
    const labels = g.unsqueeze(indices(node, 1), [1]); // (R, 1)
    const minusOne = g.expandLike(g.floats([-1], [1, 1]), g.unsqueeze(dY, [1]));
    const difference = g.scatterAddElements(g.exp(output(node, 1)), labels, minusOne, 1); // (R, V)
    return [g.mul(difference, g.unsqueeze(dY, [1]))];
  },
  // the same elements in the input's shape
  Reshape: ({ g, node, dY }) => [g.reshape(dY, input(node, 0).shape, input(node, 0))],
  // the inverse permutation
  Transpose: ({ g, node, dY }) => [g.transpose(dY, node.attributes.perm.map((_, i) => node.attributes.perm.indexOf(i)))],
  // the same elements without the ones
  Unsqueeze: ({ g, node, dY }) => [g.reshape(dY, input(node, 0).shape, input(node, 0))],
  // each input its own part
  Concat: ({ g, node, dY, needs }) => {
    let start = 0;
    return node.inputs.map((part, i) => {
      const size = part.shape[node.attributes.axis];
      if (typeof size !== 'number') throw new StillhouseError('INTERNAL', `gradient of Concat: expected known sizes along axis ${node.attributes.axis}, got ${formatShape(part.shape)}`);
      start += size;
      return when(needs[i], () => g.slice(dY, node.attributes.axis, start - size, start));
    });
  },
  // zeros around the slice
  Slice: ({ g, node, dY }) => {
    const { axis, start, end } = node.attributes;
    const x = input(node, 0);
    const size = x.shape[axis] as number;
    const zeros = (width: number): FloatValue[] => (width === 0 ? [] : [g.expandLike(g.mul(g.slice(dY, axis, 0, 1), g.scalar(0)), g.slice(x, axis, 0, width))]);
    return [g.concat([...zeros(start), dY, ...zeros(size - end)], axis)];
  },
  // the sum over the repeats
  Expand: ({ g, node, dY }) => [unbroadcast(g, dY, input(node, 0))],
  // y = x[i]: dx[i] += dy
  Gather: ({ g, node, dY }) => {
    const at = indices(node, 1);
    if (node.attributes.axis !== 0) throw new StillhouseError('INTERNAL', `gradient of Gather: expected axis 0, got ${node.attributes.axis}`);
    return [g.scatterAdd(g.zerosLike(input(node, 0)), g.unsqueeze(at, [at.shape.length]), dY)];
  },
  // y = x[i]: dx[i] += dy
  GatherElements: ({ g, node, dY }) => [g.scatterAddElements(g.zerosLike(input(node, 0)), indices(node, 1), dY, node.attributes.axis)],
  // y = x with u added at i: dx = dy, du = dy[i]
  ScatterElements: ({ g, node, dY, needs }) => [dY, null, when(needs[2], () => g.gatherElements(dY, indices(node, 1), node.attributes.axis))],
  // y = x with u added at i: dx = dy, du = dy[i]
  ScatterND: ({ g, node, dY, needs }) => [dY, null, when(needs[2], () => g.reshape(g.gather(dY, indices(node, 1)), input(node, 2).shape, input(node, 2)))],
  // y = Σ x: dx = dy, repeated
  ReduceSum: ({ g, node, dY }) => [spread(g, node, dY)],
  // y = Σ x / n: dx = dy / n, repeated
  ReduceMean: ({ g, node, dY }) => {
    const count = multiplyDims(node.attributes.axes.map((axis) => input(node, 0).shape[axis] ?? 1));
    if (typeof count !== 'number') throw new StillhouseError('INTERNAL', `gradient of ReduceMean: expected known sizes, got ${count}`);
    return [g.mul(spread(g, node, dY), g.scalar(1 / count))];
  },
  // a shape does not change with the values
  Shape: null,
  // zeros do not change
  ConstantOfShape: null,
  // y = x: dx = dy
  Identity: ({ dY }) => [dY],
};

function spread(g: Graph, node: GraphNode<'ReduceSum' | 'ReduceMean'>, dY: FloatValue): FloatValue {
  const x = input(node, 0);
  const kept = node.attributes.keepDims ? dY : g.unsqueeze(dY, node.attributes.axes);
  return g.expandLike(kept, x);
}

function matMulGradients(g: Graph, node: GraphNode<'FusedMatMul'>, dY: FloatValue, needs: readonly boolean[]): readonly (FloatValue | null)[] {
  const { transA, transB, alpha } = node.attributes;
  const [a, b] = [input(node, 0), input(node, 1)];
  const dA = (): FloatValue =>
    transA ? g.matMul(b, dY, { transA: transB, transB: true, alpha }) : g.matMul(dY, b, { transB: !transB, alpha });
  const dB = (): FloatValue => {
    const shared = b.shape.length === 2 && a.shape.length > 2;
    if (shared && transA) throw new StillhouseError('INTERNAL', `gradient of FusedMatMul: expected no transposed batch against a matrix, got ${formatShape(a.shape)}ᵀ`);
    const [rows, dRows] = shared ? [flattenRows(g, a), flattenRows(g, dY)] : [a, dY];
    return transB ? g.matMul(dRows, rows, { transA: true, transB: transA, alpha }) : g.matMul(rows, dRows, { transA: !transA, alpha });
  };
  return [when(needs[0], dA), when(needs[1], dB)];
}

/**
 * The gradients of `Σ of`, weighted by `seed` (of the shape of `of`; ones where it is absent), with respect to
 * each of `wrt`, in order. What `of` does not depend on is an error. `table` lets a test show that a wrong rule is caught.
 */
export function gradients(g: Graph, of: FloatValue, wrt: readonly FloatValue[], seed?: FloatValue, table: GradientTable = GRADIENTS): readonly FloatValue[] {
  const forward = [...g.nodes];
  const needed = new Set<Value>(wrt);
  for (const node of forward) {
    if (table[node.op] !== null && node.inputs.some((value) => needed.has(value))) for (const result of node.outputs) needed.add(result);
  }
  const known = new Map<Value, FloatValue>([[of, seed ?? g.expandLike(g.scalar(1), of)]]);
  for (const node of forward.toReversed()) backpropagate(g, node, needed, known, table);
  return wrt.map((value) => {
    const gradient = known.get(value);
    if (gradient === undefined) throw new StillhouseError('INTERNAL', `gradients: expected ${of.name} to depend on ${value.name} ${formatShape(value.shape)}, got no path`);
    return gradient;
  });
}

function backpropagate<Op extends OpType>(g: Graph, node: GraphNode<Op>, needed: ReadonlySet<Value>, known: Map<Value, FloatValue>, table: GradientTable): void {
  const y = node.outputs[0];
  const dY = y === undefined ? undefined : known.get(y);
  const rule = table[node.op];
  const needs = node.inputs.map((value) => value.dtype === 'float32' && needed.has(value));
  if (dY === undefined || rule === null || !needs.includes(true)) return;
  const results = rule({ g, node, dY, needs });
  node.inputs.forEach((value, i) => {
    const gradient = results[i] ?? null;
    if (gradient === null || needs[i] !== true) return;
    const earlier = known.get(value);
    known.set(value, earlier === undefined ? gradient : g.add(earlier, gradient));
  });
}
