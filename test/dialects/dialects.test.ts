/** Every dialect against every kind of question: read rightly, few refusals, nothing unknown sent, the books cover the bill, one bad row is one rejected row. */
import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { DIALECTS } from '../support/dialects/index.ts';
import type { Dialect } from '../support/dialects/index.ts';
import { ask } from './ask.ts';
import type { Asked } from './ask.ts';
import { INPUTS, judgedOf, KINDS } from './kinds.ts';
import type { InputName, Kind } from './kinds.ts';

/** More refusals than this, over all questions of a cell and for each call in flight, would be no learning but trying. */
const MOST_REFUSALS = 6;

/** A server that says nothing of tokens leaves an estimate: of so much of the bill at least. */
const ESTIMATED = 0.6;

/** Rows that are answered at last, though the first attempt fails in the server's own way. */
const passingRows = ({ rules }: Dialect, { draws }: Kind): readonly InputName[] => (draws === true || !rules.some(({ when }) => when.about === 'outage') ? [] : ['outage']);
const badRows = ({ can }: Dialect): readonly InputName[] => [...(can.length === 'none' ? [] : ['long' as const]), ...(can.filter === 'none' ? [] : ['filter' as const])];

function checkBadRow(kind: Kind, name: InputName, { answers, spec, requests }: { readonly answers: Asked['answers']; readonly spec: ReturnType<Kind['spec']>; readonly requests: ReturnType<Kind['requests']> }): void {
  const answer = answers.get(name);
  const request = requests.find(({ id }) => id === name);
  assert.ok(answer !== undefined && request !== undefined, `expected the row ${name} to be rejected alone, got no answer to it`);
  const right = name === 'long' ? 'truncated' : 'refusal';
  if (kind.name === 'judge') {
    assert.ok(answer.finishReason !== 'stop', `expected no judgement of the row ${name}, got finish reason stop and ${JSON.stringify(answer.text.slice(0, 80))}`);
    return;
  }
  assert.deepEqual(judgedOf(spec, request, answer).map(({ reason }) => reason), [right], `of the row ${name}`);
}

async function tryCell(dialect: Dialect, kind: Kind): Promise<void> {
  const bad = badRows(dialect);
  const inputs: readonly InputName[] = ['good', ...bad, ...passingRows(dialect, kind), 'bad'];
  let asked: { readonly spec: ReturnType<Kind['spec']>; readonly requests: ReturnType<Kind['requests']> } | undefined;
  const { server, answers, error, books } = await ask(dialect, {
    say: kind.say,
    spec: kind.spec,
    ...(kind.stored === undefined ? {} : { stored: kind.stored }),
    ...(kind.concurrency === undefined ? {} : { concurrency: kind.concurrency }),
    requests: (spec) => {
      asked = { spec, requests: kind.requests(spec, inputs) };
      return asked.requests;
    },
  });
  assert.ok(asked !== undefined);
  const { spec, requests } = asked;
  assert.equal(error, undefined, `expected every row to be answered or rejected, got ${error?.code}: ${error?.message}`);
  for (const request of requests) {
    const answer = answers.get(request.id);
    assert.ok(answer !== undefined, `expected an answer to ${request.id}, got none`);
    if (bad.includes(request.id as InputName)) continue;
    kind.check({ spec, request, answer, dialect });
    const { promptTokens, completionTokens } = answer.usage;
    assert.ok(promptTokens > 0 && completionTokens > 0 && answer.costUsd > 0, `expected tokens and a cost, got ${JSON.stringify(answer.usage)}, $${answer.costUsd}`);
  }
  for (const name of bad) checkBadRow(kind, name, { answers, spec, requests });
  const learned = server.refused.filter(({ question, status }) => status >= 400 && ![...bad, 'outage' as const].some((name) => question.includes(INPUTS[name])));
  const most = MOST_REFUSALS * (kind.concurrency ?? 1);
  assert.ok(learned.length <= most, `expected at most ${most} refusals, got ${learned.length}: ${learned.map(({ by }) => by).join(', ')}`);
  assert.deepEqual([...server.unknownKeys], [], 'expected no key that neither OpenAI nor the server documents');
  const due = server.bill.usd * (dialect.answer.usage === 'full' || dialect.answer.usage === 'without-completion' ? 1 : ESTIMATED);
  assert.ok(books >= due - 1e-12, `expected books of at least $${due}, got $${books}`);
}

describe('dialects', () => {
  const passed = new Map<string, Set<string>>();
  for (const dialect of DIALECTS) {
    passed.set(dialect.name, new Set());
    for (const kind of KINDS) {
      it(`${dialect.name}: ${kind.name}`, async () => {
        await tryCell(dialect, kind);
        passed.get(dialect.name)?.add(kind.name);
      });
    }
  }

  after(() => {
    const width = Math.max(...DIALECTS.map(({ name }) => name.length));
    const lines = [...passed].map(([name, kinds]) => `${name.padEnd(width)}  ${KINDS.map((kind) => (kinds.has(kind.name) ? 'PASS' : 'FAIL').padEnd(kind.name.length)).join('  ')}`);
    const count = [...passed.values()].reduce((sum, kinds) => sum + kinds.size, 0);
    process.stderr.write(`${[`${' '.repeat(width)}  ${KINDS.map(({ name }) => name.padEnd(4)).join('  ')}`, ...lines].join('\n')}\ncells passed: ${count} of ${DIALECTS.length * KINDS.length}\n`);
  });
});
