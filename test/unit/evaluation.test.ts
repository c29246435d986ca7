import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { InputRow, Prediction, TeacherAnswer, TeacherRequest } from '../../src/contracts/records.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { evaluate } from '../../src/evaluation/evaluate.ts';
import type { Evaluation } from '../../src/evaluation/evaluation.ts';
import { judgedScore, scoreShare } from '../../src/evaluation/judge-score.ts';
import { judgementId, planJudgements, readJudgement, teacherTexts } from '../../src/evaluation/judge.ts';
import { classScores, confusionMatrix, macroF1, meanInterval, quantile, retentionInterval } from '../../src/evaluation/metrics.ts';
import { scoreFormat } from '../../src/evaluation/report/score-format.ts';
import { getJson, getRows, putJson, putRows } from '../../src/store/jsonl.ts';
import type { Teacher } from '../../src/teacher/teacher.ts';
import { answer, labelSpec, reader, request, row, workspace } from '../support/rows.ts';

test('F1 and macro F1 equal the textbook computation', () => {
  // y_true = a a a b b c, y_pred = a a b b none a: F1 of a 2/3, of b 1/2, of c 0; macro 7/18.
  const labels = ['a', 'b', 'c', 'd'];
  const pairs = [['a', 'a'], ['a', 'a'], ['a', 'b'], ['b', 'b'], ['b', null], ['c', 'a']].map(([gold, given]) => ({ gold: gold as string, answer: given as string | null }));
  const confusion = confusionMatrix(labels, pairs);
  assert.deepEqual(confusion, [[2, 1, 0, 0, 0], [0, 1, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]);
  const classes = classScores(labels, confusion);
  assert.deepEqual(classes.map(({ support }) => support), [3, 2, 1, 0]);
  [2 / 3, 1 / 2, 0, 0].forEach((f1, index) => assert.ok(Math.abs((classes[index]?.f1 ?? -1) - f1) < 1e-12));
  assert.ok(Math.abs(macroF1(classes, confusion) - 7 / 18) < 1e-12, 'a label that occurs nowhere does not count');
});

test('quantiles interpolate as NumPy does', () => {
  assert.equal(quantile([1, 2, 3, 4], 0.5), 2.5);
  assert.ok(Math.abs(quantile([1, 2, 3, 4], 0.025) - 1.075) < 1e-12);
  assert.equal(quantile([7], 0.9), 7);
});

test('the bootstrap interval of a mean agrees with its normal approximation', () => {
  const scores = Array.from({ length: 400 }, (_, index) => (index % 5 === 0 ? 0 : 1));
  const { mean, low, high } = meanInterval(scores, { resamples: 4_000, seed: 1 });
  assert.equal(mean, 0.8);
  const half = 1.96 * Math.sqrt((0.8 * 0.2) / 400);
  assert.ok(Math.abs(low - (0.8 - half)) < 0.006 && Math.abs(high - (0.8 + half)) < 0.006, `${low} ${high}`);
});

test('retention is paired: what is hard for both does not widen its interval', () => {
  const random = createRandom(5, 'scores');
  const teacher = Array.from({ length: 300 }, () => (random() < 0.8 ? 1 : 0));
  const options = { resamples: 2_000, seed: 3 };
  const same = retentionInterval(teacher, teacher, options);
  assert.deepEqual(same, { mean: 1, low: 1, high: 1 });
  const shifted = [...teacher.slice(150), ...teacher.slice(0, 150)];
  const unpaired = retentionInterval(teacher, shifted, options);
  assert.equal(unpaired.mean, 1);
  assert.ok(unpaired.high - unpaired.low > 0.1);
  assert.deepEqual(retentionInterval(teacher, shifted, options), unpaired);
  assert.notDeepEqual(retentionInterval(teacher, shifted, { ...options, seed: 4 }), unpaired);
  assert.throws(() => retentionInterval([0, 0], [1, 0], options), (error: unknown) => error instanceof StillhouseError && error.code === 'BAD_INPUT');
});

test('about 95 % of intervals hold the true retention', () => {
  // Teacher right with 0.9, student right with 0.85 where the teacher is, 0.3 elsewhere: 0.795 / 0.9.
  const truth = (0.9 * 0.85 + 0.1 * 0.3) / 0.9;
  let held = 0;
  for (let trial = 0; trial < 200; trial += 1) {
    const random = createRandom(trial, 'trial');
    const teacher = Array.from({ length: 200 }, () => (random() < 0.9 ? 1 : 0));
    const student = teacher.map((score) => (random() < (score === 1 ? 0.85 : 0.3) ? 1 : 0));
    const { low, high } = retentionInterval(teacher, student, { resamples: 300, seed: trial });
    if (low <= truth && truth <= high) held += 1;
  }
  assert.ok(held >= 180 && held <= 199, `${held} of 200`);
});

const rows = ['one', 'two', 'three', 'four'].map((text, index) => row(text, index % 2 === 0 ? 'positive' : 'negative'));
const predict = (of: InputRow, output: string): Prediction => ({ id: of.id, output, ...(of.gold === undefined ? {} : { gold: of.gold }), promptTokens: 5, completionTokens: 1 });

test('evaluation scores all contestants on the same rows, the teacher calibrated', async () => {
  const { store } = workspace();
  const requests = rows.map((entry) => ({ ...request(entry), purpose: 'test' as const }));
  // Always leaning to positive by 1 nat: right everywhere once the prior is subtracted.
  const answers = Object.fromEntries(requests.map((asked, index) => [asked.id, answer('positive', { labelLogProbs: index % 2 === 0 ? [-3, -0.5] : [-1.2, -0.5] })]));
  const input = {
    campaign: 'test', spec: await putJson(store, 'spec', labelSpec()), rows: await putRows(store, 'rows', rows),
    teacherRequests: await putRows(store, 'requests', requests),
    student: await putRows(store, 'predictions', rows.map((entry, index) => predict(entry, index === 3 ? ' Positive' : `${entry.gold}.`))),
    untuned: await putRows(store, 'predictions', rows.map((entry) => predict(entry, 'I think it is nice'))),
    calibration: await putJson(store, 'calibration', { labels: ['negative', 'positive'], priorLogProbs: [-1.5, -0.3], rows: 9 }),
  };
  const result = await evaluate({ store, answers: reader(answers) }, input);
  assert.deepEqual([result.teacherScore, result.studentScore, result.untunedScore, result.retention.mean, result.rows], [1, 0.75, 0, 0.75, 4]);
  const evaluation = await getJson<Evaluation>(store, result.evaluation);
  assert.deepEqual(evaluation.contestants.student?.confusion, [[1, 1, 0], [0, 2, 0]]);
  assert.deepEqual(evaluation.contestants.untuned?.confusion, [[0, 0, 2], [0, 0, 2]]);
  assert.deepEqual(evaluation.rows[3]?.answers, { student: 'positive', teacher: 'negative', untuned: null });
  assert.deepEqual((await evaluate({ store, answers: reader(answers) }, input)).evaluation, result.evaluation);
  const { calibration: _without, ...raw } = input;
  assert.equal((await evaluate({ store, answers: reader(answers) }, raw)).teacherScore, 0.5);
  const missing = { ...input, student: await putRows(store, 'predictions', rows.slice(1).map((entry) => predict(entry, 'positive'))) };
  await assert.rejects(evaluate({ store, answers: reader(answers) }, missing), /expected an answer of the student to row .* got none among 3/);
});

test('judgements are planned once for each distinct answer and scored from the ledger', async () => {
  const { store } = workspace();
  const spec = labelSpec({
    task: { description: 'Explain.', output: { kind: 'text' } },
    sampling: { source: { kind: 'tasks', dataset: 'x' }, rows: 4, batchSize: 3 },
    evaluation: { source: { kind: 'held-out', rows: 4 }, developmentRows: 2, testRows: 2, scorer: { kind: 'judge', rubric: 'Is it right?', judge: { provider: 'openai', model: 'judge' } } },
  });
  const requests = rows.map((entry): TeacherRequest => ({ ...request(entry), task: { kind: 'text', messages: [], parameters: { maxTokens: 9, temperature: 0 } } }));
  const recorded: Record<string, TeacherAnswer> = Object.fromEntries(requests.map((asked, index) => [asked.id, answer(`answer ${index}`)]));
  const context4 = { campaign: 'test', spec: await putJson(store, 'spec', spec), rows: await putRows(store, 'rows', rows), teacherRequests: await putRows(store, 'requests', requests) };
  const student = await putRows(store, 'predictions', rows.map((entry, index) => predict(entry, index === 0 ? 'answer 0' : `student ${index}`)));
  const untuned = await putRows(store, 'predictions', rows.map((entry) => predict(entry, 'no idea')));
  const judge: Teacher = {
    identity: { provider: 'test', model: 'judge' }, groupSize: 1, ask: () => Promise.reject(new Error('planning asks nothing')),
    upperBound: () => ({ usd: 0.01, tokens: 100 }), [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  const planned = await planJudgements(
    { store, answers: reader(recorded), directory: { open: async () => judge } },
    { ...context4, predictions: [student, untuned] },
  );
  assert.equal(planned.count, 11, 'the answer that teacher and student share is judged once');
  assert.deepEqual([planned.batchSize, planned.batchUpperBoundTokens], [3, 600], 'three judgements and a repair of each');
  assert.ok(Math.abs(planned.batchUpperBoundUsd - 0.06) < 1e-12);
  const judgements = await getRows<TeacherRequest>(store, planned.requests);
  assert.ok(judgements.every(({ purpose, task }) => purpose === 'judge' && task.kind === 'json' && task.messages[0]?.content.includes('Is it right?')));
  for (const { id } of judgements) recorded[id] = answer('{"reasoning":"fine","score":8}');
  for (const entry of rows) recorded[judgementId(entry, 'no idea')] = answer('{"reasoning":"bad","score":2}');
  recorded[judgementId(rows[1] as InputRow, 'student 1')] = answer('{"score":11}');
  const result = await evaluate({ store, answers: reader(recorded) }, { ...context4, student, untuned, judgements: planned.requests });
  assert.deepEqual([result.rows, result.retention.mean], [3, 1]);
  assert.ok(Math.abs(result.teacherScore - 7 / 9) < 1e-12 && Math.abs((result.untunedScore ?? 0) - 1 / 9) < 1e-12);
  const evaluation = await getJson<Evaluation>(store, result.evaluation);
  assert.match(evaluation.unscored[0]?.problem ?? '', /student: expected a score from 1 to 10/);
});

test('the teacher of a vote is measured by the vote that the student learns from', async () => {
  const { store } = workspace();
  const spec = labelSpec({ teacher: { provider: 'openai', model: 'm', temperature: 1 }, sampling: { source: { kind: 'inputs', dataset: 'pool.jsonl' }, rows: 4, answersPerInput: 3 } });
  // The first draw alone is wrong in three rows of four; the last row has no usable answer.
  const drawn = [['negative', 'positive', 'positive'], ['positive', 'Negative.', 'negative'], ['hm', 'positive', 'what?'], ['hm', 'what?', 'no']];
  const requests = [0, 1, 2].flatMap((draw) => rows.map((entry): TeacherRequest => ({ ...request(entry), id: `${entry.id}-${draw}`, sampleIndex: draw, purpose: 'test' })));
  // What the log-probabilities of each draw say is the same each time: it does not count.
  const answers = Object.fromEntries(requests.map((asked) => [asked.id, answer(drawn[rows.findIndex(({ id }) => id === asked.row?.id)]?.[asked.sampleIndex] ?? '', { labelLogProbs: [-0.1, -2.4] })]));
  const input = {
    campaign: 'test', spec: await putJson(store, 'spec', spec), rows: await putRows(store, 'rows', rows), teacherRequests: await putRows(store, 'requests', requests),
    student: await putRows(store, 'predictions', rows.map((entry) => predict(entry, 'positive'))),
  };
  const result = await evaluate({ store, answers: reader(answers) }, input);
  assert.deepEqual([result.teacherScore, result.studentScore, result.rows], [0.75, 0.5, 4]);
  assert.deepEqual((await getJson<Evaluation>(store, result.evaluation)).rows.map((scored) => scored.answers?.teacher), ['positive', 'negative', 'positive', null]);
});

test('of several texts of the teacher the most central one is judged', async () => {
  const spec = labelSpec({
    task: { description: 'Explain.', output: { kind: 'text' } }, teacher: { provider: 'openai', model: 'm', temperature: 1 }, sampling: { source: { kind: 'tasks', dataset: 'x' }, rows: 4, answersPerInput: 3 },
    evaluation: { source: { kind: 'held-out', rows: 4 }, developmentRows: 2, testRows: 2, scorer: { kind: 'judge', rubric: 'Is it right?', judge: { provider: 'openai', model: 'judge' } } },
  });
  const [entry] = rows as [InputRow];
  const texts = ['Buy a car.', 'Boil it for ten minutes.', 'Boil it for nine minutes.'];
  const requests = texts.map((_, draw): TeacherRequest => ({ id: `draw-${draw}`, purpose: 'test', sampleIndex: draw, row: entry, task: { kind: 'text', messages: [], parameters: { maxTokens: 9, temperature: 1 } } }));
  const judged = await teacherTexts({ answers: reader(Object.fromEntries(texts.map((text, draw) => [`draw-${draw}`, answer(text)]))) }, spec, requests);
  assert.deepEqual([...judged], [[entry.id, 'Boil it for ten minutes.']]);
  const one = await teacherTexts({ answers: reader({ 'draw-0': answer(' as it came\n') }) }, spec, requests.slice(0, 1));
  assert.deepEqual([...one], [[entry.id, ' as it came\n']], 'a single answer is judged as it is');
});

test('a judgement is read from JSON, a score as a text included, and anything else is a problem', () => {
  assert.deepEqual(readJudgement('```json\n{"reasoning":"x","score":7}\n```'), { score: 7 });
  for (const text of ['{"score":"8"}', '{"score":"8/10"}', '{"score":" 8.0 / 10 "}', 'I judge so: {"reasoning":"fine","score":8} as it is.']) assert.deepEqual(readJudgement(text), { score: 8 }, text);
  for (const text of ['7', '{"score":0}', '{"score":11}', '{"score":"11"}', '{"score":"8/5"}', '{"score":"eight"}', '{"score":""}', '{"score":NaN}', '{"score":1e999}', '{"score":null}', '{"score":[8]}', '{"score":true}', '{}', '', 'score: 7']) assert.ok('problem' in readJudgement(text), text);
});

test("a judge's scores go from 0 for a useless answer to 1, and the report shows them as the judge gave them", () => {
  assert.deepEqual([1, 5.5, 10].map(scoreShare), [0, 0.5, 1]);
  for (const judged of [1, 2, 7, 10]) assert.ok(Math.abs(judgedScore(scoreShare(judged)) - judged) < 1e-12);
  const judge = { kind: 'judge', rubric: 'r', judge: { provider: 'openai', model: 'j' } } as const;
  const scores = scoreFormat(labelSpec({ task: { description: 'd', output: { kind: 'text' } }, evaluation: { source: { kind: 'held-out', rows: 2 }, developmentRows: 1, testRows: 1, scorer: judge } }));
  assert.deepEqual([scores.format(0), scores.format(7 / 9), scores.difference(1 / 9)], ['1.00', '8.00', '1.00']);
  assert.deepEqual(scores.ticks(5 / 9, 7 / 9, 4).map(scores.tick), ['6', '6.5', '7', '7.5', '8']);
});
