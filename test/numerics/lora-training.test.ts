/**
 * Training of the real SmolLM2-135M-Instruct against PyTorch and PEFT (fixtures/lora_training_reference.py).
 * The two differ in the order of float32 sums, in padding against packing and in who dequantised the weights:
 * measured 3e-6 in gradient norms, 3e-5 in entries, 2e-5 in losses after twenty steps. The bounds leave room for other processors.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { createAssets } from '../../src/assets/create-assets.ts';
import { readConfig } from '../../src/config.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import { loadModel } from '../../src/lm/load.ts';
import { trainEpoch } from '../../src/training/epoch.ts';
import type { EpochOutcome } from '../../src/training/epoch.ts';
import { packRow } from '../../src/training/packing.ts';
import type { TrainingSample } from '../../src/training/packing.ts';
import { tensorView } from '../../src/training/parameters.ts';
import { randomStream } from '../../src/training/random.ts';
import { createStep } from '../../src/training/step.ts';
import { trainableOf } from '../../src/training/trainable.ts';
import { temporaryFolder } from '../support/folder.ts';

interface Reference {
  readonly settings: { readonly seed: number; readonly batchSize: number; readonly epochs: number; readonly learningRate: number; readonly warmupRatio: number; readonly maxGradientNorm: number; readonly weightDecay: number };
  readonly samples: readonly TrainingSample[];
  readonly first: { readonly lossNats: number; readonly gradients: Readonly<Record<string, { readonly norm: number; readonly sum: number; readonly every: readonly number[] }>> };
  readonly curve: readonly { readonly lossNats: number; readonly gradientNorm: number; readonly learningRate: number }[];
}
const reference = JSON.parse(readFileSync(new URL('fixtures/lora-training-reference.json', import.meta.url), 'utf8')) as Reference;

const { cache, hub } = readConfig();
const { path } = await createAssets({ cache, hub }).model('smollm2-135m-instruct');
const THREADS = 2;
/** Stream of the fixture's B matrices; PEFT itself starts them at zero, where A has no gradient. */
const TEST_B_STREAM = 1000;

const { seed, ...settings } = reference.settings;
const training = campaignSpecSchema.shape.training.parse({ ...settings, schedule: 'linear', lora: { r: 16, alpha: 32, dropout: 0 } });

function relative(got: number, expected: number): number {
  return Math.abs(got - expected) / Math.abs(expected);
}

describe('LoRA training of SmolLM2-135M-Instruct', () => {
  test('has the gradients of PyTorch and PEFT', async () => {
    const { config, weights } = await loadModel({ path, cache });
    const trainable = trainableOf(config, training);
    const { layout } = trainable;
    const parameters = trainable.initial(weights, seed);
    layout.tensors.forEach((tensor, index) => {
      if (!tensor.name.includes('.lora_B.')) return;
      const random = randomStream(seed, TEST_B_STREAM, index);
      tensorView(parameters, tensor).forEach((_, i, view) => (view[i] = (2 * random.uniform(i) - 1) * 0.02));
    });
    const row = packRow(reference.samples.slice(0, training.batchSize));
    const gradients = new Float32Array(layout.length);
    await using step = await createStep({ config, weights, training, threads: THREADS }, trainable);
    const loss = await step.accumulate({ row, scale: 1 / row.labels.length, parameters, gradients, dropout: [seed, 0, 0] });
    assert.ok(relative(loss, reference.first.lossNats) < 1e-5, `loss ${loss} against ${reference.first.lossNats}`);
    assert.equal(layout.tensors.length, Object.keys(reference.first.gradients).length);
    for (const tensor of layout.tensors) {
      const expected = reference.first.gradients[tensor.name];
      assert.ok(expected !== undefined, tensor.name);
      const gradient = tensorView(gradients, tensor);
      const norm = Math.sqrt(gradient.reduce((sum, value) => sum + value * value, 0));
      assert.ok(relative(norm, expected.norm) < 1e-4, `${tensor.name}: norm ${norm} against ${expected.norm}`);
      const stride = Math.max(1, Math.floor(gradient.length / 16));
      // Against the tensor's own scale: single entries may be next to zero.
      const scale = expected.norm / Math.sqrt(gradient.length);
      expected.every.forEach((value, i) => {
        const got = gradient[i * stride] ?? NaN;
        assert.ok(Math.abs(got - value) / scale < 1e-4, `${tensor.name}[${i * stride}]: ${got} against ${value}, scale ${scale}`);
      });
    }
  });

  test('follows their loss curve for twenty steps', async () => {
    const { config, weights } = await loadModel({ path, cache });
    const folder = temporaryFolder();
    let from: string | undefined;
    let last: EpochOutcome | undefined;
    for (let epoch = 0; epoch < training.epochs; epoch++) {
      last = await trainEpoch(
        { config, weights, modelSha256: '', datasetSha256: '', samples: reference.samples, training, seed, epoch, threads: THREADS, ...(from === undefined ? {} : { from }) },
        { afterStep: () => undefined, shouldStop: () => false },
      );
      from = join(folder, `${epoch}`);
      last.writeCheckpoint(from);
    }
    const curve = last?.state.curve ?? [];
    assert.equal(curve.length, reference.curve.length);
    reference.curve.forEach((expected, i) => {
      const got = curve[i];
      assert.ok(got !== undefined && relative(got.learningRate + 1e-12, expected.learningRate + 1e-12) < 1e-9, `step ${i}: rate ${got?.learningRate} against ${expected.learningRate}`);
      assert.ok(relative(got.lossNats, expected.lossNats) < 1e-3, `step ${i}: loss ${got.lossNats} against ${expected.lossNats}`);
    });
  });
});
