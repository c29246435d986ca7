/** Endpoints that want their key elsewhere, further headers or a query. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { EndpointSpec } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { TeacherAnswer, TeacherRequest } from '../../src/contracts/records.ts';
import { createOpenAITeacher } from '../../src/teacher/openai.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';

const API_VERSION = '2024-10-21';
const GATEWAY_CANARY = 'gw-canary-7d1f0a9b3c';
const request: TeacherRequest = { id: 'r', purpose: 'train', sampleIndex: 0, task: { kind: 'text', messages: [{ role: 'user', content: 'hello' }], parameters: { maxTokens: 8, temperature: 0 } } };

async function ask(endpoint: Partial<EndpointSpec>, secrets: Readonly<Record<string, string>>): Promise<TeacherAnswer | undefined> {
  const spec: EndpointSpec = { provider: 'openai', model: 'gpt-4o-mini', apiKeyEnv: 'AZURE_KEY', temperature: 0, maxTokens: 8, concurrency: 1, ...endpoint };
  await using teacher = createOpenAITeacher({
    endpoint: spec,
    readKey: (name) => secrets[name] ?? assert.fail(`unexpected secret ${name}`),
    timings: { retryBudgetMs: 100, firstRetryDelayMs: 1 },
  });
  let answer: TeacherAnswer | undefined;
  await teacher.ask([request], { onAnswers: async (answers) => void (answer = answers[0]?.answer) });
  return answer;
}

describe('endpoints', () => {
  it('asks an Azure deployment: the key in its own header, the version in the query', async () => {
    await using server = await startOpenAIServer({ azure: { apiVersion: API_VERSION } });
    const azure = { baseUrl: `${server.origin}/openai/deployments/gpt-4o-mini/`, keyHeader: 'api-key', query: { 'api-version': API_VERSION } };
    assert.equal((await ask(azure, { AZURE_KEY: TEST_KEY }))?.text, 'hello');
    await assert.rejects(ask({ ...azure, query: { 'api-version': '1999-01-01' } }, { AZURE_KEY: TEST_KEY }), /got 404: Resource not found/);
    await assert.rejects(ask({ ...azure, keyHeader: undefined } as Partial<EndpointSpec>, { AZURE_KEY: TEST_KEY }), (error: unknown) => error instanceof StillhouseError && error.code === 'UNAUTHORIZED' && !error.message.includes(TEST_KEY));
  });

  it('puts named secrets into headers, and into no message', async () => {
    await using server = await startOpenAIServer({ requiredHeaders: { 'x-gateway-token': `Basic ${GATEWAY_CANARY}` } });
    const gateway = { baseUrl: server.baseUrl, headers: { 'x-gateway-token': 'Basic ${GATEWAY_TOKEN}' } };
    assert.equal((await ask(gateway, { AZURE_KEY: TEST_KEY, GATEWAY_TOKEN: GATEWAY_CANARY }))?.text, 'hello');
    await assert.rejects(ask(gateway, { AZURE_KEY: TEST_KEY, GATEWAY_TOKEN: `${GATEWAY_CANARY}-wrong` }), (error: unknown) => {
      assert.ok(error instanceof StillhouseError);
      assert.match(error.message, /got 403: The header x-gateway-token is wrong: Basic \[key\]/);
      assert.ok(!JSON.stringify([error.message, error.stack, error.details]).includes(GATEWAY_CANARY));
      return true;
    });
  });

  it('takes no written secret in a spec, and does not repeat one', () => {
    const spec = { name: 'x', task: { description: 'd', output: { kind: 'text' } }, student: { model: 's' }, sampling: { source: { kind: 'tasks', dataset: 't.jsonl' }, rows: 1 }, evaluation: { source: { kind: 'held-out', rows: 2 }, developmentRows: 1, testRows: 1, scorer: { kind: 'judge', judge: { provider: 'openai', model: 'gpt-4o' }, rubric: 'r' } } };
    const teacher = { provider: 'openai', model: 'gpt-4o', headers: { 'api-key': GATEWAY_CANARY } };
    const refused = campaignSpecSchema.safeParse({ ...spec, teacher });
    assert.match(refused.error?.message ?? '', /expected the name of an environment variable in the form \$\{NAME\}/);
    assert.ok(!(refused.error?.message ?? '').includes(GATEWAY_CANARY));
    assert.ok(campaignSpecSchema.safeParse({ ...spec, teacher: { ...teacher, headers: { 'api-key': '${AZURE_KEY}', 'x-team': 'search' } } }).success);
  });
});
