import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { MockActivityEnvironment } from '@temporalio/testing';
import type { OrchestratorActivities, PreparedData, TeacherActivities } from '../../src/contracts/activities.ts';
import type { CampaignSpec } from '../../src/contracts/campaign-spec.ts';
import type { TeacherRequest } from '../../src/contracts/records.ts';
import { validateSpec } from '../../src/contracts/parse-spec.ts';
import { estimateCampaign } from '../../src/estimate/estimate.ts';
import type { Estimate, Range } from '../../src/estimate/estimate.ts';
import { limitWarnings } from '../../src/estimate/estimator.ts';
import { getRows } from '../../src/store/jsonl.ts';
import { temporaryFolder } from '../support/folder.ts';
import { startOpenAIServer } from '../support/openai-server.ts';
import type { OpenAIServer } from '../support/openai-server.ts';
import { ScriptedActivities } from '../support/scripted-activities.ts';
import { Teaching } from '../support/teaching-campaign.ts';

const PRICE = { inputUsdPerMillion: 2.5, outputUsdPerMillion: 10 };

describe('an estimate', () => {
  const folder = temporaryFolder();
  let server: OpenAIServer;
  let teaching: Teaching;
  let spec: CampaignSpec;
  before(async () => {
    server = await startOpenAIServer({ answer: () => 'positive', models: { 'gpt-4o-mini': { input: PRICE.inputUsdPerMillion, output: PRICE.outputUsdPerMillion } } });
    teaching = new Teaching({ folder });
    const base = teaching.spec('estimated', server.baseUrl, { iterate: { maxRounds: 3 } });
    spec = { ...base, teacher: { ...base.teacher, price: PRICE } };
  });
  after(async () => {
    await teaching[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });

  const estimate = (of: CampaignSpec): Promise<Estimate> => estimateCampaign({ assets: { dataset: (name) => Promise.resolve(name) }, ledger: teaching.ledger }, of);
  const assertRange = ({ low, expected, high }: Range): void => assert.ok(low <= expected && expected <= high, `${low} – ${expected} – ${high}`);

  /** Buys round 1 of the campaign as its activities would. */
  async function buyFirstRound(): Promise<{ readonly usd: number; readonly tokens: number }> {
    const activities = teaching.activities(new ScriptedActivities()) as OrchestratorActivities & TeacherActivities;
    const run = <In, Out>(work: (input: In) => Promise<Out>, input: In): Promise<Out> => new MockActivityEnvironment().run(work, input);
    const { campaign, spec: ref } = await teaching.input(spec);
    const context = { campaign, spec: ref };
    const data: PreparedData = await run(activities.prepareCampaign, context);
    const planned = await run(activities.planRequests, { ...context, data, purpose: 'train', round: 1 });
    const { spending } = await run(activities.sampleBatch, { ...context, requests: planned.requests, from: 0, to: planned.count });
    return spending;
  }

  it('knows that stored completions cost nothing, and what has to be asked besides', async () => {
    const stored = { kind: 'stored-completions' as const, metadata: { task: 'reviews' } };
    const alone = await estimate({ ...spec, sampling: { ...spec.sampling, source: { ...stored, limit: 10_000 } } });
    assert.deepEqual(alone.parts.map(({ what, calls }) => [what, calls.high]), [['training rows', 0], ['development rows', 6], ['test rows', 8]]);
    const source = { kind: 'mixed' as const, sources: [{ ...stored, limit: 10_000, share: 3 }, { kind: 'description' as const, pairsPerCall: 2, plan: { attributes: ['topic'], values: 2 }, share: 1 }] };
    const mixed = await estimate({ ...spec, sampling: { ...spec.sampling, source } });
    assert.equal(mixed.parts[0]?.calls.low, 10, 'a quarter of 40');
  });

  it('counts each draw of a vote, of held-out rows too, which are asked as training rows are', async () => {
    const voted = await estimate({ ...spec, teacher: { ...spec.teacher, temperature: 1 }, sampling: { ...spec.sampling, answersPerInput: 5 } });
    assert.deepEqual(voted.parts.map(({ what, calls }) => [what, calls.low]), [['training rows', 200], ['development rows', 30], ['test rows', 40]]);
    const activities = teaching.activities(new ScriptedActivities()) as OrchestratorActivities & TeacherActivities;
    const { campaign, spec: ref } = await teaching.input({ ...spec, teacher: { ...spec.teacher, temperature: 1 }, sampling: { ...spec.sampling, answersPerInput: 5 } });
    const context = { campaign, spec: ref };
    const run = <In, Out>(work: (input: In) => Promise<Out>, given: In): Promise<Out> => new MockActivityEnvironment().run(work, given);
    const data: PreparedData = await run(activities.prepareCampaign, context);
    const planned = await run(activities.planRequests, { ...context, data, purpose: 'test', round: 0 });
    const requests = await getRows<TeacherRequest>(teaching.store, planned.requests);
    assert.deepEqual([requests.length, new Set(requests.map(({ id }) => id)).size, new Set(requests.map(({ row }) => row?.id)).size], [40, 40, 8]);
    assert.equal(new Set(requests.map(({ sampleIndex, task }) => `${sampleIndex} ${task.parameters.seed}`)).size, 5, 'each draw has an index and a seed of its own');
  });

  it('counts the questions that are planned, in ranges that hold what they truly cost, and nothing that the ledger answers', async () => {
    const before = await estimate(spec);
    assert.equal(server.counts.calls, 0, 'nothing is asked');
    assert.deepEqual(before.parts.map(({ what }) => what), ['training rows', 'development rows', 'test rows']);
    assert.deepEqual(before.rounds, { low: 1, expected: 2, high: 3 });
    // 40 rows and 20 in each later round; 6 development and 8 test rows.
    assert.deepEqual(before.calls, { low: 54, expected: 74, high: 94 });
    for (const range of [before.calls, before.tokens, before.usd, before.callHours]) assertRange(range);
    assert.match(before.basis.join('\n'), /the ledger has none of gpt-4o-mini/);

    const spent = await buyFirstRound();
    const oneRound = (await estimate({ ...spec, iterate: { ...spec.iterate, maxRounds: 1 }, name: 'other-name', task: { ...spec.task, instruction: 'Opinion: {input}\nIs it good?' } })).parts[0];
    assert.ok(oneRound !== undefined && oneRound.usd.low <= spent.usd && spent.usd <= oneRound.usd.high, `${JSON.stringify(oneRound)} against ${spent.usd}`);
    assert.ok(oneRound.tokens.low <= spent.tokens && spent.tokens <= oneRound.tokens.high);
    assert.ok(Math.abs(oneRound.usd.expected / spent.usd - 1) < 0.25, `expected ${oneRound.usd.expected}, spent ${spent.usd}`);

    const after = await estimate(spec);
    assert.equal(after.answeredAlready, 40);
    assert.deepEqual(after.calls, { low: 14, expected: 34, high: 54 });
    assert.match(after.basis.join('\n'), /length of answers: 2\.0 tokens, the mean of gpt-4o-mini in the ledger/);
    assert.ok(after.usd.high < before.usd.high);
  });

  it('sums its parts to the billionth, at half the price for batches', async () => {
    const live = await estimate(spec);
    assert.equal(Math.round(live.usd.high * 1e9), live.parts.reduce((sum, { usd }) => sum + Math.round(usd.high * 1e9), 0));
    const batched = await estimate({ ...spec, teacher: { ...spec.teacher, batch: { deadlineHours: 24 }, price: { ...PRICE, batchShare: 0.5 } } });
    assert.ok(Math.abs(batched.usd.expected / live.usd.expected - 0.5) < 0.01);
    assert.equal(batched.usd.high, live.usd.high, 'what is late is asked one by one');
  });

  it('knows judges, and the size of a student by its name', async () => {
    const { shots: _shots, calibration: _calibration, ...judge } = spec.teacher;
    const judged = validateSpec({ ...spec, task: { ...spec.task, output: { kind: 'text' } }, evaluation: { ...spec.evaluation, scorer: { kind: 'judge', judge, rubric: 'Is it right?' } } });
    const judgements = (await estimate(judged)).parts.find(({ what }) => what === 'judgements') ?? assert.fail('expected judgements');
    assert.deepEqual(judgements.calls, { low: 36, expected: 42, high: 48 }, '6 of the teacher, 6 a round, 3 × 8 on the test rows');
    assertRange(judgements.usd);
    const { trainingHours } = await estimate({ ...spec, student: { provider: 'local', model: 'smollm2-135m-instruct' } });
    assertRange(trainingHours ?? assert.fail('expected hours'));
    assert.equal((await estimate(spec)).trainingHours, undefined);
  });

  it('warns where a limit will be met', async () => {
    const estimated = await estimate(spec);
    assert.deepEqual(limitWarnings({ ...spec, budget: {} }, estimated), []);
    const [likely] = limitWarnings({ ...spec, budget: { tokens: 10 } }, estimated);
    assert.match(likely ?? '', /^budget\.tokens: the campaign is likely to need \d+, and its limit is 10/);
    const [possible] = limitWarnings({ ...spec, budget: { usd: estimated.usd.expected } }, estimated);
    assert.match(possible ?? '', /^budget\.usd: the campaign may need up to \$/);
  });
});
