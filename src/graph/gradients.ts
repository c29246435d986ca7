/**
 * Reverse-mode differentiation: from a scalar back to the values that were asked for, and to nothing
 * else. A rule is told which of its inputs lie on such a path and computes gradients for those alone.
 */
import { StillhouseError } from '../contracts/errors.ts';
import type { Graph, HalfMatMulOptions } from './graph.ts';
import type { FloatValue, GraphNode, IntValue, OpType, Value } from './ops.ts';
import { formatShape, multiplyDims } from './shape.ts';
import type { Dim, Shape } from './shape.ts';

interface RuleArguments<Op extends OpType> {
  readonly g: Graph;
  readonly node: GraphNode<Op>;
  /** The gradient of the node's first output; the others of most nodes are statistics that no loss depends on. */
  readonly dY: FloatValue;
  /** That of any output; none where no loss depends on it. */
  readonly dOutput: (i: number) => FloatValue | undefined;
  /** Per input: is its gradient wanted? */
  readonly needs: readonly boolean[];
  /** The values that the node had in the forward pass: kept from then, or computed again. */
  readonly input: (i: number) => FloatValue;
  readonly output: (i?: number) => FloatValue;
}
/** One gradient for each differentiable input, in order; what is not needed may be null. */
type GradientRule<Op extends OpType> = (args: RuleArguments<Op>) => readonly (FloatValue | null)[];
/** null: no gradient flows through. */
export type GradientTable = { readonly [Op in OpType]: GradientRule<Op> | null };

const indices = (node: GraphNode, i: number): IntValue => node.inputs[i] as IntValue;
const shapeOf = (node: GraphNode, i: number): Shape => node.inputs[i]?.shape ?? [];
const when = (needed: boolean | undefined, make: () => FloatValue): FloatValue | null => (needed === true ? make() : null);

/** Sums a gradient over the dimensions along which `like` was repeated. */
function unbroadcast(g: Graph, gradient: FloatValue, like: Value): FloatValue {
  const extra = gradient.shape.length - like.shape.length;
  const axes = gradient.shape.flatMap((dim, i) => (i < extra || (like.shape[i - extra] === 1 && dim !== 1) ? [i] : []));
  return axes.length === 0 ? gradient : g.reshape(g.reduceSum(gradient, axes), like.shape, like);
}

/** (…, M, N) → (…·M, N). */
function flattenRows(g: Graph, x: FloatValue): FloatValue {
  return g.reshape(x, [multiplyDims(x.shape.slice(0, -1)), x.shape.at(-1) ?? 1]);
}

/** How many times as large gradients stand while they are float16, which holds numbers from 2^-24 to 65,504: those from 2^-32 to 255 are kept. */
const HALF_GRADIENT_FACTOR = 2 ** 8;

