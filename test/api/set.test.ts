/** Settings of a campaign under way, over REST: which can be changed, what would do the rest, and when they count. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import type { FastifyInstance } from 'fastify';
import { buildApp } from '../../src/api/app.ts';
import { withSettings } from '../../src/cli/settings.ts';
import type { CampaignSpec, CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import type { CampaignState } from '../../src/contracts/state.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getJson } from '../../src/store/jsonl.ts';
import { temporaryFolder } from '../support/folder.ts';
import { MemoryCampaigns, scriptedEstimate } from '../support/memory-campaigns.ts';

const KEY = 'test-key-0123456789';
const SPEC: CampaignSpecInput = {
  name: 'tickets',
  task: { description: 'Route a ticket.', output: { kind: 'label', labels: ['billing', 'bug'] } },
  teacher: { provider: 'openai', model: 'local-model', baseUrl: 'http://127.0.0.1:8000/v1', apiKeyEnv: 'SET_KEY', price: { inputUsdPerMillion: 1, outputUsdPerMillion: 2 } },
  sampling: { source: { kind: 'inputs', dataset: 'catalogue:hutto-reviews-pool' }, rows: 10 },
  student: { model: 'smollm2-135m-instruct' },
  filter: { maxClassRatio: 2 },
  evaluation: { source: { kind: 'dataset', dataset: 'catalogue:hutto-reviews-gold' }, developmentRows: 5, testRows: 5, scorer: { kind: 'label' } },
};

const store = createFileStore(temporaryFolder());
let campaigns: MemoryCampaigns;
let app: FastifyInstance;
beforeEach(async () => {
  campaigns = new MemoryCampaigns();
  app = await buildApp({ campaigns, store, apiKey: KEY, hasSecret: (name) => name === 'SET_KEY', estimate: scriptedEstimate });
  await start(SPEC);
});

type Answer = CampaignState & { readonly notes: readonly string[]; readonly error: { readonly code: string; readonly message: string } };
async function call(method: 'POST' | 'PATCH', url: string, body: unknown): Promise<{ readonly status: number; readonly json: Answer }> {
  const response = await app.inject({ method, url, headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' }, payload: JSON.stringify(body) });
  return { status: response.statusCode, json: response.json() as Answer };
}
async function start(spec: CampaignSpecInput): Promise<void> {
  const { status, json } = await call('POST', '/v1/campaigns', spec);
  assert.equal(status, 201, JSON.stringify(json));
}
/** As `still set` sends it. */
const set = (settings: readonly string[], name = 'tickets') => call('PATCH', `/v1/campaigns/${name}/spec`, withSettings({}, settings, 'set'));
async function specAfter(settings: readonly string[], name = 'tickets'): Promise<CampaignSpec> {
  const { status, json } = await set(settings, name);
  assert.equal(status, 200, JSON.stringify(json));
  return getJson<CampaignSpec>(store, json.changedSpec ?? assert.fail('expected a changed spec'));
}

test('settings are changed one upon the other, optional ones taken away, and the plan goes with them', async () => {
  const first = await specAfter(['training.maxTokens=1024', 'filter.minConfidence=0.8', 'iterate.maxRounds=3', 'teacher.concurrency=2', 'teacher.limits.requestsPerMinute=60', 'evaluation.bootstrapResamples=500', 'sampling.batchSize=8']);
  assert.deepEqual([first.training.maxTokens, first.filter.minConfidence, first.filter.maxClassRatio, first.iterate.maxRounds, first.teacher.concurrency, first.teacher.limits?.requestsPerMinute, first.sampling.batchSize], [1024, 0.8, 2, 3, 2, 60, 8]);
  assert.equal(first.teachers, undefined, 'the teacher is the same');
  assert.deepEqual([campaigns.set[0]?.plan.maxRounds, campaigns.set[0]?.plan.concurrentBatches], [3, 4]);
  const second = await specAfter(['filter.maxClassRatio=', 'training.lora.r=8']);
  assert.deepEqual([second.filter.maxClassRatio, second.training.lora?.r, second.training.lora?.alpha, second.training.maxTokens], [undefined, 8, 32, 1024]);
  assert.equal(campaigns.set[1]?.replaces, campaigns.set[0]?.spec.sha256);
});

