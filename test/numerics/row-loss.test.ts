/** The loss in chunks of rows is the loss of all rows at once, with its gradients, however the rows are cut. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { gradients } from '../../src/graph/gradients.ts';
import { Graph } from '../../src/graph/graph.ts';
import type { FloatValue } from '../../src/graph/ops.ts';
import { toOnnx } from '../../src/graph/serialize.ts';
import { randomStream } from '../../src/training/random.ts';
import { chunkedLoss, chunkRows, crossEntropy } from '../../src/training/row-loss.ts';

const [R, H, V] = [12, 5, 11];
const draw = (length: number, stream: number): Float32Array => {
  const random = randomStream(2, 78, stream);
  return Float32Array.from({ length }, (_, i) => 2 * random.uniform(i) - 1);
};
const rows = draw(R * H, 1);
const head = draw(V * H, 2);
const weights = draw(R, 3).map(Math.abs);
const labels = BigInt64Array.from({ length: R }, (_, i) => BigInt((i * 7) % V));

interface Result {
  readonly loss: number;
  readonly dRows: Float32Array;
  readonly dHead: Float32Array;
}

async function run(g: Graph, dims: readonly number[]): Promise<Result> {
  const session = await InferenceSession.create(toOnnx(g, 'loss'), { intraOpNumThreads: 1, logSeverityLevel: 3 });
  const results = await session.run({ rows: new Tensor('float32', rows, [...dims, H]), head: new Tensor('float32', head, [V, H]), weights: new Tensor('float32', weights, dims), labels: new Tensor('int64', labels, dims) });
  await session.release();
  return { loss: results['loss']?.data[0] as number, dRows: results['dRows']?.data as Float32Array, dHead: results['dHead']?.data as Float32Array };
}

function whole(): Promise<Result> {
  const g = new Graph();
  const x = g.input('rows', 'float32', ['R', H]);
  const w = g.input('head', 'float32', [V, H]);
  const seed = g.input('weights', 'float32', ['R']);
  const losses = g.crossEntropy(g.matMul(x, w, { transB: true }), g.input('labels', 'int64', ['R']));
  const [dRows, dHead] = gradients(g, [{ of: losses, seed }], [x, w]) as [FloatValue, FloatValue];
  for (const [name, value] of Object.entries({ loss: g.sumAll(g.mul(losses, seed)), dRows, dHead })) g.output(name, value);
  return run(g, [R]);
}

function inChunks(chunks: number): Promise<Result> {
  const g = new Graph();
  const given = { rows: g.input('rows', 'float32', ['N', 'C', H]), head: g.input('head', 'float32', [V, H]), weights: g.input('weights', 'float32', ['N', 'C']) };
  const { losses, backward } = chunkedLoss(g, { ...given, given: (name, dtype, shape) => g.input(name, dtype, shape), loss: crossEntropy, backward: true });
  for (const [name, value] of Object.entries({ loss: g.sumAll(losses), dRows: backward?.rows, dHead: backward?.head })) g.output(name, value as FloatValue);
  return run(g, [chunks, R / chunks]);
}

const largest = (a: Float32Array, b: Float32Array): number => a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] ?? NaN))), 0);

for (const chunks of [1, 3, 12]) {
  test(`${chunks} ${chunks === 1 ? 'chunk gives' : 'chunks give'} the loss and the gradients of all rows at once`, async () => {
    const [expected, got] = [await whole(), await inChunks(chunks)];
    // Sums of a dozen float32 terms in another order.
    assert.ok(Math.abs(got.loss - expected.loss) < 1e-5, `${got.loss} against ${expected.loss}`);
    assert.ok(largest(got.dRows, expected.dRows) < 1e-6);
    assert.ok(largest(got.dHead, expected.dHead) < 1e-6);
  });
}

test('chunks hold all rows, nearly without padding, and few values or few rows', () => {
  for (const [count, vocabulary] of [[1, 50_000], [508, 49_152], [512, 151_936], [5_000, 1_000], [3, 10_000_000]] as const) {
    const { chunks, size } = chunkRows(count, vocabulary);
    assert.ok(chunks * size >= count && chunks * size < count + chunks, `${chunks} of ${size} for ${count}`);
    assert.ok(size <= 128 || size * vocabulary * 4 <= 24 * 2 ** 20, `${size} rows of ${vocabulary}`);
  }
});
