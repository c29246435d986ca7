/**
 * A graph under construction. Each operator is a method that checks and infers shapes at once, so that
 * a mistake is found where it is made. Nodes are kept in the order in which they can run.
 */
import { StillhouseError } from '../contracts/errors.ts';
import type { DataType, FloatValue, GraphNode, IntValue, OpAttributes, OpType, Subgraph, TensorSource, Value } from './ops.ts';
import { addDims, broadcastShapes, formatShape, multiplyDims, resolveAxis, sameShape } from './shape.ts';
import type { Dim, Shape } from './shape.ts';

export interface HalfMatMulOptions {
  readonly transA?: boolean;
  readonly transB?: boolean;
}

export interface MatMulOptions extends HalfMatMulOptions {
  /** Factor of the product. */
  readonly alpha?: number;
}

/** Bytes of a file that a constant is read from; `location` is relative to the folder that the session is given. */
export interface ExternalData {
  readonly location: string;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

function expected(where: string, what: string, got: string): StillhouseError {
  return new StillhouseError('INTERNAL', `${where}: expected ${what}, got ${got}`);
}

function elements(shape: Shape): number {
  return shape.reduce<number>((product, dim) => product * Number(dim), 1);
}

/** One run of a loop's body: the states that the next run begins with, and results that are put together. */
export interface ScanStep {
  readonly states: readonly FloatValue[];
  readonly results: readonly FloatValue[];
}

export class Graph implements Subgraph {
  readonly nodes: GraphNode[] = [];
  readonly inputs: Value[] = [];
  readonly outputs: { readonly name: string; readonly value: Value }[] = [];
  // Names and constants belong to the outermost graph: a body sees them all.
  readonly #names: Map<string, number>;
  readonly #constants: Map<string, Value>;
  readonly #externals: Map<string, FloatValue>;
  #recomputing = false;

  constructor(outer?: Graph) {
    this.#names = outer === undefined ? new Map() : outer.#names;
    this.#constants = outer === undefined ? new Map() : outer.#constants;
    this.#externals = outer === undefined ? new Map() : outer.#externals;
  }

  // -- sources ----------------------------------------------------------------------------------

