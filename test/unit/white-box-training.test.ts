/** Learning from a model beside the student: its distributions, its hidden states, or both, on the tiny model. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
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