test('it says when the settings count, and whether a training begins anew', async () => {
  const anew = await set(['training.learningRate=0.001']);
  assert.match(anew.json.notes.join('\n'), /begins anew from its first epoch, after the epoch that runs now: training\.learningRate was 0\.0002 and is 0\.001/);
  assert.match(campaigns.set[0]?.outdates ?? '', /training\.learningRate/);
  const goesOn = await set(['training.checkpointEverySteps=5']);
  assert.deepEqual([goesOn.json.notes, campaigns.set[1]?.outdates], [['a training that is under way goes on from its checkpoint'], undefined]);
  assert.match((await set(['filter.minConfidence=0.5'])).json.notes.join(), /from the next dataset on/);
});

test('another method or all weights take the settings of the one before away', async () => {
  assert.deepEqual((await specAfter(['training.tune=full'])).training.lora, undefined);
  const back = await specAfter(['training.tune=lora', 'training.lora={ r: 4 }']);
  assert.equal(back.training.lora?.r, 4);
});

test('a change of teacher in between keeps its place in the list of teachers', async () => {
  await call('PATCH', '/v1/campaigns/tickets/teacher', { model: 'gpt-4o', baseUrl: null });
  const spec = await specAfter(['teacher.concurrency=3', 'filter.minConfidence=0.4']);
  assert.deepEqual(spec.teachers?.map(({ model, concurrency }) => [model, concurrency]), [['local-model', 16], ['gpt-4o', 3]]);
  const setTeacher = campaigns.setTeacher.bind(campaigns);
  campaigns.setTeacher = (name, change) => setTeacher(name, { ...change, replaces: 'f'.repeat(64) });
  assert.equal((await set(['teacher.concurrency=4'])).status, 409, 'two changes at once cannot undo each other');
});

test('what cannot be set is refused in one message that says what would do it, and nothing changes', async () => {
  for (const [settings, message] of [
    [['teacher.model=gpt-4o'], /^teacher\.model: expected one of filter\.\*, training\.\*.*got a key that what was bought or evaluated depends on; still teacher tickets --model/],
    [['budget.usd=5'], /^budget\.usd: .*still budget tickets --usd/],
    [['task.instruction=x'], /^task\.instruction: .*still fork tickets --from-round N --spec FILE/],
    [['sampling.rows=3'], /^sampling\.rows: .*still fork/],
    [['evaluation.testRows=3'], /^evaluation\.testRows: .*a new campaign/],
    [['student.keepLayers=3'], /^student\.keepLayers: .*still fork/],
    [['seed=3'], /^seed: .*still fork/],
    [['name=other'], /^name: .*still fork tickets --from-round N --name/],
    [['teachers=[]'], /^teachers: .*got an unknown key$/],
    [['__proto__.x=1'], /__proto__.*got an unknown key$|not valid JSON/],
    [['constructor=1'], /^constructor: .*got an unknown key$/],
    [['trainig.epochs=1'], /^trainig\.epochs: .*got an unknown key$/],
    [['training.epoch=1'], /training\.epoch: expected one of the keys method, .*got an unknown key/],
    [['training.epochs=many'], /training\.epochs: expected a number|whole number, got "many"/],
    [['training.epochs=0'], /training\.epochs: expected a number of at least 1, got 0/],
    [['training=3'], /training: expected a mapping/],
    [['filter.minInputCharacters=50', 'filter.maxInputCharacters=5'], /filter\.minInputCharacters: expected at most maxInputCharacters = 5, got 50/],
    [['training.method=logit'], /training\.teacher: expected a model to learn from/],
    [['training.maxTokens=512'], /expected a change, got what is set already \(training\.maxTokens\)/],
    [['training.maxTokens='], /expected a change, got what is set already/],
    [[], /expected at least one/],
  ] as const) {
    const { status, json } = await set(settings);
    assert.equal(status, 400, `${settings.join(' ')}: ${JSON.stringify(json)}`);
    assert.match(json.error.message.replace(/^settings: /, ''), message);
  }
  for (const body of [[], 'text', null]) assert.equal((await call('PATCH', '/v1/campaigns/tickets/spec', body)).status, 400);
  for (const text of ['training.epochs', '=3', 'a..b=1', 'training.epochs=[1', '']) assert.throws(() => withSettings({}, [text], 'set'), /^StillhouseError: set: (expected KEY=VALUE|training\.epochs: expected a value in YAML)/);
  assert.equal((await campaigns.describe('tickets')).state?.changedSpec, undefined);
  assert.equal((await set(['training.epochs=2'], 'none')).status, 404);
});

test('a teacher at an endpoint has several batches in flight, a local one has one, after a change as from the start', async () => {
  await call('PATCH', '/v1/campaigns/tickets/teacher', { provider: 'local', model: 'smollm2-135m-instruct', baseUrl: null, price: null });
  assert.equal(campaigns.teachers.at(-1)?.plan?.concurrentBatches, 1);
});