  input<D extends DataType>(name: string, dtype: D, shape: Shape): Value<D> {
    const value: Value<D> = { name: this.#claim(name), dtype, shape, source: { kind: 'input' } };
    if (value.name !== name) throw expected(`input ${name}`, 'a name that is not taken', name);
    this.inputs.push(value);
    return value;
  }

  floats(data: Float32Array | readonly number[], shape: Shape): FloatValue {
    return this.#constant('float32', data instanceof Float32Array ? data : Float32Array.from(data), shape);
  }

  ints(data: readonly number[], shape: Shape): IntValue {
    return this.#constant('int64', BigInt64Array.from(data, (value) => BigInt(value)), shape);
  }

  scalar(value: number): FloatValue {
    return this.floats([value], []);
  }

  /** A float32 constant in a file; asked for twice, it is the same value. */
  external(name: string, shape: Shape, data: ExternalData): FloatValue {
    const known = this.#externals.get(name);
    if (known !== undefined) return known;
    if (data.lengthBytes !== elements(shape) * 4) {
      throw expected(`external ${name} ${formatShape(shape)}`, `${elements(shape) * 4} bytes`, `${data.lengthBytes}`);
    }
    const value: FloatValue = { name: this.#claim(name), dtype: 'float32', shape, source: { kind: 'external', ...data } };
    this.#externals.set(name, value);
    return value;
  }

  /** Names a result. Only what some output needs is written out. */
  output(name: string, value: Value): void {
    if (this.outputs.some((output) => output.name === name)) throw expected(`output ${name}`, 'a name that is not taken', name);
    this.outputs.push({ name, value });
  }

  /** What `build` adds is cheap: a backward pass makes its results again rather than keep them. */
  recomputed<T>(build: () => T): T {
    const before = this.#recomputing;
    this.#recomputing = true;
    try {
      return build();
    } finally {
      this.#recomputing = before;
    }
  }

  /** A node like `node` with other inputs, as a backward pass computes it again. */
  again(node: GraphNode, inputs: readonly Value[]): readonly Value[] {
    return this.#node(node.op, inputs, node.attributes, node.outputs.map(({ shape }) => shape), node.outputs.map(({ dtype }) => dtype));
  }

  /**
   * x itself, but not before `trigger` is computed. The runtime runs a node as early as its inputs allow;
   * what is computed again for the backward pass must wait, or it would live as long as what it replaces.
   */
  after(x: FloatValue, trigger: FloatValue): FloatValue {
    const size = this.#node('Shape', [trigger], { start: 0, end: 1 }, [[1]], 'int64')[0] as IntValue;
    return this.#float('Reshape', [x, this.sub(this.shapeOf(x), this.sub(size, size))], {}, x.shape);
  }

  /**
   * Runs a body for each slice along the first dimension, one after another, so that what a run needs is never there
   * twice. `sequences` are (n, …), `states` go from run to run; the body gets slices (…) and may use any value
   * of this graph. Results are (n, …). Gradients do not flow through: a body computes what is needed of them.
   */
  scan(inputs: { readonly states: readonly FloatValue[]; readonly sequences: readonly Value[] }, build: (body: Graph, slices: readonly Value[], states: readonly FloatValue[]) => ScanStep): ScanStep {
    const { states, sequences } = inputs;
    const count = sequences[0]?.shape[0];
    if (count === undefined || sequences.some((sequence) => sequence.shape[0] !== count)) throw expected('scan', 'sequences of one length', sequences.map(({ shape }) => formatShape(shape)).join(', '));
    const body = new Graph(this);
    const enter = <V extends Value>(value: V, shape: Shape): V => {
      const inside = { ...value, name: this.#claim(`${value.name}.slice`), shape, source: { kind: 'input' } } as V;
      body.inputs.push(inside);
      return inside;
    };
    const entered = states.map((state) => enter(state, state.shape));
    const step = build(body, sequences.map((sequence) => enter(sequence, sequence.shape.slice(1))), entered);
    step.states.forEach(({ shape }, i) => {
      if (!sameShape(shape, states[i]?.shape ?? [])) throw expected('scan', `a state ${formatShape(states[i]?.shape ?? [])}`, formatShape(shape));
    });
    for (const value of [...step.states, ...step.results]) body.output(value.name, value);
    const shapes = [...step.states.map(({ shape }) => shape), ...step.results.map(({ shape }) => [count, ...shape])];
    const outputs = this.#node('Scan', [...states, ...sequences], { body, states: states.length }, shapes) as readonly FloatValue[];
    return { states: outputs.slice(0, states.length), results: outputs.slice(states.length) };
  }

  // -- element by element -----------------------------------------------------------------------

  add(a: FloatValue, b: FloatValue): FloatValue {
    return this.#binary('Add', a, b);
  }

  sub<D extends DataType>(a: Value<D>, b: Value<D>): Value<D> {
    return this.#node('Sub', [a, b], {}, [broadcastShapes(a.shape, b.shape, 'Sub')], a.dtype)[0] as Value<D>;
  }

  mul(a: FloatValue, b: FloatValue): FloatValue {
    return this.#binary('Mul', a, b);
  }

  div(a: FloatValue, b: FloatValue): FloatValue {
    return this.#binary('Div', a, b);
  }

  neg(x: FloatValue): FloatValue {
    return this.#float('Neg', [x], {}, x.shape);
  }

  exp(x: FloatValue): FloatValue {
    return this.#float('Exp', [x], {}, x.shape);
  }

  log(x: FloatValue): FloatValue {
    return this.#float('Log', [x], {}, x.shape);
  }

  sigmoid(x: FloatValue): FloatValue {
    return this.#float('Sigmoid', [x], {}, x.shape);
  }

  abs(x: FloatValue): FloatValue {
    return this.#float('Abs', [x], {}, x.shape);
  }

  sign(x: FloatValue): FloatValue {
    return this.#float('Sign', [x], {}, x.shape);
  }

  /** x·σ(x), or SiLU (Hendrycks and Gimpel 2016). */
  silu(x: FloatValue): FloatValue {
    return this.#float('Silu', [x], {}, x.shape);
  }

  identity(x: FloatValue): FloatValue {
    return this.#float('Identity', [x], {}, x.shape);
  }

  // -- products and normalisation ---------------------------------------------------------------

  /** a: (…, M, N), b: (…, N, L) or (N, L) → (…, M, L); the transposes swap the last two dimensions. */
  matMul(a: FloatValue, b: FloatValue, { transA = false, transB = false, alpha = 1 }: MatMulOptions = {}): FloatValue {
    return this.#float('FusedMatMul', [a, b], { transA, transB, alpha }, productShape('matMul', a.shape, b.shape, transA, transB));
  }

  /** The same of a and b rounded to float16, and rounded to float16 itself. */
  halfMatMul(a: FloatValue, b: FloatValue, { transA = false, transB = false }: HalfMatMulOptions = {}): FloatValue {
    return this.#float('HalfMatMul', [a, b], { transA, transB }, productShape('halfMatMul', a.shape, b.shape, transA, transB));
  }

  softmax(x: FloatValue, axis = -1): FloatValue {
    return this.#float('Softmax', [x], { axis: resolveAxis(axis, x.shape.length, 'softmax') }, x.shape);
  }

  logSoftmax(x: FloatValue, axis = -1): FloatValue {
    return this.#float('LogSoftmax', [x], { axis: resolveAxis(axis, x.shape.length, 'logSoftmax') }, x.shape);
  }

  /** Root-mean-square normalisation over the last dimension: x / sqrt(mean(x²) + ε) · scale. */
  rmsNorm(x: FloatValue, scale: FloatValue, epsilon: number): FloatValue {
    const width = x.shape.at(-1);
    if (!sameShape(scale.shape, [width ?? 1])) throw expected('rmsNorm', `a scale of shape (${width})`, formatShape(scale.shape));
    const inverse = [...x.shape.slice(0, -1), 1];
    return this.#node('SimplifiedLayerNormalization', [x, scale], { epsilon }, [x.shape, inverse])[0] as FloatValue;
  }

  /**
   * Rotates each head's halves by its position's angles (Su et al. 2021, the half-rotation layout).
   * x: (B, T, heads·D), positions: (B, T), cos and sin: (positions, D/2).
   */
  rotary(x: FloatValue, positions: IntValue, cos: FloatValue, sin: FloatValue): FloatValue {
    if (x.shape.length !== 3 || !sameShape(positions.shape, x.shape.slice(0, 2)) || !sameShape(cos.shape, sin.shape)) {
      throw expected('rotary', 'x (B, T, heads·D), positions (B, T), cos and sin of one shape', [x, positions, cos, sin].map((v) => formatShape(v.shape)).join(', '));
    }
    return this.#float('RotaryEmbedding', [x, positions, cos, sin], {}, x.shape);
  }

  /** −log softmax(logits)[label] of each row. logits: (R, V), labels: (R) → (R) nats. */
  crossEntropy(logits: FloatValue, labels: IntValue): FloatValue {
    if (logits.shape.length !== 2 || !sameShape(labels.shape, logits.shape.slice(0, 1))) {
      throw expected('crossEntropy', 'logits (R, V) and labels (R)', `${formatShape(logits.shape)} and ${formatShape(labels.shape)}`);
    }
    return this.neg(this.reshape(this.gatherElements(this.logSoftmax(logits), this.unsqueeze(labels, [1]), 1), labels.shape));
  }

  // -- shape ------------------------------------------------------------------------------------

  /**
   * To `shape`, which must hold as many elements. A dimension is found from the input's at the same place, as a
   * number, or as the one that is left over; where that is not enough, `like` lends its own at run time.
   */
  reshape(x: FloatValue, shape: Shape, like?: Value): FloatValue {
    if (sameShape(x.shape, shape)) return x;
    if (multiplyDims(x.shape) !== multiplyDims(shape)) throw expected('reshape', `as many elements as ${formatShape(x.shape)}`, formatShape(shape));
    const target = shape.map((dim, i) => (typeof dim === 'number' ? dim : dim === x.shape[i] ? 0 : -1));
    if (target.filter((dim) => dim === -1).length <= 1) {
      return this.#float('Reshape', [x, this.ints(target, [target.length])], {}, shape);
    }
    if (like === undefined || !sameShape(like.shape, shape)) throw expected('reshape', 'at most one dimension to be found', `${formatShape(x.shape)} to ${formatShape(shape)}`);
    return this.#float('Reshape', [x, this.shapeOf(like)], {}, shape);
  }

  transpose(x: FloatValue, perm: readonly number[]): FloatValue {
    return this.#float('Transpose', [x], { perm }, perm.map((axis) => x.shape[resolveAxis(axis, x.shape.length, 'transpose')] as Dim));
  }

  /** Inserts a dimension of one at each of `axes`, which count in the result. */
  unsqueeze<D extends DataType>(x: Value<D>, axes: readonly number[]): Value<D> {
    const shape: Dim[] = [...x.shape];
    for (const axis of axes.toSorted((a, b) => a - b)) shape.splice(axis, 0, 1);
    const inputs = [x, this.ints(axes, [axes.length])];
    return this.#node('Unsqueeze', inputs, { axes }, [shape], x.dtype)[0] as Value<D>;
  }

  /** One after another along an axis. `lengths` (number of values): their sizes along it, without which symbolic ones have no gradient. */
  concat<D extends DataType>(values: readonly Value<D>[], axis: number, lengths?: IntValue): Value<D> {
    const first = values[0];
    if (first === undefined) throw expected('concat', 'one value or more', 'none');
    if (values.length === 1) return first;
    const at = resolveAxis(axis, first.shape.length, 'concat');
    const others = (value: Value): Shape => value.shape.filter((_, i) => i !== at);
    if (values.some((value) => !sameShape(others(value), others(first)))) {
      throw expected('concat', `equal dimensions but for axis ${at}`, values.map((value) => formatShape(value.shape)).join(', '));
    }
    const shape = first.shape.with(at, addDims(values.map((value) => value.shape[at] as Dim)));
    return this.#node('Concat', values, { axis: at, ...(lengths === undefined ? {} : { lengths }) }, [shape], first.dtype)[0] as Value<D>;
  }

  /** x[start … end) along one axis of known size. */
  slice(x: FloatValue, axis: number, start: number, end: number): FloatValue {
    const at = resolveAxis(axis, x.shape.length, 'slice');
    const size = x.shape[at];
    if (typeof size !== 'number' || start < 0 || end > size || start >= end) throw expected('slice', `a range inside ${size}`, `${start} to ${end}`);
    const inputs = [x, this.ints([start], [1]), this.ints([end], [1]), this.ints([at], [1])];
    return this.#float('Slice', inputs, { axis: at, start, end }, x.shape.with(at, end - start));
  }

  /** Parts along one axis: `sizes` names them, `lengths` (number of parts) holds them at run time. */
  split<D extends DataType>(x: Value<D>, axis: number, sizes: Shape, lengths: IntValue): readonly Value<D>[] {
    if (sizes.length === 1) return [x];
    const at = resolveAxis(axis, x.shape.length, 'split');
    if (addDims(sizes) !== x.shape[at] || !sameShape(lengths.shape, [sizes.length])) throw expected('split', `sizes that sum to ${x.shape[at]}`, formatShape(sizes));
    return this.#node('Split', [x, lengths], { axis: at }, sizes.map((size) => x.shape.with(at, size)), x.dtype) as readonly Value<D>[];
  }

  /** Repeats dimensions of one up to the shape of `like`. */
  expandLike(x: FloatValue, like: FloatValue): FloatValue {
    if (sameShape(x.shape, like.shape)) return x;
    if (!sameShape(broadcastShapes(x.shape, like.shape, 'expandLike'), like.shape)) throw expected('expandLike', formatShape(like.shape), formatShape(x.shape));
    return this.#float('Expand', [x, this.shapeOf(like)], {}, like.shape);
  }

  /** One dimension at run time: (1). */
  sizeOf(x: Value, axis: number): IntValue {
    const at = resolveAxis(axis, x.shape.length, 'sizeOf');
    return this.#node('Shape', [x], { start: at, end: at + 1 }, [[1]], 'int64')[0] as IntValue;
  }

  shapeOf(x: Value): IntValue {
    return this.#node('Shape', [x], { start: 0, end: x.shape.length }, [[x.shape.length]], 'int64')[0] as IntValue;
  }

  zerosLike(x: FloatValue): FloatValue {
    return this.#float('ConstantOfShape', [this.shapeOf(x)], {}, x.shape);
  }

  // -- indexing and reduction -------------------------------------------------------------------

  /** Picks whole slices: x (… n …), indices (i…) → (… i… …). */
  gather(x: FloatValue, indices: IntValue, axis = 0): FloatValue {
    const at = resolveAxis(axis, x.shape.length, 'gather');
    return this.#float('Gather', [x, indices], { axis: at }, [...x.shape.slice(0, at), ...indices.shape, ...x.shape.slice(at + 1)]);
  }

  /** Picks single elements along an axis; the result has the shape of the indices. */
  gatherElements(x: FloatValue, indices: IntValue, axis: number): FloatValue {
    const at = resolveAxis(axis, x.shape.length, 'gatherElements');
    if (indices.shape.length !== x.shape.length) throw expected('gatherElements', `indices of ${x.shape.length} dimensions`, formatShape(indices.shape));
    return this.#float('GatherElements', [x, indices], { axis: at }, indices.shape);
  }

  /** The largest `count` of the last dimension, whose size is known, in descending order; of equal elements the first comes first. */
  largest(x: FloatValue, count: number): FloatValue {
    const size = x.shape.at(-1);
    if (typeof size !== 'number' || count < 1 || count > size) throw expected('largest', `a last dimension of ${count} or more`, formatShape(x.shape));
    const shape = [...x.shape.slice(0, -1), count];
    return this.#node('TopK', [x, this.ints([count], [1])], {}, [shape, shape], ['float32', 'int64'])[0] as FloatValue;
  }

  /** x with `updates` added at single elements along an axis. */
  scatterAddElements(x: FloatValue, indices: IntValue, updates: FloatValue, axis: number): FloatValue {
    const at = resolveAxis(axis, x.shape.length, 'scatterAddElements');
    if (!sameShape(indices.shape, updates.shape)) throw expected('scatterAddElements', formatShape(indices.shape), formatShape(updates.shape));
    return this.#float('ScatterElements', [x, indices, updates], { axis: at }, x.shape);
  }

  /** x with `updates` added to slices of the first dimension. x: (n, …), indices: (i…, 1), updates: (i…, …). */
  scatterAdd(x: FloatValue, indices: IntValue, updates: FloatValue): FloatValue {
    const shape = [...indices.shape.slice(0, -1), ...x.shape.slice(1)];
    if (indices.shape.at(-1) !== 1 || !sameShape(shape, updates.shape)) throw expected('scatterAdd', `updates ${formatShape(shape)}`, formatShape(updates.shape));
    return this.#float('ScatterND', [x, indices, updates], {}, x.shape);
  }

  /** x[0] + … + x[i] at place i of an axis. */
  cumulativeSum(x: IntValue, axis: number): IntValue {
    const at = resolveAxis(axis, x.shape.length, 'cumulativeSum');
    return this.#node('CumSum', [x, this.ints([at], [])], { axis: at }, [x.shape], 'int64')[0] as IntValue;
  }

  reduceSum(x: FloatValue, axes: readonly number[], keepDims = true): FloatValue {
    return this.#reduce('ReduceSum', x, axes, keepDims);
  }

  reduceMean(x: FloatValue, axes: readonly number[], keepDims = true): FloatValue {
    return this.#reduce('ReduceMean', x, axes, keepDims);
  }

  /** The largest along `axes`. It has no gradient: what it is taken from, to keep a sum of exponentials in range, does not hang on it. */
  reduceMax(x: FloatValue, axes: readonly number[], keepDims = true): FloatValue {
    return this.#reduce('ReduceMax', x, axes, keepDims);
  }

  sumAll(x: FloatValue): FloatValue {
    return this.reduceSum(x, x.shape.map((_, i) => i), false);
  }

  // -- inside -----------------------------------------------------------------------------------

  #binary(op: 'Add' | 'Mul' | 'Div', a: FloatValue, b: FloatValue): FloatValue {
    return this.#float(op, [a, b], {}, broadcastShapes(a.shape, b.shape, op));
  }

  #reduce(op: 'ReduceSum' | 'ReduceMean' | 'ReduceMax', x: FloatValue, axes: readonly number[], keepDims: boolean): FloatValue {
    const at = axes.map((axis) => resolveAxis(axis, x.shape.length, op));
    const shape = keepDims ? x.shape.map((dim, i) => (at.includes(i) ? 1 : dim)) : x.shape.filter((_, i) => !at.includes(i));
    return this.#float(op, [x, this.ints(at, [at.length])], { axes: at, keepDims }, shape);
  }

  #float<Op extends OpType>(op: Op, inputs: readonly Value[], attributes: OpAttributes[Op], shape: Shape): FloatValue {
    return this.#node(op, inputs, attributes, [shape])[0] as FloatValue;
  }

