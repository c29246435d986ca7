/** What teachers are asked and what becomes of their answers, from spec to dataset, against a server that counts. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { withAbsolutePaths } from '../../src/cli/spec-file.ts';
import { parseSpec } from '../../src/contracts/parse-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { REJECTION_REASONS } from '../../src/contracts/records.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { getRows } from '../../src/store/jsonl.ts';
import { asked, DataHome } from '../support/data-home.ts';
import type { ChatCall, ScriptedAnswer } from '../support/openai-server.ts';

const json = JSON.stringify;
/** Sentences that share few shingles. */
const sentence = (index: number): string => Array.from({ length: 5 }, (_, part) => createRandom(index * 10 + part, 'words')().toString(36).slice(2, 9)).join(' ');
const pairsOf = (index: number, count = 2): string =>
  json({ pairs: Array.from({ length: count }, (_, at) => ({ input: sentence(index * 100 + at), output: at % 2 === 0 ? 'positive' : 'negative' })) });

const PLAN = { attributes: [{ name: 'topic', values: ['food', 'films', ' food '] }, { name: '语气', values: ['热情', '冷淡'] }, { name: 'empty', values: [] }] };

test('the teacher plans the attributes first, once for all rounds, and then writes pairs that combine them', async () => {
  let written = 0;
  await using home = await DataHome.start({ answer: (call) => (asked(call).includes('Plan what they differ in') ? json(PLAN) : pairsOf((written += 1))) });
  const spec = home.spec({ sampling: { source: { kind: 'description', pairsPerCall: 2, plan: { attributes: ['topic', '语气'], values: 2 } }, rows: 4, rowsPerLaterRound: 4 }, teacher: { temperature: 1 } });
  const data = await home.prepare(spec);
  const first = await home.round(spec, data);
  assert.equal(first.preliminary, 1);
  assert.match(asked(home.server.received[0] as ChatCall), /topic, 语气/);
  const combined = first.requests.map(({ task }) => /All examples have these attributes: (.+)\./.exec(task.messages.at(-1)?.content ?? '')?.[1]);
  assert.equal(new Set(combined).size, 4);
  assert.match(combined[0] ?? '', /^label: (negative|positive); topic: (food|films); 语气: (热情|冷淡)$/, "the task's labels are an attribute too");
  assert.equal(first.samples.length, 8);
  const second = await home.round(spec, data, [first]);
  assert.equal(second.preliminary, 0, 'the plan is in the ledger');
  assert.equal(home.server.counts.billedCalls, 1 + 4 + 4);
  const earlierInput = first.samples[0]?.input as string;
  const shown = second.requests.map(({ task }) => task.messages.at(-1)?.content ?? '').filter((text) => text.includes('Already written'));
  assert.equal(shown.length, 4);
  assert.ok(shown.some((text) => first.samples.some(({ input }) => text.includes(input))), `an input such as ${earlierInput} is shown as written already`);
  assert.equal(new Set(second.samples.map(({ input }) => input)).size, 16);
});

test('a plan that cannot be read is asked for again, and in the end the spec must give the attributes', async () => {
  await using home = await DataHome.start({ answer: () => '{"attributes": []}' });
  const spec = home.spec({ sampling: { source: { kind: 'description' }, rows: 4 }, teacher: { temperature: 1 } });
  const data = await home.prepare(spec);
  await assert.rejects(home.round(spec, data), (error: unknown) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && /sampling\.source\.attributes: expected a plan of topic.*in 3 answers/.test(error.message));
  assert.equal(home.server.counts.billedCalls, 3);
  assert.deepEqual(home.server.received.map((call) => call['seed']), [17, 18, 19], 'each draw has its own seed');
});

