/** What a training run is compared by with another implementation: the first step's gradients, and the curve of losses. */
import { join } from 'node:path';
import assert from 'node:assert/strict';
import type { TrainingSpec } from '../../src/contracts/training-spec.ts';
import type { ModelConfig, WeightFile } from '../../src/lm/config.ts';
import { trainEpoch } from '../../src/training/epoch.ts';
import { methodOf } from '../../src/training/method.ts';
import { packRow } from '../../src/training/packing.ts';
import type { TrainingSample } from '../../src/training/packing.ts';
import { tensorView } from '../../src/training/parameters.ts';
import { randomStream } from '../../src/training/random.ts';
import { createStep } from '../../src/training/step.ts';
import { stepParts } from '../../src/training/samples.ts';
import type { TeacherModel } from '../../src/training/white-box-teacher.ts';

export interface FirstStep {
  readonly lossNats: number;
  /** Norm, and four entries at even distances. */
  readonly gradients: Readonly<Record<string, { readonly norm: number; readonly every: readonly number[] }>>;
}
export interface ParityRun {
  readonly config: ModelConfig;
  readonly weights: WeightFile;
  readonly training: TrainingSpec;
  readonly teacher?: TeacherModel;
  readonly samples: readonly TrainingSample[];
  readonly seed: number;
}

/** Stream of the fixtures' B matrices; PEFT itself starts them at zero, where A has no gradient. */
const TEST_B_STREAM = 1000;

export const relative = (got: number, expected: number): number => Math.abs(got - expected) / Math.abs(expected);

/** The largest error of a norm, relative, or of an entry, to the tensor's root mean square. Fails where the loss or a tensor's name differs. */
export async function gradientError({ config, weights, training, teacher, samples, seed }: ParityRun, expected: FirstStep, lossTolerance = 1e-5): Promise<number> {
  const { trainable, objective, observed } = methodOf({ config, training, ...(teacher === undefined ? {} : { teacher }) });
  const { layout } = trainable;
  const parameters = trainable.initial(weights, seed);
  layout.tensors.forEach((tensor, index) => {
    if (!tensor.name.includes('.lora_B.')) return;
    const random = randomStream(seed, TEST_B_STREAM, index);
    tensorView(parameters, tensor).forEach((_, i, view) => (view[i] = (2 * random.uniform(i) - 1) * 0.02));
  });
  const parts = stepParts(samples.slice(0, training.batchSize), training);
  const row = packRow(parts.samples);
  const gradients = new Float32Array(layout.length);
  await using step = await createStep({ config, weights, training, objective, threads: 1, ...(teacher === undefined || observed === undefined ? {} : { teacher: { model: teacher, observed } }) }, trainable);
  const loss = await step.accumulate({ row, scale: parts.scale, hiddenScale: parts.hiddenScale, parameters, gradients, dropout: [seed, 0, 0] });
  assert.ok(relative(loss, expected.lossNats) < lossTolerance, `loss ${loss} against ${expected.lossNats}`);
  assert.equal(layout.tensors.length, Object.keys(expected.gradients).length);
  let worst = 0;
  for (const tensor of layout.tensors) {
    const wanted = expected.gradients[tensor.name];
    assert.ok(wanted !== undefined, tensor.name);
    const gradient = tensorView(gradients, tensor);
    const norm = Math.sqrt(gradient.reduce((sum, value) => sum + value * value, 0));
    const stride = Math.max(1, Math.floor(gradient.length / 4));
    const scale = wanted.norm / Math.sqrt(gradient.length);
    worst = Math.max(worst, relative(norm, wanted.norm), ...wanted.every.map((value, i) => Math.abs((gradient[i * stride] ?? NaN) - value) / scale));
  }
  return worst;
}

/** Trains all epochs; the largest relative error of a loss, and the losses. */
export async function curveError(run: ParityRun, expected: readonly number[], folder: string): Promise<{ readonly error: number; readonly losses: readonly number[] }> {
  let from: string | undefined;
  let losses: readonly number[] = [];
  for (let epoch = 0; epoch < run.training.epochs; epoch += 1) {
    const outcome = await trainEpoch({ ...run, modelSha256: '', datasetSha256: '', epoch, threads: 1, ...(from === undefined ? {} : { from }) }, { afterStep: () => undefined, shouldStop: () => false });
    losses = outcome.state.curve.map(({ lossNats }) => lossNats);
    from = join(folder, `checkpoint-${epoch}`);
    outcome.writeCheckpoint(from);
  }
  assert.equal(losses.length, expected.length);
  return { error: Math.max(...expected.map((loss, i) => relative(losses[i] ?? NaN, loss))), losses };
}
