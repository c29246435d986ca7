/** Asking through a provider's batch service: nothing is lost or bought twice, whoever dies when. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, describe, it } from 'node:test';
import type { SampledBatch } from '../../src/contracts/activities.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpec } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import type { BatchTimings } from '../../src/teacher/batch.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import { temporaryFolder } from '../support/folder.ts';
import { hostedDirectory } from '../support/hosted-directory.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';
import type { OpenAIServer, OpenAIServerOptions } from '../support/openai-server.ts';
import { labelSpec, planWork, startSampling } from '../support/sampling-soak.ts';
import { until } from '../support/until.ts';
import type { SamplingWork } from '../support/sampling-soak.ts';

const ROWS = 24;
const TIMINGS: BatchTimings = { pollMs: 5, watchMs: 20_000, awayMs: 10, settleMs: 300 };
const hasCode = (code: string) => (error: unknown) => error instanceof StillhouseError && error.code === code;

describe('batch service', () => {
  const folder = temporaryFolder();
  let server: OpenAIServer;
  afterEach(() => server[Symbol.asyncDispose]());

  function specOf(name: string, deadlineHours: number | undefined = 24): CampaignSpec {
    const spec = labelSpec(name, server.baseUrl, ROWS, 8);
    return campaignSpecSchema.parse({ ...spec, teacher: { ...spec.teacher, batch: deadlineHours === undefined ? undefined : { deadlineHours } } });
  }
  const start = async (options: OpenAIServerOptions = {}): Promise<void> => { server = await startOpenAIServer({ answer: () => 'positive', ...options }); };
  const workOf = (name: string, spec: CampaignSpec = specOf(name)): Promise<SamplingWork> => planWork(join(folder, name), spec);

  async function sample(work: SamplingWork, timings: Partial<BatchTimings> = {}, run = 'run'): Promise<SampledBatch> {
    await using directory = hostedDirectory({ timings: { firstRetryDelayMs: 5 } });
    const ledger = createLedger(work.order.ledgerPath);
    try {
      return await sampleBatch({ store: work.store, ledger, directory, batchTimings: { ...TIMINGS, ...timings } }, { ...work.context, requests: work.planned.requests, from: 0, to: work.planned.count }, { run });
    } finally {
      await ledger.close();
    }
  }
  async function totals(work: SamplingWork) {
    const ledger = createLedger(work.order.ledgerPath);
    const found = await ledger.totals();
    await ledger.close();
    return found;
  }
  const boughtOnce = (): void => {
    assert.equal(server.counts.billedByQuestion.size, ROWS);
    assert.deepEqual([...server.counts.billedByQuestion.values()].filter((count) => count > 1), []);
  };

  it('answers a whole stage in one batch at half the price', async () => {
    await start();
    const work = await workOf('plain');
    const { spending } = await sample(work);
    assert.deepEqual([spending.callsBought, spending.callsRepeated, server.counts.calls, server.batches.all.length], [ROWS, 0, 0, 1]);
    assert.ok(Math.abs(spending.usd - server.counts.usd) < 1e-12 && spending.usd > 0);
    assert.ok(work.planned.batchUpperBoundUsd >= spending.usd, 'what may be asked one by one at the end is reserved at the full price');
    assert.equal((await sample(work)).spending.callsBought, ROWS, 'settled again, not bought again');
    assert.equal(server.batches.all.length, 1);
    boughtOnce();
  });

  it('hands in again only what expired or failed for a while, and asks nothing twice that was refused for good', async () => {
    let draws = 0;
    await start({
      random: () => (draws += 1) % 3 === 0 ? 0 : 0.9, batches: { expiringShare: 0.1 },
      answer: (call, index) => (index === 4 ? { fault: '500' } : index === 5 ? { fault: 'content-filter-400' } : (call.messages.at(-1)?.content ?? '')),
    });
    const work = await workOf('expired');
    const { spending, answered } = await sample(work);
    assert.equal(answered, ROWS);
    assert.ok(server.batches.all.length > 1);
    const asked = server.batches.all.map(({ request_counts }) => request_counts.total);
    assert.equal(asked[0], ROWS);
    assert.ok(asked.slice(1).every((total) => total < ROWS), `asked ${asked.join(', ')}`);
    assert.deepEqual([spending.callsRepeated, server.counts.billedCalls, server.counts.calls], [0, ROWS - 1, 0], 'the filtered question costs nothing');
    assert.deepEqual(await totals(work).then(({ calls, open }) => [calls, open]), [ROWS, 0]);
  });

  it('cancels at nine tenths of the deadline, keeps what the batch had answered, and asks the rest one by one', async () => {
    await start({ batches: { runningMs: 8_000 } });
    const work = await workOf('late', specOf('late', 3.5 / 3_600));
    const { spending } = await sample(work);
    assert.equal(server.batches.all[0]?.status, 'cancelled');
    assert.ok(server.counts.billedInBatches > 0 && server.counts.calls > 0, `${server.counts.billedInBatches} in batches, ${server.counts.calls} live`);
    assert.equal(spending.callsBought, ROWS);
    assert.ok(Math.abs(spending.usd - server.counts.usd) < 1e-12);
    boughtOnce();
  });

  it('counts the deadline from this asking: a question of a batch that expired a month ago goes into a batch again', async () => {
    await start({ random: () => 0, batches: { expiringShare: 1 } });
    const work = await workOf('month');
    // A campaign whose batch expired unanswered, and which nobody went on with.
    await assert.rejects(sample(work, { watchMs: 0 }, 'last month'), hasCode('PENDING'));
    await until(() => server.batches.all[0]?.status, (status) => status === 'expired');
    const database = new DatabaseSync(work.order.ledgerPath);
    const monthMs = 30 * 24 * 3_600_000;
    for (const column of ['calls.intendedAtMs', 'submissions.createdAtMs', 'askings.begunAtMs']) {
      const [table, name] = column.split('.');
      if (database.prepare('SELECT 1 FROM sqlite_master WHERE name = ?').get(table ?? '') !== undefined) database.exec(`UPDATE ${table} SET ${name} = ${name} - ${monthMs}`);
    }
    database.close();
    server.options = { answer: () => 'positive' };
    const { spending } = await sample(work, {}, 'this month');
    assert.deepEqual([spending.callsBought, server.counts.calls, server.counts.billedInBatches], [ROWS, 0, ROWS], 'nothing is asked at full price');
    // The asking of last month is late, and stays so over its attempts.
    // It still runs when it is looked at again.
    server.options = { answer: () => 'positive', batches: { runningMs: 4_000 } };
    const late = await workOf('month-late');
    await assert.rejects(sample(late, { watchMs: 0 }), hasCode('PENDING'));
    const again = new DatabaseSync(late.order.ledgerPath);
    again.exec(`UPDATE askings SET begunAtMs = begunAtMs - ${monthMs}`);
    again.close();
    await sample(late);
    assert.ok(server.counts.calls > 0);
  });

  it('bills a batch call by the share that the price says, as the estimate does', async () => {
    for (const [batchShare, share] of [[undefined, 1], [1, 1], [0.8, 0.8], [0.25, 0.25]] as const) {
      await start();
      const name = `share-${String(batchShare).replace('.', '-')}`;
      const spec = specOf(name);
      const price = { inputUsdPerMillion: 100, outputUsdPerMillion: 200, ...(batchShare === undefined ? {} : { batchShare }) };
      const work = await workOf(name, { ...spec, teacher: { ...spec.teacher, price } });
      const { spending } = await sample(work);
      const full = (100 * server.counts.promptTokens + 200 * server.counts.completionTokens) / 1e6;
      assert.ok(Math.abs(spending.usd - full * share) < 1e-9, `${batchShare}: ${spending.usd} of ${full}`);
      await server[Symbol.asyncDispose]();
    }
    await start();
  });

  it('a line that is damaged, missing, empty or no completion is one row without an answer, and counts at its bound', async () => {
    const bodyOf = (body: unknown) => (line: string): string => JSON.stringify({ ...(JSON.parse(line) as object), response: { status_code: 200, request_id: 'r', body } });
    const lost: readonly ((line: string) => string | undefined)[] = [
      (line) => line.slice(0, line.length / 2), () => undefined, () => 'null', () => '{"error": "lost"}', bodyOf(null), bodyOf({ choices: [] }), bodyOf('<html>'), bodyOf([]),
    ];
    // Not lost, though servers other than OpenAI's leave parts away.
    const kept: readonly ((line: string) => string)[] = [
      (line) => JSON.stringify({ ...(JSON.parse(line) as object), error: undefined, id: undefined }), (line) => ` ${line}\r`, (line) => `${line}\n\n${line}`,
    ];
    await start({ batches: { outputLine: (line, index) => (lost[index] ?? kept[index - lost.length])?.(line) ?? (index < lost.length ? undefined : line) } });
    const work = await workOf('damaged');
    const { spending, answered } = await sample(work);
    assert.equal(answered, ROWS);
    assert.deepEqual([server.batches.all.length, server.counts.calls], [1, 0], 'what was paid for is not asked again');
    boughtOnce();
    const ledger = createLedger(work.order.ledgerPath);
    const totals = await ledger.totals();
    await ledger.close();
    assert.deepEqual([totals.calls, totals.open, totals.lost], [ROWS, 0, lost.length]);
    const { usd } = spending.lost ?? { usd: 0 };
    assert.ok(spending.usd < server.counts.usd && spending.usd + usd >= server.counts.usd, `billed ${server.counts.usd}, books ${spending.usd}, lost ${usd}`);
    assert.ok(spending.callsRepeated === 0 && usd <= (0.51 * lost.length * work.planned.batchUpperBoundUsd) / ROWS, 'at the price of a batch call');
  });

  it('a batch that brings no line of its questions pauses with its name, and is not paid for in silence', async () => {
    await start({ batches: { outputLine: () => undefined } });
    const work = await workOf('silent');
    await assert.rejects(sample(work), (error: unknown) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && /expected the answers of the batch batch_\w+ of http.*, got no line of its questions/.test(error.message));
    server.options = { answer: () => 'positive' };
    const { spending } = await sample(work);
    assert.equal(spending.callsBought, ROWS);
    assert.ok(spending.usd + (spending.lost?.usd ?? 0) >= server.counts.usd, 'the first batch is counted, too');
  });

  it('what a cancelled batch had not begun is asked at no cost of doubt', async () => {
    await start({ batches: { runningMs: 8_000 } });
    const work = await workOf('unbegun', specOf('unbegun', 3.5 / 3_600));
    const { spending } = await sample(work);
    assert.deepEqual([server.batches.all[0]?.status, spending.callsRepeated, spending.lost], ['cancelled', 0, undefined]);
    assert.ok(Math.abs(spending.usd - server.counts.usd) < 1e-12);
  });

  it('makes room for others while a batch runs, and goes on with it later, from another campaign too', async () => {
    await start({ batches: { runningMs: 600 } });
    const work = await workOf('patient');
    await assert.rejects(sample(work, { watchMs: 50 }), (error: unknown) => hasCode('PENDING')(error) && /has answered \d+ of \d+ questions/.test(String(error)) && (error as StillhouseError).retryAfterMs === 10);
    // A campaign without batches waits for the answers that are on their way.
    const spec = specOf('patient', undefined);
    const other = { ...work, ...(await planWork(join(folder, 'patient'), { ...spec, name: 'other' })) };
    const { spending } = await sample(other, {}, 'other');
    assert.deepEqual([spending.callsBought, spending.callsReused], [0, ROWS]);
    assert.equal((await sample(work)).spending.callsBought, ROWS);
    assert.deepEqual([server.batches.all.length, server.counts.calls], [1, 0]);
    boughtOnce();
  });

  it('says why a whole file was turned away, and hands it in again when that is mended', async () => {
    await start({ batches: { failure: `The key ${TEST_KEY} may not.` } });
    const work = await workOf('refused');
    await assert.rejects(sample(work), (error: unknown) => hasCode('BAD_INPUT')(error) && /to take the batch batch_\w+, got The key \[key\] may not/.test(String(error)));
    server.options = { answer: () => 'positive' };
    assert.equal((await sample(work)).spending.callsRepeated, 0);
    boughtOnce();
  });

  // The request at which the worker is killed: before or after the provider has worked on it.
  const moments = [
    { at: ['POST', '/v1/files', 'received'], batches: 1 },
    { at: ['POST', '/v1/files', 'answered'], batches: 1 },
    { at: ['POST', '/v1/batches', 'received'], batches: 1 },
    { at: ['POST', '/v1/batches', 'answered'], batches: 1 },
    { at: ['GET', '/v1/batches/', 'answered'], batches: 1 },
    { at: ['GET', '/content', 'received'], batches: 1 },
    { at: ['GET', '/content', 'answered'], batches: 1 },
  ] as const;
  it('survives a kill -9 in every phase with one batch and every answer bought once', async () => {
    for (const [index, { at: [method, path, phase], batches }] of moments.entries()) {
      let kill: (() => void) | undefined;
      await start({
        batches: { runningMs: 40 },
        onRequest: (asked, where, when) => {
          if (asked !== method || !where.includes(path) || when !== phase || (path === '/v1/batches' && where !== path)) return;
          kill?.();
          kill = undefined;
        },
      });
      const work = await workOf(`killed-${index}`);
      const order = { ...work.order, batchTimings: TIMINGS };
      const victim = startSampling(order);
      kill = victim.kill;
      assert.equal(await victim.outcome, undefined, `killed at ${method} ${path} ${phase}`);
      const { spending } = await sample(work);
      assert.equal(spending.callsBought, ROWS);
      assert.equal(server.batches.all.length, batches, `${method} ${path} ${phase}`);
      boughtOnce();
      await server[Symbol.asyncDispose]();
    }
    await start();
  });
});
