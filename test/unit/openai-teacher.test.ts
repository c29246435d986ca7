import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import type { EndpointSpec } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { TeacherAnswer, TeacherRequest, TeacherTask } from '../../src/contracts/records.ts';

import { createOpenAITeacher } from '../../src/teacher/openai.ts';
import type { CallTimings } from '../../src/teacher/openai.ts';
import { listedPrice, priceOf } from '../../src/teacher/prices.ts';
import { retryAfterMs } from '../../src/teacher/rate-headers.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';
import type { OpenAIServer, OpenAIServerOptions } from '../support/openai-server.ts';

const CANARY = 'sk-canary-9f8e7d6c5b4a39281706';
const FAST: Partial<CallTimings> = { attemptTimeoutMs: 400, retryBudgetMs: 4_000, firstRetryDelayMs: 5, maxRetryDelayMs: 50, stopGraceMs: 200 };

const endpointAt = (baseUrl: string, extra: Partial<EndpointSpec> = {}): EndpointSpec => ({
  provider: 'openai', model: 'gpt-4o-mini', baseUrl, apiKeyEnv: 'TEST_KEY', temperature: 0, maxTokens: 64, concurrency: 8, ...extra,
});
const parameters = { maxTokens: 64, temperature: 0 };
const text = (content: string, index = 0): TeacherRequest => ({
  id: `train-1-${index}`, purpose: 'train', sampleIndex: 0, task: { kind: 'text', messages: [{ role: 'user', content }], parameters },
});
const labelTask: TeacherTask = { kind: 'label', messages: [{ role: 'user', content: 'Good or bad?' }], labels: ['negative', 'positive'], parameters };
const jsonTask: TeacherTask = {
  kind: 'json',
  messages: [{ role: 'user', content: 'Write pairs.' }],
  schemaName: 'pairs',
  schema: { type: 'object', properties: { pairs: { type: 'array', items: { type: 'string' } } }, required: ['pairs'], additionalProperties: false },
  parameters,
};
const ofTask = (task: TeacherTask): TeacherRequest => ({ id: 'train-1-0', purpose: 'train', sampleIndex: 0, task });

interface Asked {
  readonly answers: Map<string, TeacherAnswer>;
  readonly asked: string[];
  readonly refused: string[];
  readonly error: StillhouseError | undefined;
}

