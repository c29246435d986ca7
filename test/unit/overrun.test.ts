/** A provider that bills and never answers costs no more than what was set aside and what is in flight. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { SampledBatch } from '../../src/contracts/activities.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { Spending } from '../../src/contracts/state.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { createOverrun } from '../../src/teacher/overrun.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import { temporaryFolder } from '../support/folder.ts';
import { hostedDirectory } from '../support/hosted-directory.ts';
import { startOpenAIServer } from '../support/openai-server.ts';
import type { Fault } from '../support/openai/options.ts';
import { request, row } from '../support/rows.ts';
import { labelSpec, planWork } from '../support/sampling-soak.ts';

const ROWS = 40;
const CONCURRENCY = 4;

describe('what is lost of a batch', () => {
  const folder = temporaryFolder();

  async function sample(name: string, fault: (index: number) => Fault | undefined): Promise<{ readonly outcome: SampledBatch | StillhouseError; readonly billedCalls: number; readonly billedUsd: number; readonly spending: Spending }> {
    await using server = await startOpenAIServer({ answer: (_call, index) => ({ content: 'positive', ...(fault(index) === undefined ? {} : { fault: fault(index) as Fault }) }), latencyMs: 2 });
    await using directory = hostedDirectory({ timings: { firstRetryDelayMs: 1, maxRetryDelayMs: 5, retryBudgetMs: 20_000, attemptTimeoutMs: 300 } });
    const work = await planWork(join(folder, name), labelSpec(name, server.baseUrl, ROWS, CONCURRENCY));
    const ledger = createLedger(work.order.ledgerPath);
    const outcome = await sampleBatch({ store: work.store, ledger, directory }, { ...work.context, requests: work.planned.requests, from: 0, to: work.planned.count }, { run: 'run' }).catch((error: unknown) => error as StillhouseError);
    await ledger.close();
    const spending = outcome instanceof Error ? (outcome.details['spending'] as Spending) : outcome.spending;
    return { outcome, billedCalls: server.counts.billedCalls, billedUsd: server.counts.usd, spending };
  }

  for (const fault of ['reset-after-work', '500-after-work', 'stall-after-work'] as const) {
    it(`is at most twice what may be in flight: ${fault}`, async () => {
      const { outcome, billedCalls, billedUsd, spending } = await sample(fault, () => fault);
      assert.ok(outcome instanceof StillhouseError && outcome.code === 'UNAVAILABLE' && /is used up\. The last: expected /.test(outcome.message), JSON.stringify(outcome));
      assert.ok(billedCalls > CONCURRENCY && billedCalls <= 2 * CONCURRENCY + 1, `${billedCalls} calls were billed`);
      assert.ok(spending.usd + (spending.lost?.usd ?? 0) >= billedUsd);
    });
  }

  it('stops nothing where the others leave enough', async () => {
    const { outcome, billedUsd, spending } = await sample('some', (index) => (index % 4 === 3 ? 'reset-after-work' : undefined));
    assert.ok(!(outcome instanceof Error), JSON.stringify(outcome));
    assert.equal(outcome.answered, ROWS);
    assert.ok(spending.usd < billedUsd && spending.usd + (spending.lost?.usd ?? 0) >= billedUsd);
  });

  it('does not count an answer that is given up within its own bound', () => {
    const [a, b] = [request(row('a')), request(row('b'))];
    const overrun = createOverrun(new Map([a, b].map((each) => [each, { usd: 1, tokens: 10 }])), 1, 'm');
    for (let index = 0; index < 5; index += 1) overrun.lost(a, { usd: 0.9, tokens: 9 });
    overrun.lost(a, { usd: 1, tokens: 10 });
    overrun.answered(b, { usd: 0.25, tokens: 4 });
    assert.throws(() => overrun.lost(a, { usd: 1, tokens: 10 }), { code: 'UNAVAILABLE', message: /got none to 2 attempts that may have been billed/ });
    const free = createOverrun(new Map([[a, { usd: 0, tokens: 10 }]]), 1, 'm');
    free.lost(a, { usd: 0, tokens: 10 });
    assert.throws(() => free.lost(a, { usd: 0, tokens: 10 }), { code: 'UNAVAILABLE' }, 'tokens have limits too');
  });
});
