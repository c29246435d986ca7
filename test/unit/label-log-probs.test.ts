import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TeacherRequest } from '../../src/contracts/records.ts';
import { labelLogProbs } from '../../src/dataset/label-log-probs.ts';
import type { AnswerToken } from '../../src/dataset/label-log-probs.ts';
import { chooseLabel } from '../../src/dataset/labels.ts';
import { readAnswer } from '../../src/teacher/openai-chat.ts';

type Alternative = readonly [token: string, probability: number | null];
const token = (text: string, ...alternatives: readonly Alternative[]): AnswerToken => ({
  token: text, logProb: null, alternatives: alternatives.map(([each, probability]) => ({ token: each, logProb: probability === null ? null : Math.log(probability) })),
});
/** Probabilities by label, to four digits. */
function probabilities(labels: readonly string[], written: string, ...tokens: readonly AnswerToken[]): Readonly<Record<string, number>> | undefined {
  const logProbs = labelLogProbs(labels, written, tokens);
  if (logProbs === undefined) return undefined;
  assert.ok(Math.abs(logProbs.reduce((sum, value) => sum + Math.exp(value), 0) - 1) < 1e-6);
  return Object.fromEntries(labels.map((label, index) => [label, Math.round(Math.exp(logProbs[index] as number) * 1e4) / 1e4]));
}
const TONE = ['very positive', 'very negative', 'neutral'];
const SURE = ['yes', 'no', 'not sure'];
const SIGN = ['positive', 'negative'];

test('a token that leads to several labels counts for none: the token that tells them apart does', () => {
  const very = token('very', ['very', 0.97], ['neutral', 0.02], ['Very', 0.005]);
  assert.equal(probabilities(TONE, 'very positive', very), undefined, 'the answer ends before the labels differ');
  assert.deepEqual(probabilities(TONE, 'very positive', very, token(' positive', [' positive', 0.8], [' negative', 0.2])), { 'very positive': 0.7838, 'very negative': 0.196, neutral: 0.0202 });
  assert.deepEqual(probabilities(TONE, 'neutral', token('neutral', ['neutral', 0.95], ['very', 0.04])), { 'very positive': 0.0202, 'very negative': 0.0202, neutral: 0.9596 });
});

test('a label that begins another is told by what ends it', () => {
  const no = token('no', ['no', 0.93], ['yes', 0.05], ['not', 0.01]);
  assert.equal(probabilities(SURE, 'no', no), undefined);
  for (const end of ['.', '', '<|im_end|>', '\n']) {
    const found = probabilities(SURE, 'no', no, token(end, [end, 0.99], ['t', 0.01]));
    assert.ok((found?.['no'] ?? 0) > 0.9 && (found?.['yes'] ?? 0) < 0.06, `${JSON.stringify(end)}: ${JSON.stringify(found)}`);
  }
  const labels = ['billing', 'billing refund', 'bug'];
  assert.deepEqual(probabilities(labels, 'billing refund', token('billing', ['billing', 0.9], ['bug', 0.1]), token(' refund', [' refund', 0.8], ['<|eot_id|>', 0.1], ['\n', 0.1])), { billing: 0.18, 'billing refund': 0.72, bug: 0.1 });
});

test('white space, quotes, markup and the spelling of vocabularies before a label do not count', () => {
  const half = { positive: 0.75, negative: 0.25 };
  const choice = (mark: string): AnswerToken => token(`${mark}positive`, [`${mark}positive`, 0.75], [`${mark}negative`, 0.25]);
  for (const mark of ['', ' ', '"', '**', 'Ġ', '▁', '\n']) assert.deepEqual(probabilities(SIGN, 'positive', choice(mark)), half, JSON.stringify(mark));
  assert.deepEqual(probabilities(SIGN, 'positive', token('"', ['"', 0.9], ['negative', 0.06]), choice(''), token('"', ['"', 1])), half);
  assert.deepEqual(probabilities(SIGN, 'positive', token('{"', ['{"', 1]), token('label', ['label', 1]), token('": "', ['": "', 1]), choice(''), token('"}', ['"}', 1])), half);
  assert.deepEqual(probabilities(['-1', '0', '1'], '-1', token('-', ['-', 0.6], ['1', 0.3], ['0', 0.1]), token('1', ['1', 1])), { '-1': 0.6, '0': 0.1, '1': 0.3 });
});

