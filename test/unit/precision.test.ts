/** Half precision as a setting: where it is said, what it is part of, what is refused. Its numbers: test/numerics/half-precision.test.ts. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { environmentOf, readConfig } from '../../src/config.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { ErrorCode } from '../../src/contracts/errors.ts';
import { createEngine } from '../../src/lm/engine.ts';
import { createModelHost } from '../../src/lm/host.ts';
import { loadModel } from '../../src/lm/load.ts';
import { materializeWeights, openWeightFile } from '../../src/lm/weights/materialize.ts';
import { wholeTensor } from '../../src/lm/weights/tensor-file.ts';
import type { WeightFile } from '../../src/lm/config.ts';
import { decisiveTraining } from '../../src/training/epoch.ts';
import { createStep } from '../../src/training/step.ts';
import { makeTeacherRows } from '../../src/training/teacher-rows.ts';
import { trainableOf } from '../../src/training/trainable.ts';
import { openTeacher } from '../../src/training/white-box-teacher.ts';
import { ALL_LINEAR, openTrainingRuns, trainingSpec } from '../support/training-runs.ts';
import type { TrainingRuns } from '../support/training-runs.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

let runs: TrainingRuns;
before(async () => {
  runs = await openTrainingRuns();
});
after(() => runs[Symbol.dispose]());

const withCode = (code: ErrorCode, pattern: RegExp) => (error: unknown): boolean => {
  assert.ok(error instanceof StillhouseError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, pattern);
  return true;
};

/** The model's weights with one number of one tensor changed. */
function altered(name: string, value: number): WeightFile {
  using file = openWeightFile(runs.model.weights);
  const tensors = new Map([...file.tensors].map(([key, tensor]) => [key, key === name ? wholeTensor(tensor, () => tensor.read().fill(value, 0, 1)) : tensor]));
  return materializeWeights({ cache: join(runs.folder, 'altered'), sha256: `${name} ${value}`, tensors });
}

test('the environment says how models that answer are computed, and child processes are told', () => {
  assert.equal(readConfig({}).precision, 'float32');
  const config = readConfig({ STILLHOUSE_PRECISION: 'float16' });
  assert.equal(config.precision, 'float16');
  assert.equal(readConfig(environmentOf(config, {})).precision, 'float16');
  assert.throws(() => readConfig({ STILLHOUSE_PRECISION: 'half' }), withCode('BAD_INPUT', /STILLHOUSE_PRECISION: .*"float32"\|"float16", got "half"/));
});

test('a host opens models in its precision', async () => {
  const scores = async (precision?: 'float16') => {
    const host = createModelHost({ assets: { model: (name) => Promise.resolve({ name, path: name, license: 'none' }) }, cache: join(runs.folder, 'cache'), threads: 1, ...(precision === undefined ? {} : { precision }) });
    await using model = await host.open({ model: writeTinyLlama(join(runs.folder, 'hosted')) });
    return (await model.scoreLabels({ prompts: [{ text: 'one and two' }], labels: ['a', 'b'] }))[0]?.logProbs ?? [];
  };
  const [exact, half] = [await scores(), await scores('float16')];
  const differences = exact.map((value, i) => Math.abs(value - (half[i] ?? NaN)));
  assert.ok(differences.every((difference) => difference > 0 && difference < 1e-2), differences.join());
});

test('a spec trains in float32 unless it says so, and what it says is part of the run', () => {
  assert.equal(trainingSpec().precision, 'float32');
  assert.ok(!('precision' in decisiveTraining(trainingSpec())));
  assert.deepEqual(decisiveTraining(trainingSpec({ precision: 'float16' })), { ...decisiveTraining(trainingSpec()), precision: 'float16' });
  assert.throws(() => trainingSpec({ precision: 'bfloat16' }));
});

for (const [name, changes] of [['adapters', { lora: { targets: ALL_LINEAR } }], ['all weights', { tune: 'full' }]] as const) {
  test(`${name} in float16: resumed from any checkpoint is bitwise the uninterrupted run, and goes on in no other precision`, async () => {
    const training = trainingSpec({ ...changes, precision: 'float16' });
    const whole = await runs.run({ training });
    const [first] = whole.checkpoints as [Buffer];
    for (const checkpoint of whole.checkpoints) assert.ok((await runs.run({ training, from: runs.saved(checkpoint) })).checkpoint.equals(whole.checkpoint));
    const exact = { ...training, precision: 'float32' } as const;
    const losses = whole.state.curve.map(({ lossNats }) => lossNats);
    (await runs.run({ training: exact })).state.curve.forEach(({ lossNats }, i) => {
      const difference = Math.abs(lossNats - (losses[i] ?? NaN));
      assert.ok(difference > 0 && difference < 1e-2 * lossNats, `step ${i}: ${lossNats} against ${losses[i]}`);
    });
    await assert.rejects(runs.run({ training: exact, from: runs.saved(first) }), withCode('STALE', /expected a checkpoint of this model, dataset, seed and training spec, got one with another training.precision/));
  });
}

