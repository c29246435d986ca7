/** Students that are whole models: all weights trained, or made of some layers. Trained, evaluated and exported alike. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpec } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { InputRow, LossPoint, Prediction, Sample } from '../../src/contracts/records.ts';
import { measureSpeed } from '../../src/evaluation/speed.ts';
import { runStudent } from '../../src/evaluation/student.ts';
import { createModelHost } from '../../src/lm/host.ts';
import { loadModel } from '../../src/lm/load.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getRows, putJson, putRows } from '../../src/store/jsonl.ts';
import type { ArtifactStore } from '../../src/store/store.ts';
import { exportStudent } from '../../src/training/export.ts';
import { createOnnxTrainer } from '../../src/training/onnx-trainer.ts';
import type { Trainer } from '../../src/training/trainer.ts';
import { temporaryFolder } from '../support/folder.ts';
import { TINY, writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();
const cache = join(folder, 'cache');
const model = writeTinyLlama(join(folder, 'model'));
const assets = { model: (name: string) => Promise.resolve({ name, path: name, license: 'CC0-1.0' }) };
const host = createModelHost({ assets, cache, threads: 1 });
let store: ArtifactStore;
let trainer: Trainer;
let dataset: ArtifactRef;
let rows: ArtifactRef;
const LABELS = ['even', 'odd'];
const outputOf = (i: number): string => LABELS[i % 2] as string;

before(async () => {
  store = createFileStore(join(folder, 'store'));
  trainer = createOnnxTrainer({ store, assets, cache, threads: 1 });
  dataset = await putRows(store, 'dataset', Array.from({ length: 8 }, (_, i): Sample => ({
    id: `row-${i}`, input: `text ${i}`, output: outputOf(i), messages: [{ role: 'user', content: `Text: text ${i}\nKind:` }, { role: 'assistant', content: outputOf(i) }], round: 1, origin: `test:${i}`, requestId: `request-${i}`,
  })));
  rows = await putRows(store, 'rows', Array.from({ length: 6 }, (_, i): InputRow => ({ id: `row-${i}`, input: `text ${i}`, gold: outputOf(i), origin: `gold:${i}` })));
});

function specOf(student: object, training: object): CampaignSpec {
  return campaignSpecSchema.parse({
    name: 'whole',
    task: { description: 'Sort.', instruction: 'Text: {input}\nKind:', output: { kind: 'label', labels: LABELS } },
    teacher: { provider: 'openai', model: 'teacher' },
    sampling: { source: { kind: 'inputs', dataset: 'pool.jsonl' }, rows: 4 },
    student,
    training: { epochs: 1, batchSize: 2, learningRate: 5e-3, maxTokens: 128, ...training },
    evaluation: { source: { kind: 'dataset', dataset: 'gold.jsonl' }, developmentRows: 2, testRows: 2, scorer: { kind: 'label' } },
  });
}

const scoresOf = async (ref: ArtifactRef): Promise<readonly number[]> => (await getRows<Prediction>(store, ref)).flatMap(({ labelLogProbs }) => labelLogProbs ?? []);
const parametersOf = (layers: number): number => {
  const { hiddenSize: H, feedForwardSize: F, heads, keyValueHeads } = TINY;
  return 259 * H + H + layers * (2 * H + 2 * H * H + 2 * H * (H / heads) * keyValueHeads + 3 * F * H);
};

describe('students that are whole models', () => {
  for (const [what, student, training, layers] of [
    ['all weights of the model', {}, { tune: 'full' }, 2],
    ['all weights of its second layer', { layers: [1] }, { tune: 'full' }, 1],
    ['an adapter of one of its layers', { keepLayers: 1 }, { lora: { r: 4, dropout: 0, targets: ['q_proj', 'v_proj', 'down_proj'] } }, 1],
    ['all weights, the best by the development loss', {}, { tune: 'full', epochs: 2, learningRate: 0.1, schedule: 'constant', development: { share: 0.25, everySteps: 1 } }, 2],
  ] as const) {
    test(`${what}: trained, asked and exported as a folder that gives the same answers`, async () => {
      const parsed = specOf({ model, ...student }, training);
      const spec = await putJson(store, 'spec', parsed);
      let from: ArtifactRef | undefined;
      for (let epoch = 0; epoch < parsed.training.epochs; epoch++) {
        const result = await trainer.trainEpoch({ student: parsed.student, training: parsed.training, seed: 7, epoch, dataset, ...(from === undefined ? {} : { from }) }, {});
        from = result.checkpoint;
        const curve = await getRows<LossPoint>(store, result.lossCurve);
        assert.ok(curve.every(({ lossNats }) => Number.isFinite(lossNats)));
      }
      assert.ok(from !== undefined);
      const context = { campaign: 'whole', spec, rows };
      const untuned = await scoresOf((await runStudent({ store, host, trainer }, context)).predictions);
      const tuned = await scoresOf((await runStudent({ store, host, trainer }, { ...context, checkpoint: from })).predictions);
      assert.ok(tuned.some((score, i) => Math.abs(score - (untuned[i] as number)) > 1e-3), 'training changed the answers');
      if ('layers' in student) {
        const { rows: speeds } = await measureSpeed({ store, host, trainer }, { ...context, checkpoint: from });
        assert.deepEqual([speeds.at(-1)?.parameters, speeds.at(-1)?.sizeBytes], [parametersOf(layers), 4 * parametersOf(layers)]);
      }

      const { adapter } = await exportStudent({ store, trainer, assets }, { campaign: 'whole', spec, checkpoint: from, dataset });
      assert.equal(adapter.kind, 'model');
      const target = mkdtempSync(join(folder, 'exported-'));
      await store.extractFolder(adapter, target);
      const config = JSON.parse(readFileSync(join(target, 'config.json'), 'utf8')) as { readonly num_hidden_layers: number };
      assert.equal(config.num_hidden_layers, layers);
      assert.equal((await loadModel({ path: target, cache })).identity.parameters, parametersOf(layers));
      const exported = await putJson(store, 'spec', specOf({ model: target }, {}));
      const answers = await scoresOf((await runStudent({ store, host, trainer }, { ...context, spec: exported })).predictions);
      answers.forEach((score, i) => assert.ok(Math.abs(score - (tuned[i] as number)) < 1e-4, `score ${i}: ${score} against ${tuned[i]}`));
    });
  }

  test('a student of other layers is another model: its checkpoints do not go on as that of all', async () => {
    const { training } = specOf({ model }, { tune: 'full', epochs: 2 });
    const { checkpoint } = await trainer.trainEpoch({ student: { model }, training, seed: 7, epoch: 0, dataset }, {});
    const wrong = trainer.trainEpoch({ student: { model, layers: [0] }, training, seed: 7, epoch: 1, dataset, from: checkpoint }, {});
    await assert.rejects(wrong, (error) => error instanceof StillhouseError && error.code === 'STALE');
    const names = await Promise.all([{}, { layers: [0] }, { layers: [1] }].map(async (choice) => (await loadModel({ path: model, name: 'm', cache, ...choice })).identity));
    assert.deepEqual(names.map(({ name }) => name), ['m', 'm (1 of 2 layers: 0)', 'm (1 of 2 layers: 1)']);
    assert.equal(new Set(names.map(({ sha256 }) => sha256)).size, 3);
  });
});
