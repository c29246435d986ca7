/**
 * Losses of distillation and their gradients against PyTorch's own functions (fixtures/distillation_loss_reference.py, in
 * float64). Float32 leaves about 1e-6 of the largest entry; the bound is the one that is asked of the losses.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { gradients } from '../../src/graph/gradients.ts';
import { Graph } from '../../src/graph/graph.ts';
import type { DataType, FloatValue, Value } from '../../src/graph/ops.ts';
import { toOnnx } from '../../src/graph/serialize.ts';
import type { Shape } from '../../src/graph/shape.ts';
import { distillation, hiddenStateLoss, teacherRows, teacherTopK } from '../../src/training/distillation-loss.ts';
import type { Divergence } from '../../src/training/distillation-loss.ts';
import { chunkedLoss } from '../../src/training/row-loss.ts';

type InputName = 'rows' | 'head' | 'teacherRows' | 'teacherHead' | 'projection' | 'weights' | 'labels' | 'teacherTokens' | 'teacherLogProbs' | 'teacherRest';
interface Case {
  readonly name: string;
  readonly losses: readonly number[];
  readonly gradients: Readonly<Record<string, readonly number[]>>;
}
interface Reference {
  readonly sizes: { readonly R: number; readonly H: number; readonly HT: number; readonly V: number; readonly K: number };
  readonly inputs: Readonly<Record<InputName, readonly number[]>>;
  readonly cases: readonly (Case & { readonly k: number | null; readonly divergence: Divergence; readonly temperature: number; readonly alpha: number })[];
  readonly hidden: readonly (Case & { readonly name: 'mean-square' | 'cosine' })[];
}
const reference = JSON.parse(readFileSync(new URL('fixtures/distillation-loss-reference.json', import.meta.url), 'utf8')) as Reference;
const { R, H, HT, V, K } = reference.sizes;
const TOLERANCE = 1e-5;
const CHUNKS = 2;
const rowShapes: Readonly<Record<string, readonly number[]>> = { rows: [H], teacherRows: [HT], weights: [], labels: [], teacherTokens: [K], teacherLogProbs: [K], teacherRest: [] };
const matrixShapes: Readonly<Record<string, readonly number[]>> = { head: [V, H], teacherHead: [V, HT], projection: [HT, H] };

/** Runs a graph over the fixture's inputs; rows lie in `leading` dimensions. */
async function run(g: Graph, leading: readonly number[]): Promise<Readonly<Record<string, readonly number[]>>> {
  const session = await InferenceSession.create(toOnnx(g, 'loss'), { intraOpNumThreads: 1, logSeverityLevel: 3 });
  const feeds = g.inputs.map(({ name, dtype }) => {
    const values = reference.inputs[name as InputName];
    const row = rowShapes[name];
    const shape = row === undefined ? (matrixShapes[name] ?? []) : [...leading, ...row];
    return [name, dtype === 'int64' ? new Tensor('int64', BigInt64Array.from(values, BigInt), shape) : new Tensor('float32', Float32Array.from(values), shape)] as const;
  });
  const results = await session.run(Object.fromEntries(feeds));
  await session.release();
  return Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, Array.from(data as Float32Array)]));
}

function compare(got: Readonly<Record<string, readonly number[]>>, { losses, gradients: expected }: Case): void {
  for (const [name, values] of Object.entries({ losses, ...expected })) {
    const scale = Math.max(...values.map(Math.abs));
    const worst = Math.max(...values.map((value, i) => Math.abs(value - (got[name]?.[i] ?? NaN)) / scale));
    assert.ok(worst <= TOLERANCE, `${name}: relative error ${worst}`);
  }
}

for (const entry of reference.cases) {
  test(`${entry.name}: loss and gradients are PyTorch's`, async () => {
    const { divergence, temperature, alpha, k } = entry;
    const g = new Graph();
    const teacher = k === null ? teacherRows(g.input('teacherHead', 'float32', [V, HT])) : teacherTopK(k);
    const given = (name: string, dtype: DataType, shape: Shape) => g.input(name, dtype, shape);
    const { losses, backward } = chunkedLoss(g, {
      rows: g.input('rows', 'float32', ['N', 'C', H]),
      head: g.input('head', 'float32', [V, H]),
      weights: g.input('weights', 'float32', ['N', 'C']),
      given,
      loss: distillation({ divergence, temperature, alpha, teacher }),
      backward: true,
    });
    for (const [name, value] of Object.entries({ losses, rows: backward?.rows, head: backward?.head })) g.output(name === 'losses' ? name : `d${name}`, value as FloatValue);
    const { losses: got, drows, dhead } = await run(g, [CHUNKS, R / CHUNKS]);
    compare({ losses: got ?? [], rows: drows ?? [], head: dhead ?? [] }, entry);
  });
}

for (const entry of reference.hidden) {
  test(`${entry.name} of projected hidden states: loss and gradients are PyTorch's`, async () => {
    const g = new Graph();
    const [student, projection] = [g.input('rows', 'float32', ['R', H]), g.input('projection', 'float32', [HT, H])];
    const seed = g.input('weights', 'float32', ['R']);
    const losses = hiddenStateLoss(g, { kind: entry.name, student, teacher: g.input('teacherRows', 'float32', ['R', HT]), projection, weights: seed });
    const [dRows, dProjection] = gradients(g, [{ of: losses, seed }], [student, projection]) as [FloatValue, FloatValue];
    for (const [name, value] of Object.entries({ losses: g.mul(losses, seed), dRows, dProjection })) g.output(name, value);
    const results = await run(g, [R]);
    compare({ losses: results['losses'] ?? [], rows: results['dRows'] ?? [], projection: results['dProjection'] ?? [] }, entry);
  });
}

test('k of the whole vocabulary is the loss against all logits', async () => {
  const lossOf = async (all: boolean): Promise<readonly number[]> => {
    const g = new Graph();
    const [p, q] = [g.input('teacherRows', 'float32', [R, HT]), g.input('rows', 'float32', [R, H])];
    const teacherLogits = g.matMul(p, g.input('teacherHead', 'float32', [V, HT]), { transB: true });
    const logits = g.matMul(q, g.input('head', 'float32', [V, H]), { transB: true });
    const everyToken = g.ints(Array.from({ length: R * V }, (_, i) => i % V), [R, V]);
    const source = all ? { inputs: [], classes: () => ({ student: logits, teacher: teacherLogits }) } : teacherTopK(V);
    const { loss } = distillation({ divergence: { kind: 'forward-kl' }, temperature: 2, alpha: 1, teacher: source });
    g.output('losses', loss(g, logits, (name) => ({ teacherTokens: everyToken, teacherLogProbs: g.logSoftmax(teacherLogits), teacherRest: g.floats(new Float32Array(R).fill(-Infinity), [R]) })[name] as Value));
    return (await run(g, [R]))['losses'] ?? [];
  };
  const [whole, stored] = [await lossOf(true), await lossOf(false)];
  whole.forEach((loss, i) => assert.ok(Math.abs(loss - (stored[i] ?? NaN)) < 1e-5 * Math.max(1, loss), `${loss} and ${stored[i]}`));
});
