/** The proving ground speaks as the published API does: the openai package, unchanged, talks to all of it. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { AzureOpenAI, OpenAI, toFile } from 'openai';
import type { Batch } from 'openai/resources/batches';
import type { FineTuningJob } from 'openai/resources/fine-tuning/jobs/jobs';
import { logNormalLatency, startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';
import type { OpenAIServer, OpenAIServerOptions } from '../support/openai-server.ts';
import { until } from '../support/until.ts';

const MODEL = 'gpt-4o-mini';
const messages = (content: string) => [{ role: 'system' as const, content: 'You answer.' }, { role: 'user' as const, content }];

describe('proving ground', () => {
  let server: OpenAIServer;
  afterEach(() => server[Symbol.asyncDispose]());

  async function connect(options: OpenAIServerOptions = {}): Promise<OpenAI> {
    server = await startOpenAIServer(options);
    return new OpenAI({ apiKey: TEST_KEY, baseURL: server.baseUrl, maxRetries: 0 });
  }
  async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
    const found: T[] = [];
    for await (const item of items) found.push(item);
    return found;
  }

  it('keeps stored completions, and finds, pages, changes and deletes them', async () => {
    const client = await connect();
    for (const index of [0, 1, 2, 3, 4]) await client.chat.completions.create({ model: MODEL, messages: messages(`q${index}`), store: true, metadata: { campaign: 'a', round: String(index % 2) } });
    await client.chat.completions.create({ model: MODEL, messages: messages('unstored') });
    const found = await all(client.chat.completions.list({ metadata: { campaign: 'a', round: '0' }, limit: 2 }));
    assert.deepEqual(found.map((each) => each.choices[0]?.message.content), ['q0', 'q2', 'q4']);
    assert.equal((await all(client.chat.completions.list({ model: 'gpt-4o' }))).length, 0);
    assert.equal((await all(client.chat.completions.list({ order: 'desc' })))[0]?.choices[0]?.message.content, 'q4');
    const id = found[1]?.id ?? '';
    const asked = await all(client.chat.completions.messages.list(id));
    assert.deepEqual(asked.map(({ role, content }) => [String(role), content]), [['system', 'You answer.'], ['user', 'q2']]);
    await client.chat.completions.update(id, { metadata: { campaign: 'b' } });
    assert.deepEqual((await all(client.chat.completions.list({ metadata: { campaign: 'b' } }))).map((each) => each.id), [id]);
    assert.equal((await client.chat.completions.delete(id)).deleted, true);
    await assert.rejects(client.chat.completions.retrieve(id), /404/);
    await assert.rejects(client.chat.completions.create({ model: MODEL, messages: messages('q'), metadata: { a: 'b' } }), /only allowed when 'store'/);
  });

  it('takes files and gives them back', async () => {
    const client = await connect();
    const text = '{"一": 1}\n';
    const file = await client.files.create({ file: await toFile(Buffer.from(text), 'rows.jsonl'), purpose: 'batch' });
    assert.equal(file.bytes, Buffer.byteLength(text));
    assert.equal(await (await client.files.content(file.id)).text(), text);
    assert.deepEqual((await all(client.files.list({ purpose: 'batch' }))).map(({ id }) => id), [file.id]);
    assert.equal((await client.files.delete(file.id)).deleted, true);
    await assert.rejects(client.files.retrieve(file.id), /404/);
    await assert.rejects(client.files.create({ file: await toFile(Buffer.from('a'), 'rows.txt'), purpose: 'fine-tune' }), /must be a \.jsonl file/);
  });

  async function submit(client: OpenAI, count: number): Promise<Batch> {
    const lines = Array.from({ length: count }, (_, index) => JSON.stringify({ custom_id: `r${index}`, method: 'POST', url: '/v1/chat/completions', body: { model: MODEL, messages: messages(`q${index}`) } }));
    const file = await client.files.create({ file: await toFile(Buffer.from(lines.join('\n')), 'in.jsonl'), purpose: 'batch' });
    return client.batches.create({ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h', metadata: { key: 'k' } });
  }
  const rowsOf = async (client: OpenAI, id: string | null | undefined): Promise<{ custom_id: string; response: { status_code: number; body: { choices?: { message: { content: string } }[] } } | null; error: { code: string } | null }[]> =>
    id == null ? [] : (await (await client.files.content(id)).text()).trim().split('\n').map((line) => JSON.parse(line) as never);

  it('runs a batch through its states at half the price, and lists it by its metadata', async () => {
    const client = await connect({ batches: { runningMs: 40 } });
    const batch = await submit(client, 8);
    assert.equal(batch.status, 'validating');
    const seen = new Set<string>();
    const done = await until(() => client.batches.retrieve(batch.id), ({ status }) => (seen.add(status), status === 'completed'), { everyMs: 5 });
    assert.ok(seen.has('in_progress'));
    assert.deepEqual(done.request_counts, { total: 8, completed: 8, failed: 0 });
    const rows = await rowsOf(client, done.output_file_id);
    assert.deepEqual(rows.map((row) => `${row.custom_id} ${row.response?.body.choices?.[0]?.message.content}`).sort(), Array.from({ length: 8 }, (_, index) => `r${index} q${index}`));
    const { promptTokens, completionTokens, usd, billedInBatches } = server.counts;
    assert.ok(Math.abs(usd - (promptTokens * 0.15 + completionTokens * 0.6) / 2e6) < 1e-12);
    assert.equal(billedInBatches, 8);
    assert.deepEqual((await all(client.batches.list())).map(({ metadata }) => metadata), [{ key: 'k' }]);
  });

  it('ends batches in each other way: expired in part, failed in part, invalid, cancelled', async () => {
    const client = await connect({ batches: { expiringShare: 0.5 }, random: evenly(), answer: () => 'x' });
    const first = await submit(client, 8);
    const expired = await until(() => client.batches.retrieve(first.id), ({ status }) => status === 'expired', { everyMs: 5 });
    assert.deepEqual((await rowsOf(client, expired.error_file_id)).map(({ error, response }) => [error?.code, response]), Array(4).fill(['batch_expired', null]));
    assert.equal((await rowsOf(client, expired.output_file_id)).length, 4);
    server.options = { answer: (call) => (call.messages[1]?.content === 'q1' ? { fault: '500' } : 'x') };
    const failing = await submit(client, 3);
    const partly = await until(() => client.batches.retrieve(failing.id), ({ status }) => status === 'completed', { everyMs: 5 });
    assert.deepEqual((await rowsOf(client, partly.error_file_id)).map(({ custom_id, response }) => [custom_id, response?.status_code]), [['r1', 500]]);
    server.options = { batches: { failure: 'The organization has too many enqueued tokens.' } };
    const invalid = await submit(client, 3);
    const failed = await until(() => client.batches.retrieve(invalid.id), ({ status }) => status === 'failed', { everyMs: 5 });
    assert.match(failed.errors?.data?.[0]?.message ?? '', /enqueued tokens/);
    server.options = { batches: { runningMs: 400 } };
    const long = await submit(client, 8);
    await until(() => client.batches.retrieve(long.id), ({ request_counts }) => (request_counts?.completed ?? 0) > 0, { everyMs: 5 });
    assert.equal((await client.batches.cancel(long.id)).status, 'cancelling');
    const cancelled = await until(() => client.batches.retrieve(long.id), ({ status }) => status === 'cancelled', { everyMs: 5 });
    assert.ok((cancelled.request_counts?.completed ?? 8) < 8 && cancelled.output_file_id != null);
    function evenly(): () => number {
      let draws = 0;
      return () => {
        draws += 1;
        return draws % 2 === 1 ? 0.1 : 0.9;
      };
    }
  });

  it('fine-tunes: states, events, checkpoints, a model that answers as it was taught; failures and cancellation', async () => {
    const client = await connect();
    const rows = Array.from({ length: 12 }, (_, index) => JSON.stringify({ messages: [...messages(`q${index}`), { role: 'assistant', content: `taught ${index}` }] }));
    const upload = async (lines: readonly string[]): Promise<string> => (await client.files.create({ file: await toFile(Buffer.from(lines.join('\n')), 'train.jsonl'), purpose: 'fine-tune' })).id;
    const create = (file: string): Promise<FineTuningJob> => client.fineTuning.jobs.create({ model: MODEL, training_file: file, suffix: 'mine', method: { type: 'supervised', supervised: { hyperparameters: { n_epochs: 2 } } }, metadata: { key: 'k' } });
    const file = await upload(rows);
    const job = await create(file);
    assert.equal(job.status, 'validating_files');
    const done = await until(() => client.fineTuning.jobs.retrieve(job.id), ({ status }) => status === 'succeeded', { everyMs: 5 });
    assert.match(done.fine_tuned_model ?? '', /^ft:gpt-4o-mini:test-org:mine:/);
    assert.ok(Math.abs(server.counts.usd - ((done.trained_tokens ?? 0) * 3) / 1e6) < 1e-12);
    assert.ok((await all(client.fineTuning.jobs.listEvents(job.id))).some(({ message }) => /New fine-tuned model created/.test(message)));
    assert.equal((await all(client.fineTuning.jobs.checkpoints.list(job.id)))[0]?.fine_tuning_job_id, job.id);
    const answer = await client.chat.completions.create({ model: done.fine_tuned_model ?? '', messages: messages('q7') });
    assert.equal(answer.choices[0]?.message.content, 'taught 7');
    const few = await create(await upload(rows.slice(0, 3)));
    const failed = await until(() => client.fineTuning.jobs.retrieve(few.id), ({ status }) => status === 'failed', { everyMs: 5 });
    assert.match(failed.error?.message ?? '', /at least 10 examples/);
    server.options = { fineTuning: { runningMs: 5_000 } };
    const long = await create(file);
    assert.equal((await client.fineTuning.jobs.cancel(long.id)).status, 'cancelled');
    server.options = { fineTuning: { closed: true } };
    await assert.rejects(create(file), /no longer available/);
  });

  it('counts and limits each key by itself, and repeats itself on demand', async () => {
    const client = await connect({ keys: [TEST_KEY, 'sk-other'], requestsPerMinute: 3, answer: (_call, index) => (index === 1 ? { content: 'b', fault: 'duplicate' } : 'a') });
    const other = new OpenAI({ apiKey: 'sk-other', baseURL: server.baseUrl, maxRetries: 0 });
    const ask = async (who: OpenAI): Promise<string | null | undefined> => (await who.chat.completions.create({ model: MODEL, messages: messages('q') })).choices[0]?.message.content;
    assert.deepEqual([await ask(client), await ask(client), await ask(client)], ['a', 'a', 'a']);
    await assert.rejects(ask(client), /429/);
    await ask(other);
    assert.deepEqual([...server.counts.byKey.values()].map(({ calls, refusedByLimit }) => [calls, refusedByLimit]), [[4, 1], [1, 0]]);
  });

  it('serves Azure deployments to the api-key header and the right version alone', async () => {
    await connect({ azure: { apiVersion: '2024-10-21' } });
    const azure = (apiVersion: string): OpenAI => new AzureOpenAI({ apiKey: TEST_KEY, baseURL: undefined, endpoint: server.origin, deployment: MODEL, apiVersion, maxRetries: 0 });
    const answer = await azure('2024-10-21').chat.completions.create({ model: MODEL, messages: messages('hello') });
    assert.equal(answer.choices[0]?.message.content, 'hello');
    await assert.rejects(azure('2020-01-01').chat.completions.create({ model: MODEL, messages: messages('hello') }), /404/);
    await assert.rejects(new OpenAI({ apiKey: TEST_KEY, baseURL: server.baseUrl, maxRetries: 0 }).models.list(), /401/);
  });

  it('draws latencies by their median and 95th percentile', async () => {
    await connect();
    const draw = logNormalLatency(100, 400);
    const drawn = Array.from({ length: 20_000 }, draw).sort((a, b) => a - b);
    assert.ok(Math.abs((drawn[10_000] ?? 0) - 100) < 8);
    assert.ok(Math.abs((drawn[19_000] ?? 0) - 400) < 60);
  });
});
