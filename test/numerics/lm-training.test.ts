/**
 * Training on the small random models of every architecture against PyTorch, PEFT and transformers: gradients of the first
 * step, and the losses of twenty. LoRA on every linear layer (fixtures/architectures_reference.py), all weights,
 * rank-stabilised adapters, and models of some of the layers (fixtures/training_reference.py).
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { TrainingSpec } from '../../src/contracts/training-spec.ts';
import { keepLayersOf, keepTensors } from '../../src/lm/layers.ts';
import { loadModel } from '../../src/lm/load.ts';
import { learningRateAt } from '../../src/training/optimizer.ts';
import { temporaryFolder } from '../support/folder.ts';
import { readReference, writeFolderModel } from '../support/recipe.ts';
import { curveError, gradientError, relative } from '../support/training-parity.ts';
import type { FirstStep, ParityRun } from '../support/training-parity.ts';

interface Trained {
  readonly first: FirstStep;
  readonly curve: readonly number[];
}
interface TrainingReference {
  readonly fullSettings: Readonly<Record<string, number>>;
  readonly full: Readonly<Record<string, Trained>>;
  readonly rankStabilised: Readonly<Record<string, Trained>>;
  readonly kept: Readonly<Record<string, { readonly layers: readonly number[]; readonly curve: readonly number[] }>>;
  readonly schedules: readonly { readonly schedule: TrainingSpec['schedule']; readonly warmupRatio: number; readonly steps: number; readonly rates: readonly number[] }[];
}

const reference = readReference();
const further = JSON.parse(readFileSync(new URL('fixtures/training-reference.json', import.meta.url), 'utf8')) as TrainingReference;
const { seed, r, alpha, ...settings } = reference.settings;
const targets = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];
const spec = (changes: object): TrainingSpec => campaignSpecSchema.shape.training.parse({ ...settings, schedule: 'linear', ...changes });
const lora = (changes: object = {}): TrainingSpec => spec({ lora: { r, alpha, dropout: 0, targets, ...changes } });
const { batchSize, epochs, learningRate, warmupRatio, maxGradientNorm, weightDecay } = further.fullSettings;
const full = spec({ tune: 'full', batchSize, epochs, learningRate, warmupRatio, maxGradientNorm, weightDecay });

/** Of a tensor's norm, and of an entry to the tensor's root mean square. */
const GRADIENT_TOLERANCE = 1e-4;
const LOSS_TOLERANCE = 1e-3;

const folder = temporaryFolder();

async function runOf(name: string, training: TrainingSpec, layers?: readonly number[]): Promise<ParityRun> {
  const expected = reference.architectures[name];
  assert.ok(expected !== undefined, name);
  const { config, weights } = await loadModel({ path: writeFolderModel(join(folder, name), expected, 'F32'), cache: join(folder, 'cache', name) });
  const kept = layers === undefined ? { config, weights } : { config: keepLayersOf(config, layers), weights: { ...weights, tensors: keepTensors(weights.tensors, layers) } };
  return { ...kept, training, samples: reference.samples, seed };
}

async function checkGradients(t: TestContext, run: ParityRun, expected: FirstStep): Promise<void> {
  const error = await gradientError(run, expected);
  t.diagnostic(`largest relative error of a gradient ${error.toExponential(1)}`);
  assert.ok(error < GRADIENT_TOLERANCE, `relative error ${error}`);
}

async function checkCurve(t: TestContext, run: ParityRun, expected: readonly number[]): Promise<void> {
  const { error, losses } = await curveError(run, expected, folder);
  t.diagnostic(`largest relative error of a loss ${error.toExponential(1)}`);
  assert.ok(error < LOSS_TOLERANCE, `relative error ${error}`);
  assert.ok((losses.at(-1) ?? Infinity) < 0.85 * (losses[0] ?? 0), `the loss falls: ${losses.join(' ')}`);
}

for (const [name, { training: expected }] of Object.entries(reference.architectures)) {
  describe(`LoRA on ${name}`, () => {
    test('has the gradients of PyTorch and PEFT', async (t) => checkGradients(t, await runOf(name, lora()), expected.first));
    test('follows their loss curve for twenty steps', async (t) => checkCurve(t, await runOf(name, lora()), expected.curve));
  });
}

for (const [name, expected] of Object.entries(further.full)) {
  describe(`all weights of ${name}`, () => {
    test('have the gradients of PyTorch', async (t) => checkGradients(t, await runOf(name, full), expected.first));
    test('follow its loss curve for twenty steps', async (t) => checkCurve(t, await runOf(name, full), expected.curve));
  });
}

for (const [name, expected] of Object.entries(further.rankStabilised)) {
  describe(`rank-stabilised LoRA on ${name}`, () => {
    const training = lora({ rankStabilised: true });
    test('has the gradients of PEFT', async (t) => checkGradients(t, await runOf(name, training), expected.first));
    test('follows its loss curve for twenty steps', async (t) => checkCurve(t, await runOf(name, training), expected.curve));
  });
}

for (const [name, { layers, curve }] of Object.entries(further.kept)) {
  test(`layers ${layers.join(', ')} of ${name} train as transformers' model of those layers`, async (t) => checkCurve(t, await runOf(name, full, layers), curve));
}

test("schedules are transformers', their warm-up one step ahead of its beginning at 0", () => {
  for (const { schedule, warmupRatio: ratio, steps, rates } of further.schedules) {
    const warmup = Math.ceil(ratio * steps);
    rates.forEach((own, step) => {
      const rate = step < warmup ? (rates[step + 1] as number) : own;
      const got = learningRateAt({ learningRate: 1, warmupRatio: ratio, schedule }, step, steps);
      assert.ok(relative(got + 1e-12, rate + 1e-12) < 1e-9, `${schedule} with a warm-up of ${ratio}, step ${step} of ${steps}: ${got} against ${rate}`);
    });
  }
});
