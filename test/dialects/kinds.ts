/** The kinds of questions that are tried against every dialect: how each is asked, what the model says, and what must be read out of it. */
import assert from 'node:assert/strict';
import type { CampaignSpec } from '../../src/contracts/campaign-spec.ts';
import type { InputRow, TeacherAnswer, TeacherRequest } from '../../src/contracts/records.ts';
import { readAnswer } from '../../src/dataset/answers.ts';
import { candidatesOf } from '../../src/dataset/candidates.ts';
import type { Judged } from '../../src/dataset/candidates.ts';
import { unpackSoftTargets } from '../../src/dataset/soft-targets.ts';
import { judgeRequest, readJudgement } from '../../src/evaluation/judge.ts';
import { pairsTask, rowTask } from '../../src/teacher/prompts.ts';
import { SUBJECTS } from '../support/dialects/index.ts';
import type { Dialect, Say } from '../support/dialects/index.ts';
import { specAt } from './ask.ts';
import type { endpointAt } from './ask.ts';

/** The rows of a cell: `long` goes beyond every dialect's context, `filter` is about what a provider will not answer, `outage` meets one. */
export const INPUTS = { good: 'a good day at the sea', bad: 'a bad day at the office', long: `a good day ${'x '.repeat(16_500)}`, filter: `a day ${SUBJECTS.filter}`, outage: `a long day ${SUBJECTS.outage}` } as const;
export type InputName = keyof typeof INPUTS;

export interface Kind {
  readonly name: string;
  readonly spec: (endpoint: ReturnType<typeof endpointAt>) => CampaignSpec;
  readonly requests: (spec: CampaignSpec, inputs: readonly InputName[]) => readonly TeacherRequest[];
  readonly say: Say;
  readonly stored?: boolean;
  /** Each draw of a question has an answer of its own. */
  readonly draws?: boolean;
  /** Calls in flight. Default: one. */
  readonly concurrency?: number;
  /** Asserts that a row that can be answered was read rightly. */
  readonly check: (read: { readonly spec: CampaignSpec; readonly request: TeacherRequest; readonly answer: TeacherAnswer; readonly dialect: Dialect }) => void;
}

const labelTask = { description: 'Is the text positive or negative?', instruction: 'Text: {input}', output: { kind: 'label' as const, labels: ['positive', 'negative'] } };
const textTask = { description: 'Says in one sentence what the text is about.', instruction: 'Text: {input}', output: { kind: 'text' as const } };

const isGood = (text: string): boolean => text.includes(INPUTS.good);
const labelFor = (text: string): string => (isGood(text) ? 'positive' : 'negative');
const sentenceFor = (text: string): string => `The text tells of ${isGood(text) ? 'a good day, “at the sea”' : 'a bad day — at work'}.`;
const lastOf = (body: Parameters<Say>[0]): string => body.messages.at(-1)?.content ?? '';

const rowOf = (name: InputName): InputRow => ({ id: name, input: INPUTS[name], origin: `rows:${name}` });
const rowRequests = (spec: CampaignSpec, inputs: readonly InputName[]): readonly TeacherRequest[] =>
  inputs.map((name) => ({ id: name, purpose: 'train', sampleIndex: 0, row: rowOf(name), task: rowTask(spec, INPUTS[name]) }));

export const judgedOf = (spec: CampaignSpec, request: TeacherRequest, answer: TeacherAnswer): readonly Judged[] => candidatesOf(spec, 1, request, readAnswer(request, answer));

/** The only candidate of an answer, with nothing against it. */
function accepted(spec: CampaignSpec, request: TeacherRequest, answer: TeacherAnswer): Judged['candidate'] {
  const [judged] = judgedOf(spec, request, answer);
  assert.ok(judged !== undefined, 'expected a candidate, got none');
  assert.equal(judged.reason, undefined, `expected an accepted row, got ${judged.reason}: ${judged.detail}`);
  return judged.candidate;
}

const label: Kind = {
  name: 'label',
  spec: (endpoint) => specAt(endpoint, { task: labelTask, temperature: 0 }),
  requests: rowRequests,
  say: (body) => labelFor(lastOf(body)),
  check: ({ spec, request, answer }) => assert.equal(accepted(spec, request, answer).output, labelFor(request.row?.input ?? '')),
};

const text: Kind = {
  name: 'text',
  spec: (endpoint) => specAt(endpoint, { task: textTask, temperature: 0 }),
  requests: rowRequests,
  say: (body) => sentenceFor(lastOf(body)),
  check: ({ spec, request, answer }) => assert.equal(accepted(spec, request, answer).output, sentenceFor(request.row?.input ?? '')),
};

