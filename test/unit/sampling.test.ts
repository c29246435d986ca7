import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { PlanRequestsInput, PreparedData } from '../../src/contracts/activities.ts';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpec, CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { InputRow, TeacherRequest } from '../../src/contracts/records.ts';
import { rowId } from '../../src/dataset/text.ts';
import { ledgerKey, ledgerRequest } from '../../src/ledger/key.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import type { LabelScoringRequest, LanguageModel, ModelHost } from '../../src/lm/model.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getRows, putJson, putRows } from '../../src/store/jsonl.ts';
import { createAnswerFinder, createAnswerReader } from '../../src/teacher/answers.ts';
import { createTeacherDirectory } from '../../src/teacher/directory.ts';
import { planRequests } from '../../src/teacher/plan.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import { temporaryFolder } from '../support/folder.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';

const hasCode = (code: string) => (error: unknown) => error instanceof StillhouseError && error.code === code;
const rowsOf = (name: string, count: number): InputRow[] => Array.from({ length: count }, (_, index) => {
  const input = `${name} sentence ${index}`;
  return { id: rowId(input), input, origin: `${name}:${index + 1}`, gold: 'positive' };
});

function specWith(changes: Partial<CampaignSpecInput>): CampaignSpec {
  return campaignSpecSchema.parse({
    name: 'test',
    task: { description: 'Tell good from bad.', instruction: 'Review: {input}\nSentiment:', output: { kind: 'label', labels: ['negative', 'positive'] } },
    teacher: { provider: 'local', model: 'fake', shots: [{ input: 'Bad.', output: 'negative' }, { input: 'Good.', output: 'positive' }] },
    sampling: { source: { kind: 'inputs', dataset: 'pool.jsonl' }, rows: 40, batchSize: 20 },
    student: { model: 'fake' },
    evaluation: { source: { kind: 'dataset', dataset: 'gold.jsonl' }, developmentRows: 5, testRows: 5, scorer: { kind: 'label' } },
    ...changes,
  });
}

/** A model whose scores depend on the text alone, and which records how it was asked. */
function fakeHost(): { readonly host: ModelHost; readonly runs: LabelScoringRequest[]; readonly counts: { opened: number; closed: number } } {
  const runs: LabelScoringRequest[] = [];
  const counts = { opened: 0, closed: 0 };
  const model: LanguageModel = {
    identity: { name: 'fake', sha256: '0'.repeat(64), architecture: 'llama', parameters: 1, license: 'test', sizeBytes: 1 },
    scoreLabels: async (request) => {
      runs.push(request);
      return request.prompts.map((prompt) => ({
        logProbs: request.labels.map((label) => -1 - createHash('sha256').update(JSON.stringify([prompt, label])).digest().readUInt16LE(0) / 65_536),
        promptTokens: 12, cachedPromptTokens: 8,
      }));
    },
    generate: async ({ prompts }) => prompts.map(() => ({ text: 'written', tokens: [1, 2], promptTokens: 3, finishReason: 'stop' })),
    countTokens: async (texts) => texts.map(() => 1),
    scoreTexts: async ({ texts }) => texts.map(() => ({ tokens: [1], logProbs: new Float32Array(0) })),
    tokenTexts: async (ids) => ids.map(String),
    [Symbol.asyncDispose]: async () => { counts.closed += 1; },
  };
  return { host: { open: async () => { counts.opened += 1; return model; } }, runs, counts };
}