describe('OpenAI teacher', () => {
  let server: OpenAIServer | undefined;
  afterEach(async () => {
    await server?.[Symbol.asyncDispose]();
    server = undefined;
  });

  async function ask(options: OpenAIServerOptions, requests: readonly TeacherRequest[], more: { readonly endpoint?: Partial<EndpointSpec>; readonly key?: string; readonly timings?: Partial<CallTimings>; readonly signal?: AbortSignal } = {}): Promise<Asked> {
    server = await startOpenAIServer(options);
    await using teacher = createOpenAITeacher({ endpoint: endpointAt(server.baseUrl, more.endpoint), readKey: () => more.key ?? TEST_KEY, timings: { ...FAST, ...more.timings } });
    const result = { answers: new Map<string, TeacherAnswer>(), asked: [] as string[], refused: [] as string[] };
    let error: StillhouseError | undefined;
    await teacher
      .ask(requests, {
        ...(more.signal === undefined ? {} : { signal: more.signal }),
        onAsk: async (asked) => {
          result.asked.push(...asked.map(({ id }) => id));
          return undefined;
        },
        onRefused: async (refused) => void result.refused.push(...refused.map(({ id }) => id)),
        onAnswers: async (answers) => answers.forEach(({ request, answer }) => result.answers.set(request.id, answer)),
      })
      .catch((caught: unknown) => {
        assert.ok(caught instanceof StillhouseError, String(caught));
        error = caught;
      });
    return { ...result, error };
  }

  it('asks many at once, counts what they cost, and agrees with the bill', async () => {
    const requests = Array.from({ length: 60 }, (_, index) => text(`question ${index} é`, index));
    const { answers, asked, error } = await ask({ latencyMs: 20, answer: (call) => `answer to ${call.messages[0]?.content}` }, requests);
    assert.equal(error, undefined);
    assert.equal(answers.size, 60);
    assert.equal(answers.get('train-1-7')?.text, 'answer to question 7 é');
    assert.equal(new Set(asked).size, 60);
    const usd = [...answers.values()].reduce((sum, answer) => sum + answer.costUsd, 0);
    assert.ok(Math.abs(usd - (server?.counts.usd ?? 0)) < 1e-12);
    assert.equal(server?.counts.mostInFlight, 8);
    const bounds = requests.map((request) => createOpenAITeacher({ endpoint: endpointAt('http://127.0.0.1/v1'), readKey: () => '' }).upperBound(request));
    requests.forEach((request, index) => assert.ok((bounds[index]?.usd ?? 0) >= (answers.get(request.id)?.costUsd ?? Infinity)));
  });

  it('gets every answer through faults of every passing kind', async () => {
    const requests = Array.from({ length: 120 }, (_, index) => text(`q${index}`, index));
    const faults = { '429': 0.05, '500': 0.05, '503': 0.05, reset: 0.05, 'reset-after-work': 0.03, stall: 0.02, 'truncated-body': 0.05 } as const;
    const { answers, error } = await ask({ faults }, requests, { timings: { retryBudgetMs: 20_000 } });
    assert.equal(error, undefined);
    assert.equal(answers.size, 120);
    for (const status of ['200', '429', '500', '503', 'reset']) assert.ok((server?.counts.statuses.get(status) ?? 0) > 0, `expected some ${status}`);
  });

  it('records refusals, filtered and cut answers as answers', async () => {
    const kinds = ['refusal', 'content-filter', 'content-filter-400', 'truncated-json', 'broken-schema', 'context-length'] as const;
    const requests = kinds.map((kind, index): TeacherRequest => ({ ...ofTask({ ...jsonTask, messages: [{ role: 'user', content: kind }] }), id: String(index) }));
    const { answers, error } = await ask({ answer: (call) => ({ content: '{"pairs": ["a", "b"]}', fault: call.messages[0]?.content as (typeof kinds)[number] }) }, requests);
    assert.equal(error, undefined);
    assert.deepEqual(kinds.map((_, index) => answers.get(String(index))?.finishReason), ['refusal', 'content_filter', 'content_filter', 'length', 'stop', 'length']);
    assert.equal(answers.get('3')?.text, '{"pairs": [');
  });

  it('stops at a wrong key, an unknown model and an empty account, with one clear message that has no key in it', async () => {
    const requests = Array.from({ length: 20 }, (_, index) => text(`q${index}`, index));
    const cases = [
      { options: {}, key: CANARY, code: 'UNAUTHORIZED', message: /^expected http:\S+ to accept the key in TEST_KEY for the model gpt-4o-mini, got 401: Incorrect API key provided: \[key\]/ },
      { options: { keys: [CANARY], models: {} }, key: CANARY, code: 'NOT_FOUND', message: /^expected the model gpt-4o-mini at http:\S+, got 404: The model `gpt-4o-mini` does not exist/ },
      { options: { exhaustedKeys: [CANARY] }, key: CANARY, code: 'QUOTA_EXHAUSTED', message: /^expected quota left for the key in TEST_KEY .* got 429: You exceeded your current quota/ },
    ] as const;
    for (const { options, key, code, message } of cases) {
      const { answers, asked, refused, error } = await ask(options, requests, { key });
      assert.equal(error?.code, code);
      assert.match(error?.message ?? '', message);
      assert.ok(!JSON.stringify([error, error?.message, error?.stack, String(error?.cause)]).includes(CANARY), 'the key leaks');
      assert.equal(answers.size, 0);
      assert.ok(asked.length <= 8, 'stops at the first permanent failure');
      assert.deepEqual(refused.sort(), asked.sort(), 'what was refused was not bought');
      await server?.[Symbol.asyncDispose]();
    }
  });

  it('keeps what had arrived when a later call fails for good', async () => {
    const requests = Array.from({ length: 30 }, (_, index) => text(`q${index}`, index));
    let calls = 0;
    server = await startOpenAIServer({
      latencyMs: 10,
      answer: (call) => {
        calls += 1;
        if (calls === 12 && server !== undefined) server.options = { ...server.options, keys: [] };
        return call.messages[0]?.content ?? '';
      },
    });
    const kept: string[] = [];
    const teacher = createOpenAITeacher({ endpoint: endpointAt(server.baseUrl), readKey: () => TEST_KEY, timings: FAST });
    await assert.rejects(
      teacher.ask(requests, { onAnswers: async (answers) => void kept.push(...answers.map(({ request }) => request.id)) }),
      (error: unknown) => error instanceof StillhouseError && error.code === 'UNAUTHORIZED',
    );
    assert.equal(kept.length, server.counts.billedCalls);
    assert.ok(kept.length >= 12 && kept.length < 30);
  });

  it('gives up within its budget when the provider is down, and says when to come back', async () => {
    const down = await ask({ answer: () => ({ fault: '503' }) }, [text('q')], { timings: { retryBudgetMs: 150 } });
    assert.equal(down.error?.code, 'UNAVAILABLE');
    assert.ok((server?.counts.calls ?? 0) > 2);
    await server?.[Symbol.asyncDispose]();
    const limited = await ask({ requestsPerMinute: 1, retryAfter: 'seconds' }, [text('a'), text('b', 1)]);
    assert.equal(limited.error?.code, 'RATE_LIMITED');
    assert.ok((limited.error?.retryAfterMs ?? 0) > 30_000);
    assert.equal(limited.answers.size, 1);
    assert.deepEqual(limited.refused, limited.asked.filter((id) => !limited.answers.has(id)));
  });

  it('uses what the endpoint permits and hardly runs into its limit', async () => {
    const requests = Array.from({ length: 240 }, (_, index) => text(`q${index}`, index));
    const startedMs = performance.now();
    // 100 a second after a first burst of 25.
    const { answers, error } = await ask({ requestsPerMinute: 6_000, enforcedOverMs: 250, latencyMs: 15 }, requests);
    const seconds = (performance.now() - startedMs) / 1_000;
    assert.equal(error, undefined);
    assert.equal(answers.size, 240);
    const permitted = 25 + 100 * seconds;
    const refused = server?.counts.statuses.get('429') ?? 0;
    assert.ok(240 / permitted >= 0.8, `expected at least 80 % of ${permitted.toFixed(0)} permitted calls, got 240 in ${seconds.toFixed(2)} s`);
    assert.ok(refused <= 8, `expected hardly any 429, got ${refused}`);
  });

  it('asks for a JSON schema, and without one where the endpoint has none', async () => {
    const request = ofTask(jsonTask);
    const full = await ask({ answer: () => '{"pairs":["一"]}' }, [request]);
    assert.equal(full.answers.get(request.id)?.text, '{"pairs":["一"]}');
    assert.equal(server?.received[0]?.response_format?.json_schema?.strict, true);
    await server?.[Symbol.asyncDispose]();
    const poorer = await ask({ without: ['json_schema'], answer: () => '{"pairs":[]}' }, [request, { ...request, id: 'second' }], { endpoint: { concurrency: 1 } });
    assert.equal(poorer.answers.size, 2);
    assert.deepEqual(server?.received.map((call) => call.response_format?.type), ['json_object', 'json_object']);
    assert.equal(server?.counts.statuses.get('400'), 1, 'learns once');
  });

  it('reads labels with their log-probabilities where the endpoint gives them, and does without', async () => {
    const request = ofTask(labelTask);
    const topLogprobs = [{ token: 'Positive', logprob: Math.log(0.7) }, { token: 'neg', logprob: Math.log(0.2) }, { token: ' positive', logprob: Math.log(0.05) }];
    const full = await ask({ answer: () => ({ content: 'Positive.', topLogprobs }) }, [request]);
    const answer = full.answers.get(request.id);
    assert.equal(answer?.text, 'positive');
    assert.ok(Math.abs(Math.exp(answer?.labelLogProbs?.[1] ?? 0) - 0.75 / 0.95) < 1e-6);
    await server?.[Symbol.asyncDispose]();
    const poorer = await ask({ without: ['logprobs', 'max_tokens'], answer: () => 'unsure' }, [request]);
    assert.equal(poorer.answers.get(request.id)?.text, 'unsure');
    assert.equal(poorer.answers.get(request.id)?.labelLogProbs, undefined);
  });

  it('ends soon when it is stopped, with calls in flight kept', async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 60);
    const requests = Array.from({ length: 100 }, (_, index) => text(`q${index}`, index));
    const { answers, error } = await ask({ latencyMs: 40 }, requests, { signal: controller.signal });
    assert.equal(error?.code, 'CANCELLED');
    assert.equal(answers.size, server?.counts.billedCalls);
    assert.ok(answers.size > 0 && answers.size < 100);
  });
});

