import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { beforeEach, test } from 'node:test';
import type { FastifyInstance } from 'fastify';
import { parse } from 'yaml';
import { buildApp } from '../../src/api/app.ts';
import { listen } from '../../src/api/server.ts';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { CampaignState } from '../../src/contracts/state.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { temporaryFolder } from '../support/folder.ts';
import { MemoryCampaigns, scriptedEstimate } from '../support/memory-campaigns.ts';

const KEY = 'test-key-0123456789';
const text = await readFile(new URL('../../campaigns/review-sentiment.yaml', import.meta.url), 'utf8');
const spec = parse(text) as CampaignSpecInput;

const folder = temporaryFolder();
const store = createFileStore(folder);
let campaigns: MemoryCampaigns;
let app: FastifyInstance;

beforeEach(async () => {
  campaigns = new MemoryCampaigns();
  app = await buildApp({ campaigns, store, apiKey: KEY, hasSecret: (name) => name === 'SET_KEY', estimate: scriptedEstimate });
});

async function call(method: 'GET' | 'POST', url: string, body?: unknown, headers: Record<string, string> = {}) {
  const response = await app.inject({
    method, url, headers: { authorization: `Bearer ${KEY}`, ...headers },
    ...(body === undefined ? {} : { payload: body as object }),
  });
  const isJson = response.headers['content-type']?.toString().startsWith('application/json') === true;
  return { status: response.statusCode, json: (isJson ? response.json() : {}) as Record<string, never> & { error?: { code: string; message: string; details: Record<string, unknown> } }, text: response.body, headers: response.headers };
}

test('a campaign is created once: 201, then 200 with the same spec, 409 with another', async () => {
  const created = await call('POST', '/v1/campaigns', spec);
  assert.equal(created.status, 201, created.text);
  assert.equal(created.headers['location'], '/v1/campaigns/review-sentiment');
  assert.equal((created.json as unknown as { state: CampaignState }).state.stage, 'preparing');

  assert.equal((await call('POST', '/v1/campaigns', spec)).status, 200);
  const yaml = await call('POST', '/v1/campaigns', text, { 'content-type': 'application/yaml' });
  assert.equal(yaml.status, 200, 'the same spec as YAML');

  const other = await call('POST', '/v1/campaigns', { ...spec, seed: 18 });
  assert.equal(other.status, 409);
  assert.equal(other.json.error?.code, 'CONFLICT');
  assert.equal(campaigns.started.size, 1);
});

test('what reaches the workflow: the plan, and the validated spec as an artifact', async () => {
  await call('POST', '/v1/campaigns', spec);
  const { input } = campaigns.started.get('review-sentiment') ?? assert.fail();
  assert.equal(input.plan.epochs, 2);
  assert.deepEqual(input.budget, { usd: 1, hours: 2 });
  const stored = await call('GET', '/v1/campaigns/review-sentiment/artifacts/spec');
  assert.equal((stored.json as unknown as { seed: number }).seed, 17, 'defaults are filled in');
});

test('a check asks and starts nothing, and refuses a spec that is none', async () => {
  const answer = await call('POST', '/v1/campaigns/check', { ...spec, name: 'checked' });
  assert.equal(answer.status, 200, answer.text);
  assert.deepEqual([answer.json['poolRows'], answer.json['leftOut'], answer.json['answers'], answer.json['warnings']], [1, [], [], []]);
  assert.equal((await call('GET', '/v1/campaigns/checked')).status, 404);
  assert.equal((await call('POST', '/v1/campaigns/check', { ...spec, extra: 1 })).status, 400);
});

test('an estimate starts nothing, and warns where a limit will be met', async () => {
  const answer = await call('POST', '/v1/campaigns/estimate', { ...spec, budget: { usd: 0.1, tokens: 5_000 } });
  assert.equal(answer.status, 200, answer.text);
  const { usd, answeredAlready, warnings } = answer.json as unknown as { usd: object; answeredAlready: number; warnings: string[] };
  assert.deepEqual([usd, answeredAlready], [{ low: 0.2, expected: 0.2, high: 0.2 }, 3]);
  assert.deepEqual(warnings, ['budget.usd: the campaign is likely to need $0.20, and its limit is $0.10: at the limit it pauses and says what it needs']);
  assert.equal((await call('POST', '/v1/campaigns/estimate', { ...spec, extra: 1 })).status, 400);
  assert.equal(campaigns.started.size, 0);
});