export const GRADIENTS: GradientTable = {
  // y = a + b: da = dy, db = dy
  Add: ({ g, node, dY, needs }) => [when(needs[0], () => unbroadcast(g, dY, node.inputs[0] as Value)), when(needs[1], () => unbroadcast(g, dY, node.inputs[1] as Value))],
  // y = a − b: da = dy, db = −dy
  Sub: ({ g, node, dY, needs }) => [when(needs[0], () => unbroadcast(g, dY, node.inputs[0] as Value)), when(needs[1], () => unbroadcast(g, g.neg(dY), node.inputs[1] as Value))],
  // y = a·b: da = dy·b, db = dy·a
  Mul: ({ g, node, dY, needs, input }) => [
    when(needs[0], () => unbroadcast(g, g.mul(dY, input(1)), node.inputs[0] as Value)),
    when(needs[1], () => unbroadcast(g, g.mul(dY, input(0)), node.inputs[1] as Value)),
  ],
  // y = a/b: da = dy/b, db = −dy·y/b
  Div: ({ g, node, dY, needs, input, output }) => [
    when(needs[0], () => unbroadcast(g, g.div(dY, input(1)), node.inputs[0] as Value)),
    when(needs[1], () => unbroadcast(g, g.neg(g.div(g.mul(dY, output()), input(1))), node.inputs[1] as Value)),
  ],
  // y = −x: dx = −dy
  Neg: ({ g, dY }) => [g.neg(dY)],
  // y = eˣ: dx = dy·y
  Exp: ({ g, dY, output }) => [g.mul(dY, output())],
  // y = ln x: dx = dy/x
  Log: ({ g, dY, input }) => [g.div(dY, input(0))],
  // y = σ(x): dx = dy·y·(1 − y)
  Sigmoid: ({ g, dY, output }) => [g.mul(dY, g.mul(output(), g.sub(g.scalar(1), output())))],
  // y = |x|: dx = dy·sign(x), and 0 at 0
  Abs: ({ g, dY, input }) => [g.mul(dY, g.sign(input(0)))],
  // the same on either side
  Sign: null,
  // y = x·σ(x): dx = dy·(σ(x) + y − y·σ(x))
  Silu: ({ g, dY, input, output }) => {
    const [share, y] = [g.sigmoid(g.after(input(0), dY)), output()];
    return [g.mul(dY, g.sub(g.add(share, y), g.mul(y, share)))];
  },
  // y = α·op(A)·op(B): dop(A) = α·dy·op(B)ᵀ, dop(B) = α·op(A)ᵀ·dy; transposed again where op transposes
  FusedMatMul: (args) => matMulGradients(args, args.node.attributes, (a, b, options) => args.g.matMul(a, b, { ...options, alpha: args.node.attributes.alpha })),
  // the same products in half precision, in which gradients stand S times as large: dop(A) = (S·dy·op(B)ᵀ)/S, dop(B) = (op(A)ᵀ·S·dy)/S
  HalfMatMul: halfMatMulGradients(HALF_GRADIENT_FACTOR),
  // y = softmax(x): dx = y·(dy − Σ dy·y)
  Softmax: ({ g, node, dY, output }) => {
    const y = output();
    return [g.mul(y, g.sub(dY, g.reduceSum(g.mul(dY, y), [node.attributes.axis])))];
  },
  // y = ln softmax(x): dx = dy − softmax(x)·Σ dy
  LogSoftmax: ({ g, node, dY, output }) => [g.sub(dY, g.mul(g.exp(output()), g.reduceSum(dY, [node.attributes.axis])))],
  // y = x·ι·w with ι = 1/sqrt(mean(x²) + ε): dx = ι·(dy·w − x·ι²·mean(dy·w·x)), dw = Σ dy·x·ι. ι, one number for each row, is kept
  SimplifiedLayerNormalization: ({ g, node, dY, needs, input }) => {
    const [x, inverse] = [input(0), node.outputs[1] as FloatValue];
    const dX = (): FloatValue => {
      const weighted = g.mul(dY, input(1));
      const mean = g.reduceMean(g.mul(weighted, x), [-1]);
      return g.mul(inverse, g.sub(weighted, g.mul(x, g.mul(g.mul(inverse, inverse), mean))));
    };
    return [when(needs[0], dX), when(needs[1], () => unbroadcast(g, g.mul(dY, g.mul(x, inverse)), node.inputs[1] as Value))];
  },
  // y = R(θ)·x: dx = R(θ)ᵀ·dy = R(−θ)·dy
  RotaryEmbedding: ({ g, node, dY, input }) => [g.rotary(dY, indices(node, 1), input(2), g.neg(input(3)))],
  // the same elements in the input's shape
  Reshape: ({ g, node, dY }) => [g.reshape(dY, shapeOf(node, 0), node.inputs[0])],
  // the inverse permutation
  Transpose: ({ g, node, dY }) => [g.transpose(dY, node.attributes.perm.map((_, i) => node.attributes.perm.indexOf(i)))],
  // the same elements without the ones
  Unsqueeze: ({ g, node, dY }) => [g.reshape(dY, shapeOf(node, 0), node.inputs[0])],
  // each input its own part
  Concat: ({ g, node, dY, needs }) => {
    const { axis, lengths: given } = node.attributes;
    const sizes = node.inputs.map(({ shape }) => shape[axis] as Dim);
    const lengths = sizes.every((size) => typeof size === 'number') ? g.ints(sizes, [sizes.length]) : given;
    if (lengths === undefined) throw new StillhouseError('INTERNAL', `gradient of Concat: expected known sizes along axis ${axis}, or their lengths, got ${formatShape(sizes)}`);
    const parts = g.split(dY, axis, sizes, lengths);
    return node.inputs.map((_, i) => when(needs[i], () => parts[i] as FloatValue));
  },
  // zeros around the slice
  Slice: ({ g, node, dY, input }) => {
    const { axis, start, end } = node.attributes;
    const size = shapeOf(node, 0)[axis] as number;
    const zeros = (width: number): FloatValue[] => (width === 0 ? [] : [g.expandLike(g.mul(g.slice(dY, axis, 0, 1), g.scalar(0)), g.slice(input(0), axis, 0, width))]);
    return [g.concat([...zeros(start), dY, ...zeros(size - end)], axis)];
  },
  // the parts' gradients put together again; zeros for a part that nothing came of, made from the input, which is there longer than the part
  Split: ({ g, node, dOutput, input }) => {
    const { axis } = node.attributes;
    const sizes = node.outputs.map(({ shape }) => shape[axis] as Dim);
    const zeros = (i: number): FloatValue => g.mul(g.split(input(0), axis, sizes, indices(node, 1))[i] as FloatValue, g.scalar(0));
    return [g.concat(node.outputs.map((_, i) => dOutput(i) ?? zeros(i)), axis, indices(node, 1))];
  },
  // the sum over the repeats
  Expand: ({ g, node, dY }) => [unbroadcast(g, dY, node.inputs[0] as Value)],
  // y = x[i]: dx[i] += dy
  Gather: ({ g, node, dY }) => {
    const at = indices(node, 1);
    if (node.attributes.axis !== 0) throw new StillhouseError('INTERNAL', `gradient of Gather: expected axis 0, got ${node.attributes.axis}`);
    return [g.scatterAdd(g.zerosLike(node.inputs[0] as FloatValue), g.unsqueeze(at, [at.shape.length]), dY)];
  },
  // y = x[i]: dx[i] += dy
  GatherElements: ({ g, node, dY }) => [g.scatterAddElements(g.zerosLike(node.inputs[0] as FloatValue), indices(node, 1), dY, node.attributes.axis)],
  // y = x[i] for the i of the largest: dx[i] = dy
  TopK: ({ g, node, dY }) => [g.scatterAddElements(g.zerosLike(node.inputs[0] as FloatValue), node.outputs[1] as IntValue, dY, -1)],
  // y = x with u added at i: dx = dy, du = dy[i]
  ScatterElements: ({ g, node, dY, needs }) => [dY, null, when(needs[2], () => g.gatherElements(dY, indices(node, 1), node.attributes.axis))],
  // y = x with u added at i: dx = dy, du = dy[i]
  ScatterND: ({ g, node, dY, needs }) => [dY, null, when(needs[2], () => g.reshape(g.gather(dY, indices(node, 1)), shapeOf(node, 2), node.inputs[2]))],
  // y = Σ x: dx = dy, repeated
  ReduceSum: ({ g, node, dY }) => [spread(g, node, dY)],
  // y = Σ x / n: dx = dy / n, repeated
  ReduceMean: ({ g, node, dY }) => {
    const count = multiplyDims(node.attributes.axes.map((axis) => shapeOf(node, 0)[axis] ?? 1));
    if (typeof count !== 'number') throw new StillhouseError('INTERNAL', `gradient of ReduceMean: expected known sizes, got ${count}`);
    return [g.mul(spread(g, node, dY), g.scalar(1 / count))];
  },
  // a shift that what follows takes back
  ReduceMax: null,
  /** Of integers alone. */
  CumSum: null,
  // a shape does not change with the values
  Shape: null,
  // zeros do not change
  ConstantOfShape: null,
  // y = x: dx = dy
  Identity: ({ dY }) => [dY],
  // a body computes the gradients of what it computes
  Scan: null,
};

