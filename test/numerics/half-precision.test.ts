/**
 * Half precision on the processor, whose provider has no products of it: the runtime rounds and multiplies in float32, which
 * is what an accelerator does but for the order of its sums. Against our float32, PyTorch's, and what rounding must give.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { createAssets } from '../../src/assets/create-assets.ts';
import { readConfig } from '../../src/config.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { Precision } from '../../src/contracts/precision.ts';
import type { TrainingSpec } from '../../src/contracts/training-spec.ts';
import { GRADIENTS, gradients, halfMatMulGradients } from '../../src/graph/gradients.ts';
import type { GradientTable } from '../../src/graph/gradients.ts';
import { Graph } from '../../src/graph/graph.ts';
import type { FloatValue } from '../../src/graph/ops.ts';
import { toOnnx } from '../../src/graph/serialize.ts';
import type { LoraAdapter } from '../../src/lm/adapter.ts';
import { createEngine } from '../../src/lm/engine.ts';
import { generate } from '../../src/lm/generation.ts';
import { keepLayersOf, keepTensors } from '../../src/lm/layers.ts';
import { loadModel } from '../../src/lm/load.ts';
import type { LoadedModel } from '../../src/lm/load.ts';
import { packRow } from '../../src/training/packing.ts';
import type { TrainingSample } from '../../src/training/packing.ts';
import { randomStream } from '../../src/training/random.ts';
import { createStep } from '../../src/training/step.ts';
import { trainableOf } from '../../src/training/trainable.ts';
import { logitsOf } from '../support/logits.ts';
import { readReference, writeFolderModel } from '../support/recipe.ts';
import { gradientError } from '../support/training-parity.ts';
import type { FirstStep } from '../support/training-parity.ts';

const folder = mkdtempSync(join(tmpdir(), 'stillhouse-half-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const draw = (length: number, stream: number): Float32Array => {
  const random = randomStream(3, 91, stream);
  return Float32Array.from({ length }, (_, i) => 2 * random.uniform(i) - 1);
};
const open = (g: Graph): Promise<InferenceSession> => InferenceSession.create(toOnnx(g, 'half'), { intraOpNumThreads: 1, logSeverityLevel: 3 });
/** ‖a − b‖ / ‖b‖ */
const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < b.length; i += 1) {
    difference += ((a[i] ?? NaN) - (b[i] ?? NaN)) ** 2;
    norm += (b[i] ?? NaN) ** 2;
  }
  return Math.sqrt(difference / norm);
};
const largestDifference = (a: Float32Array, b: Float32Array): number => a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] ?? NaN))), 0);

describe('a product in half precision', () => {
  const [B, T, H, O] = [2, 3, 40, 5];
  const [x, w] = [draw(B * T * H, 0), draw(O * H, 1)];

  test('is that of rounded numbers, and rounded', async () => {
    const g = new Graph();
    g.output('y', g.halfMatMul(g.input('x', 'float32', ['B', 'T', H]), g.floats(w, [O, H]), { transB: true }));
    const session = await open(g);
    const y = (await session.run({ x: new Tensor('float32', x, [B, T, H]) }))['y']?.data as Float32Array;
    await session.release();
    const [narrowX, narrowW] = [new Float16Array(x), new Float16Array(w)];
    for (let row = 0; row < B * T; row += 1) {
      for (let column = 0; column < O; column += 1) {
        let sum = 0;
        for (let i = 0; i < H; i += 1) sum += (narrowX[row * H + i] ?? NaN) * (narrowW[column * H + i] ?? NaN);
        const got = y[row * O + column] ?? NaN;
        assert.equal(got, Math.f16round(got), 'a number of float16');
        // Where the sum lies half-way between two of them, float32 may round it to the other one.
        assert.ok(Math.abs(got - sum) <= Math.abs(sum) * 2 ** -11 + 1e-5, `expected ${sum}, got ${got}`);
      }
    }
  });

  test('has gradients that float16 alone would round to nothing', async () => {
    /** The relative error of d(Σ c·y)/dx after two products, c of the size `size`. */
    const error = async (size: number, table: GradientTable): Promise<number> => {
      const gradientOf = async (product: 'halfMatMul' | 'matMul', rules: GradientTable): Promise<Float32Array> => {
        const g = new Graph();
        const input = g.input('x', 'float32', [B * T, H]);
        const y = g[product](g[product](input, g.floats(w, [O, H]), { transB: true }), g.floats(draw(O * 7, 2), [7, O]), { transB: true });
        const [dX] = gradients(g, [{ of: y, seed: g.floats(draw(B * T * 7, 4).map((c) => c * size), [B * T, 7]) }], [input], rules);
        g.output('dX', dX as FloatValue);
        const session = await open(g);
        const { dX: result } = await session.run({ x: new Tensor('float32', x, [B * T, H]) });
        await session.release();
        return result?.data as Float32Array;
      };
      return distance(await gradientOf('halfMatMul', table), await gradientOf('matMul', GRADIENTS));
    };
    const without: GradientTable = { ...GRADIENTS, HalfMatMul: halfMatMulGradients(1) };
    for (const size of [1, 1e-3, 3e-6]) assert.ok((await error(size, GRADIENTS)) < 2e-3, `gradients of ${size}`);
    assert.ok((await error(1, without)) < 2e-3);
    assert.ok((await error(3e-6, without)) > 1e-2);
    assert.ok((await error(1e-9, GRADIENTS)) > 1e-2, 'beyond the factor too, there is an end');
  });
});

