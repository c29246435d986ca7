import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import type { InputRow, Prediction, TeacherRequest } from '../../src/contracts/records.ts';
import { comparePairs, readComparison, verdictOf } from '../../src/evaluation/comparison.ts';
import { evaluate } from '../../src/evaluation/evaluate.ts';
import type { Evaluation } from '../../src/evaluation/evaluation.ts';
import { planJudgements } from '../../src/evaluation/judge.ts';
import { comparisonSection } from '../../src/evaluation/report/comparisons.ts';
import { getJson, getRows, putRows } from '../../src/store/jsonl.ts';
import { createAnswerReader } from '../../src/teacher/answers.ts';
import { rowTask } from '../../src/teacher/prompts.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import { DataHome } from '../support/data-home.ts';
import type { ChatCall } from '../support/openai-server.ts';
import { row } from '../support/rows.ts';

const NAMES = { teacher: 'Teacher', untuned: 'Untuned', student: 'Student' };
const BOOTSTRAP = { resamples: 1_000, seed: 3 };

test('only what wins in both orders has won', () => {
  assert.equal(verdictOf('A', 'B'), 'win');
  assert.equal(verdictOf('B', 'A'), 'loss');
  assert.equal(verdictOf('tie', 'tie'), 'tie');
  for (const [forward, backward] of [['A', 'A'], ['B', 'B'], ['A', 'tie'], ['tie', 'A'], ['B', 'tie']] as const) assert.equal(verdictOf(forward, backward), 'inconsistent');
});

test('a win rate counts ties as half, and has an interval', () => {
  const says = (winner: string): string => JSON.stringify({ reasoning: 'r', winner });
  const pairs = [
    ...Array.from({ length: 60 }, () => ({ one: 'x', other: 'y', forward: says('A'), backward: says('B') })),
    ...Array.from({ length: 20 }, () => ({ one: 'x', other: 'y', forward: says('B'), backward: says('A') })),
    ...Array.from({ length: 12 }, () => ({ one: 'x', other: 'y', forward: says('A'), backward: says('A') })),
    ...Array.from({ length: 3 }, () => ({ one: 'x', other: 'y', forward: says('B'), backward: says('B') })),
    ...Array.from({ length: 5 }, () => ({ one: 'x', other: 'x' })),
    { one: 'x', other: 'y', forward: 'A, clearly', backward: says('B') },
  ];
  const { winRate, ...counts } = comparePairs(pairs, { contestant: 'student', against: 'teacher' }, BOOTSTRAP);
  assert.deepEqual(counts, { contestant: 'student', against: 'teacher', rows: 100, wins: 60, ties: 20, losses: 20, identical: 5, inconsistent: 15, favouredFirst: 12, favouredSecond: 3, unread: 1 });
  assert.equal(winRate?.mean, 0.7);
  assert.ok((winRate?.low ?? 1) > 0.6 && (winRate?.low ?? 1) < 0.65 && (winRate?.high ?? 0) > 0.75 && (winRate?.high ?? 0) < 0.8, JSON.stringify(winRate));
  assert.equal(comparePairs([], { contestant: 'student', against: 'untuned' }, BOOTSTRAP).winRate, undefined);
  const { markup } = comparisonSection([{ winRate: { mean: 0.7, low: 0.62, high: 0.78 }, ...counts }], NAMES);
  assert.match(markup, /Student against teacher.*70\.0.*62\.0 – 78\.0/s);
  assert.match(markup, /in 16.% of 95 pairs that differ the order changed the verdict \(12 times for whichever stood first, 3 for whichever stood second\); 1 pairs are left out/);
});

test('a comparison is read from JSON alone', () => {
  assert.deepEqual(readComparison('I think: {"reasoning":"x","winner":"tie"}'), { winner: 'tie' });
  for (const text of ['A', '{"winner":"C"}', '{"reasoning":"A"}']) assert.ok('problem' in readComparison(text), text);
});

