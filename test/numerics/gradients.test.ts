/**
 * Every gradient rule against central finite differences of the runtime's own forward pass. The loss is
 * Σ c·y with random c, so that errors do not cancel. Float32 leaves about 1e-3 of a difference quotient.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { GRADIENTS, gradients } from '../../src/graph/gradients.ts';
import type { GradientTable } from '../../src/graph/gradients.ts';
import { Graph } from '../../src/graph/graph.ts';
import type { FloatValue, OpType } from '../../src/graph/ops.ts';
import { toOnnx } from '../../src/graph/serialize.ts';
import { randomStream } from '../../src/training/random.ts';

interface Case {
  readonly name?: string;
  /** Inputs are whole numbers of it: what a rule is compared with must not be lost to rounding. */
  readonly grid?: number;
  /** Shapes of the values to differentiate by. */
  readonly shapes: readonly (readonly number[])[];
  readonly build: (g: Graph, inputs: readonly FloatValue[]) => FloatValue;
}

const [a, b] = [0, 1] as const;
const at = (inputs: readonly FloatValue[], i: number): FloatValue => inputs[i] as FloatValue;
const two = (shapes: Case['shapes'], build: (g: Graph, x: FloatValue, y: FloatValue) => FloatValue, name?: string): Case => ({
  shapes,
  build: (g, inputs) => build(g, at(inputs, a), at(inputs, b)),
  ...(name === undefined ? {} : { name }),
});
const one = (shape: readonly number[], build: (g: Graph, x: FloatValue) => FloatValue, name?: string): Case => ({ shapes: [shape], build: (g, inputs) => build(g, at(inputs, a)), ...(name === undefined ? {} : { name }) });
const matMul = (left: readonly number[], right: readonly number[], transA: boolean, transB: boolean): Case =>
  two([left, right], (g, x, y) => g.matMul(x, y, { transA, transB, alpha: 0.7 }), `${transA ? 'Aᵀ' : 'A'}${transB ? 'Bᵀ' : 'B'} of ${left.length} and ${right.length} dimensions`);
/** Multiples of 1/8 in all, and half a step of the quotient: products of them and their sums are exact in float16, the quotient too. */
const halfMatMul = (left: readonly number[], right: readonly number[], transA: boolean, transB: boolean): Case => ({
  ...two([left, right], (g, x, y) => g.halfMatMul(x, y, { transA, transB }), `${transA ? 'Aᵀ' : 'A'}${transB ? 'Bᵀ' : 'B'} of ${left.length} and ${right.length} dimensions`),
  grid: 1 / 8,
});
/** Away from zero, for divisors. */
const shifted = (g: Graph, x: FloatValue): FloatValue => g.add(g.mul(x, g.scalar(0.3)), g.scalar(2));

