/** What every teacher does, whoever stands behind the port: an endpoint on a real socket, or a model of this machine in a process of its own. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { CampaignContext, SampledBatch } from '../../src/contracts/activities.ts';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpec } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { TeacherRequest } from '../../src/contracts/records.ts';
import type { Ledger } from '../../src/ledger/ledger.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { createModelHost } from '../../src/lm/host.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { putJson, putRows } from '../../src/store/jsonl.ts';
import { createAnswerReader } from '../../src/teacher/answers.ts';
import { createTeacherDirectory } from '../../src/teacher/directory.ts';
import { rowTask } from '../../src/teacher/prompts.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import type { SampleOptions } from '../../src/teacher/sample.ts';
import type { TeacherDirectory } from '../../src/teacher/teacher.ts';
import { temporaryFolder } from '../support/folder.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';
import type { OpenAIServer } from '../support/openai-server.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const ROWS = 40;
const LABELS = ['negative', 'positive'];

for (const provider of ['openai', 'local'] as const) {
  describe(`teacher port: ${provider}`, () => {
    const folder = temporaryFolder();
    let server: OpenAIServer;
    let directory: TeacherDirectory & AsyncDisposable;
    let model: string;
    before(async () => {
      server = await startOpenAIServer({ latencyMs: 10, answer: (call) => LABELS[(call.messages.at(-1)?.content.length ?? 0) % 2] ?? '' });
      model = provider === 'local' ? writeTinyLlama(join(folder, 'tiny')) : 'gpt-4o-mini';
      const assets = { model: (name: string) => Promise.resolve({ name, path: name, license: 'none' }) };
      directory = createTeacherDirectory({ host: createModelHost({ assets, cache: join(folder, 'cache'), threads: 1 }), assets, readSecret: () => TEST_KEY });
    });
    after(async () => {
      await directory[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    });

    function specOf(name: string): CampaignSpec {
      return campaignSpecSchema.parse({
        name,
        task: { description: 'Tell good from bad.', instruction: 'Review: {input}\nSentiment:', output: { kind: 'label', labels: LABELS } },
        teacher: { provider, model, concurrency: 4, ...(provider === 'openai' ? { baseUrl: server.baseUrl } : {}) },
        sampling: { source: { kind: 'inputs', dataset: 'p.jsonl' }, rows: ROWS },
        student: { model: 's' },
        evaluation: { source: { kind: 'dataset', dataset: 'g.jsonl' }, developmentRows: 1, testRows: 1, scorer: { kind: 'label' } },
      });
    }
    const requestsOf = (spec: CampaignSpec, word: string): TeacherRequest[] =>
      Array.from({ length: ROWS }, (_, index) => ({ id: `r${index}`, purpose: 'train', sampleIndex: 0, task: rowTask(spec, `${word} ${'!'.repeat(index)}`) }));
    const ledgerAt = (name: string): Ledger => createLedger(join(folder, `${name}.sqlite`));
    const store = () => createFileStore(join(folder, 'objects'));

    async function work(name: string, word: string): Promise<{ readonly spec: CampaignSpec; readonly requests: readonly TeacherRequest[]; readonly input: CampaignContext & { readonly requests: ArtifactRef } }> {
      const spec = specOf(name);
      const requests = requestsOf(spec, word);
      return { spec, requests, input: { campaign: name, spec: await putJson(store(), 'spec', spec), requests: await putRows(store(), 'requests', requests) } };
    }
    const sample = (ledger: Ledger, { input }: Awaited<ReturnType<typeof work>>, options: SampleOptions = { run: 'run' }): Promise<SampledBatch> =>
      sampleBatch({ store: store(), ledger, directory }, { ...input, from: 0, to: ROWS }, options);

    it('answers every question once, remembers the answers, and asks nothing again', async () => {
      const ledger = ledgerAt('once');
      const first = await work('one', 'fine');
      const { spending } = await sample(ledger, first);
      assert.deepEqual([spending.callsBought, spending.callsReused, spending.callsRepeated], [ROWS, 0, 0]);
      const read = createAnswerReader({ ledger, directory });
      const answers = await read(first.spec, first.requests);
      assert.ok(answers.every(({ text, latencyMs }) => LABELS.includes(text) && latencyMs >= 0));
      for (const { labelLogProbs } of answers) if (labelLogProbs !== undefined) assert.ok(Math.abs(labelLogProbs.reduce((sum, value) => sum + Math.exp(value), 0) - 1) < 1e-5);
      const second = await work('two', 'fine');
      assert.deepEqual((await sample(ledger, second, { run: 'other' })).spending, { usd: 0, tokens: 0, callsBought: 0, callsReused: ROWS, callsRepeated: 0 });
      assert.deepEqual(await read(second.spec, second.requests), answers);
      const { calls, open, reused } = await ledger.totals();
      assert.deepEqual([calls, open, reused], [ROWS, 0, ROWS]);
      await ledger.close();
    });

    it('bounds what a question may cost before it is asked', async () => {
      const ledger = ledgerAt('bound');
      const job = await work('bound', 'good');
      const { spending } = await sample(ledger, job);
      await using teacher = await directory.open(job.spec.teacher);
      const bounds = job.requests.map((request) => teacher.upperBound(request));
      assert.ok(bounds.reduce((sum, { usd }) => sum + usd, 0) >= spending.usd);
      assert.ok(bounds.reduce((sum, { tokens }) => sum + tokens, 0) >= spending.tokens);
      await ledger.close();
    });

    it('two campaigns with the same questions at the same time: each answer is bought once', async () => {
      const [one, two] = [ledgerAt('both'), ledgerAt('both')];
      const batches = await Promise.all([sample(one, await work('one', 'well')), sample(two, await work('two', 'well'), { run: 'other' })]);
      assert.equal(batches.reduce((sum, { spending }) => sum + spending.callsBought, 0), ROWS);
      const { calls, open, repeated, reused } = await one.totals();
      assert.deepEqual([calls, open, repeated, reused], [ROWS, 0, 0, ROWS]);
      await Promise.all([one.close(), two.close()]);
    });

    it('stops when it is told to, keeps what had arrived, and goes on from there', async () => {
      const ledger = ledgerAt('stopped');
      const job = await work('stopped', 'nice');
      const controller = new AbortController();
      const stopped = sample(ledger, job, { run: 'run', signal: controller.signal, onProgress: (done) => (done > 0 ? controller.abort() : undefined) });
      await assert.rejects(stopped, (error: unknown) => error instanceof StillhouseError && error.code === 'CANCELLED');
      const before = await ledger.totals();
      assert.ok(before.calls > 0 && before.calls < ROWS && before.open === 0, `${before.calls} answered, ${before.open} open`);
      const { spending } = await sample(ledger, job);
      assert.deepEqual([spending.callsBought, spending.callsRepeated], [ROWS, 0]);
      await ledger.close();
    });
  });
}
