import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { packSoftTargets, unpackSoftTargets } from '../../src/dataset/soft-targets.ts';
import type { SoftTarget } from '../../src/dataset/soft-targets.ts';
import { DataHome } from '../support/data-home.ts';
import type { ChatCall, ScriptedAnswer } from '../support/openai-server.ts';

/** Half a step of the format. */
const TOLERANCE_NATS = 0.5 / 2_048 + 1e-9;

/** Answers of a model with a vocabulary of 5,000 tokens whose probabilities fall as Zipf's law says. */
function drawn(positions: number, topK: number, seed: number): readonly SoftTarget[] {
  const random = createRandom(seed, 'soft');
  const vocabulary = Array.from({ length: 5_000 }, (_, index) => ` w${index.toString(36)}`);
  return Array.from({ length: positions }, () => {
    const tokens = Array.from({ length: topK }, () => vocabulary[Math.floor(random() ** 3 * vocabulary.length)] as string);
    let left = 1;
    const alternatives = [...new Set(tokens)].map((token) => {
      const probability = left * (0.3 + 0.6 * random());
      left -= probability;
      return { token, logProb: Math.log(probability) };
    });
    return { ...(alternatives[random() < 0.9 ? 0 : Math.floor(random() * alternatives.length)] as (typeof alternatives)[number]), alternatives };
  });
}

test('soft targets come back as they were packed, the most probable first', () => {
  const targets: readonly SoftTarget[] = [
    { token: 'Hello', logProb: -0.1, alternatives: [{ token: '好', logProb: -4.25 }, { token: 'Hello', logProb: -0.1 }, { token: '👍', logProb: -9_999 }] },
    { token: ' world', logProb: -12.5, alternatives: [{ token: 'Hello', logProb: 0 }] },
    { token: '\ufffd', bytes: [0xe4, 0xbd], logProb: -1, alternatives: [{ token: '\ufffd', bytes: [0xe4], logProb: -0.5 }] },
    { token: 'alone', logProb: -3, alternatives: [] },
  ];
  const packed = packSoftTargets(targets);
  const read = unpackSoftTargets(packed);
  assert.deepEqual(read.map(({ token }) => token), ['Hello', ' world', Buffer.from([0xe4, 0xbd]).toString(), 'alone']);
  assert.deepEqual(read[0]?.alternatives.map(({ token }) => token), ['Hello', '好', '👍']);
  assert.deepEqual([...Buffer.from(read[2]?.bytes as Uint8Array)], [0xe4, 0xbd], 'a token that is a part of a character keeps its bytes');
  assert.ok(Math.abs((read[0]?.alternatives[2]?.logProb ?? 0) + 32) < 0.01, 'what is less probable than e^-32 is that');
  assert.equal(read[1]?.logProb, -12.5);
  assert.equal(packSoftTargets(read), packed, 'the same targets give the same bytes');
  assert.deepEqual(unpackSoftTargets(packSoftTargets([])), []);
  for (const broken of ['', 'AAAA', packed.slice(0, 40)]) assert.throws(() => unpackSoftTargets(broken), (error: unknown) => error instanceof StillhouseError && error.code === 'CORRUPT', broken);
});

test('log-probabilities are kept to half a thousandth of a nat in less than 100 bytes a token at k = 20', (context) => {
  const targets = drawn(400, 20, 5);
  const packed = packSoftTargets(targets);
  const read = unpackSoftTargets(packed);
  targets.forEach((target, position) => {
    const found = read[position] as SoftTarget;
    assert.equal(found.token, target.token);
    assert.equal(found.alternatives.length, target.alternatives.length);
    for (const { token, logProb } of target.alternatives) {
      const kept = found.alternatives.find((each) => each.token === token);
      assert.ok(Math.abs((kept?.logProb ?? 1) - Math.max(logProb, -65_535 / 2_048)) <= TOLERANCE_NATS, `${token} ${logProb} ${kept?.logProb}`);
    }
  });
  const bytes = (base64: string): number => Buffer.from(base64, 'base64').length;
  const perToken = bytes(packed) / targets.length;
  context.diagnostic(`${perToken.toFixed(1)} bytes a token at k = 20 and 400 tokens; as JSON ${(Buffer.byteLength(JSON.stringify(targets)) / targets.length).toFixed(0)}`);
  assert.ok(perToken < 100, `${perToken}`);
});

const words = (text: string): ScriptedAnswer => ({
  content: text,
  tokens: text.split(/(?= )/).map((token) => ({ token, logprob: -0.25, top: [{ token, logprob: -0.25 }, { token: ' perhaps', logprob: -2 }, { token: '也许', logprob: -3 }] })),
});
const judge = { kind: 'judge' as const, rubric: 'r', judge: { provider: 'openai' as const, model: 'gpt-4o' } };

async function textHome(without: readonly 'logprobs'[], answer: (call: ChatCall, index: number) => ScriptedAnswer | string) {
  const home = await DataHome.start({ without, answer });
  const sentences = Array.from({ length: 16 }, (_, index) => drawn(6, 1, index).map(({ token }) => token).join('').trim());
  const tasks = home.file('tasks.jsonl', sentences.map((input) => ({ input })));
  const spec = (onMissing: 'continue' | 'refuse', rows = 2) => home.spec({
    name: onMissing, task: { description: 'Write.', output: { kind: 'text' } }, sampling: { source: { kind: 'tasks', dataset: tasks }, rows, softTargets: { topK: 2, onMissing } }, teacher: { concurrency: 1 },
    evaluation: { source: { kind: 'held-out', rows: 2 }, developmentRows: 1, testRows: 1, scorer: judge },
  });
  return { home, spec };
}

test("an endpoint's log-probabilities go through the ledger to the sample", async () => {
  const { home, spec } = await textHome([], (_call, index) => words(`Answer number ${index} is this`));
  await using _home = home;
  const { samples } = await home.round(spec('refuse'), await home.prepare(spec('refuse')));
  assert.deepEqual([home.server.received[0]?.logprobs, home.server.received[0]?.top_logprobs], [true, 2]);
  assert.equal(samples.length, 2);
  for (const { output, softTargets } of samples) {
    const targets = unpackSoftTargets(softTargets ?? '');
    assert.equal(targets.map(({ token }) => token).join(''), output);
    assert.ok(targets.every(({ alternatives }) => alternatives.length === 2 && alternatives[1]?.token === ' perhaps'));
  }
});

test('without log-probabilities the campaign goes on with the text alone, or stops at the first answer, as the spec says', async () => {
  const { home, spec } = await textHome(['logprobs'], (_call, index) => `Answer number ${index}`);
  await using _home = home;
  const data = await home.prepare(spec('continue'));
  const { samples } = await home.round(spec('continue'), data);
  assert.ok(samples.length === 2 && samples.every(({ softTargets }) => softTargets === undefined));
  const other = await textHome(['logprobs'], () => 'text');
  await using refusing = other.home;
  const insisting = other.spec('refuse', 12);
  await assert.rejects(refusing.round(insisting, await refusing.prepare(insisting)), (error: unknown) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && /sampling\.softTargets: expected log-probabilities with the answers of gpt-4o-mini, got none with train-1-0/.test(error.message));
  const { billedCalls } = refusing.server.counts;
  assert.ok(billedCalls <= 2, `${billedCalls} of 12: the first, and one that was under way when it had been read`);
  assert.equal((await refusing.ledger.totals()).calls, billedCalls, 'what was bought is kept');
});