const reference = readReference();
const { seed, r, alpha, ...settings } = reference.settings;
const ALL_LINEAR = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];
const spec = (changes: object): TrainingSpec => campaignSpecSchema.shape.training.parse({ ...settings, schedule: 'linear', precision: 'float16', ...changes });
const further = JSON.parse(readFileSync(new URL('fixtures/training-reference.json', import.meta.url), 'utf8')) as { readonly full: Readonly<Record<string, { readonly first: FirstStep }>> };

async function logits(model: LoadedModel, ids: readonly number[], precision: Precision, adapter?: LoraAdapter): Promise<Float32Array> {
  await using engine = await createEngine({ config: model.config, weights: model.weights, threads: 1, precision, ...(adapter === undefined ? {} : { adapter }) });
  return await logitsOf(engine, ids);
}

for (const [name, expected] of Object.entries(reference.architectures)) {
  describe(name, async () => {
    const model = await loadModel({ path: writeFolderModel(join(folder, name), expected, 'F32'), cache: join(folder, 'cache', name) });
    const { config, weights } = model;

    test('gives the logits of float32 but for what rounding changes', async (t) => {
      const [exact, half] = [await logits(model, reference.ids, 'float32'), await logits(model, reference.ids, 'float16')];
      const difference = largestDifference(half, exact);
      t.diagnostic(`largest difference ${difference.toExponential(1)} of logits up to ${exact.reduce((most, value) => Math.max(most, Math.abs(value)), 0).toFixed(1)}`);
      assert.ok(difference > 1e-5 && difference < 5e-2, `largest difference ${difference}`);
    });

    test('adds an adapter before it rounds', async () => {
      const weight = 'model.layers.0.mlp.down_proj.weight';
      const [outSize = 0, inSize = 0] = weights.tensors.get(weight)?.shape ?? [];
      const adapter: LoraAdapter = { scale: 2, pairs: new Map([[weight, { a: { shape: [4, inSize], values: draw(4 * inSize, 6) }, b: { shape: [outSize, 4], values: draw(outSize * 4, 7) } }]]) };
      const [exact, half, without] = [await logits(model, reference.ids, 'float32', adapter), await logits(model, reference.ids, 'float16', adapter), await logits(model, reference.ids, 'float32')];
      assert.ok(distance(half, exact) < 1e-2 && distance(without, exact) > 0.1);
    });

    for (const [what, training, first] of [
      ['adapters', spec({ lora: { r, alpha, dropout: 0, targets: ALL_LINEAR } }), expected.training.first],
      ['all weights', spec({ tune: 'full' }), further.full[name]?.first],
    ] as const) {
      test(`gives the gradients of PyTorch, ${what}`, async (t) => {
        assert.ok(first !== undefined);
        const error = await gradientError({ config, weights, training, samples: reference.samples, seed }, first, 1e-3);
        t.diagnostic(`largest relative error ${error.toExponential(1)}`);
        assert.ok(error > 1e-5 && error < 5e-2, `relative error ${error}`);
      });
    }
  });
}