test('broken JSON is repaired once: the teacher sees its text and what is wrong with it', async () => {
  const broken = '{"pairs":[{"input":"电池很耐用，推荐 👍","output":"positive"},{"input":"Too loud by far","output":"bad"}';
  const answers = [broken, pairsOf(1), '{"unexpected": [1]}', pairsOf(3), 'Here you are:\n```json\n' + pairsOf(4) + '\n```\nGood luck!'];
  await using home = await DataHome.start({
    answer: (call, index) => {
      if (call.messages.at(-2)?.role !== 'assistant') return answers[index] ?? '';
      return call.messages.at(-2)?.content.startsWith('{"pairs"') === true ? `${broken}]}`.replace('bad', 'negative') : '{"still": "wrong"}';
    },
  });
  const spec = home.spec({ sampling: { source: { kind: 'description', attributes: { topic: ['a', 'b', 'c', 'd', 'e'] }, pairsPerCall: 2 }, rows: 5 }, teacher: { concurrency: 1 } });
  const data = await home.prepare(spec);
  const { samples, rejected, batches, planned } = await home.round(spec, data);
  const repairs = home.server.received.filter((call) => call.messages.at(-2)?.role === 'assistant');
  assert.equal(repairs.length, 2);
  assert.equal(repairs[0]?.messages.at(-2)?.content, broken, 'non-ASCII text as it is');
  assert.match(repairs[0]?.messages.at(-1)?.content ?? '', /not the JSON document that was asked for: expected a JSON document: /);
  assert.match(repairs[1]?.messages.at(-1)?.content ?? '', /the document: Unrecognized key|pairs: Invalid input/);
  assert.deepEqual(rejected.map(({ reason }) => reason), ['schema']);
  assert.match(rejected[0]?.detail ?? '', /pairs: Invalid input.*; repaired once, and still: .*got "\{\\"unexpected\\": \[1\]\}"/);
  assert.equal(samples.length, 8);
  assert.deepEqual(samples.slice(0, 2).map(({ input, output }) => [input, output]), [['电池很耐用，推荐 👍', 'positive'], ['Too loud by far', 'negative']]);
  const bytes = (await home.store.get((await home.round(spec, data)).built.dataset)).toString('utf8');
  assert.ok(bytes.includes('电池很耐用，推荐 👍') && !bytes.includes('\\u'), 'JSONL is not escaped');
  assert.equal(home.server.counts.billedCalls, 7, 'nor bought again');
  const [batch] = batches;
  assert.equal(batch?.spending.callsBought, 7);
  assert.ok((batch?.spending.usd ?? 1) > 0 && (batch?.spending.usd ?? 1) <= planned.batchUpperBoundUsd && (batch?.spending.tokens ?? Infinity) <= planned.batchUpperBoundTokens, 'the bound holds the repairs');
});

test('an endpoint without schemas is asked for an object, one without that in words', async () => {
  await using home = await DataHome.start({ without: ['json_schema', 'json_object'], answer: (_call, index) => `Of course.\n${pairsOf(index)}\nAnything else?` });
  const spec = home.spec({ teacher: { concurrency: 1 } });
  const { samples } = await home.round(spec, await home.prepare(spec));
  const last = home.server.received.at(-1) as ChatCall;
  assert.equal(last.response_format, undefined);
  assert.match(last.messages[0]?.content ?? '', /Answer with one JSON object and nothing else/);
  assert.equal(home.server.counts.statuses.get('400'), 2, 'refused twice');
  const another = home.spec({ name: 'another', sampling: { source: { kind: 'description', attributes: { topic: ['x', 'y'] } }, rows: 2 } });
  await home.round(another, await home.prepare(another));
  assert.equal(home.server.counts.statuses.get('400'), 2, 'a batch later it is known');
  assert.equal(samples.length, 8);
});

test('inputs of a file and written pairs are mixed by their shares; a source that ends leaves its rows to the others', async () => {
  await using home = await DataHome.start({ answer: (call, index) => (call.response_format?.json_schema?.name === 'label' ? 'positive' : pairsOf(index)) });
  const pool = home.file('pool.jsonl', Array.from({ length: 9 }, (_, index) => ({ input: `${sentence(7_000 + index)}` })));
  const source = { kind: 'mixed' as const, sources: [{ kind: 'inputs' as const, dataset: pool, share: 3 }, { kind: 'description' as const, attributes: { topic: ['a', 'b', 'c', 'd'] }, pairsPerCall: 2, share: 1 }] };
  const spec = home.spec({ sampling: { source, rows: 8, rowsPerLaterRound: 8 } });
  const data = await home.prepare(spec);
  assert.equal(data.poolRows, 9);
  const first = await home.round(spec, data);
  assert.deepEqual(first.requests.map(({ row }) => row === undefined), [false, false, false, false, false, false, true, true]);
  const second = await home.round(spec, data, [first]);
  assert.deepEqual(second.requests.map(({ row }) => row === undefined), [false, false, false, true, true, true, true, true], 'three rows were left');
  assert.equal(new Set(second.requests.slice(3).map(({ task, sampleIndex }) => json([task, sampleIndex]))).size, 5);
  assert.equal(second.samples.length, 9 + 2 * 7);
});