/** Prefers the answer that is longer by far, else whatever stands first. */
function judge(call: ChatCall): string {
  const text = call.messages.at(-1)?.content ?? '';
  const [a = '', b = ''] = ['A', 'B'].map((name) => new RegExp(`<answer-${name}>\\n(.*)\\n</answer-${name}>`, 's').exec(text)?.[1] ?? '');
  if (a !== '') return JSON.stringify({ reasoning: 'length', winner: b.length > a.length + 5 ? 'B' : 'A' });
  return JSON.stringify({ reasoning: 'fine', score: 7 });
}

test('the judge is asked about each pair in both orders, every call through the ledger', async () => {
  await using home = await DataHome.start({ answer: (call) => (call.response_format === undefined ? `teacher on ${call.messages.at(-1)?.content}` : judge(call)) });
  const scorer = { kind: 'judge' as const, rubric: 'Longer is better.', judge: { provider: 'openai' as const, model: 'gpt-4o', baseUrl: home.server.baseUrl }, compare: true };
  const changes: Partial<Omit<CampaignSpecInput, 'teacher'>> = {
    task: { description: 'Explain.', output: { kind: 'text' } }, sampling: { source: { kind: 'tasks', dataset: 'unused' }, rows: 4 },
    evaluation: { source: { kind: 'held-out', rows: 4 }, developmentRows: 2, testRows: 2, scorer },
  };
  const spec = home.spec(changes);
  const context = await home.context(spec);
  const { store, ledger, directory } = home;
  const answers = createAnswerReader({ ledger, directory });
  const rows: readonly InputRow[] = ['one', 'two', 'three', 'four'].map((text) => row(text));
  const teacherRequests = await putRows(store, 'requests', rows.map((each, index): TeacherRequest => ({ id: `test-${index}`, purpose: 'test', sampleIndex: 0, row: each, task: rowTask(spec, each.input) })));
  const deps = { store, ledger, directory };
  await sampleBatch(deps, { ...context, requests: teacherRequests, from: 0, to: 4 });
  const predictions = (texts: readonly string[]) => putRows(store, 'predictions', rows.map((each, index): Prediction => ({ id: each.id, output: texts[index] ?? '', promptTokens: 1, completionTokens: 1 })));
  const student = await predictions(['teacher on one', 'a much longer answer than the teacher gave', 'short', 'teacher on flour']);
  const untuned = await predictions(['teacher on one', '?', '?', '?']);
  const input = { ...context, rows: await putRows(store, 'rows', rows), teacherRequests };
  const planned = await planJudgements({ store, answers, directory }, { ...input, predictions: [student, untuned] });
  const asked = await getRows<TeacherRequest>(store, planned.requests);
  assert.equal(asked.filter(({ id }) => id.startsWith('compare-')).length, 2 * 3 + 2 * 3, 'the same answer is compared with itself by nobody');
  const before = home.server.counts.billedCalls;
  const batch = await sampleBatch(deps, { ...context, requests: planned.requests, from: 0, to: planned.count });
  assert.equal(home.server.counts.billedCalls - before, planned.count);
  assert.equal(batch.spending.callsBought, planned.count);
  const evaluated = await evaluate({ store, answers }, { ...input, student, untuned, judgements: planned.requests });
  const { comparisons } = await getJson<Evaluation>(store, evaluated.evaluation);
  assert.deepEqual(comparisons?.map(({ winRate: _interval, ...rest }) => rest), [
    { contestant: 'student', against: 'teacher', rows: 4, wins: 1, ties: 2, losses: 1, identical: 1, inconsistent: 1, favouredFirst: 1, favouredSecond: 0, unread: 0 },
    { contestant: 'student', against: 'untuned', rows: 4, wins: 2, ties: 2, losses: 0, identical: 1, inconsistent: 1, favouredFirst: 1, favouredSecond: 0, unread: 0 },
  ]);
  assert.equal(comparisons?.[0]?.winRate?.mean, 0.5);
  assert.equal(evaluated.retention.mean, 1);
});
