import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { validateSpec } from '../../src/contracts/parse-spec.ts';
import { labelOf } from '../../src/dataset/labels.ts';
import { labelSpec } from '../support/rows.ts';

type Readings = readonly (readonly [text: string, label: string | undefined])[];
function reads(labels: readonly string[], readings: Readings): void {
  for (const [text, label] of readings) assert.equal(labelOf(text, labels), label, `${JSON.stringify(text)} among ${labels.join(', ')}`);
}
const TONES = ['positive', 'negative', 'neutral'];

test('labels that differ in a sign or in punctuation are told apart', () => {
  reads(['-1', '0', '1'], [['-1', '-1'], ['1', '1'], ['0', '0'], ['−1', '-1'], ['1.', '1'], ['-1.', '-1'], ['"-1"', '-1'], ['Answer: -1', '-1'], ['Answer: 1', '1'], ['The answer is -1.', '-1'], ['{"label": -1}', '-1'], ['- 1', undefined], ['+1', undefined], ['10', undefined]]);
  reads(['1', '0', '-1'], [['1', '1'], ['-1', '-1']]);
  reads(['0', '1'], [['-1', undefined], ['.1', undefined], ['1%', undefined]]);
  reads(['#1', '1'], [['#1', '#1'], ['1', '1']]);
  reads(['.NET', 'NET', 'Java'], [['.NET', '.NET'], ['NET', 'NET'], ['.net', '.NET'], ['net.', 'NET'], ['The answer is .NET.', '.NET']]);
  reads(['C', 'C++', 'C#'], [['C', 'C'], ['C++', 'C++'], ['c#.', 'C#'], ['**C++**', 'C++'], ['Answer: C', 'C']]);
  reads(['yes.', 'yes!'], [['yes.', 'yes.'], ['yes!', 'yes!'], ['yes', undefined]]);
  reads(['👍', '👎'], [['👍', '👍'], ['The answer is 👎', '👎']]);
});

test('a label that holds a colon, or begins another label, is read as a whole', () => {
  reads(['billing: refund', 'refund'], [['billing: refund', 'billing: refund'], ['Team: billing: refund', 'billing: refund'], ['Label: billing: refund', 'billing: refund'], ['Label: refund', 'refund']]);
  reads(['billing', 'refund'], [['Label: billing: refund', undefined]]);
  reads(['yes', 'no', 'not sure'], [['no', 'no'], ['not sure', 'not sure'], ['No.', 'no'], ['Answer: not sure', 'not sure'], ['I am not sure', undefined], ['No, it is not.', undefined]]);
  reads(['very positive', 'very negative', 'positive'], [['very positive', 'very positive'], ['Very_Positive', 'very positive'], ['very-negative.', 'very negative'], ['very', undefined], ['The tone is very positive.', 'very positive']]);
  reads(['account_access', 'bug'], [['Account Access', 'account_access']]);
});

