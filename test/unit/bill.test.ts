/** The provider's own bill, of answers that arrive and of those that do not: the books and what they call lost are never less. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, it } from 'node:test';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import type { Ledger } from '../../src/ledger/ledger.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import { temporaryFolder } from '../support/folder.ts';
import { hostedDirectory } from '../support/hosted-directory.ts';
import { startOpenAIServer } from '../support/openai-server.ts';
import type { ChatCall, Fault, OpenAIServer, OpenAIServerOptions, ScriptedAnswer } from '../support/openai-server.ts';
import { labelSpec, planWork, startSampling } from '../support/sampling-soak.ts';
import type { SamplingWork } from '../support/sampling-soak.ts';
import { until } from '../support/until.ts';

const TIMINGS = { attemptTimeoutMs: 400, retryBudgetMs: 8_000, firstRetryDelayMs: 5, maxRetryDelayMs: 20, stopGraceMs: 50 };
const BILLED = ['reset-after-work', '500-after-work', 'stall-after-work', 'truncated-body', 'unreadable-body'] as const satisfies readonly Fault[];
/** An answer as dear as the call allows. */
const dearest = ({ max_tokens: most = 0 }: ChatCall, content: string): ScriptedAnswer => ({ content, completionTokens: most });
const models = { 'gpt-4o-mini': { input: 1, output: 1_000 } };

describe('the bill', () => {
  const folder = temporaryFolder();
  let server: OpenAIServer;
  afterEach(() => server[Symbol.asyncDispose]());

  async function workOf(name: string, rows: number, options: OpenAIServerOptions): Promise<SamplingWork> {
    server = await startOpenAIServer(options);
    const spec = labelSpec(name, server.baseUrl, rows, 2);
    return await planWork(join(folder, name), campaignSpecSchema.parse({ ...spec, teacher: { ...spec.teacher, price: { inputUsdPerMillion: 1, outputUsdPerMillion: 1_000 } } }));
  }
  async function sample(work: SamplingWork, signal?: AbortSignal) {
    await using directory = hostedDirectory({ timings: TIMINGS });
    const ledger = createLedger(work.order.ledgerPath);
    try {
      return await sampleBatch({ store: work.store, ledger, directory }, { ...work.context, requests: work.planned.requests, from: 0, to: work.planned.count }, { run: 'run', ...(signal === undefined ? {} : { signal }) });
    } finally {
      await ledger.close();
    }
  }
  async function read<T>(work: SamplingWork, look: (ledger: Ledger) => Promise<T>): Promise<T> {
    const ledger = createLedger(work.order.ledgerPath);
    try {
      return await look(ledger);
    } finally {
      await ledger.close();
    }
  }
  const covered = async (work: SamplingWork, atMost: number): Promise<void> => {
    await until(() => server.counts.inFlight, (inFlight) => inFlight === 0);
    const { costUsd, lostUsd, openUsd, promptTokens, completionTokens, lost } = await read(work, (ledger) => ledger.totals());
    const { usd, promptTokens: prompts, completionTokens: completions } = server.counts;
    assert.ok(costUsd + lostUsd + openUsd >= usd - 1e-12, `billed ${usd}, the books have ${costUsd}, ${lostUsd} lost and ${openUsd} open`);
    assert.ok(lost <= atMost && promptTokens + completionTokens <= prompts + completions, `${lost} lost of at most ${atMost}`);
  };

  for (const fault of BILLED) {
    it(`covers what ended in ${fault}`, async () => {
      const work = await workOf(fault, 4, { models, answer: (call, index) => ({ ...dearest(call, 'positive'), ...(index % 3 === 1 ? { fault } : {}) }) });
      const { answered, spending } = await sample(work);
      assert.equal(answered, 4);
      assert.ok(server.counts.lostAnswers > 0 && spending.lost !== undefined);
      await covered(work, server.counts.lostAnswers);
    });
  }

  it('covers calls in flight that a stop has cut off', async () => {
    const work = await workOf('stopped', 4, { models, latencyMs: 300, answer: (call) => dearest(call, 'positive') });
    const stop = new AbortController();
    const sampling = sample(work, stop.signal).catch((error: unknown) => error);
    await until(() => server.counts.inFlight, (inFlight) => inFlight > 0, { everyMs: 5 });
    stop.abort();
    await sampling;
    await covered(work, 2);
    assert.ok(server.counts.billedCalls > 0);
  });

  it('covers calls whose process died, also while nobody asks them again', async () => {
    const work = await workOf('abandoned', 4, { models, latencyMs: 300, answer: (call) => dearest(call, 'positive') });
    const victim = startSampling({ ...work.order, timings: {} });
    await until(() => server.counts.inFlight, (inFlight) => inFlight > 0, { everyMs: 5 });
    victim.kill();
    assert.equal(await victim.outcome, undefined);
    await covered(work, 0);
    assert.ok(server.counts.billedCalls > 0);
    await sample(work);
    await covered(work, 2);
    assert.equal((await read(work, (ledger) => ledger.totals())).open, 0);
  });

  it('covers a second asking that dies with its process, and the first answer that was held back for it', async () => {
    // The second has room for reasoning, and uses it; nobody lives to hear of it.
    const work = await workOf('again', 1, {
      models,
      answer: (call, index) => ({ ...dearest(call, index === 0 ? '' : 'positive'), ...(index > 1 ? {} : { fault: index === 0 ? 'truncated-json' : 'stall-after-work' }) }),
    });
    const victim = startSampling({ ...work.order, timings: {} });
    await until(() => server.counts.billedCalls, (billed) => billed === 2, { everyMs: 5 });
    await sleep(20);
    victim.kill();
    assert.equal(await victim.outcome, undefined);
    await sample(work);
    assert.ok(server.counts.usd > 4, 'the first and the second were billed');
    await covered(work, 1);
  });
});
