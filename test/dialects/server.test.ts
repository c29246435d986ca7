/** The proving ground itself: a dialect's server counts, refuses, cuts and bills as its data says. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DIALECT_KEY, DIALECTS, FAILURES, startDialectServer, SUBJECTS } from '../support/dialects/index.ts';
import type { Dialect, DialectServer } from '../support/dialects/index.ts';

const named = (name: string): Dialect => {
  const found = DIALECTS.find((dialect) => dialect.name === name);
  assert.ok(found !== undefined, `expected the dialect ${name}`);
  return found;
};

interface Choice {
  readonly finish_reason: string;
  readonly message: { readonly content: unknown };
  readonly logprobs: { readonly content: readonly { readonly token: string; readonly top_logprobs: readonly unknown[] }[] };
}
interface Reply {
  readonly status: number;
  /** As far as these tests look into it; `choice` is its first. */
  readonly body: { readonly choices?: readonly Choice[]; readonly usage?: { readonly completion_tokens: number }; readonly message?: unknown; readonly error?: { readonly code: unknown } };
  readonly choice: Choice | undefined;
}
async function post(server: DialectServer, more: Readonly<Record<string, unknown>> = {}, key = DIALECT_KEY): Promise<Reply> {
  const { dialect } = server;
  const query = new URLSearchParams(dialect.query).toString();
  const response = await fetch(`${server.baseUrl}/chat/completions${query === '' ? '' : `?${query}`}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(dialect.auth === 'api-key' ? { 'api-key': key } : { authorization: `Bearer ${key}` }) },
    body: JSON.stringify({ model: dialect.model, messages: [{ role: 'user', content: 'Good or bad?' }], ...more }),
  });
  const text = await response.text();
  const json = text.trim().startsWith('data:') ? text.trim().slice('data:'.length).split('\n\n')[0] ?? '' : text;
  const body = JSON.parse(json) as Reply['body'];
  return { status: response.status, body, choice: body.choices?.[0] };
}

describe('servers of dialects', () => {
  it('have distinct names, sources for every behaviour, and an answer to a plain question', async () => {
    assert.equal(new Set(DIALECTS.map(({ name }) => name)).size, DIALECTS.length);
    assert.equal(new Set(FAILURES.map(({ name }) => name)).size, FAILURES.length);
    for (const dialect of DIALECTS) {
      assert.equal(new Set(dialect.rules.map(({ name }) => name)).size, dialect.rules.length, `${dialect.name}: distinct names of rules`);
      await using server = await startDialectServer(dialect, { say: () => 'good' });
      const { status, body } = await post(server);
      assert.equal(status, 200, `${dialect.name}: ${JSON.stringify(body)}`);
      assert.match(JSON.stringify(body), /good/, dialect.name);
      assert.equal(server.bill.calls, 1);
    }
  });

  it('refuse in the order of their rules, with values of the call as they are, and bill nothing', async () => {
    await using server = await startDialectServer(named('mistral'), { say: () => 'good' });
    const { status, body } = await post(server, { max_completion_tokens: 64 });
    assert.equal(status, 422);
    assert.deepEqual(body.message, { detail: [{ type: 'extra_forbidden', loc: ['body', 'max_completion_tokens'], msg: 'Extra inputs are not permitted', input: 64 }] });
    assert.deepEqual(server.refused.map(({ by }) => by), ['extra input']);
    assert.equal(server.bill.usd, 0);
  });

  it('list keys that nobody documents', async () => {
    await using server = await startDialectServer(named('openai-gpt-4o'), { say: () => 'good' });
    await post(server, { seed: 1, top_k: 5 });
    assert.deepEqual([...server.unknownKeys], ['top_k']);
  });

  it('count reasoning against the limit and bill it, shown or not', async () => {
    for (const name of ['openai-gpt-5', 'vllm-reasoning-parser', 'vllm-think-unopened', 'mistral-magistral']) {
      await using server = await startDialectServer(named(name), { say: () => 'good' });
      const limit = name.startsWith('mistral') ? 'max_tokens' : 'max_completion_tokens';
      const cut = await post(server, { [limit]: 20 });
      assert.equal(cut.choice?.finish_reason, 'length', name);
      assert.doesNotMatch(JSON.stringify(cut.body), /good/, name);
      assert.equal(server.bill.completionTokens, 20, name);
      const whole = await post(server, { [limit]: 400 });
      assert.equal(whole.choice?.finish_reason, 'stop', name);
      assert.equal(server.bill.completionTokens, 20 + (whole.body.usage?.completion_tokens ?? 0), name);
    }
  });

  it('give the log-probabilities of what they wrote, at most as many as they have', async () => {
    await using server = await startDialectServer(named('fireworks'), { say: () => 'good and bad' });
    const { choice } = await post(server, { logprobs: true, top_logprobs: 5 });
    const tokens = choice?.logprobs.content ?? [];
    assert.equal(tokens.map(({ token }) => token).join(''), choice?.message.content);
    assert.ok(tokens.length > 0 && tokens.every(({ top_logprobs: top }) => top.length === 5));
    assert.equal((await post(server, { logprobs: true, top_logprobs: 20 })).status, 400);
  });

  it('turn away a wrong key and an unknown model, and fail once where an outage passes', async () => {
    await using server = await startDialectServer(named('openrouter'), { say: () => 'good' });
    assert.equal((await post(server, {}, 'sk-wrong')).status, 401);
    const about = { messages: [{ role: 'user', content: SUBJECTS.outage }] };
    assert.equal((await post(server, about)).body.error?.code, 502);
    assert.equal((await post(server, about)).choice?.message.content, 'good');
    await using vllm = await startDialectServer(named('vllm-0.9'), { say: () => 'good' });
    assert.equal((await post(vllm, { model: 'other' })).body.message, 'The model `other` does not exist.');
  });
});