describe('planning and sampling', () => {
  const folder = temporaryFolder();

  async function workplace(spec: CampaignSpec, poolRows = 100, ledgerName: string = spec.name) {
    const store = createFileStore(join(folder, 'objects'));
    const modelPath = join(folder, 'fake.gguf');
    await writeFile(modelPath, 'weights');
    const fake = fakeHost();
    const directory = createTeacherDirectory({
      host: fake.host,
      assets: { model: async (name) => ({ name, path: modelPath, license: 'test' }) },
      readSecret: () => TEST_KEY,
      keepWarmMs: 400,
      timings: { firstRetryDelayMs: 5, maxRetryDelayMs: 20 },
    });
    const ledgerPath = join(folder, `${ledgerName}.sqlite`);
    const ledger = createLedger(ledgerPath);
    const data: PreparedData = {
      pool: await putRows(store, 'rows', rowsOf('pool', poolRows)), development: await putRows(store, 'rows', rowsOf('development', 5)), test: await putRows(store, 'rows', rowsOf('test', 5)),
      poolRows, developmentRows: 5, testRows: 5,
    };
    const context = { campaign: spec.name, spec: await putJson(store, 'spec', spec) };
    const plan = (more: Partial<PlanRequestsInput> = {}) => planRequests({ store, directory, find: createAnswerFinder({ ledger, directory }) }, { ...context, data, purpose: 'train', round: 1, ...more });
    const sample = (requests: ArtifactRef, from: number, to: number) => sampleBatch({ store, ledger, directory }, { ...context, requests, from, to });
    return { store, directory, ledger, ledgerPath, data, context, plan, sample, ...fake };
  }

  it('asks about pool rows in a seeded order, once each, and never shows a gold output', async () => {
    const { store, plan } = await workplace(specWith({}));
    const first = await plan();
    assert.deepEqual(await plan(), first);
    assert.equal(first.count, 40);
    assert.equal(first.batchSize, 32, 'a multiple of the local group of 16');
    const requests = await getRows<TeacherRequest>(store, first.requests);
    assert.ok(!JSON.stringify(requests).includes('gold'));
    const task = requests[0]?.task;
    assert.ok(task?.kind === 'label');
    assert.equal(task.completionPrompt?.prefix, 'Review: Bad.\nSentiment: negative\n\nReview: Good.\nSentiment: positive\n\n');
    assert.equal(task.completionPrompt?.suffix, `Review: ${requests[0]?.row?.input}\nSentiment:`);
    assert.deepEqual(task.messages.map(({ role }) => role), ['system', 'user', 'assistant', 'user', 'assistant', 'user']);
    const selection = await putRows(store, 'rows', [...rowsOf('pool', 100)].reverse());
    const second = await getRows<TeacherRequest>(store, (await plan({ round: 2, earlier: first.requests, selection })).requests);
    const asked = new Set(requests.map(({ row }) => row?.id));
    assert.equal(second.length, 20);
    assert.ok(second.every(({ row }) => !asked.has(row?.id)));
    assert.deepEqual(second.map(({ row }) => row?.input), rowsOf('pool', 100).reverse().filter(({ id }) => !asked.has(id)).slice(0, 20).map(({ input }) => input));
    const held = await getRows<TeacherRequest>(store, (await plan({ purpose: 'test', round: 0 })).requests);
    assert.deepEqual(held.map(({ id }) => id), ['test-0', 'test-1', 'test-2', 'test-3', 'test-4']);
    const large = await workplace(specWith({ name: 'large', sampling: { source: { kind: 'inputs', dataset: 'p' }, rows: 2_000, batchSize: 10 } }), 2_000);
    const planned = await large.plan();
    assert.ok(planned.count / planned.batchSize <= 40);
  });

  it('combines attributes without repeating a call, through all rounds', async () => {
    const spec = specWith({
      name: 'pairs',
      teacher: { provider: 'openai', model: 'gpt-4o-mini', temperature: 1 },
      sampling: { source: { kind: 'description', pairsPerCall: 3, attributes: { topic: ['food', 'films', '音乐'], length: ['short', 'long'] } }, rows: 6 },
    });
    const { store, plan } = await workplace(spec);
    const first = await plan();
    const requests = await getRows<TeacherRequest>(store, first.requests);
    const combinations = requests.map(({ task }) => /attributes: ([^.]+)\./.exec(task.messages[1]?.content ?? '')?.[1]);
    assert.equal(new Set(combinations).size, 6);
    assert.ok(first.batchUpperBoundUsd > 0);
    assert.match(requests[5]?.task.messages[1]?.content ?? '', /Already written/);
    const second = await getRows<TeacherRequest>(store, (await plan({ round: 2, earlier: first.requests })).requests);
    const questions = [...requests, ...second].map(({ task, sampleIndex }) => JSON.stringify([task, sampleIndex]));
    assert.equal(new Set(questions).size, 9);
  });

  it('answers by a local model in whole groups, remembers them, and asks a cut group again in full', async () => {
    const { store, plan, sample, ledger, directory, context, runs, counts } = await workplace(specWith({}));
    const { requests } = await plan();
    assert.equal(counts.opened, 0, 'planning loads no model');
    const batch = await sample(requests, 0, 32);
    assert.deepEqual(batch, { answered: 32, spending: { usd: 0, tokens: 32 * 12, callsBought: 32, callsReused: 0, callsRepeated: 0 } });
    assert.deepEqual(runs.map(({ prompts, labels, cachePrefix }) => [prompts.length, labels, cachePrefix]), [[16, [' negative', ' positive'], true], [16, [' negative', ' positive'], true]]);
    // An attempt whose result was lost is settled by the next, which buys nothing.
    assert.deepEqual(await sample(requests, 0, 32), batch);
    assert.equal(runs.length, 2);
    const list = await getRows<TeacherRequest>(store, requests);
    const spec = specWith({});
    const reader = createAnswerReader({ ledger, directory });
    const answers = await reader(spec, list.slice(0, 32));
    assert.ok(answers.every(({ text, labelLogProbs }) => ['negative', 'positive'].includes(text) && labelLogProbs?.length === 2));
    await assert.rejects(reader(spec, list), (error: unknown) => hasCode('NOT_FOUND')(error) && /8 have none, the first of them train-1-32/.test(String(error)));
    // One member is missing: the group is the same run as before.
    const ledger2 = createLedger(join(folder, 'cut.sqlite'));
    const identity = await directory.identify(spec.teacher);
    assert.match(identity.model, /^fake@sha256:[0-9a-f]{64}$/);
    const keys = list.slice(0, 32).map((request) => ledgerKey(identity, request));
    await ledger2.recordIntents(keys.slice(0, 15).map((key, index) => ({ key, ...identity, request: ledgerRequest(list[index]!), campaign: 'test' })));
    await ledger2.recordAnswers(keys.slice(0, 15).map((key, index) => ({ key, answer: answers[index]! })));
    await sampleBatch({ store, ledger: ledger2, directory }, { ...context, requests, from: 0, to: 16 });
    assert.deepEqual(runs[2], runs[0]);
    assert.equal(counts.opened, 1, 'the model stays warm between batches');
    await new Promise((resolve) => setTimeout(resolve, 700));
    assert.equal(counts.closed, 1);
    await ledger2.close();
    await ledger.close();
  });

  it('says that a local model does not write JSON', async () => {
    const { directory } = await workplace(specWith({}), 10, 'json');
    await using teacher = await directory.open(specWith({}).teacher);
    const request: TeacherRequest = { id: 'j', purpose: 'judge', sampleIndex: 0, task: { kind: 'json', messages: [], schemaName: 's', schema: {}, parameters: { maxTokens: 1, temperature: 0 } } };
    await assert.rejects(teacher.ask([request], { onAnswers: async () => undefined }), hasCode('BAD_INPUT'));
  });

  it('keeps what arrived when the key is withdrawn, and goes on where it stopped', async () => {
    await using server = await startOpenAIServer({ latencyMs: 5, answer: (_call, index) => {
      if (index === 10) server.options = { ...server.options, keys: [] };
      return 'positive';
    } });
    const spec = specWith({ name: 'withdrawn', teacher: { provider: 'openai', model: 'gpt-4o-mini', baseUrl: server.baseUrl, concurrency: 4 } });
    const { plan, sample, ledger } = await workplace(spec);
    const { requests } = await plan();
    await assert.rejects(sample(requests, 0, 40), hasCode('UNAUTHORIZED'));
    const before = await ledger.totals();
    assert.equal(before.calls, server.counts.billedCalls);
    assert.equal(before.open, 0, 'refused calls are withdrawn');
    server.options = { latencyMs: 5, answer: () => 'negative' };
    const { spending } = await sample(requests, 0, 40);
    assert.equal(server.counts.billedCalls, 40);
    assert.deepEqual([spending.callsBought, spending.callsReused, spending.callsRepeated], [40, 0, 0]);
    assert.ok(Math.abs(spending.usd - server.counts.usd) < 1e-9);
    await ledger.close();
  });

  it('buys nothing twice but what was in flight when its process was killed', async () => {
    const concurrency = 6;
    await using server = await startOpenAIServer({ latencyMs: () => 15 + Math.random() * 20, answer: () => 'positive' });
    const spec = specWith({
      name: 'killed',
      teacher: { provider: 'openai', model: 'gpt-4o-mini', baseUrl: server.baseUrl, concurrency },
      sampling: { source: { kind: 'inputs', dataset: 'p' }, rows: 100, batchSize: 100 },
    });
    const { plan, sample, ledger, ledgerPath, context } = await workplace(spec);
    const { requests } = await plan();
    const source = (path: string): string => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
    const script = `
      import { createFileStore } from ${source('store/file-store.ts')};
      import { createLedger } from ${source('ledger/sqlite-ledger.ts')};
      import { createTeacherDirectory } from ${source('teacher/directory.ts')};
      import { sampleBatch } from ${source('teacher/sample.ts')};
      const input = JSON.parse(process.argv[1]);
      const directory = createTeacherDirectory({ host: {}, assets: {}, readSecret: () => ${JSON.stringify(TEST_KEY)} });
      await sampleBatch({ store: createFileStore(input.root), ledger: createLedger(input.ledgerPath), directory }, input);`;
    const input = JSON.stringify({ ...context, requests, from: 0, to: 100, root: join(folder, 'objects'), ledgerPath });
    for (const killAfter of [20, 55]) {
      const child = spawn(process.execPath, ['--input-type=module', '-e', script, input], { stdio: 'inherit' });
      const exited = once(child, 'exit');
      while (server.counts.billedCalls < killAfter && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 2));
      child.kill('SIGKILL');
      assert.deepEqual(await exited, [null, 'SIGKILL'], 'killed in mid-batch, not finished or failed by itself');
    }
    const { answered, spending } = await sample(requests, 0, 100);
    assert.equal(answered, 100);
    assert.equal((await ledger.totals()).calls, 100);
    assert.equal(server.counts.billedByQuestion.size, 100);
    const boughtTwice = server.counts.billedCalls - 100;
    assert.ok(spending.callsRepeated <= 2 * concurrency, `expected at most ${2 * concurrency} repeated, got ${spending.callsRepeated}`);
    assert.ok(boughtTwice <= spending.callsRepeated, `expected every call bought twice to be reported: ${boughtTwice} of ${spending.callsRepeated}`);
    assert.equal(spending.callsBought, 100);
    await ledger.close();
  });

  it('leaves no trace of a key in the ledger or the store', async () => {
    const canary = 'sk-canary-1122334455667788';
    await using server = await startOpenAIServer({ keys: [canary], answer: () => 'positive' });
    const spec = specWith({ name: 'canary', teacher: { provider: 'openai', model: 'gpt-4o-mini', baseUrl: server.baseUrl } });
    const { store, plan, ledger, context } = await workplace(spec);
    const directory = createTeacherDirectory({ host: fakeHost().host, assets: { model: async () => assert.fail() }, readSecret: () => canary });
    const { requests } = await plan();
    await sampleBatch({ store, ledger, directory }, { ...context, requests, from: 0, to: 40 });
    await ledger.close();
    const files = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
    assert.ok(files.length > 5);
    for (const file of files) assert.ok(!(await readFile(join(file.parentPath, file.name))).includes(canary), `the key is in ${file.name}`);
  });
});