  #node<Op extends OpType>(op: Op, inputs: readonly Value[], attributes: OpAttributes[Op], shapes: readonly Shape[], dtypes: DataType | readonly DataType[] = 'float32'): readonly Value[] {
    const outputs: Value[] = [];
    const node: GraphNode<Op> = { op, inputs, outputs, attributes, recomputed: this.#recomputing };
    const source: TensorSource = { kind: 'node', node };
    shapes.forEach((shape, i) => outputs.push({ name: this.#claim(op), dtype: typeof dtypes === 'string' ? dtypes : (dtypes[i] as DataType), shape, source }));
    this.nodes.push(node);
    return outputs;
  }

  #constant<D extends DataType>(dtype: D, data: Float32Array | BigInt64Array, shape: Shape): Value<D> {
    if (data.length !== elements(shape)) throw expected('constant', `${elements(shape)} elements for ${formatShape(shape)}`, `${data.length}`);
    const key = data.length > 64 ? undefined : `${dtype}${formatShape(shape)}${data.join()}`;
    const known = key === undefined ? undefined : this.#constants.get(key);
    if (known !== undefined) return known as Value<D>;
    const value: Value<D> = { name: this.#claim('constant'), dtype, shape, source: { kind: 'constant', data } };
    if (key !== undefined) this.#constants.set(key, value);
    return value;
  }

  #claim(stem: string): string {
    const count = this.#names.get(stem) ?? 0;
    this.#names.set(stem, count + 1);
    return count === 0 ? stem : `${stem}_${count}`;
  }
}

function productShape(method: string, a: Shape, b: Shape, transA: boolean, transB: boolean): Shape {
  const where = `${method}(${formatShape(a)}${transA ? 'ᵀ' : ''}, ${formatShape(b)}${transB ? 'ᵀ' : ''})`;
  if (a.length < 2 || b.length < 2) throw expected(where, 'two dimensions or more', 'fewer');
  const [rows, innerA] = lastTwo(a, transA);
  const [innerB, columns] = lastTwo(b, transB);
  if (innerA !== innerB) throw expected(where, 'equal inner dimensions', `${innerA} and ${innerB}`);
  const batch = a.slice(0, -2);
  if (b.length > 2 && !sameShape(batch, b.slice(0, -2))) throw expected(where, 'equal batch dimensions', formatShape(b));
  return [...batch, rows, columns];
}

function lastTwo(shape: Shape, swapped: boolean): [Dim, Dim] {
  const [a, b] = shape.slice(-2) as [Dim, Dim];
  return swapped ? [b, a] : [a, b];
}