function spread(g: Graph, node: GraphNode<'ReduceSum' | 'ReduceMean'>, dY: FloatValue): FloatValue {
  const kept = node.attributes.keepDims ? dY : g.unsqueeze(dY, node.attributes.axes);
  return g.expandLike(kept, node.inputs[0] as FloatValue);
}

type Product = (a: FloatValue, b: FloatValue, options: HalfMatMulOptions) => FloatValue;

function matMulGradients(
  { g, node, dY, needs, input }: Pick<RuleArguments<'FusedMatMul' | 'HalfMatMul'>, 'g' | 'node' | 'dY' | 'needs' | 'input'>,
  { transA, transB }: Required<HalfMatMulOptions>,
  product: Product,
): readonly (FloatValue | null)[] {
  const dA = (): FloatValue => (transA ? product(input(1), dY, { transA: transB, transB: true }) : product(dY, input(1), { transB: !transB }));
  const dB = (): FloatValue => {
    const a = input(0);
    const shared = shapeOf(node, 1).length === 2 && a.shape.length > 2;
    if (shared && transA) throw new StillhouseError('INTERNAL', `gradient of ${node.op}: expected no transposed batch against a matrix, got ${formatShape(a.shape)}ᵀ`);
    const [rows, dRows] = shared ? [flattenRows(g, a), flattenRows(g, dY)] : [a, dY];
    return transB ? product(dRows, rows, { transA: true, transB: transA }) : product(rows, dRows, { transA: !transA });
  };
  return [when(needs[0], dA), when(needs[1], dB)];
}