/** At least one case for each operator that has a rule; by type none can be forgotten. */
const CASES: { readonly [Op in OpType]: readonly Case[] } = {
  Add: [two([[2, 3], [3]], (g, x, y) => g.add(x, y)), two([[2, 1, 3], [4, 1]], (g, x, y) => g.add(x, y), 'both repeated')],
  Sub: [two([[2, 3], [2, 1]], (g, x, y) => g.sub(x, y)), two([[3], [2, 3]], (g, x, y) => g.sub(x, y), 'the left repeated')],
  Mul: [two([[2, 3], [3]], (g, x, y) => g.mul(x, y)), one([2, 3], (g, x) => g.mul(x, x), 'a square')],
  Div: [two([[2, 3], [3]], (g, x, y) => g.div(x, shifted(g, y)))],
  Neg: [one([5], (g, x) => g.neg(x))],
  Exp: [one([5], (g, x) => g.exp(x))],
  Log: [one([5], (g, x) => g.log(shifted(g, x)))],
  Sigmoid: [one([5], (g, x) => g.sigmoid(x))],
  Abs: [one([5], (g, x) => g.abs(x))],
  Sign: [],
  Silu: [one([5], (g, x) => g.silu(x))],
  FusedMatMul: [
    ...[false, true].flatMap((transA) => [false, true].map((transB) => matMul(transA ? [4, 3] : [3, 4], transB ? [2, 4] : [4, 2], transA, transB))),
    ...[false, true].flatMap((transA) => [false, true].map((transB) => matMul(transA ? [2, 4, 3] : [2, 3, 4], transB ? [2, 2, 4] : [2, 4, 2], transA, transB))),
    ...[false, true].map((transB) => matMul([2, 3, 4], transB ? [2, 4] : [4, 2], false, transB)),
  ],
  HalfMatMul: [
    ...[false, true].flatMap((transA) => [false, true].map((transB) => halfMatMul(transA ? [4, 3] : [3, 4], transB ? [2, 4] : [4, 2], transA, transB))),
    ...[false, true].map((transB) => halfMatMul([2, 3, 4], transB ? [2, 4] : [4, 2], false, transB)),
  ],
  Softmax: [one([2, 3, 4], (g, x) => g.softmax(x)), one([2, 3, 4], (g, x) => g.softmax(x, 1), 'of an inner axis')],
  LogSoftmax: [one([3, 5], (g, x) => g.crossEntropy(x, g.ints([4, 0, 2], [3])), 'of labels'), one([2, 3, 4], (g, x) => g.logSoftmax(x)), one([2, 3, 4], (g, x) => g.logSoftmax(x, 1), 'of an inner axis')],
  SimplifiedLayerNormalization: [two([[2, 3, 4], [4]], (g, x, y) => g.rmsNorm(x, y, 1e-5))],
  RotaryEmbedding: [one([1, 3, 8], (g, x) => {
    const angles = Float32Array.from({ length: 10 }, (_, i) => 0.3 + i);
    return g.rotary(x, g.ints([4, 0, 2], [1, 3]), g.floats(angles.map(Math.cos), [5, 2]), g.floats(angles.map(Math.sin), [5, 2]));
  })],
  Reshape: [one([2, 6], (g, x) => g.reshape(x, [3, 4]))],
  Transpose: [one([2, 3, 4], (g, x) => g.transpose(x, [2, 0, 1]))],
  Unsqueeze: [one([2, 3], (g, x) => g.unsqueeze(x, [1]))],
  Concat: [two([[2, 3], [2, 2]], (g, x, y) => g.concat([x, y], 1)), two([[2, 3], [1, 3]], (g, x, y) => g.concat([x, y, x], 0), 'one part twice')],
  Slice: [one([2, 5], (g, x) => g.slice(x, 1, 1, 4)), one([5], (g, x) => g.slice(x, 0, 0, 1), 'the front, shorter than the rest')],
  Split: [
    one([2, 5], (g, x) => g.split(x, 1, [2, 3], g.ints([2, 3], [2])).map((part, i) => g.sumAll(g.mul(part, g.scalar(i + 2)))).reduce((a, b) => g.add(a, b))),
    one([4, 2], (g, x) => g.split(x, 0, [1, 2, 1], g.ints([1, 2, 1], [3]))[1] as FloatValue, 'one part alone'),
  ],
  Expand: [two([[2, 1], [2, 3]], (g, x, y) => g.mul(g.expandLike(x, y), y))],
  Gather: [one([4, 2], (g, x) => g.gather(x, g.ints([3, 1, 3], [3]))), one([4, 2], (g, x) => g.gather(x, g.ints([0, 1, 2, 0], [2, 2])), 'by a matrix')],
  GatherElements: [one([2, 4], (g, x) => g.gatherElements(x, g.ints([3, 3, 0, 1], [2, 2]), 1))],
  ScatterElements: [two([[2, 4], [2, 2]], (g, x, y) => g.scatterAddElements(x, g.ints([3, 3, 0, 1], [2, 2]), y, 1))],
  ScatterND: [two([[4, 2], [3, 2]], (g, x, y) => g.scatterAdd(x, g.ints([3, 1, 3], [3, 1]), y))],
  TopK: [one([2, 5], (g, x) => g.largest(x, 5)), one([2, 6], (g, x) => g.mul(g.largest(x, 3), g.largest(g.neg(x), 3)), 'of both ends')],
  CumSum: [],
  ReduceSum: [one([2, 3, 4], (g, x) => g.reduceSum(x, [0, 2])), one([2, 3], (g, x) => g.reduceSum(x, [1], false), 'dimensions dropped'), one([2, 3], (g, x) => g.sumAll(x), 'of all')],
  ReduceMean: [one([2, 3, 4], (g, x) => g.reduceMean(x, [-1])), one([2, 3, 4], (g, x) => g.reduceMean(x, [0, 1], false), 'dimensions dropped')],
  ReduceMax: [],
  Shape: [],
  ConstantOfShape: [],
  Identity: [one([3], (g, x) => g.identity(x))],
  Scan: [],
};

