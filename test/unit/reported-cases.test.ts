/**
 * What users of comparable tools reported, each with the smallest input and the right value, as data:
 * test/support/reported-cases/NAME/case.json. `reported` names the public reports that a case is taken from.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpec } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { TeacherAnswer, TeacherRequest } from '../../src/contracts/records.ts';
import { readAnswer as readRecorded } from '../../src/dataset/answers.ts';
import { candidatesOf } from '../../src/dataset/candidates.ts';
import { readRows } from '../../src/dataset/import.ts';
import { findJson } from '../../src/dataset/json.ts';
import { chooseLabel, labelOf } from '../../src/dataset/labels.ts';
import { readTrainingRows } from '../../src/dataset/training-rows.ts';
import { readJudgement } from '../../src/evaluation/judge.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { readAnswer } from '../../src/teacher/openai-chat.ts';
import { createOpenAITeacher } from '../../src/teacher/openai.ts';
import { rowTask } from '../../src/teacher/prompts.ts';
import { createTraitBook } from '../../src/teacher/trait-book.ts';

const FOLDER = join(import.meta.dirname, '..', 'support', 'reported-cases');

interface Rule {
  readonly when?: Readonly<Record<string, unknown>>;
  readonly status?: number;
  readonly contentType?: string;
  readonly body: unknown;
}
interface Given {
  readonly output?: object;
  readonly labels?: readonly string[];
  readonly teacher?: object;
  readonly sampling?: object;
  readonly inputs?: readonly string[];
  readonly key?: string;
  readonly rules: readonly Rule[];
  readonly text: string;
  readonly texts: readonly string[];
  readonly top?: readonly (readonly [string, number | null])[];
  readonly topNull?: boolean;
  readonly file: string;
  readonly instruction?: string;
}
interface Check {
  readonly what: string;
  readonly kind: string;
  readonly given: Given;
  readonly right: unknown;
}
interface Call extends Readonly<Record<string, unknown>> {
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly response_format?: { readonly type: string };
}

function specOf({ output, labels = ['positive', 'negative'], teacher, sampling }: Pick<Given, 'output' | 'labels' | 'teacher' | 'sampling'>): CampaignSpec {
  const judge = { kind: 'judge', judge: { provider: 'openai', model: 'j', baseUrl: 'http://127.0.0.1:1/v1' }, rubric: 'r' };
  return campaignSpecSchema.parse({
    name: 'case', task: { description: 'Is the text positive or negative?', instruction: 'Text: {input}', output: output ?? { kind: 'label', labels } },
    teacher: { provider: 'openai', model: 'm', baseUrl: 'http://127.0.0.1:1/v1', concurrency: 1, price: { inputUsdPerMillion: 1, outputUsdPerMillion: 1 }, ...teacher },
    sampling: { source: { kind: 'inputs', dataset: 'a.jsonl' }, rows: 10, ...sampling },
    student: { model: 'smollm2-135m-instruct' },
    evaluation: { source: { kind: 'dataset', dataset: 'b.jsonl' }, developmentRows: 1, testRows: 1, scorer: output === undefined ? { kind: 'label' } : judge },
  });
}

/** A rule applies when all of its conditions hold for the call's body. */
function applies(when: Rule['when'] = {}, call: Call): boolean {
  const room = Number(call['max_completion_tokens'] ?? call['max_tokens'] ?? Infinity);
  const conditions: Readonly<Record<string, (value: unknown) => boolean>> = {
    has: (value) => String(value) in call,
    temperatureNot: (value) => call['temperature'] !== undefined && call['temperature'] !== value,
    roomBelow: (value) => room < Number(value),
    system: () => call.messages.some(({ role }) => role === 'system'),
    secondSystem: () => call.messages.slice(1).some(({ role }) => role === 'system'),
    schema: () => call.response_format?.type === 'json_schema',
    topLogprobsAbove: (value) => Number(call['top_logprobs'] ?? 0) > Number(value),
    userLongerThan: (value) => (call.messages.at(-1)?.content.length ?? 0) > Number(value),
  };
  return Object.entries(when).every(([name, value]) => (conditions[name] as (value: unknown) => boolean)(value));
}