/** `factor`: S, a power of two, so that nothing else of the gradient is rounded. */
export function halfMatMulGradients(factor: number): GradientRule<'HalfMatMul'> {
  return ({ g, node, dY, needs, input }) =>
    matMulGradients({ g, node, dY: g.mul(dY, g.scalar(factor)), needs, input }, node.attributes, (a, b, options) => g.halfMatMul(a, b, options)).map((gradient) => gradient && g.mul(gradient, g.scalar(1 / factor)));
}

/** What is differentiated: `Σ of`, weighted by `seed` (of the shape of `of`; ones where it is absent). */
export interface GradientRoot {
  readonly of: FloatValue;
  readonly seed?: FloatValue;
}

/**
 * The gradients of the sum of `roots` with respect to each of `wrt`, in order. What no root depends on is an
 * error. Values that the graph marks as recomputed are made again, from what is kept, when their gradient's turn has
 * come. `table` lets a test show that a wrong rule is caught.
 */
export function gradients(g: Graph, roots: readonly GradientRoot[], wrt: readonly FloatValue[], table: GradientTable = GRADIENTS): readonly FloatValue[] {
  const forward = [...g.nodes];
  const pass: BackwardPass = { g, table, needed: new Set<Value>(wrt), known: new Map(), remade: new Map(), made: new Set() };
  for (const node of forward) {
    if (table[node.op] !== null && node.inputs.some((value) => pass.needed.has(value))) for (const result of node.outputs) pass.needed.add(result);
  }
  for (const { of, seed } of roots) addGradient(pass, of, seed ?? g.expandLike(g.scalar(1), of));
  for (const node of forward.toReversed()) backpropagate(pass, node);
  return wrt.map((value) => {
    const gradient = pass.known.get(value);
    const names = roots.map(({ of }) => of.name).join(' or ');
    if (gradient === undefined) throw new StillhouseError('INTERNAL', `gradients: expected ${names} to depend on ${value.name} ${formatShape(value.shape)}, got no path`);
    return gradient;
  });
}

interface BackwardPass {
  readonly g: Graph;
  readonly table: GradientTable;
  readonly needed: Set<Value>;
  readonly known: Map<Value, FloatValue>;
  /** Values of the forward pass as the backward pass sees them, where that is not the same. */
  readonly remade: Map<Value, Value>;
  /** Those that are made again, and so wait by themselves. */
  readonly made: Set<Value>;
}

function addGradient({ g, known }: BackwardPass, value: Value, gradient: FloatValue): void {
  const earlier = known.get(value);
  known.set(value, earlier === undefined ? gradient : g.add(earlier, gradient));
}

function backpropagate<Op extends OpType>(pass: BackwardPass, node: GraphNode<Op>): void {
  const { g, needed } = pass;
  const known = node.outputs.map((value) => pass.known.get(value));
  const first = known.find((gradient) => gradient !== undefined);
  const rule = pass.table[node.op];
  const needs = node.inputs.map((value) => value.dtype === 'float32' && needed.has(value));
  if (first === undefined || rule === null || !needs.includes(true)) return;
  const saved = (values: readonly Value[], i: number): FloatValue => remake(pass, values[i] as FloatValue, first);
  const results = rule({ g, node, dY: known[0] ?? first, dOutput: (i) => known[i], needs, input: (i) => saved(node.inputs, i), output: (i = 0) => saved(node.outputs, i) });
  node.inputs.forEach((value, i) => {
    const gradient = results[i] ?? null;
    if (gradient !== null && needs[i] === true) addGradient(pass, value, gradient);
  });
}

/** The value itself where it is kept; else its nodes again, which wait for `trigger`. */
function remake<V extends Value>(pass: BackwardPass, value: V, trigger: FloatValue): V {
  const { source } = value;
  if (source.kind !== 'node' || !source.node.recomputed) return value;
  const { node } = source;
  if (!pass.remade.has(value)) {
    const results = pass.g.again(node, node.inputs.map((input) => waiting(pass, remake(pass, input, trigger), trigger)));
    node.outputs.forEach((output, i) => pass.remade.set(output, results[i] as Value));
    for (const result of results) pass.made.add(result);
  }
  return pass.remade.get(value) as V;
}

/** A value that is kept from the forward pass, after `trigger`. */
function waiting(pass: BackwardPass, value: Value, trigger: FloatValue): Value {
  if (value.source.kind !== 'node' || value.dtype !== 'float32' || pass.made.has(value)) return value;
  const known = pass.remade.get(value) ?? pass.g.after(value as FloatValue, trigger);
  pass.remade.set(value, known);
  return known;
}