const size = (shape: readonly number[]): number => shape.reduce((product, dim) => product * dim, 1);
const draw = (length: number, stream: number): Float32Array => {
  const random = randomStream(1, 77, stream);
  return Float32Array.from({ length }, (_, i) => 2 * random.uniform(i) - 1);
};

/** The largest difference between rule and quotient, relative to the largest quotient of the input. */
async function largestError({ shapes, build, grid }: Case, table: GradientTable = GRADIENTS): Promise<number> {
  const g = new Graph();
  const inputs = shapes.map((shape, i) => g.input(`x${i}`, 'float32', shape));
  const y = build(g, inputs);
  const weights = g.floats(draw(size(y.shape.map(Number)), 0), y.shape);
  const results = gradients(g, [{ of: y, seed: weights }], inputs, table);
  g.output('loss', g.sumAll(g.mul(y, weights)));
  results.forEach((value, i) => {
    assert.deepEqual(value.shape, shapes[i]);
    g.output(`d${i}`, value);
  });
  const session = await InferenceSession.create(toOnnx(g, 'rule'), { intraOpNumThreads: 1, logSeverityLevel: 3 });
  const values = shapes.map((shape, i) => draw(size(shape), i + 1).map((value) => (grid === undefined ? value : grid * Math.round(value / grid))));
  const run = () => session.run(Object.fromEntries(values.map((data, i) => [`x${i}`, new Tensor('float32', data, shapes[i] as number[])])));
  const loss = async (): Promise<number> => (await run())['loss']?.data[0] as number;
  const analytic = await run();
  const epsilon = 2 ** -6;
  let worst = 0;
  for (const [i, data] of values.entries()) {
    const quotients: number[] = [];
    for (let j = 0; j < data.length; j++) {
      const kept = data[j] as number;
      data[j] = kept + epsilon;
      const above = await loss();
      data[j] = kept - epsilon;
      const below = await loss();
      data[j] = kept;
      quotients.push((above - below) / (2 * epsilon));
    }
    const scale = Math.max(...quotients.map(Math.abs), 1e-3);
    const rule = analytic[`d${i}`]?.data as Float32Array;
    quotients.forEach((quotient, j) => (worst = Math.max(worst, Math.abs(quotient - (rule[j] ?? NaN)) / scale)));
  }
  await session.release();
  return worst;
}

/** Truncation of the quotient is of order ε² = 2.4e-4 times the third derivative; rounding of order 1e-7 / ε. */
const TOLERANCE = 5e-3;

for (const [op, cases] of Object.entries(CASES) as [OpType, readonly Case[]][]) {
  if (GRADIENTS[op] === null) {
    test(`${op} passes no gradient`, () => assert.deepEqual(cases, []));
    continue;
  }
  for (const entry of cases) {
    test(`${op}${entry.name === undefined ? '' : `, ${entry.name}`}: the rule is the quotient`, async () => {
      const error = await largestError(entry);
      assert.ok(error < TOLERANCE, `relative error ${error}`);
    });
  }
  test(`${op} has a case`, () => assert.ok(cases.length > 0));
}

test('a wrong rule is caught, whichever it is', async () => {
  for (const [op, cases] of Object.entries(CASES) as [OpType, readonly Case[]][]) {
    const first = cases[0];
    if (first === undefined) continue;
    const broken = Object.fromEntries(
      Object.entries(GRADIENTS).map(([name, rule]) => {
        if (name !== op || rule === null) return [name, rule];
        const wrong = (args: { readonly g: Graph }): readonly (FloatValue | null)[] =>
          (rule as (args: unknown) => readonly (FloatValue | null)[])(args).map((value) => (value === null ? null : args.g.mul(value, args.g.scalar(1.02))));
        return [name, wrong];
      }),
    ) as unknown as GradientTable;
    const error = await largestError(first, broken);
    assert.ok(error > TOLERANCE, `${op}: a rule 2 % too large gave only ${error}`);
  }
});

test('no gradient is computed where none is asked for', () => {
  const g = new Graph();
  const [x, frozen, y] = [g.input('x', 'float32', [2, 2]), g.input('frozen', 'float32', [2, 2]), g.input('y', 'float32', [2, 2])];
  const below = g.matMul(x, frozen);
  const loss = g.sumAll(g.matMul(below, y));
  const before = g.nodes.length;
  const [dY] = gradients(g, [{ of: loss }], [y]);
  assert.deepEqual(dY?.shape, [2, 2]);
  const added = g.nodes.slice(before).filter((node) => node.op === 'FusedMatMul');
  assert.equal(added.length, 1, 'one product, for y alone');
  assert.throws(() => gradients(g, [{ of: below }], [y]), /expected FusedMatMul to depend on y/);
});