test('a log-probability of null is unknown, and what endpoints write for never is none', () => {
  assert.deepEqual(probabilities(SIGN, 'positive', token('positive', ['positive', 0.9], ['negative', null])), { positive: 0.9, negative: 0.1 });
  assert.equal(probabilities(SIGN, 'positive', token('positive', ['positive', null], ['negative', 0.2])), undefined);
  for (const never of [-9_999, Number.NEGATIVE_INFINITY]) {
    const found = labelLogProbs(SIGN, 'positive', [{ token: 'positive', logProb: -0.5, alternatives: [{ token: 'negative', logProb: never }] }]);
    assert.ok(Math.exp(found?.[1] ?? 0) < 1e-9);
    assert.equal(labelLogProbs(SIGN, 'positive', [{ token: 'positive', logProb: never, alternatives: null }]), undefined);
  }
  for (const none of [undefined, null, [], [{ token: 'positive' }], [{ token: 'maybe', logProb: -0.1, alternatives: [] }]]) assert.equal(labelLogProbs(SIGN, 'positive', none), undefined);
  assert.equal(labelLogProbs(SIGN, 'mixed', [{ token: 'mixed', logProb: -0.1 }]), undefined);
});

test('a label that no alternative leads to gets the most that it can have', () => {
  assert.deepEqual(probabilities(['yes', 'no'], 'yes', token('yes', ['yes', 0.9], ['maybe', 0.06])), { yes: 0.9574, no: 0.0426 });
  assert.deepEqual(probabilities(SURE, 'not sure', token('not', ['not', 0.9], ['no', 0.06], ['yes', 0.04]), token(' sure', [' sure', 1])), { yes: 0.04, no: 0.06, 'not sure': 0.9 }, 'no is no more likely than its token');
});

const request = (labels: readonly string[]): TeacherRequest => ({ id: 'r', purpose: 'train', sampleIndex: 0, task: { kind: 'label', messages: [], labels, parameters: { maxTokens: 20, temperature: 0 } } });
type Completion = Parameters<typeof readAnswer>[1];
/** A completion whose first token alone came with alternatives, as some servers give it. */
function completion(content: string, alternatives: readonly Alternative[] | null): Completion {
  const listed = alternatives?.map(([each, probability]) => ({ token: each, bytes: null, logprob: probability === null ? null : Math.log(probability) }));
  const logprobs = { content: [{ token: listed?.[0]?.token ?? '', bytes: null, logprob: listed?.[0]?.logprob ?? null, top_logprobs: listed ?? null }], refusal: null };
  return { model: 'm', choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content, refusal: null }, logprobs }], usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 } } as unknown as Completion;
}

test("an endpoint's log-probabilities never choose another label than the one that was written", () => {
  const price = { inputUsdPerMillion: 0, cachedInputUsdPerMillion: 0, outputUsdPerMillion: 0 };
  const cases: readonly (readonly [labels: readonly string[], written: string, top: readonly Alternative[] | null])[] = [
    [TONE, 'very positive', [['very', 0.97], ['neutral', 0.02], ['Very', 0.005]]],
    [SURE, 'no', [['no', 0.93], ['yes', 0.05], ['not', 0.01]]],
    [['billing', 'billing dispute', 'bug'], 'billing', [['billing', 0.97], ['bug', 0.02]]],
    [SIGN, 'positive', [['"', 0.9], ['negative', 0.06], ['pos', 0.01]]],
    [SIGN, 'positive', [['negative', 0.7], ['positive', null]]],
    [SIGN, 'positive', null],
  ];
  for (const [labels, written, top] of cases) {
    const answer = readAnswer(request(labels), completion(written, top), price, 1);
    assert.equal(chooseLabel(answer, labels)?.label, written, `${written} of ${labels.join(', ')}`);
  }
});

test('without a calibration the text says which label it is and the log-probabilities how sure; a calibration chooses anew', () => {
  const drawn = { text: 'negative', labelLogProbs: [Math.log(0.7), Math.log(0.3)] };
  const choice = chooseLabel(drawn, SIGN);
  assert.equal(choice?.label, 'negative');
  assert.ok(Math.abs((choice?.confidence ?? 0) - 0.3) < 1e-9);
  assert.equal(chooseLabel({ ...drawn, text: 'hm' }, SIGN), undefined);
  assert.equal(chooseLabel({ text: 'positive', labelLogProbs: drawn.labelLogProbs }, SIGN, { labels: SIGN, priorLogProbs: [Math.log(0.9), Math.log(0.1)], rows: 5 })?.label, 'negative');
});
