/** Learning from a model beside the student: its distributions, its hidden states, or both, on the tiny model. */
import assert from 'node:assert/strict';
import { closeSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { makeSoftTargets } from '../../src/training/soft-targets/make.ts';
import { makeTeacherRows } from '../../src/training/teacher-rows.ts';
import type { StoredTargets } from '../../src/training/soft-targets/stored.ts';
import { loadModel } from '../../src/lm/load.ts';
import type { LoadedModel } from '../../src/lm/load.ts';
import { openTrainingRuns, trainingSpec } from '../support/training-runs.ts';
import type { TrainingRuns } from '../support/training-runs.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

let runs: TrainingRuns;
let teacher: LoadedModel;
before(async () => {
  runs = await openTrainingRuns();
  teacher = await loadModel({ path: writeTinyLlama(join(runs.folder, 'teacher'), 8), cache: join(runs.folder, 'cache') });
});
after(() => runs[Symbol.dispose]());

const teacherModel = () => ({ config: teacher.config, weights: teacher.weights, sha256: teacher.identity.sha256 });

const stored = (k: number, folder = 'targets'): Promise<StoredTargets> => {
  const { samples } = runs.input();
  const { config, tokenizer, identity } = teacher;
  return makeSoftTargets({ teacher: teacherModel(), vocabulary: { name: identity.name, tokens: tokenizer.tokens }, samples, vocabularySize: config.vocabularySize, k, maxRowTokens: 512, folder: join(runs.folder, folder), threads: 1 }, () => undefined);
};

describe('what the head of a teacher sees', () => {
  test('kept before the first step it trains as the teacher beside the student does', async () => {
    const training = trainingSpec({ method: 'logit', epochs: 3, batchSize: 4 });
    const targets = await makeTeacherRows({ teacher: teacherModel(), samples: runs.input().samples, maxRowTokens: 512, folder: join(runs.folder, 'rows'), threads: 1 }, () => undefined);
    const { state: beside } = await runs.runAll({ training, teacher: teacherModel() });
    const { state: kept } = await runs.runAll({ training, teacher: teacherModel(), targets });
    kept.curve.forEach(({ lossNats }, i) => assert.ok(Math.abs(lossNats - (beside.curve[i]?.lossNats ?? NaN)) < 1e-5, `step ${i + 1}: ${lossNats} against ${beside.curve[i]?.lossNats}`));
  });
});

test('a teacher whose numbers are none is refused with the row that shows it', async () => {
  const broken = await loadModel({ path: writeTinyLlama(join(runs.folder, 'broken'), 10), cache: join(runs.folder, 'cache') });
  const embedding = broken.weights.tensors.get('model.embed_tokens.weight');
  assert.ok(embedding !== undefined);
  const [id = 0] = broken.tokenizer.encode('k'); // of "it broke" alone
  const file = openSync(broken.weights.path, 'r+');
  writeSync(file, Buffer.from(Float32Array.of(NaN).buffer), 0, 4, embedding.offsetBytes + 4 * broken.config.hiddenSize * id);
  closeSync(file);
  const made = makeTeacherRows({ teacher: { config: broken.config, weights: broken.weights, sha256: 'broken' }, samples: runs.input().samples, maxRowTokens: 512, folder: join(runs.folder, 'rows'), threads: 1 }, () => undefined);
  await assert.rejects(made, /teacher, rows row-5: expected finite numbers in teacherRows \[.*\], got NaN/);
});

describe('stored distributions', () => {
  test('of the whole vocabulary they give the loss that the teacher beside the student gives, within 1e-3', async () => {
    const training = trainingSpec({ method: 'logit', epochs: 3, batchSize: 4 });
    const { state: online } = await runs.runAll({ training, teacher: teacherModel() });
    const { state: offline } = await runs.runAll({ training, teacher: teacherModel(), targets: await stored(teacher.config.vocabularySize) });
    assert.equal(offline.curve.length, 6);
    offline.curve.forEach(({ lossNats }, i) => assert.ok(Math.abs(lossNats - (online.curve[i]?.lossNats ?? NaN)) < 1e-3, `step ${i + 1}: ${lossNats} against ${online.curve[i]?.lossNats}`));
  });

  test('a part of them goes on in mid-epoch to the same bytes, and is made once', async () => {
    const training = trainingSpec({ method: 'logit', epochs: 6, batchSize: 4, logit: { targets: 'offline', topK: 20, minMass: 0 } });
    const input = { training, teacher: teacherModel(), targets: await stored(20) };
    const { state } = await runs.runAll(input);
    assert.ok((state.curve.at(-1)?.lossNats ?? NaN) < 0.9 * (state.curve[0]?.lossNats ?? NaN));
    const whole = await runs.run(input);
    const part = await runs.run(input, 1);
    const rest = await runs.run({ ...input, targets: await stored(20), from: runs.saved(part.checkpoint) });
    assert.ok(rest.checkpoint.equals(whole.checkpoint));
    const made = readdirSync(join(runs.folder, 'targets'));
    await stored(20, 'again');
    for (const name of readdirSync(join(runs.folder, 'again'))) assert.ok(readFileSync(join(runs.folder, 'again', name)).equals(readFileSync(join(runs.folder, 'targets', name))));
    assert.equal(made.length, 2); // of k = V, and of k = 20
  });

  test('too little of the mass is refused before the first step, with the row and what to change', async () => {
    const training = trainingSpec({ method: 'logit', logit: { targets: 'offline', topK: 2 } });
    await assert.rejects(runs.run({ training, teacher: teacherModel(), targets: await stored(2) }), /soft targets, row row-0: expected the stored tokens to hold at least minMass = 0\.9 of the teacher's mass, got 0\.\d+; raise training\.logit\.topK or lower minMass/);
  });
});

describe('learning from a model', () => {
  for (const [what, spec] of [
    ['its distributions', { method: 'logit' }],
    ['its distributions alone, by reverse KL', { method: 'logit', logit: { divergence: 'reverse-kl', alpha: 1 } }],
    ['a mixture of both directions, with all weights', { method: 'logit', tune: 'full', logit: { divergence: 'jensen-shannon', beta: 0.3 } }],
    ['its hidden states', { method: 'feature', feature: { weight: 2 } }],
    ['its hidden states and distributions, with all weights', { method: 'feature', tune: 'full', feature: { loss: 'mean-square', layers: [{ student: 0, teacher: 0 }, { student: 1, teacher: 2 }] }, logit: {} }],
  ] as const) {
    test(`${what}: the loss falls, and a run that goes on in mid-epoch ends in the same bytes`, async () => {
      const training = trainingSpec({ ...spec, epochs: 6, batchSize: 4, learningRate: 1e-2 });
      const input = { training, teacher: teacherModel() };
      const { state } = await runs.runAll(input);
      const [first, last] = [state.curve[0]?.lossNats ?? NaN, state.curve.at(-1)?.lossNats ?? NaN];
      assert.ok(last < 0.9 * first, `${first} to ${last}`);
      const whole = await runs.run(input);
      const part = await runs.run(input, 1);
      assert.equal(part.finished, false);
      const rest = await runs.run({ ...input, from: runs.saved(part.checkpoint) });
      assert.ok(rest.checkpoint.equals(whole.checkpoint));
    });
  }
});