test('in float16 the loss of eight samples comes near zero as well', async () => {
  const training = trainingSpec({ epochs: 20, batchSize: 8, learningRate: 2e-2, precision: 'float16', lora: { r: 8, dropout: 0, targets: ALL_LINEAR } });
  const losses = (await runs.runAll({ training })).state.curve.map((point) => point.lossNats);
  assert.ok((losses[0] ?? 0) > 3 && (losses.at(-1) ?? Infinity) < 0.2, `${losses[0]} to ${losses.at(-1)}`);
});

test('a weight that float16 does not hold is refused by its name, wherever a model is opened in float16', async () => {
  const { config } = runs.model;
  const name = 'model.layers.1.mlp.up_proj.weight';
  const weights = altered(name, 70_000);
  const refused = withCode('BAD_INPUT', /tensor model\.layers\.1\.mlp\.up_proj\.weight: expected numbers that float16 holds, up to 65504, got 70000/);
  const training = trainingSpec({ precision: 'float16' });
  await assert.rejects(createEngine({ config, weights, threads: 1, precision: 'float16' }), refused);
  await assert.rejects(createStep({ config, weights, training, threads: 1 }, trainableOf(config, training)), refused);
  await assert.rejects(openTeacher({ config, weights, sha256: '', precision: 'float16' }, { rows: true, layers: [] }, 64, { threads: 1 }), refused);
  await using engine = await createEngine({ config, weights, threads: 1 });
  assert.equal(engine.config, config);
  // What is not multiplied in half precision may be as large as it likes.
  await using normed = await createEngine({ config, weights: altered('model.layers.0.input_layernorm.weight', 70_000), threads: 1, precision: 'float16' });
  assert.equal(normed.config, config);
});

test('a number inside of a model that float16 does not hold is said, not answered with', async () => {
  const { config } = runs.model;
  // Each weight fits; their product with what is normalised to such a size does not.
  const weights = altered('model.layers.0.input_layernorm.weight', 1e7);
  const run = async (precision: 'float32' | 'float16') => {
    await using engine = await createEngine({ config, weights, threads: 1, precision });
    const ids = BigInt64Array.from([1n, 2n, 3n]);
    return (await engine.run({ batch: 1, tokens: 3, ids, cache: engine.createCache(), logitRows: [0, 1, 2] }, { logits: true })).logits;
  };
  assert.ok((await run('float32')).every((logit) => Number.isFinite(logit)));
  await assert.rejects(run('float16'), withCode('BAD_INPUT', /model, precision float16: expected finite logits, got NaN.*STILLHOUSE_PRECISION=float32/));
  const training = trainingSpec({ precision: 'float16' });
  await assert.rejects(runs.run({ training, weights }), withCode('DIVERGED', /or train in precision float32: float16 holds numbers up to 65,504/));
});

test('what a teacher said in another precision is not taken for this one', async () => {
  const teacher = await loadModel({ path: writeTinyLlama(join(runs.folder, 'teacher'), 8), cache: join(runs.folder, 'cache') });
  const { samples } = runs.input();
  const rowsOf = async (precision: 'float32' | 'float16'): Promise<ArrayLike<number | bigint>> => {
    const job = { teacher: { config: teacher.config, weights: teacher.weights, sha256: 't', precision }, samples, maxRowTokens: 256, folder: join(runs.folder, 'rows'), threads: 1 };
    const [values] = Object.values((await makeTeacherRows(job, () => undefined)).valuesOf(samples[0] as (typeof samples)[number]));
    return values?.data ?? [];
  };
  const [exact, half] = [await rowsOf('float32'), await rowsOf('float16')];
  const differences = Array.from(exact, (value, i) => Math.abs(Number(value) - Number(half[i])));
  const largest = Math.max(...differences);
  assert.ok(largest > 1e-5 && largest < 5e-2, `largest difference ${largest}`);
});