const pairs: Kind = {
  name: 'JSON',
  spec: (endpoint) => specAt(endpoint, { task: labelTask, sampling: { source: { kind: 'description' } }, temperature: 0.7 }),
  requests: (spec, inputs) => inputs.map((name, index) => ({ id: name, purpose: 'train', sampleIndex: index, task: pairsTask(spec, 2, { topic: INPUTS[name] }, { attributes: [], inputs: [] }, index) })),
  say: () => JSON.stringify({ pairs: [{ input: 'The tea was {warm}.', output: 'positive' }, { input: 'It rained "all" day.', output: 'negative' }] }),
  check: ({ spec, request, answer }) =>
    assert.deepEqual(judgedOf(spec, request, answer).map(({ candidate: { input, output }, reason }) => ({ input, output, reason })), [
      { input: 'The tea was {warm}.', output: 'positive', reason: undefined },
      { input: 'It rained "all" day.', output: 'negative', reason: undefined },
    ]),
};

const judge: Kind = {
  name: 'judge',
  spec: text.spec,
  requests: (spec, inputs) => inputs.map((name) => ({ ...judgeRequest(spec, spec.evaluation.scorer.kind === 'judge' ? spec.evaluation.scorer.judge : spec.teacher, 'Is it right?', rowOf(name), sentenceFor(INPUTS[name])), id: name })),
  say: (body) => JSON.stringify({ reasoning: 'Short and {right}.', score: isGood(lastOf(body)) ? 9 : 3 }),
  check: ({ request, answer }) => assert.deepEqual(readJudgement(readAnswer(request, answer).text), { score: isGood(request.row?.input ?? '') ? 9 : 3 }),
};

const rationale: Kind = {
  name: 'rationale',
  spec: (endpoint) => specAt(endpoint, { task: labelTask, sampling: { rationale: true }, temperature: 0 }),
  requests: rowRequests,
  say: (body) => JSON.stringify({ rationale: 'It says so in its second word.', answer: labelFor(lastOf(body)) }),
  check: ({ spec, request, answer }) => {
    const { output, rationale: reason } = accepted(spec, request, answer);
    assert.deepEqual({ output, reason }, { output: labelFor(request.row?.input ?? ''), reason: 'It says so in its second word.' });
  },
};

const softTargets: Kind = {
  name: 'soft targets',
  spec: (endpoint) => specAt(endpoint, { task: textTask, sampling: { softTargets: { topK: 20 } }, temperature: 0 }),
  requests: rowRequests,
  say: text.say,
  check: ({ spec, request, answer, dialect }) => {
    const { output, softTargets: packed } = accepted(spec, request, answer);
    assert.equal(output, sentenceFor(request.row?.input ?? ''));
    if (!dialect.can.softTargets) {
      assert.equal(packed, undefined, 'expected the text alone of a server without log-probabilities');
      return;
    }
    assert.ok(packed !== undefined, 'expected soft targets, got the text alone');
    const targets = unpackSoftTargets(packed);
    assert.equal(targets.map(({ token }) => token).join(''), output, 'expected the targets of the answer and of nothing else');
    assert.ok(targets.every(({ alternatives }) => alternatives.length === Math.min(20, dialect.answer.logprobs.most ?? 20)), `expected all alternatives, got ${targets[0]?.alternatives.length}`);
  },
};

const DRAWS = ['positive', 'negative', 'positive'];
const answers: Kind = {
  name: 'several answers',
  draws: true,
  spec: (endpoint) => specAt(endpoint, { task: labelTask, sampling: { answersPerInput: 3 }, temperature: 0.7 }),
  requests: (spec, inputs) =>
    inputs.flatMap((name) => (name === 'long' || name === 'filter' ? [0] : [0, 1, 2]).map((sampleIndex) => ({ id: sampleIndex === 0 ? name : `${name}-${sampleIndex}`, purpose: 'train' as const, sampleIndex, row: rowOf(name), task: rowTask(spec, INPUTS[name], sampleIndex) }))),
  say: (_body, draw) => DRAWS[draw % DRAWS.length] as string,
  check: ({ spec, request, answer }) => assert.equal(accepted(spec, request, answer).output, DRAWS[request.sampleIndex]),
};

/** Rows of two kinds, all at once: what one call learns of the endpoint the others in flight learn as well. */
const many: Kind = {
  ...label,
  name: 'many at once',
  concurrency: 8,
  requests: (spec, inputs) =>
    inputs.flatMap((name) => {
      if (name !== 'good' && name !== 'bad') return rowRequests(spec, [name]);
      const texts = Array.from({ length: 12 }, (_, index) => `${INPUTS[name]}, ${index + 1} of 12`);
      return texts.map((input, index): TeacherRequest => ({ id: `${name}-${index}`, purpose: 'train', sampleIndex: 0, row: { id: `${name}-${index}`, input, origin: 'rows:many' }, task: rowTask(spec, input) }));
    }),
};

const stored: Kind = { ...text, name: 'stored', stored: true };

export const KINDS: readonly Kind[] = [label, text, pairs, judge, rationale, softTargets, answers, many, stored];
