/** Another teacher, and another campaign from a finished round, over REST. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import type { FastifyInstance } from 'fastify';
import { buildApp } from '../../src/api/app.ts';
import type { CampaignHistory } from '../../src/contracts/activities.ts';
import type { CampaignSpec, CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import type { CampaignState, RoundSummary } from '../../src/contracts/state.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getJson, putJson } from '../../src/store/jsonl.ts';
import { temporaryFolder } from '../support/folder.ts';
import { MemoryCampaigns, scriptedEstimate } from '../support/memory-campaigns.ts';
import { refOf } from '../support/scripted-activities.ts';

const KEY = 'test-key-0123456789';
const spec: CampaignSpecInput = {
  name: 'tickets',
  task: { description: 'Route a ticket.', output: { kind: 'label', labels: ['billing', 'bug'] } },
  teacher: { provider: 'openai', model: 'local-model', baseUrl: 'http://127.0.0.1:8000/v1', apiKeyEnv: 'SET_KEY', price: { inputUsdPerMillion: 1, outputUsdPerMillion: 2 } },
  sampling: { source: { kind: 'inputs', dataset: 'catalogue:hutto-reviews-pool' }, rows: 10 },
  student: { model: 'smollm2-135m-instruct' },
  evaluation: { source: { kind: 'dataset', dataset: 'catalogue:hutto-reviews-gold' }, developmentRows: 5, testRows: 5, scorer: { kind: 'label' } },
};

const folder = temporaryFolder();
const store = createFileStore(folder);
let campaigns: MemoryCampaigns;
let app: FastifyInstance;
beforeEach(async () => {
  campaigns = new MemoryCampaigns();
  app = await buildApp({ campaigns, store, apiKey: KEY, hasSecret: (name) => name === 'SET_KEY', estimate: scriptedEstimate });
  assert.equal((await call('POST', '/v1/campaigns', spec)).status, 201);
});

async function call<T = { readonly error: { readonly code: string; readonly message: string } }>(method: 'POST' | 'PATCH', url: string, body: unknown): Promise<{ readonly status: number; readonly json: T; readonly text: string }> {
  const response = await app.inject({ method, url, headers: { authorization: `Bearer ${KEY}` }, payload: body as object });
  return { status: response.statusCode, json: response.json() as T, text: response.body };
}
const specOf = (state: CampaignState): Promise<CampaignSpec> => getJson<CampaignSpec>(store, state.changedSpec ?? assert.fail('expected a changed spec'));

test('another teacher joins the list, the same one with other settings takes its own place, and a price goes with its model', async () => {
  const url = '/v1/campaigns/tickets/teacher';
  const settings = await call<CampaignState>('PATCH', url, { concurrency: 3 });
  assert.equal(settings.status, 200, settings.text);
  const quicker = await specOf(settings.json);
  assert.equal(quicker.teachers, undefined);
  assert.deepEqual([quicker.teacher.concurrency, quicker.teacher.price], [3, { inputUsdPerMillion: 1, outputUsdPerMillion: 2 }]);

  const other = await specOf((await call<CampaignState>('PATCH', url, { model: 'gpt-4o', baseUrl: null })).json);
  assert.deepEqual(other.teachers?.map(({ model }) => model), ['local-model', 'gpt-4o']);
  assert.deepEqual([other.teacher.model, other.teacher.baseUrl, other.teacher.price, other.teacher.concurrency], ['gpt-4o', undefined, undefined, 3]);
  const third = await specOf((await call<CampaignState>('PATCH', url, { model: 'gpt-4o-mini' })).json);
  assert.deepEqual(third.teachers?.map(({ model }) => model), ['local-model', 'gpt-4o', 'gpt-4o-mini']);
});

test('a change that cannot be is a 400 with its reason, and changes nothing', async () => {
  for (const [body, message] of [
    [{}, /expected at least one key of a teacher, got none/],
    [{ model: 'local-model' }, /expected a change, got the teacher as it is/],
    [{ modle: 'gpt-4o' }, /modle: expected one of the keys provider, model, .*got an unknown key/],
    [{ concurrency: '3' }, /concurrency: expected a whole number|a number, got "3"/],
    [{ apiKeyEnv: 'MISSING_KEY' }, /teacher\.apiKeyEnv: expected an API key in the environment variable MISSING_KEY/],
    [{ shots: [] }, /shots: expected one of the keys/],
  ] as const) {
    const { status, json } = await call('PATCH', '/v1/campaigns/tickets/teacher', body);
    assert.equal(status, 400, JSON.stringify(body));
    assert.match(json.error.message, message);
  }
  assert.equal((await campaigns.describe('tickets')).state?.changedSpec, undefined);
  assert.equal((await call('PATCH', '/v1/campaigns/none/teacher', { concurrency: 2 })).status, 404);
});

test('two changes at once: the second is a 409', async () => {
  const set = campaigns.setTeacher.bind(campaigns);
  campaigns.setTeacher = (name, change) => set(name, { ...change, replaces: 'f'.repeat(64) });
  assert.equal((await call('PATCH', '/v1/campaigns/tickets/teacher', { concurrency: 2 })).status, 409);
});

const summary = (round: number): RoundSummary => ({
  round, requests: round * 10, accepted: 5, rejected: 0, dataset: refOf('dataset', round), checkpoint: refOf('checkpoint', round), lossCurve: refOf('loss-curve', round),
  lossFirstNats: 2, lossLastNats: 1, teacherScore: 1, studentScore: 0.5, retention: { mean: 0.5, low: 0.4, high: 0.6 }, stageMs: {},
});

test('a fork starts with the rounds before, the requests of its own, and every teacher that answered them', async () => {
  await call('PATCH', '/v1/campaigns/tickets/teacher', { model: 'gpt-4o', baseUrl: null });
  const history: CampaignHistory = {
    rounds: [summary(1), summary(2)], requests: [refOf('requests', 1), refOf('requests', 2)], developmentEvaluations: [refOf('evaluation', 1), refOf('evaluation', 2)],
    development: { rows: refOf('rows', 1), requests: refOf('requests', 'development') },
  };
  campaigns.change('tickets', { history: await putJson(store, 'history', history) });
  const forked = await call('POST', '/v1/campaigns/tickets/fork', { name: 'tickets-2', fromRound: 2 });
  assert.equal(forked.status, 201, forked.text);
  const { input } = campaigns.started.get('tickets-2') ?? assert.fail('expected it to be started');
  assert.deepEqual([input.fork?.campaign, input.fork?.round, input.fork?.requestsBefore], ['tickets', 2, 10]);
  assert.deepEqual([input.fork?.requests, input.fork?.development], [history.requests[1], history.development]);
  const before = await getJson<CampaignHistory>(store, input.fork?.history ?? assert.fail());
  assert.deepEqual(before.rounds.map(({ round }) => round), [1]);
  const own = await getJson<CampaignSpec>(store, input.spec);
  assert.deepEqual([own.name, own.teachers?.map(({ model }) => model)], ['tickets-2', ['local-model', 'gpt-4o']]);
  assert.equal((await call('POST', '/v1/campaigns/tickets/fork', { name: 'tickets-2', fromRound: 2 })).status, 200, 'the same again is the same campaign');

  const filtered = await call('POST', '/v1/campaigns/tickets/fork', { name: 'tickets-3', fromRound: 1, spec: { ...spec, filter: { minConfidence: 0.9 } } });
  assert.equal(filtered.status, 201, filtered.text);
  const third = campaigns.started.get('tickets-3') ?? assert.fail();
  assert.deepEqual((await getJson<CampaignSpec>(store, third.input.spec)).teachers?.map(({ model }) => model), ['local-model', 'gpt-4o', 'local-model'], 'its own teacher is asked what is new');

  const late = await call('POST', '/v1/campaigns/tickets/fork', { name: 'tickets-4', fromRound: 3 });
  assert.deepEqual([late.status, late.json.error.message], [400, 'fromRound: expected one of the 2 finished rounds of tickets, got 3']);
  assert.equal((await call('POST', '/v1/campaigns/tickets/fork', { name: 'tickets', fromRound: 1 })).status, 409, 'a name that is taken');
  assert.equal((await call('POST', '/v1/campaigns/tickets-2/fork', { name: 'x', fromRound: 0 })).status, 400);
});