test('k answers an input are put to a vote, and their agreement is the confidence', async () => {
  const draws = new Map<string, number>();
  await using home = await DataHome.start({
    answer: (call) => {
      const question = call.messages.at(-1)?.content ?? '';
      const draw = draws.get(question) ?? 0;
      draws.set(question, draw + 1);
      if (question.includes('unsure')) return ['positive', 'hm', 'negative', 'negative', 'positive'][draw] ?? '';
      // What was drawn counts, not the log-probabilities that come with it and are the same each time.
      const topLogprobs = [{ token: 'pos', logprob: -0.3 }, { token: 'neg', logprob: -1.4 }];
      return question.includes('lost') ? 'no idea' : { content: ['positive', 'positive', 'negative', 'Positive.', 'positive'][draw] ?? '', topLogprobs };
    },
  });
  const pool = home.file('pool.jsonl', ['a clear review of it', 'one that is unsure about this', 'something lost entirely'].map((input) => ({ input })));
  const spec = home.spec({ sampling: { source: { kind: 'inputs', dataset: pool }, rows: 3, answersPerInput: 5 }, teacher: { temperature: 0.8, concurrency: 1 } });
  const { samples, rejected, requests } = await home.round(spec, await home.prepare(spec));
  assert.equal(requests.length, 15);
  assert.deepEqual(requests.map(({ sampleIndex }) => sampleIndex), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
  assert.equal(home.server.counts.billedCalls, 15);
  assert.deepEqual([...new Set(home.server.received.map((call) => call['seed']))], [17, 18, 19, 20, 21]);
  const byInput = new Map(samples.map((sample) => [sample.input, [sample.output, sample.confidence]]));
  assert.deepEqual(byInput.get('a clear review of it'), ['positive', 0.8]);
  assert.deepEqual(byInput.get('one that is unsure about this'), ['positive', 0.4], 'of a tie what was said first');
  assert.deepEqual(rejected.map(({ reason }) => reason), ['unknown-label']);
  assert.match(rejected[0]?.detail ?? '', /the first of 5 answers, none of which can be used/);
});

test('of k texts the most central one is kept, answers that cannot be used agree with none', async () => {
  const texts = ['Boil the eggs for ten minutes.', 'Buy a car.', 'Boil the eggs for nine minutes.', 'Boil the eggs for ten minutes!', "I'm sorry, but I can't help with that."];
  let draw = 0;
  await using home = await DataHome.start({ answer: () => texts[draw++ % texts.length] ?? '' });
  const tasks = home.file('tasks.jsonl', [{ input: 'How are eggs boiled?' }, { input: 'a row held out one' }, { input: 'row that is held out as second' }]);
  const judge = { kind: 'judge' as const, rubric: 'r', judge: { provider: 'openai' as const, model: 'gpt-4o' } };
  const spec = home.spec({
    task: { description: 'Cook.', output: { kind: 'text' } }, sampling: { source: { kind: 'tasks', dataset: tasks }, rows: 1, answersPerInput: 5 }, teacher: { temperature: 1, concurrency: 1 },
    evaluation: { source: { kind: 'held-out', rows: 2 }, developmentRows: 1, testRows: 1, scorer: judge },
  });
  const { samples } = await home.round(spec, await home.prepare(spec));
  assert.equal(samples[0]?.output, 'Boil the eggs for ten minutes.');
  const confidence = samples[0]?.confidence ?? 0;
  assert.ok(confidence > 0.35 && confidence < 0.75, `${confidence}`);
});

test('rationales come with the answers, whose labels are still checked', async () => {
  const answers = new Map<string, string | ScriptedAnswer>([
    ['a fine one', json({ rationale: '用词积极。', answer: 'positive' })],
    ['an odd one', json({ rationale: 'It is neither.', answer: 'mixed' })],
    ['a short one', { content: json({ rationale: 'Well, '.repeat(20), answer: 'negative' }), fault: 'truncated-json' }],
    ['a private one', { content: '', fault: 'refusal' }],
  ]);
  await using home = await DataHome.start({ answer: (call) => [...answers].find(([input]) => asked(call).includes(`Review: ${input}`))?.[1] ?? '' });
  const pool = home.file('pool.jsonl', [...answers.keys()].map((input) => ({ input })));
  const spec = home.spec({ sampling: { source: { kind: 'inputs', dataset: pool }, rows: 4, rationale: true }, teacher: { shots: [{ input: 'Bad.', output: 'negative' }], concurrency: 1 } });
  const { samples, rejected } = await home.round(spec, await home.prepare(spec));
  const [call] = home.server.received;
  assert.equal(call?.response_format?.json_schema?.strict, true);
  assert.match(call?.messages[0]?.content ?? '', /\{"input":"Bad\.","answer":"negative"\}/, 'worked examples are a list, for they have no rationale');
  assert.deepEqual(samples.map(({ input, output, rationale }) => [input, output, rationale]), [['a fine one', 'positive', '用词积极。']]);
  assert.deepEqual(samples[0]?.messages.at(-1), { role: 'assistant', content: 'positive' });
  const reasons = Object.fromEntries(rejected.map(({ input, reason }) => [input, reason]));
  assert.deepEqual(reasons, { 'an odd one': 'schema', 'a short one': 'truncated', 'a private one': 'refusal' });
  assert.equal(home.server.counts.billedCalls, 4 + 2, 'two were repaired, in vain');
});

test('pairs can carry rationales too', async () => {
  await using home = await DataHome.start({ answer: () => json({ pairs: [{ input: '送货太慢了', rationale: '抱怨速度。', output: 'negative' }] }) });
  const spec = home.spec({ sampling: { source: { kind: 'description', attributes: {}, pairsPerCall: 1 }, rows: 1, rationale: true } });
  const { samples } = await home.round(spec, await home.prepare(spec));
  assert.deepEqual([samples[0]?.rationale, samples[0]?.output], ['抱怨速度。', 'negative']);
});

test('calls are stored at the provider with campaign, round and sample, and stored ones come back as samples at no cost', async () => {
  await using home = await DataHome.start({ answer: (call) => (asked(call).includes('dull') ? 'negative' : 'positive') });
  const inputs = ['a lovely little film', 'dull and far too long', '手机很好用，电池耐用', 'nothing dull about this'];
  const pool = home.file('pool.jsonl', inputs.map((input) => ({ input })));
  const storing = home.spec({ name: 'storing', sampling: { source: { kind: 'inputs', dataset: pool }, rows: 4 }, teacher: { store: true } });
  const first = await home.round(storing, await home.prepare(storing));
  const [call] = home.server.received;
  assert.equal(call?.store, true);
  assert.deepEqual(Object.keys(call?.metadata ?? {}), ['campaign', 'round', 'sample']);
  assert.deepEqual([call?.metadata?.['campaign'], call?.metadata?.['round']], ['storing', '1']);
  // The same questions without `store` are the same calls.
  const silent = home.spec({ name: 'silent', sampling: { source: { kind: 'inputs', dataset: pool }, rows: 4 } });
  await home.round(silent, await home.prepare(silent));
  assert.equal(home.server.counts.billedCalls, 4);

  await using other = await DataHome.start();
  const importing = other.spec({
    name: 'importing', teacher: { baseUrl: home.server.baseUrl },
    sampling: { source: { kind: 'stored-completions', metadata: { campaign: 'storing', round: '1' } }, rows: 10 },
  });
  const data = await other.prepare(importing);
  assert.equal(data.poolRows, 4);
  const second = await other.round(importing, data);
  assert.equal(home.server.counts.billedCalls, 4, 'nothing is asked anew');
  assert.equal(second.planned.batchUpperBoundUsd, 0);
  assert.deepEqual(second.batches[0]?.spending, { usd: 0, tokens: 0, callsBought: 0, callsReused: 4, callsRepeated: 0 });
  const plain = (samples: typeof first.samples) => samples.map(({ input, output, messages }) => ({ input, output, messages })).toSorted((a, b) => (a.input < b.input ? -1 : 1));
  assert.deepEqual(plain(second.samples), plain(first.samples), 'the input is what stood in the place of {input}');
  assert.match(second.samples[0]?.origin ?? '', /^stored completion chatcmpl-\d+$/);
  const totals = await other.ledger.totals();
  assert.deepEqual([totals.calls, totals.costUsd], [4, 0]);
  await other.prepare(importing);
  assert.equal((await other.ledger.totals()).calls, 4, 'importing again records nothing twice');
});

test('a filter that finds no stored completion says what it looked for', async () => {
  await using home = await DataHome.start();
  const spec = home.spec({ sampling: { source: { kind: 'stored-completions', metadata: { task: 'none', v: '2' } }, rows: 10 } });
  await assert.rejects(home.prepare(spec), /sampling\.source\.metadata: expected completions stored at .* with task=none, v=2, got none/);
});

test('an endpoint that stores nothing is asked without', async () => {
  await using home = await DataHome.start({ without: ['store'], answer: (_call, index) => pairsOf(index) });
  const spec = home.spec({ teacher: { store: true } });
  const { samples } = await home.round(spec, await home.prepare(spec));
  assert.equal(samples.length, 8);
  assert.equal(home.server.received.at(-1)?.store, undefined);
});

test('every fault of a teacher ends as a good row or as a rejected row with its reason', async () => {
  const faults = ['429', '500', '503', 'reset', 'reset-after-work', 'truncated-body', 'truncated-json', 'broken-schema', 'refusal', 'content-filter', 'content-filter-400', 'context-length', 'duplicate'] as const;
  const random = createRandom(3, 'faults');
  await using home = await DataHome.start({ answer: (_call, index) => pairsOf(index, 1), random, faults: Object.fromEntries(faults.map((fault) => [fault, 0.04])) });
  const spec = home.spec({ sampling: { source: { kind: 'description', pairsPerCall: 1, attributes: { topic: Array.from({ length: 200 }, (_, index) => `topic ${index}`) } }, rows: 200, batchSize: 50 }, teacher: { concurrency: 8 } });
  const data = await home.prepare(spec);
  const { samples, rejected, built } = await home.round(spec, data);
  assert.equal(samples.length + rejected.length, 200);
  assert.ok(rejected.every(({ reason, detail }) => REJECTION_REASONS.includes(reason) && detail !== ''));
  const reasons = new Set(rejected.map(({ reason }) => reason));
  for (const reason of ['refusal', 'exact-duplicate'] as const) assert.ok(reasons.has(reason), [...reasons].join());
  const again = await home.round(spec, data);
  assert.equal(again.built.dataset.sha256, built.dataset.sha256);
  assert.deepEqual(await getRows(home.store, again.built.rejected), rejected);
});

test('the example that routes tickets plans, mixes, votes and reasons in one round', async () => {
  const folder = fileURLToPath(new URL('../../campaigns/', import.meta.url));
  const teams = ['billing', 'bug', 'account', 'other'];
  await using home = await DataHome.start({
    answer: (call, index) => {
      const schema = call.response_format?.json_schema?.name;
      if (schema === 'attributes') return json({ attributes: [{ name: 'product area', values: ['mobile app', 'invoices', 'sign-in'] }, { name: 'tone', values: ['angry', 'polite', 'terse'] }] });
      if (schema === 'training_pairs') return json({ pairs: Array.from({ length: 8 }, (_, at) => ({ input: sentence(9_000 + index * 10 + at), rationale: 'It names the team.', output: teams[at % 4] })) });
      // Of every five answers about a ticket one dissents; about the one on dark mode three do.
      const ticket = call.messages.at(-1)?.content ?? '';
      const draw = Number(call['seed']) - 17;
      return json({ rationale: '因为它说的是这个。', answer: ticket.includes('dark mode') ? (teams[draw % 4] ?? '') : draw === 4 ? 'other' : 'bug' });
    },
  });
  const spec = withAbsolutePaths(parseSpec(await readFile(`${folder}ticket-routing.yaml`, 'utf8')), folder);
  const hosted = { ...spec, teacher: { ...spec.teacher, baseUrl: home.server.baseUrl }, filter: { ...spec.filter, maxClassRatio: undefined } };
  const { samples, rejected, requests, preliminary } = await home.round(hosted as typeof spec, await home.prepare(spec));
  assert.deepEqual([preliminary, requests.length], [1, 30 * 5 + 30]);
  assert.equal(home.server.counts.billedCalls, 1 + 180);
  const answered = samples.filter(({ confidence }) => confidence !== undefined);
  assert.ok(answered.length === 29 && answered.every(({ confidence, rationale }) => confidence === 0.8 && rationale === '因为它说的是这个。'));
  assert.deepEqual(rejected.map(({ reason, detail }) => [reason, detail]), [['low-confidence', 'confidence 0.400, expected at least 0.8']]);
  assert.equal(samples.length - answered.length, 30 * 8);
  assert.deepEqual(Object.keys(home.server.received[1]?.metadata ?? {}), ['campaign', 'round', 'sample']);
});