describe('limits and prices', () => {
  it('reads Retry-After in each of its forms', () => {
    const nowMs = Date.parse('2026-11-24T07:00:00Z');
    assert.equal(retryAfterMs(new Headers({ 'retry-after': '2' }), nowMs), 2_000);
    assert.equal(retryAfterMs(new Headers({ 'retry-after': '2', 'retry-after-ms': '150' }), nowMs), 150);
    assert.equal(retryAfterMs(new Headers({ 'retry-after': 'Tue, 24 Nov 2026 07:00:05 GMT' }), nowMs), 5_000);
    assert.equal(retryAfterMs(new Headers({ 'retry-after': 'soon' }), nowMs), undefined);
    assert.equal(retryAfterMs(new Headers(), nowMs), undefined);
  });

  it('knows prices by family and dated snapshot, and asks for the others', () => {
    assert.equal(listedPrice('gpt-4o-mini-2024-07-18')?.outputUsdPerMillion, 0.6);
    assert.equal(listedPrice('gpt-4o-2024-05-13')?.inputUsdPerMillion, 5);
    assert.equal(listedPrice('gpt-4o')?.retiresOn, '2027-01-14');
    assert.equal(listedPrice('gpt-4o-audio'), undefined);
    const unknown = endpointAt('https://llm.example.com/v1', { model: 'in-house' });
    assert.throws(() => priceOf(unknown, 'https://llm.example.com/v1'), /expected a price for the model in-house/);
    assert.equal(priceOf(unknown, 'http://localhost:8000/v1').inputUsdPerMillion, 0);
    assert.equal(priceOf({ ...unknown, price: { inputUsdPerMillion: 3, outputUsdPerMillion: 4 } }, 'https://llm.example.com/v1').outputUsdPerMillion, 4);
  });
});
