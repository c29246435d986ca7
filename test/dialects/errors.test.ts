/** What refusals mean, in the words and forms of many servers: spent money, wrong keys, unknown models, limits, outages, one row that is not taken. */
import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import type { StillhouseError } from '../../src/contracts/errors.ts';
import { DIALECT_KEY, DIALECTS, FAILURES } from '../support/dialects/index.ts';
import type { Dialect, Failure } from '../support/dialects/index.ts';
import { ask } from './ask.ts';
import type { Asked, Asking } from './ask.ts';
import { INPUTS, judgedOf, KINDS } from './kinds.ts';
import type { InputName } from './kinds.ts';

const gpt4o = DIALECTS.find(({ name }) => name === 'openai-gpt-4o') as Dialect;
const text = KINDS.find(({ name }) => name === 'text') as (typeof KINDS)[number];
/** The same failure once, under the first of the dialects that share it. */
const cases = [
  ...new Map(DIALECTS.toReversed().flatMap((dialect) => dialect.failures.map((failure) => [JSON.stringify(failure), { dialect, failure, name: `${dialect.name}: ${failure.name}` }] as const))).values(),
  ...FAILURES.map((failure) => ({ dialect: gpt4o, failure, name: failure.name })),
];

const askTexts = (dialect: Dialect, inputs: readonly InputName[], more: Partial<Asking>): Promise<Asked> =>
  ask(dialect, { say: text.say, spec: text.spec, requests: (spec) => text.requests(spec, inputs), timings: { retryBudgetMs: 120 }, ...more });

const CODES = { quota: 'QUOTA_EXHAUSTED', unauthorized: 'UNAUTHORIZED', 'not-found': 'NOT_FOUND', 'rate-limited': 'RATE_LIMITED', unavailable: 'UNAVAILABLE' } as const;

/** What a server tells a person: the longest text under one of the keys that servers put it under. */
function wordsOf(body: unknown, key = 'message'): string {
  if (typeof body === 'string') return /^(message|detail|error|msg)$/.test(key) ? body : '';
  if (typeof body !== 'object' || body === null) return '';
  return Object.entries(body).map(([name, value]) => wordsOf(value, Array.isArray(body) ? key : name)).reduce((longest, words) => (words.length > longest.length ? words : longest), '');
}

/** A person reads what the server said, without its key; of a page, no markup. */
function checkMessage({ reply }: Failure, error: StillhouseError): void {
  assert.ok(!JSON.stringify([error.message, error.stack, error.details, String(error.cause)]).includes(DIALECT_KEY), 'the key leaks');
  if (typeof reply.body === 'string') {
    assert.doesNotMatch(error.message, /<\w+/, 'expected no markup in the message');
    return;
  }
  const start = wordsOf(reply.body).replace(/\{\{.*/s, '').slice(0, 30);
  assert.ok(error.message.includes(start), `expected the server's words ${JSON.stringify(start)} in the message, got ${JSON.stringify(error.message)}`);
}

async function checkStop(dialect: Dialect, failure: Failure, code: string): Promise<void> {
  const { server, error, answers, refused } = await askTexts(dialect, ['good', 'bad'], { failing: failure });
  assert.equal(error?.code, code, `got ${error?.code}: ${error?.message}`);
  assert.equal(answers.size, 0);
  assert.deepEqual(refused, ['good'], 'expected the one question that was asked to count as not bought');
  assert.equal(server.bill.calls, 0);
  assert.ok(server.refused.length <= 2, `expected no trying again, got ${server.refused.length} calls`);
  checkMessage(failure, error as StillhouseError);
}

async function checkPasses(dialect: Dialect, failure: Failure, code: string): Promise<void> {
  const stays = await askTexts(dialect, ['good'], { failing: failure });
  assert.equal(stays.error?.code, code, `got ${stays.error?.code}: ${stays.error?.message}`);
  checkMessage(failure, stays.error as StillhouseError);
  if (failure.waitMs !== undefined) {
    const { retryAfterMs = 0 } = stays.error as StillhouseError;
    assert.ok(retryAfterMs > failure.waitMs * 0.5 && retryAfterMs <= 2_000, `expected a wait of ${failure.waitMs} ms, got ${retryAfterMs}`);
  }
  const startedMs = performance.now();
  const passes = await askTexts(dialect, ['good', 'bad'], { failing: failure, failures: 1, timings: { retryBudgetMs: 4_000 } });
  assert.equal(passes.error, undefined, `got ${passes.error?.code}: ${passes.error?.message}`);
  assert.equal(passes.answers.size, 2);
  const waitedMs = performance.now() - startedMs;
  if (failure.waitMs !== undefined) assert.ok(waitedMs > failure.waitMs * 0.5, `expected a wait of ${failure.waitMs} ms, waited ${waitedMs.toFixed(0)}`);
}

async function checkOneRow(dialect: Dialect, failure: Failure, reason: string): Promise<void> {
  const { answers, error } = await askTexts(dialect, ['good', 'filter', 'bad'], { failing: failure, failingAbout: INPUTS.filter });
  assert.equal(error, undefined, `expected one rejected row, got ${error?.code}: ${error?.message}`);
  assert.equal(answers.size, 3);
  const spec = text.spec({ model: 'm', baseUrl: 'http://127.0.0.1:1', temperature: 0, maxTokens: 512, concurrency: 1 });
  const [request] = text.requests(spec, ['filter']);
  const answer = answers.get('filter');
  assert.ok(request !== undefined && answer !== undefined);
  assert.equal(judgedOf(spec, request, answer)[0]?.reason, reason);
}

async function check(dialect: Dialect, failure: Failure): Promise<void> {
  switch (failure.means) {
    case 'quota':
    case 'unauthorized':
    case 'not-found':
      return checkStop(dialect, failure, CODES[failure.means]);
    case 'rate-limited':
    case 'unavailable':
      return checkPasses(dialect, failure, CODES[failure.means]);
    case 'length':
      return checkOneRow(dialect, failure, 'truncated');
    case 'filter':
      return checkOneRow(dialect, failure, 'refusal');
  }
}

describe('errors', { concurrency: 8 }, () => {
  const failed: string[] = [];
  for (const { dialect, failure, name } of cases) {
    it(`${failure.means}: ${name}`, async () => {
      failed.push(name);
      await check(dialect, failure);
      failed.splice(failed.indexOf(name), 1);
    });
  }

  it('a wrong key and an unknown model, said by the server itself', async () => {
    for (const dialect of DIALECTS) {
      if (dialect.auth !== 'none' && dialect.failures.some(({ means }) => means === 'unauthorized')) {
        const { error } = await askTexts(dialect, ['good'], { key: 'sk-other-0123456789' });
        assert.equal(error?.code, 'UNAUTHORIZED', `${dialect.name}: ${error?.message}`);
        assert.ok(!error?.message.includes('sk-other-0123456789'), `${dialect.name}: the key leaks`);
      }
      if (dialect.failures.some(({ means }) => means === 'not-found')) {
        const { error } = await askTexts(dialect, ['good'], { model: 'no-such-model' });
        assert.equal(error?.code, 'NOT_FOUND', `${dialect.name}: ${error?.message}`);
      }
    }
  });

  after(() => {
    process.stderr.write(`${failed.map((name) => `FAIL  ${name}\n`).join('')}errors read rightly: ${cases.length - failed.length} of ${cases.length}\n`);
  });
});
