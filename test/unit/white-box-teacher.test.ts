/** A white-box teacher behind the same port: a real (tiny, random) model in a process of its own, the same ledger, the same votes. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { Sample, TeacherRequest } from '../../src/contracts/records.ts';
import { buildDataset } from '../../src/dataset/build.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { createModelHost } from '../../src/lm/host.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getRows, putJson, putRows } from '../../src/store/jsonl.ts';
import { createAnswerFinder, createAnswerReader } from '../../src/teacher/answers.ts';
import { createTeacherDirectory } from '../../src/teacher/directory.ts';
import { planRequests } from '../../src/teacher/plan.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import { temporaryFolder } from '../support/folder.ts';
import { row } from '../support/rows.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();

test('a local model draws several answers to each input, once, the same ones from an empty ledger', async () => {
  const model = writeTinyLlama(join(folder, 'tiny'));
  const assets = { model: (name: string) => Promise.resolve({ name, path: name, license: 'none' }) };
  await using directory = createTeacherDirectory({ host: createModelHost({ assets, cache: join(folder, 'cache'), threads: 1 }), assets, readSecret: () => '' });
  const store = createFileStore(join(folder, 'objects'));
  const spec = campaignSpecSchema.parse({
    name: 'white-box',
    task: { description: 'Write.', output: { kind: 'text' } },
    teacher: { provider: 'local', model, temperature: 1, maxTokens: 12 },
    sampling: { source: { kind: 'tasks', dataset: 'unused' }, rows: 5, answersPerInput: 3, batchSize: 16 },
    student: { model },
    evaluation: { source: { kind: 'held-out', rows: 2 }, developmentRows: 1, testRows: 1, scorer: { kind: 'judge', rubric: 'r', judge: { provider: 'local', model } } },
  });
  const rows = ['abc', 'tell me', 'why not', 'once more', 'and the last'].map((text) => row(text));
  const none = await putRows(store, 'rows', []);
  const data = { pool: await putRows(store, 'rows', rows), development: none, test: none, poolRows: 5, developmentRows: 0, testRows: 0 };
  const context = { campaign: 'white-box', spec: await putJson(store, 'spec', spec) };
  const run = async (ledgerName: string) => {
    const ledger = createLedger(join(folder, `${ledgerName}.sqlite`));
    const planned = await planRequests({ store, directory, find: createAnswerFinder({ ledger, directory }) }, { ...context, data, purpose: 'train', round: 1 });
    const range = { from: 0, to: planned.count };
    const first = await sampleBatch({ store, ledger, directory }, { ...context, requests: planned.requests, ...range }, { run: 'one' });
    const second = await sampleBatch({ store, ledger, directory }, { ...context, requests: planned.requests, ...range }, { run: 'two' });
    const requests = await getRows<TeacherRequest>(store, planned.requests);
    const answers = await createAnswerReader({ ledger, directory })(spec, requests);
    const built = await buildDataset({ store, answers: createAnswerReader({ ledger, directory }) }, { ...context, round: 1, data, requests: [planned.requests] });
    await ledger.close();
    return { first, second, requests, texts: answers.map(({ text }) => text), built, samples: await getRows<Sample>(store, built.dataset) };
  };
  const one = await run('one');
  assert.deepEqual([one.first.spending.callsBought, one.second.spending.callsBought, one.second.spending.callsReused], [15, 0, 15]);
  assert.deepEqual(one.requests.map(({ sampleIndex }) => sampleIndex), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
  const drawsOfFirst = [0, 5, 10].map((index) => one.texts[index]);
  assert.equal(new Set(drawsOfFirst).size, 3, 'draws differ');
  assert.ok(one.samples.length > 0 && one.samples.every(({ confidence }) => confidence !== undefined && confidence >= 0 && confidence <= 1));
  const two = await run('two');
  assert.deepEqual(two.texts, one.texts, 'the same questions in the same groups give bitwise the same answers');
  assert.equal(two.built.dataset.sha256, one.built.dataset.sha256);
});