test('quotes, markup, JSON, boxes, announcements, sentences and explanations around a label are read', () => {
  reads(TONES, [
    [' Positive. ', 'positive'], ['"positive"', 'positive'], ['“positive”', 'positive'], ['**Positive**.', 'positive'], ['`positive`', 'positive'], ['(positive)', 'positive'], ['- positive', 'positive'], ['# positive', 'positive'],
    ['POSITIVE!!!', 'positive'], ['ｐｏｓｉｔｉｖｅ', 'positive'], ['positive\u200B', 'positive'],
    ['{"label": "positive"}', 'positive'], ['```json\n{"label": "positive"}\n```', 'positive'], ['```\npositive\n```', 'positive'], ['Here: {"label":"negative","reason":"not positive"}', 'negative'], ['{"sentiment":"positive","confidence":0.9}', 'positive'], ['["positive"]', 'positive'], ['"sentiment": "positive"', 'positive'],
    ['\\boxed{positive}', 'positive'], ['So it is $\\boxed{\\text{negative}}$.', 'negative'], ['<answer>neutral</answer>', 'neutral'],
    ['Answer - negative', 'negative'], ['Sentiment = positive', 'positive'], ['the label is: "neutral"', 'neutral'], ['Answer:\n**negative**', 'negative'], ['Sentiment (positive or negative): positive', 'positive'],
    ['The answer is **positive**.', 'positive'], ['The sentiment of this review is negative.', 'negative'], ['I would classify this as neutral.', 'neutral'], ['Overall, the sentiment is negative', 'negative'],
    ['It is slow and dull.\nFinal answer: negative', 'negative'], ['Sentiment: positive\nOn second thought, no.\nFinal answer: negative', 'negative'],
    ['The battery did not last. Sentiment: negative', 'negative'], ['It has positive sides, but not many. The sentiment is negative.', 'negative'],
    ['negative because the battery died', 'negative'], ['negative (95% sure)', 'negative'], ['negative\n\nThe reviewer is not positive at all.', 'negative'], ['Label: positive\nConfidence: 0.9', 'positive'],
  ]);
  reads(['A', 'B', 'C'], [['\\boxed{B}', 'B'], ['B) Paris', 'B'], ['B. Paris', 'B'], ['(B)', 'B'], ['The correct answer is (C).', 'C'], ['Answer: B or C', undefined]]);
  reads(['0', '1'], [['{"label":"0","confidence":1}', '0'], ['Label: 0\nConfidence: 1', '0']]);
  reads(['中性', '积极'], [['情感：积极。', '积极'], ['答案是积极', '积极'], ['答案不是积极', undefined], ['中性或积极', undefined]]);
});

test('a text that merely mentions a label, or names several, names none', () => {
  const texts = [
    '', '   ', 'not positive', 'positive or negative', 'positive/negative', 'positive, negative', 'positively', 'I think it might be positive but negative is likelier', 'The answer is not positive.', "It isn't positive",
    'Answer: not positive', 'Never positive: negative', 'Neither positive nor negative', 'Positive? No, negative.', 'This could be positive.', 'Options:\n- positive\n- negative', '1. positive\n2. negative', 'positive\nnegative', 'positive: negative',
    'Answer: positive\nAnswer: negative', 'negative. The positive part is small', '["positive","negative"]', '{"label":"positive","answer":"negative"}', '{"label": "neither", "reason": "positive"}', 'The opposite of negative is positive', 'Answer: positive. Wait, the answer is negative.', "I can't decide whether it's positive.",
  ];
  reads(TONES, texts.map((text) => [text, undefined]));
});

test('thousands of labels and long texts are read at once', () => {
  const labels = Array.from({ length: 5_000 }, (_, index) => `intent number ${index}`);
  labelOf('', labels);
  const startedMs = performance.now();
  for (let index = 0; index < 2_000; index += 1) assert.equal(labelOf(`The answer is **intent number ${index}**.`, labels), `intent number ${index}`);
  for (const text of ['a: b '.repeat(4_000), 'the x is y '.repeat(4_000), '{"'.repeat(9_000), '*'.repeat(50_000)]) assert.equal(labelOf(text, labels), undefined);
  assert.ok(performance.now() - startedMs < 10_000, `${performance.now() - startedMs} ms`);
});

const withLabels = (labels: readonly string[]): unknown => ({ ...labelSpec(), task: { description: 'd', output: { kind: 'label', labels } } });

test('a spec whose labels an answer cannot tell apart is refused with both of them', () => {
  for (const [one, other] of [['Yes', 'yes'], ['a  b', 'a b'], ['Ｘ', 'x'], ['x', 'x'], ['don’t', "don't"], ['Straße', 'STRASSE']] as const) {
    assert.throws(() => validateSpec(withLabels(['first', one, other])), (error: unknown) => {
      assert.ok(error instanceof StillhouseError);
      assert.equal(error.message, `spec: task.output.labels: expected labels that are not blank and differ in more than letter case, width and white space, got ${JSON.stringify(one)} and ${JSON.stringify(other)}`);
      return true;
    });
  }
  assert.throws(() => validateSpec(withLabels(['first', ' '])), /not blank/);
  for (const labels of [['-1', '0', '1'], ['.NET', 'NET'], ['C', 'C++'], ['yes', 'yes!']]) validateSpec(withLabels(labels));
});