/** What comes of the inputs at a server that follows the rules. */
async function endpoint(given: Given): Promise<object> {
  let calls = 0;
  const server = createServer((request, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const call = JSON.parse(Buffer.concat(chunks).toString()) as Call;
      calls += 1;
      const rule = given.rules.find(({ when }) => applies(when, call)) as Rule;
      response.writeHead(rule.status ?? 200, { 'content-type': rule.contentType ?? 'application/json' });
      response.end(typeof rule.body === 'string' ? rule.body : JSON.stringify(rule.body));
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const spec = specOf(given);
  const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
  const requests = (given.inputs ?? ['a good day']).map((input, index): TeacherRequest => ({ id: `r${index}`, purpose: 'train', sampleIndex: 0, row: { id: `row${index}`, input, origin: 'case:1' }, task: rowTask(spec, input) }));
  const got: { readonly request: TeacherRequest; readonly answer: TeacherAnswer }[] = [];
  let error: string | undefined;
  using traits = createTraitBook();
  try {
    await using teacher = createOpenAITeacher({ endpoint: { ...spec.teacher, baseUrl }, readKey: () => given.key ?? 'test-key', traits, timings: { retryBudgetMs: 400, firstRetryDelayMs: 10, maxRetryDelayMs: 100 } });
    await teacher.ask(requests, { onAnswers: async (answers) => void got.push(...answers) });
  } catch (caught) {
    assert.ok(caught instanceof StillhouseError, String(caught));
    error = `${caught.code}: ${caught.message}`;
    if (given.key !== undefined) assert.ok(!error.includes(given.key.trim()), 'the key is shown');
  } finally {
    server.close();
    server.closeAllConnections();
  }
  const outputs = got.map(({ request, answer }) => {
    const [judged] = candidatesOf(spec, 1, request, readRecorded(request, answer));
    return judged?.reason ?? judged?.candidate.output;
  });
  const ledger = createLedger(':memory:');
  const key = 'ab'.repeat(32);
  await ledger.recordIntents([{ key, provider: 'p', model: 'm', request: '{}', campaign: 'c', purpose: 'train' }]);
  await ledger.recordAnswers(got.slice(0, 1).map(({ answer }) => ({ key, answer })));
  await ledger.close();
  return { ...(error === undefined ? {} : { error }), calls, outputs, ledger: 'kept' };
}

async function rowsOf<T>(rows: AsyncIterable<T>, pick: (row: T) => unknown): Promise<object> {
  const picked: unknown[] = [];
  for await (const row of rows) picked.push(pick(row));
  return { rows: picked };
}

const FREE = { inputUsdPerMillion: 0, cachedInputUsdPerMillion: 0, outputUsdPerMillion: 0 };
const KINDS: Readonly<Record<string, (given: Given, folder: string) => unknown>> = {
  endpoint,
  /** A whole completion to a question about labels: the label that the row gets. */
  completion({ labels = [], text, top, topNull }) {
    const alternatives = top?.map(([token, probability]) => ({ token, bytes: null, logprob: probability === null ? null : Math.log(probability) }));
    const request: TeacherRequest = { id: 'r', purpose: 'train', sampleIndex: 0, task: { kind: 'label', labels, messages: [], parameters: { maxTokens: 32, temperature: 0 } } };
    const logprobs = alternatives === undefined ? null : { content: [{ token: alternatives[0]?.token, logprob: alternatives[0]?.logprob, top_logprobs: topNull === true ? null : alternatives }] };
    const completion = { model: 'm', choices: [{ message: { role: 'assistant', content: text }, finish_reason: 'stop', logprobs }], usage: { prompt_tokens: 1, completion_tokens: 1 } };
    return { label: chooseLabel(readAnswer(request, completion, FREE, 1), labels)?.label ?? null };
  },
  /** Labels that a spec may have or not, and the label that each text names. */
  labels({ labels = [], texts }) {
    try {
      specOf({ labels });
    } catch {
      return { labels: 'refused' };
    }
    return { labels: Object.fromEntries(texts.map((text) => [text, labelOf(text, labels) ?? null])) };
  },
  rows: ({ file }, folder) => rowsOf(readRows(join(folder, file)), ({ input }) => input),
  training: ({ file, instruction = '{input}' }, folder) => rowsOf(readTrainingRows(join(folder, file), { instruction }), ({ messages }) => messages),
  judgement: ({ text }) => readJudgement(text),
  document: ({ text }) => findJson(text),
};

/** Every key of `right` must be as observed; a text that begins with ~ must occur in it, one of `anyOf` must hold, `atMost` bounds a number. */
function holds(right: unknown, observed: unknown): boolean {
  if (typeof right === 'string' && right.startsWith('~')) return typeof observed === 'string' && observed.includes(right.slice(1));
  if (right === null || typeof right !== 'object') return right === observed;
  if ('anyOf' in right) return (right.anyOf as readonly unknown[]).some((each) => holds(each, observed));
  if ('atMost' in right) return Number(observed) <= Number(right.atMost);
  if (Array.isArray(right)) return Array.isArray(observed) && right.length === observed.length && right.every((each, index) => holds(each, observed[index]));
  return typeof observed === 'object' && observed !== null && Object.entries(right).every(([key, value]) => holds(value, (observed as Readonly<Record<string, unknown>>)[key]));
}

for (const name of readdirSync(FOLDER).sort()) {
  const { reported, checks } = JSON.parse(readFileSync(join(FOLDER, name, 'case.json'), 'utf8')) as { readonly reported: readonly string[]; readonly checks: readonly Check[] };
  describe(`${name} (${reported[0]})`, () => {
    for (const { what, kind, given, right } of checks) {
      it(what, async () => {
        const observed = await (KINDS[kind] as (given: Given, folder: string) => unknown)(given, join(FOLDER, name));
        assert.ok(holds(right, observed), `expected ${JSON.stringify(right)}, got ${JSON.stringify(observed)?.slice(0, 400)}`);
      });
    }
  });
}