test('bad specs are 400 with the path of the key, and nothing starts', async () => {
  const cases: [unknown, RegExp][] = [
    [{ ...spec, extra: 1 }, /extra: expected one of the keys .*got an unknown key/],
    [{ ...spec, seed: '17' }, /seed: expected a number, got "17"/],
    [{ ...spec, student: { model: 'smollm9' } }, /student\.model: expected one of smollm2-135m-instruct, .*got "smollm9"/],
    [{ ...spec, sampling: { ...spec.sampling, source: { kind: 'inputs', dataset: 'rows.jsonl' } } }, /sampling\.source\.dataset: expected an absolute path/],
    [{ ...spec, sampling: { ...spec.sampling, source: { kind: 'inputs', dataset: '/no/rows.jsonl' } } }, /expected a file that exists/],
    [{ ...spec, sampling: { ...spec.sampling, source: { kind: 'inputs', dataset: 'catalogue:nope' } } }, /hutto-reviews-gold/],
    [[], /expected a mapping/],
  ];
  for (const [body, message] of cases) {
    const answer = await call('POST', '/v1/campaigns', body);
    assert.equal(answer.status, 400, answer.text);
    assert.equal(answer.json.error?.code, 'BAD_INPUT');
    assert.match(answer.json.error.message, message);
  }
  assert.equal(campaigns.started.size, 0);
});

test('bodies that are no JSON, no YAML, of an unknown type', async () => {
  assert.equal((await call('POST', '/v1/campaigns', '{', { 'content-type': 'application/json' })).status, 400);
  const yaml = await call('POST', '/v1/campaigns', 'name: [', { 'content-type': 'application/yaml' });
  assert.equal(yaml.status, 400);
  assert.match(yaml.json.error?.message ?? '', /expected YAML or JSON/);
  assert.equal((await call('POST', '/v1/campaigns', 'x', { 'content-type': 'text/csv' })).status, 415);
});

test('a hosted teacher without its key is a 400 that names the variable; with it the campaign starts', async () => {
  const hosted = (apiKeyEnv: string) => ({ ...spec, teacher: { ...spec.teacher, provider: 'openai', model: 'gpt-4o', calibration: 'none', apiKeyEnv } });
  const refused = await call('POST', '/v1/campaigns', hosted('MISSING_KEY'));
  assert.equal(refused.status, 400);
  assert.match(refused.json.error?.message ?? '', /teacher\.apiKeyEnv: expected an API key in the environment variable MISSING_KEY/);
  assert.equal(campaigns.started.size, 0);
  assert.equal((await call('POST', '/v1/campaigns', hosted('SET_KEY'))).status, 201);
});

test('every route but health and the OpenAPI document wants the key', async () => {
  for (const authorization of ['', 'Bearer wrong', `Basic ${KEY}`, `Bearer ${KEY}x`]) {
    const answer = await call('GET', '/v1/campaigns', undefined, { authorization });
    assert.equal(answer.status, 401, authorization);
    assert.equal(answer.json.error?.code, 'UNAUTHORIZED');
    assert.ok(!answer.text.includes(KEY));
  }
  assert.equal((await call('GET', '/v1/health', undefined, { authorization: '' })).status, 200);
  assert.equal((await call('GET', '/v1/openapi.json', undefined, { authorization: '' })).status, 200);
  assert.equal((await call('GET', '/v1/campaigns')).status, 200);
});

test('pause, resume, raise the budget, cancel', async () => {
  await call('POST', '/v1/campaigns', spec);
  const url = '/v1/campaigns/review-sentiment';
  const state = async (path: string, body: unknown) => (await call('POST', `${url}/${path}`, body)).json as unknown as CampaignState;
  assert.deepEqual([(await state('pause', { reason: 'lunch' })).pauseReason, (await state('resume', {})).status], ['lunch', 'running']);
  assert.deepEqual((await state('budget', { usd: 5 })).budget, { usd: 5 });
  assert.equal((await state('cancel', {})).status, 'cancelled');
  assert.equal((await call('POST', `${url}/pause`, undefined)).status, 200, 'without a body');

  for (const [path, body, message] of [
    ['budget', {}, /expected at least one of usd, tokens, hours/],
    ['budget', { usd: '5' }, /usd: expected a number, got "5"/],
    ['budget', { euros: 5 }, /euros: expected one of the keys usd, tokens, hours, got an unknown key/],
    ['pause', { why: 'x' }, /why: expected one of the keys reason/],
  ] as const) {
    const answer = await call('POST', `${url}/${path}`, body);
    assert.equal(answer.status, 400, answer.text);
    assert.match(answer.json.error?.message ?? '', message);
  }
});

