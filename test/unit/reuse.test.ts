/** Changes that must buy nothing, and changes that must buy only what they touch: several campaigns on one ledger. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { PreparedData, SampledBatch } from '../../src/contracts/activities.ts';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import type { InputRow } from '../../src/contracts/records.ts';
import { rowId } from '../../src/dataset/text.ts';
import type { Ledger } from '../../src/ledger/ledger.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { putJson, putRows } from '../../src/store/jsonl.ts';
import { createAnswerFinder } from '../../src/teacher/answers.ts';
import { planRequests } from '../../src/teacher/plan.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import { temporaryFolder } from '../support/folder.ts';
import { hostedDirectory } from '../support/hosted-directory.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';
import type { OpenAIServer } from '../support/openai-server.ts';

const rowsOf = (name: string, count: number): InputRow[] => Array.from({ length: count }, (_, index) => {
  const input = `${name} sentence ${index}`;
  return { id: rowId(input), input, origin: `${name}:${index + 1}` };
});

describe('reuse of recorded answers', () => {
  let folder: string;
  let server: OpenAIServer;
  let ledger: Ledger;
  let base: CampaignSpecInput;
  beforeEach(async () => {
    folder = temporaryFolder();
    server = await startOpenAIServer({ answer: () => 'positive' });
    ledger = createLedger(join(folder, 'ledger.sqlite'));
    base = {
      name: 'base',
      task: { description: 'Tell good from bad.', instruction: 'Review: {input}\nSentiment:', output: { kind: 'label', labels: ['negative', 'positive'] } },
      teacher: { provider: 'openai', model: 'gpt-4o-mini', baseUrl: server.baseUrl },
      sampling: { source: { kind: 'inputs', dataset: 'pool.jsonl' }, rows: 40, rowsPerLaterRound: 10 },
      student: { model: 'student' },
      evaluation: { source: { kind: 'dataset', dataset: 'gold.jsonl' }, developmentRows: 5, testRows: 5, scorer: { kind: 'label' } },
    };
  });
  afterEach(async () => {
    await ledger.close();
    await server[Symbol.asyncDispose]();
  });

  interface Round extends SampledBatch {
    readonly requests: ArtifactRef;
    /** By the server's own count. */
    readonly billed: number;
  }

  /** Plans and samples one round as the campaign of this spec would. */
  async function sampleRound(spec: CampaignSpecInput, round: { readonly round: number; readonly earlier?: ArtifactRef; readonly selection?: ArtifactRef } = { round: 1 }, itsLedger: Ledger = ledger, key: string = TEST_KEY): Promise<Round> {
    const store = createFileStore(join(folder, 'objects'));
    await using directory = hostedDirectory({ readSecret: () => key });
    const data: PreparedData = {
      pool: await putRows(store, 'rows', rowsOf('pool', 100)), development: await putRows(store, 'rows', rowsOf('development', 5)), test: await putRows(store, 'rows', rowsOf('test', 5)),
      poolRows: 100, developmentRows: 5, testRows: 5,
    };
    const context = { campaign: spec.name, spec: await putJson(store, 'spec', campaignSpecSchema.parse(spec)) };
    const planned = await planRequests({ store, directory, find: createAnswerFinder({ ledger, directory }) }, { ...context, data, purpose: 'train', ...round });
    const before = server.counts.billedCalls;
    const sampled = await sampleBatch({ store, ledger: itsLedger, directory }, { ...context, requests: planned.requests, from: 0, to: planned.count }, { run: `${spec.name} ${round.round}` });
    return { ...sampled, requests: planned.requests, billed: server.counts.billedCalls - before };
  }
  const selectionOf = (rows: number): Promise<ArtifactRef> => putRows(createFileStore(join(folder, 'objects')), 'rows', rowsOf('pool', rows).reverse());

  it('other filters, training, student, evaluation, budget or a second campaign of the same questions buy nothing', async () => {
    const first = await sampleRound(base);
    assert.deepEqual([first.billed, first.spending.callsBought, first.spending.callsReused], [40, 40, 0]);
    const changes: Readonly<Record<string, Partial<CampaignSpecInput>>> = {
      'same-questions': {},
      'other-filter': { filter: { minConfidence: 0.9, nearDuplicateSimilarity: 0.5, maxClassRatio: 1.5, maxInputCharacters: 100 } },
      'other-training': { training: { epochs: 9, learningRate: 1e-3, lora: { r: 4 }, batchSize: 8 } },
      'other-student': { student: { model: 'another' } },
      'other-evaluation': { evaluation: { ...base.evaluation, bootstrapResamples: 500 } },
      'other-limits': { budget: { usd: 3, hours: 1 }, iterate: { maxRounds: 4, minGain: 0.1 } },
      'other-speed': { teacher: { ...base.teacher, concurrency: 2, price: { inputUsdPerMillion: 1, outputUsdPerMillion: 1 } } },
    };
    for (const [name, change] of Object.entries(changes)) {
      const { billed, spending, answered } = await sampleRound({ ...base, ...change, name });
      assert.deepEqual([billed, spending.callsBought, spending.callsReused, spending.usd, answered], [0, 0, 40, 0, 40], name);
    }
    assert.equal((await ledger.totals()).calls, 40);
  });

  it('a fork that shares rounds 1 and 2 buys nothing for them, and for its own round 3 only new questions', async () => {
    const sampleRounds = async (name: string, selection: ArtifactRef): Promise<readonly number[]> => {
      const spec = { ...base, name };
      const one = await sampleRound(spec);
      const two = await sampleRound(spec, { round: 2, earlier: one.requests, selection: await selectionOf(100) });
      const three = await sampleRound(spec, { round: 3, earlier: one.requests, selection });
      return [one.billed, two.billed, three.billed];
    };
    assert.deepEqual(await sampleRounds('base', await selectionOf(60)), [40, 10, 10]);
    assert.deepEqual(await sampleRounds('fork-same', await selectionOf(60)), [0, 0, 0]);
    // Half of this selection was chosen by the campaign that it forks.
    const [one, two, three] = await sampleRounds('fork-other', await selectionOf(50));
    assert.deepEqual([one, two], [0, 0]);
    assert.ok(three !== undefined && three > 0 && three < 10, `expected some of 10 bought, got ${three}`);
  });

  it('a changed prompt, model or temperature buys its questions again, more rows only the new ones', async () => {
    await sampleRound(base);
    assert.equal((await sampleRound({ ...base, name: 'more', sampling: { ...base.sampling, rows: 60 } })).billed, 20);
    const changed: readonly Partial<CampaignSpecInput>[] = [
      { task: { ...base.task, instruction: 'Opinion: {input}\nSentiment:' } },
      { teacher: { ...base.teacher, model: 'gpt-4o' } },
      { teacher: { ...base.teacher, temperature: 0.5 } },
    ];
    for (const [index, change] of changed.entries()) {
      assert.equal((await sampleRound({ ...base, ...change, name: `changed-${index}` })).billed, 40, JSON.stringify(change));
    }
    assert.equal((await sampleRound({ ...base, name: 'back-again' })).billed, 0, 'the answers to the old prompt are still there');
  });

  it('two campaigns that ask the same at the same time buy each answer once, though each has its own connection to the ledger', async () => {
    server.options = { latencyMs: 30, answer: () => 'positive' };
    const other = createLedger(join(folder, 'ledger.sqlite'));
    const before = server.counts.billedCalls;
    const [one, two] = await Promise.all([sampleRound({ ...base, name: 'one' }), sampleRound({ ...base, name: 'two' }, { round: 1 }, other)]);
    assert.equal(server.counts.billedCalls - before, 40);
    assert.deepEqual([one.answered, two.answered], [40, 40]);
    assert.equal(one.spending.callsBought + two.spending.callsBought, 40);
    assert.ok(Math.abs(one.spending.usd + two.spending.usd - server.counts.usd) < 1e-12);
    const { reused, savedUsd, costUsd, open } = await ledger.totals();
    assert.deepEqual([reused, open], [40, 0]);
    assert.ok(Math.abs(savedUsd - costUsd) < 1e-12);
    await other.close();
  });

  it('what another campaign asks and gives up is asked by the one that waits for it', async () => {
    server.options = { keys: [TEST_KEY, 'sk-withdrawn'], latencyMs: 40, answer: (_call, index) => {
      if (index === 16) server.options = { latencyMs: 40, answer: () => 'positive' };
      return 'positive';
    } };
    const other = createLedger(join(folder, 'ledger.sqlite'));
    const giving = assert.rejects(sampleRound({ ...base, name: 'giving' }, { round: 1 }, other, 'sk-withdrawn'), /401/);
    while (server.counts.calls < 16) await new Promise((resolve) => setTimeout(resolve, 2));
    const { answered } = await sampleRound({ ...base, name: 'waiting' });
    await giving;
    assert.equal(answered, 40);
    assert.equal(server.counts.billedCalls, 40);
    await other.close();
  });
});