test('what is recomputed gives the same bits, and waits for its gradient', async () => {
  /** Two gated layers; the gates are computed again for the backward pass, or kept. */
  const build = (again: boolean) => {
    const g = new Graph();
    const [x, w] = [g.input('x', 'float32', ['B', 4]), g.input('w', 'float32', [4, 4])];
    const gate = (v: FloatValue): FloatValue => g.mul(v, g.sigmoid(v));
    let y: FloatValue = x;
    for (let layer = 0; layer < 2; layer++) {
      const projected = g.matMul(y, w);
      y = g.matMul(again ? g.recomputed(() => gate(projected)) : gate(projected), w);
    }
    const forward = g.nodes.length;
    const [dW] = gradients(g, [{ of: y }], [w]);
    g.output('dW', dW as FloatValue);
    return { g, forward };
  };
  const results = await Promise.all([false, true].map(async (again) => {
    const session = await InferenceSession.create(toOnnx(build(again).g, 'again'), { intraOpNumThreads: 1, logSeverityLevel: 3 });
    const { dW } = await session.run({ x: new Tensor('float32', draw(12, 1), [3, 4]), w: new Tensor('float32', draw(16, 2), [4, 4]) });
    await session.release();
    return dW?.data;
  }));
  assert.deepEqual(results[0], results[1]);

  const { g, forward } = build(true);
  const early = new Set<unknown>(g.nodes.slice(0, forward).flatMap((node) => node.outputs));
  const later = g.nodes.slice(forward).filter((node) => node.op === 'Sigmoid');
  assert.equal(later.length, 2, 'each gate once more');
  for (const node of later) assert.ok(node.inputs.every((value) => !early.has(value)), 'nothing of it can run before the backward pass');
});

test('a loop runs its body slice by slice, with states and with values from outside', async () => {
  const g = new Graph();
  const [x, w, start] = [g.input('x', 'float32', ['N', 2, 3]), g.input('w', 'float32', [3, 2]), g.input('start', 'float32', [2, 2])];
  const { states, results } = g.scan({ states: [start], sequences: [x] }, (body, [slice], [state]) => {
    const product = body.matMul(slice as FloatValue, w);
    return { states: [body.add(state as FloatValue, product)], results: [body.mul(product, body.scalar(2))] };
  });
  g.output('state', states[0] as FloatValue);
  g.output('twice', results[0] as FloatValue);
  const session = await InferenceSession.create(toOnnx(g, 'scan'), { intraOpNumThreads: 1, logSeverityLevel: 3 });
  const run = await session.run({ x: new Tensor('float32', Float32Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1), [2, 2, 3]), w: new Tensor('float32', Float32Array.of(1, 2, 3, 4, 5, 6), [3, 2]), start: new Tensor('float32', new Float32Array(4).fill(100), [2, 2]) });
  await session.release();
  const numbers = (name: string): number[] => Array.from(run[name]?.data as Float32Array);
  assert.deepEqual(numbers('twice'), [2, 4, 6, 8, 10, 12, 18, 24]);
  assert.deepEqual(numbers('state'), [106, 108, 112, 116]);
  assert.throws(() => g.scan({ states: [], sequences: [x, w] }, () => ({ states: [], results: [] })), /sequences of one length, got \(N, 2, 3\), \(3, 2\)/);
});

test('shapes are checked where a node is made', () => {
  const g = new Graph();
  const [x, y] = [g.input('a', 'float32', ['B', 3]), g.input('b', 'float32', [4, 'T'])];
  assert.throws(() => g.matMul(x, y), /matMul\(\(B, 3\), \(4, T\)\): expected equal inner dimensions, got 3 and 4/);
  assert.throws(() => g.add(x, y), /Add: expected shapes that broadcast, got \(B, 3\) and \(4, T\)/);
  assert.throws(() => g.reshape(x, ['B', 4]), /expected as many elements as \(B, 3\), got \(B, 4\)/);
  assert.deepEqual(g.concat([x, x, g.input('c', 'float32', ['P', 3])], 0).shape, ['(2*B+P)', 3]);
});