test('unknown campaigns, names and routes', async () => {
  assert.equal((await call('GET', '/v1/campaigns/none')).status, 404);
  assert.equal((await call('GET', '/v1/campaigns/Bad_Name')).status, 400);
  const route = await call('GET', '/v2/x');
  assert.equal(route.status, 404);
  assert.match(route.json.error?.message ?? '', /GET \/v2\/x/);
});

test('the report and artifacts appear with the state that names them', async () => {
  await call('POST', '/v1/campaigns', spec);
  const url = '/v1/campaigns/review-sentiment';
  const early = await call('GET', `${url}/report`);
  assert.equal(early.status, 404);
  assert.match(early.json.error?.message ?? '', /expected a finished report, got a campaign whose stage is preparing/);

  const entry = campaigns.started.get('review-sentiment') ?? assert.fail();
  const member = await store.put('file', Buffer.from([1, 2, 255]));
  const adapter = await store.put('adapter', JSON.stringify({ files: [{ path: 'adapter_model.safetensors', sha256: member.sha256, sizeBytes: 3 }] }));
  entry.state = { ...entry.state, report: await store.put('report', '<!doctype html><p>é'), adapter };
  const page = await call('GET', `${url}/report`);
  assert.equal(page.status, 200);
  assert.match(String(page.headers['content-type']), /^text\/html/);
  assert.equal(page.text, '<!doctype html><p>é');

  const raw = await app.inject({ url: `${url}/artifacts/adapter?path=adapter_model.safetensors`, headers: { authorization: `Bearer ${KEY}` } });
  assert.deepEqual([...raw.rawPayload], [1, 2, 255]);
  assert.equal((await call('GET', `${url}/artifacts/adapter?path=../x`)).status, 404);
  assert.equal((await call('GET', `${url}/artifacts/nonsense`)).status, 400);
  assert.equal((await call('GET', `${url}/artifacts/manifest`)).status, 404);
});

test('failures on our side hide their text', async () => {
  campaigns.away = true;
  const health = await call('GET', '/v1/health');
  assert.equal(health.status, 503);
  assert.ok(!health.text.includes('secret-host'));
  campaigns.away = false;
  campaigns.list = () => Promise.reject(new Error('password=1'));
  const broken = await call('GET', '/v1/campaigns');
  assert.equal(broken.status, 500);
  assert.deepEqual([broken.json.error?.code, broken.text.includes('password')], ['INTERNAL', false]);
});

test('the OpenAPI document knows every route and the spec', async () => {
  const document = (await call('GET', '/v1/openapi.json')).json as unknown as { openapi: string; paths: Record<string, Record<string, { requestBody?: { content: Record<string, { schema: { properties: object } }> } }>> };
  assert.match(document.openapi, /^3\.1/);
  assert.deepEqual(Object.keys(document.paths).sort(), [
    '/v1/campaigns', '/v1/campaigns/check',
      '/v1/campaigns/estimate', '/v1/campaigns/{name}', '/v1/campaigns/{name}/artifacts/{kind}', '/v1/campaigns/{name}/budget', '/v1/campaigns/{name}/cancel',
    '/v1/campaigns/{name}/fork', '/v1/campaigns/{name}/pause', '/v1/campaigns/{name}/report', '/v1/campaigns/{name}/resume', '/v1/campaigns/{name}/spec', '/v1/campaigns/{name}/teacher', '/v1/health',
  ]);
  const schema = document.paths['/v1/campaigns']?.['post']?.requestBody?.content['application/json']?.schema;
  assert.ok('training' in (schema?.properties ?? {}));
});

test('a port in use is one message with the port and the setting', async () => {
  const first = await listen(app, { host: '127.0.0.1', port: 0 });
  const port = Number(new URL(first.url).port);
  const second = await buildApp({ campaigns, store, apiKey: KEY, hasSecret: () => true, estimate: scriptedEstimate });
  await assert.rejects(listen(second, { host: '127.0.0.1', port }), (error: unknown) => {
    assert.ok(error instanceof StillhouseError && error.code === 'IN_USE');
    assert.match(error.message, new RegExp(`port ${port} .*STILLHOUSE_API_PORT`));
    return true;
  });
  await first.close();
});
