/** A training that no longer learns ends, and the rows of its last step are kept. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { LossPoint, Sample } from '../../src/contracts/records.ts';
import { trainSpecSchema } from '../../src/contracts/train-spec.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getJson, putRows } from '../../src/store/jsonl.ts';
import { whatIsWrong } from '../../src/training/divergence.ts';
import type { StoppedBatch } from '../../src/training/divergence.ts';
import { trainLocally } from '../../src/training/local-run.ts';
import { createOnnxTrainer } from '../../src/training/onnx-trainer.ts';
import { temporaryFolder } from '../support/folder.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';
import { trainingSpec } from '../support/training-runs.ts';

const folder = temporaryFolder();
const model = { name: 'tiny', path: writeTinyLlama(join(folder, 'model')), license: 'CC0-1.0' };
const cache = join(folder, 'cache');
const hopeless = { learningRate: 0.9, warmupRatio: 0, epochs: 1, lora: { alpha: 1e300 } };

type Kept = StoppedBatch & { readonly rows: readonly { readonly tokens: readonly string[] }[] };
function checkBatch(batch: Kept): void {
  assert.ok(batch.epoch === 0 && batch.step >= 1 && batch.step <= 4, `step ${batch.step}`);
  assert.match(batch.why, /expected finite numbers, got a loss of/);
  assert.ok(Object.values(batch.measured).some((value) => typeof value === 'string'));
  assert.equal(batch.rows.length, 2);
  for (const { ids, tokens, responseStart } of batch.rows) {
    assert.equal(tokens.length, ids.length);
    assert.match(tokens.slice(responseStart).join(''), /^(good|bad)<\|im_end\|>$/);
  }
}

describe('a training that no longer learns', () => {
  test('in a campaign its last rows are an artifact that the error names', async () => {
    const store = createFileStore(join(folder, 'store'));
    const dataset = await putRows(store, 'dataset', Array.from({ length: 8 }, (_, i): Sample => ({
      id: `row-${i}`, input: `text ${i}`, output: i % 2 === 0 ? 'good' : 'bad', messages: [{ role: 'user', content: `Review: text ${i}` }, { role: 'assistant', content: i % 2 === 0 ? 'good' : 'bad' }], round: 1, origin: `test:${i}`, requestId: `request-${i}`,
    })));
    const trainer = createOnnxTrainer({ store, assets: { model: () => Promise.resolve(model) }, cache, threads: 1 });
    const error = await trainer.trainEpoch({ student: { model: 'tiny' }, training: trainingSpec(hopeless), seed: 1, epoch: 0, dataset }, {}).then(() => undefined, (cause: unknown) => cause);
    assert.ok(error instanceof StillhouseError && error.code === 'DIVERGED', String(error));
    const [, sha256 = ''] = /its rows are kept in the store, batch ([0-9a-f]{64})$/.exec(error.message) ?? [];
    checkBatch(await getJson<Kept>(store, { kind: 'batch', sha256, sizeBytes: 0 } satisfies ArtifactRef));
  });

  test('in still train they lie in its folder, beside the newest checkpoint', async () => {
    const out = join(folder, 'out');
    const dataset = join(folder, 'rows.jsonl');
    writeFileSync(dataset, Array.from({ length: 8 }, (_, i) => `${JSON.stringify({ input: `Review: text ${i}`, output: i % 2 === 0 ? 'good' : 'bad' })}\n`).join(''));
    const spec = trainSpecSchema.parse({ student: { model: model.path }, dataset, out, training: trainingSpec(hopeless) });
    await assert.rejects(trainLocally(spec, { model, cache, threads: 1, executionProviders: ['cpu'] }), (error) => error instanceof StillhouseError && error.code === 'DIVERGED' && error.message.endsWith(`its rows are kept in ${out}/diverged-batch.json`));
    checkBatch(JSON.parse(readFileSync(join(out, 'diverged-batch.json'), 'utf8')) as Kept);
    assert.ok(!existsSync(join(out, 'unfinished')));
  });

  const point = (change: Partial<LossPoint>): LossPoint => ({ epoch: 0, step: 1, lossNats: 2, learningRate: 1e-3, tokens: 9, gradientNorm: 1, ...change });
  const judged = (curve: readonly LossPoint[]): string | undefined => whatIsWrong({ 'a loss of': 1 }, curve, { learningRate: 1e-3 });
  test('a loss that stays where it is ends it after fifty steps, one that moves or is learned does not', () => {
    const flat = (length: number, lossNats = 2): LossPoint[] => Array.from({ length }, () => point({ lossNats }));
    assert.equal(judged(flat(49)), undefined);
    assert.match(judged(flat(50)) ?? '', /expected a loss that changes, got 2 through 50 steps/);
    assert.equal(judged([...flat(49), point({ lossNats: 2.001 })]), undefined);
    assert.equal(judged(flat(200, 1e-4)), undefined);
  });

  test('no gradient at all ends it after five steps', () => {
    const idle = (length: number): LossPoint[] => Array.from({ length }, (_, i) => point({ gradientNorm: 0, lossNats: i }));
    assert.equal(judged(idle(4)), undefined);
    assert.match(judged(idle(5)) ?? '', /expected a gradient, got none in 5 steps/);
    assert.equal(judged([...idle(5), point({})]), undefined);
  });
});
