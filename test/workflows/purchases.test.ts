/** What a campaign is billed, by a real ledger and a provider on a real socket: each purchase for itself, each loss at its own bound. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';
import type { PlannedRequests, SampleBatchInput, SampledBatch } from '../../src/contracts/activities.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignPlan } from '../../src/contracts/campaign.ts';
import { raiseBudgetUpdate, resumeUpdate, stateQuery } from '../../src/contracts/messages.ts';
import { failureType } from '../../src/contracts/names.ts';
import type { TeacherRequest } from '../../src/contracts/records.ts';
import type { CampaignState } from '../../src/contracts/state.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { putJson, putRows } from '../../src/store/jsonl.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import { hostedDirectory } from '../support/hosted-directory.ts';
import { startOpenAIServer } from '../support/openai-server.ts';
import { row, workspace } from '../support/rows.ts';
import { ScriptedActivities, campaignInput } from '../support/scripted-activities.ts';
import { useTemporal } from '../support/temporal.ts';
import { until } from '../support/until.ts';
import { NO_SPENDING } from '../../workflows/money.ts';

const ROWS = 6;
const JUDGED: Partial<CampaignPlan> = { maxRounds: 1, usesJudge: true, tournament: { firstRung: 1, reductionFactor: 2, concurrent: 1 } };

describe('purchases', () => {
  const temporal = useTemporal();

  it('two contestants with the same answers are judged for the price of one, in the books as at the provider', async () => {
    await using server = await startOpenAIServer({ answer: () => '7' });
    const { folder, store } = workspace();
    const judge = { provider: 'openai', model: 'gpt-4o', baseUrl: server.baseUrl } as const;
    const spec = await putJson(store, 'spec', campaignSpecSchema.parse({
      name: 'judged', task: { description: 'Answer.', output: { kind: 'text' } }, teacher: judge,
      sampling: { source: { kind: 'inputs', dataset: 'pool.jsonl' }, rows: 10 }, student: { model: 'student' },
      evaluation: { source: { kind: 'dataset', dataset: 'gold.jsonl' }, developmentRows: 5, testRows: 5, scorer: { kind: 'judge', judge, rubric: 'Right?' } },
    }));
    const requests = await putRows(store, 'requests', Array.from({ length: ROWS }, (_, index): TeacherRequest => ({
      id: `judge-${index}`, purpose: 'judge', sampleIndex: 0, row: row(`question ${index}`),
      task: { kind: 'text', messages: [{ role: 'user', content: `Score the answer to question ${index}.` }], parameters: { maxTokens: 8, temperature: 0 } },
    })));
    const judgements: PlannedRequests = { requests, count: ROWS, batchSize: 4, batchUpperBoundUsd: 0.01, batchUpperBoundTokens: 1_000 };
    const script = new ScriptedActivities({ requests: [10], batchUsd: 0, contestants: [{ name: 'a', scores: [0.8] }, { name: 'b', scores: [0.9] }] });
    const ledger = createLedger(join(folder, 'ledger.sqlite'));
    const told: SampledBatch[] = [];
    const activities = {
      ...script.activities,
      planJudgements: () => Promise.resolve(judgements),
      sampleBatch: async (input: SampleBatchInput): Promise<SampledBatch> => {
        if (input.requests.sha256 !== requests.sha256) return await script.activities.sampleBatch(input);
        const run = Context.current().info.workflowExecution?.runId ?? '';
        told.push(await sampleBatch({ store, ledger, directory: hostedDirectory() }, { ...input, spec }, { run }));
        return told.at(-1) as SampledBatch;
      },
    };
    const state: CampaignState = await temporal.work(activities, async () => await (await temporal.start(campaignInput('judged', JUDGED))).result());
    assert.equal(server.counts.billedCalls, ROWS);
    assert.ok(server.counts.usd > 0 && told.length > 2);
    assert.deepEqual(told.map(({ spending }) => spending.callsBought).sort((a, b) => b - a), [4, 2, ...Array.from({ length: told.length - 2 }, () => 0)]);
    assert.ok(Math.abs(state.spending.usd - server.counts.usd) < 1e-9, `the books say ${state.spending.usd}, the provider ${server.counts.usd}`);
    assert.deepEqual(state.tournament?.contestants.map(({ usd }) => usd), [state.spending.usd, 0]);
    await ledger.close();
  });

  it('tries again only when the budget covers what was lost beside what is left', async () => {
    const script = new ScriptedActivities({ requests: [10] });
    let tries = 0;
    const activities = {
      ...script.activities,
      // Each try loses $0.15 of which nothing came, and the fourth is answered.
      sampleBatch: (input: SampleBatchInput): Promise<SampledBatch> => {
        if (input.to - input.from !== 10 || tries >= 4) return script.activities.sampleBatch(input);
        tries += 1;
        const lost = { usd: 0.15 * tries, tokens: 100 * tries };
        if (tries === 4) return Promise.resolve({ answered: 10, spending: { usd: 0.1, tokens: 500, callsBought: 10, callsReused: 0, callsRepeated: 0, lost: { usd: 0.45, tokens: 300 } } });
        throw ApplicationFailure.create({ type: failureType('DISK_FULL'), message: 'lost', nonRetryable: true, details: [{ spending: { ...NO_SPENDING, lost } }] });
      },
    };
    await temporal.work(activities, async () => {
      const handle = await temporal.start(campaignInput('retried', { maxRounds: 1 }, { usd: 0.4 }));
      const resume = async (): Promise<CampaignState> => {
        await handle.executeUpdate(resumeUpdate);
        return await until(() => handle.query(stateQuery), ({ status }) => status !== 'running');
      };
      assert.equal((await temporal.paused(handle)).pauseKind, 'failure');
      // $0.15 lost and $0.20 set aside: within $0.40. Twice as much lost is not.
      const short = await resume().then(async (state) => (state.pauseKind === 'failure' ? await resume() : state));
      assert.deepEqual([short.pauseKind, short.needs, short.uncertain?.usd, tries], ['budget', { usd: 0.5 }, 0.3, 2]);
      await handle.executeUpdate(raiseBudgetUpdate, { args: [{ usd: 5 }] });
      assert.equal((await until(() => handle.query(stateQuery), ({ status }) => status === 'paused')).pauseKind, 'failure');
      await handle.executeUpdate(resumeUpdate);
      const { spending, uncertain } = await handle.result();
      assert.deepEqual([tries, uncertain], [4, { usd: 0.45, tokens: 300 }]);
      assert.ok(spending.usd > 0.1);
    });
  });

  it('holds what was lost against the limit at what the ledger says, not at a share of the batch', async () => {
    const script = new ScriptedActivities({ requests: [10] });
    const activities = {
      ...script.activities,
      sampleBatch: ({ from, to }: SampleBatchInput): Promise<SampledBatch> =>
        Promise.resolve({ answered: to - from, spending: { usd: 0.1, tokens: 500, callsBought: to - from, callsReused: 0, callsRepeated: 2, lost: { usd: 0.07, tokens: 70 } } }),
    };
    const state = await temporal.work(activities, async () => await (await temporal.start(campaignInput('lost', { maxRounds: 1 }))).result());
    const batches = state.spending.callsRepeated / 2;
    assert.deepEqual(state.uncertain, { usd: Math.round(7 * batches) / 100, tokens: 70 * batches });
  });
});