/** Trained numbers as PEFT's would be after a few steps: B is not zero. */
function started({ config, weights }: LoadedModel, training: TrainingSpec) {
  const trainable = trainableOf(config, training);
  const parameters = trainable.initial(weights, seed).map((value, i) => (value === 0 ? 0.02 * (draws[i % draws.length] ?? 0) : value));
  return { trainable, parameters };
}
const draws = draw(1 << 16, 5);

async function adapterGradients(model: LoadedModel, samples: readonly TrainingSample[], precision: Precision, scales: readonly number[]): Promise<readonly Float32Array[]> {
  const training = spec({ precision, lora: { r, alpha, dropout: 0, targets: ALL_LINEAR } });
  const { trainable, parameters } = started(model, training);
  const row = packRow(samples);
  await using step = await createStep({ config: model.config, weights: model.weights, training, threads: 1 }, trainable);
  const results: Float32Array[] = [];
  for (const scale of scales) {
    const gradients = new Float32Array(trainable.layout.length);
    await step.accumulate({ row, scale: scale / row.labels.length, parameters, gradients, dropout: [seed, 0, 0] });
    results.push(gradients.map((value) => value / scale));
  }
  return results;
}

describe('SmolLM2-135M-Instruct', async () => {
  const { cache, hub } = readConfig();
  const { path } = await createAssets({ cache, hub }).model('smollm2-135m-instruct');
  const model = await loadModel({ path, cache });
  const { runs } = JSON.parse(readFileSync(new URL('./fixtures/smollm2-reference.json', import.meta.url), 'utf8')) as { readonly runs: readonly { readonly prompt: string; readonly ids: readonly number[]; readonly greedy: readonly number[] }[] };
  const { samples } = JSON.parse(readFileSync(new URL('fixtures/lora-training-reference.json', import.meta.url), 'utf8')) as { readonly samples: readonly TrainingSample[] };

  test('gives the logits of float32 but for what rounding changes, and the greedy text of transformers', async (t) => {
    const engines = await Promise.all((['float32', 'float16'] as const).map((precision) => createEngine({ config: model.config, weights: model.weights, threads: 1, precision })));
    const [exact, half] = engines as [typeof engines[0], typeof engines[0]];
    let worst = 0;
    for (const { ids } of runs) worst = Math.max(worst, largestDifference(await logitsOf(half, ids), await logitsOf(exact, ids)));
    t.diagnostic(`largest difference ${worst.toExponential(1)}`);
    assert.ok(worst > 1e-3 && worst < 0.2, `largest difference ${worst}`);
    const texts = await generate(half, model.tokenizer, { prompts: runs.map(({ prompt }) => ({ text: prompt })), maxNewTokens: 24, temperature: 0 });
    runs.forEach(({ greedy, prompt }, i) => assert.deepEqual(texts[i]?.tokens, greedy.filter((id) => id !== model.tokenizer.endId), prompt));
    for (const engine of engines) await engine[Symbol.asyncDispose]();
  });

  test('gives the gradients of float32 adapters, small ones too, on six of its layers', async (t) => {
    const kept = [0, 6, 12, 17, 23, 29];
    const smaller = { ...model, config: keepLayersOf(model.config, kept), weights: { ...model.weights, tensors: keepTensors(model.weights.tensors, kept) } };
    const [exact] = (await adapterGradients(smaller, samples.slice(0, 4), 'float32', [1])) as [Float32Array];
    // The last are what gradients of 2^-14 would be without the factor of 2^8.
    const [large, small, lost] = (await adapterGradients(smaller, samples.slice(0, 4), 'float16', [1, 2 ** -14, 2 ** -22])).map((gradients) => distance(gradients, exact)) as [number, number, number];
    t.diagnostic(`relative errors ${[large, small, lost].map((error) => error.toExponential(1)).join(', ')}`);
    assert.ok(large > 1e-4 && large < 1e-2, `relative error ${large}`);
    assert.ok(small < 2e-2, `of small gradients ${small}`);
    assert.ok(lost > 5e-2, `of gradients that are lost ${lost}`);
  });
});
