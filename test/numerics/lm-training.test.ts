/**
 * LoRA on every linear layer of each architecture against PyTorch and PEFT, on the small random models of
 * fixtures/architectures_reference.py: gradients of the first step, and the losses of twenty.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import { loadModel } from '../../src/lm/load.ts';
import type { LoadedModel } from '../../src/lm/load.ts';
import { trainEpoch } from '../../src/training/epoch.ts';
import { packRow } from '../../src/training/packing.ts';
import { tensorView } from '../../src/training/parameters.ts';
import { randomStream } from '../../src/training/random.ts';
import { createStep } from '../../src/training/step.ts';
import { trainableOf } from '../../src/training/trainable.ts';
import { readReference, writeFolderModel } from '../support/recipe.ts';
import type { ArchitectureReference } from '../support/recipe.ts';

const reference = readReference();
const { seed, r, alpha, ...settings } = reference.settings;
const targets = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];
const training = campaignSpecSchema.shape.training.parse({ ...settings, schedule: 'linear', lora: { r, alpha, dropout: 0, targets } });

/** Stream of the fixture's B matrices; PEFT itself starts them at zero, where A has no gradient. */
const TEST_B_STREAM = 1000;
/** Of a tensor's norm, and of an entry to the tensor's root mean square. */
const GRADIENT_TOLERANCE = 1e-4;
const LOSS_TOLERANCE = 1e-3;

const folder = mkdtempSync(join(tmpdir(), 'stillhouse-lm-training-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const relative = (got: number, expected: number): number => Math.abs(got - expected) / Math.abs(expected);

const load = (name: string, expected: ArchitectureReference): Promise<LoadedModel> => loadModel({ path: writeFolderModel(join(folder, name), expected, 'F32'), cache: join(folder, 'cache', name) });

for (const [name, expected] of Object.entries(reference.architectures)) {
  describe(name, () => {
    test('has the gradients of PyTorch and PEFT', async (t) => {
      const { config, weights } = await load(name, expected);
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
      await using step = await createStep({ config, weights, training, threads: 1 }, trainable);
      const loss = await step.accumulate({ row, scale: 1 / row.labels.length, parameters, gradients, dropout: [seed, 0, 0] });
      assert.ok(relative(loss, expected.training.first.lossNats) < 1e-5, `loss ${loss} against ${expected.training.first.lossNats}`);
      assert.equal(layout.tensors.length, Object.keys(expected.training.first.gradients).length);
      let worst = 0;
      for (const tensor of layout.tensors) {
        const wanted = expected.training.first.gradients[tensor.name];
        assert.ok(wanted !== undefined, tensor.name);
        const gradient = tensorView(gradients, tensor);
        const norm = Math.sqrt(gradient.reduce((sum, value) => sum + value * value, 0));
        const stride = Math.max(1, Math.floor(gradient.length / 4));
        const scale = wanted.norm / Math.sqrt(gradient.length);
        const errors = [relative(norm, wanted.norm), ...wanted.every.map((value, i) => Math.abs((gradient[i * stride] ?? NaN) - value) / scale)];
        for (const error of errors) assert.ok(error < GRADIENT_TOLERANCE, `${tensor.name}: relative error ${error}`);
        worst = Math.max(worst, ...errors);
      }
      t.diagnostic(`largest relative error of a gradient ${worst.toExponential(1)}`);
    });

    test('follows their loss curve for twenty steps', async (t) => {
      const { config, weights } = await load(name, expected);
      let from: string | undefined;
      let curve: readonly { readonly lossNats: number }[] = [];
      for (let epoch = 0; epoch < training.epochs; epoch += 1) {
        const outcome = await trainEpoch(
          { config, weights, modelSha256: '', datasetSha256: '', samples: reference.samples, training, seed, epoch, threads: 1, ...(from === undefined ? {} : { from }) },
          { afterStep: () => undefined, shouldStop: () => false },
        );
        curve = outcome.state.curve;
        from = join(folder, `${name}-${epoch}`);
        outcome.writeCheckpoint(from);
      }
      assert.equal(curve.length, expected.training.curve.length);
      const errors = expected.training.curve.map((loss, i) => relative(curve[i]?.lossNats ?? NaN, loss));
      errors.forEach((error, i) => assert.ok(error < LOSS_TOLERANCE, `step ${i}: loss ${curve[i]?.lossNats} against ${expected.training.curve[i]}`));
      t.diagnostic(`largest relative error of a loss ${Math.max(...errors).toExponential(1)}`);
      assert.ok((curve.at(-1)?.lossNats ?? Infinity) < 0.85 * (curve[0]?.lossNats ?? 0), 'the loss falls');
    });
  });
}
