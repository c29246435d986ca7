/** Rows that a student cannot learn: known before anything is bought, and never the end of a campaign. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { CampaignSpec, CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { InputRow, RejectedSample } from '../../src/contracts/records.ts';
import { prepareCampaign } from '../../src/dataset/prepare.ts';
import { estimateCampaign } from '../../src/estimate/estimate.ts';
import { answerRows } from '../../src/evaluation/student.ts';
import { createModelHost } from '../../src/lm/host.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getRows, putJson } from '../../src/store/jsonl.ts';
import { fittingRows } from '../../src/training/fitting.ts';
import { lengthsBy } from '../../src/training/lengths.ts';
import { tokenizeSamples } from '../../src/training/samples.ts';
import { openTokenizer } from '../../src/lm/load.ts';
import { DataHome } from '../support/data-home.ts';
import { temporaryFolder, writeRows } from '../support/folder.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();
/** Single bytes are its tokens. */
const model = writeTinyLlama(join(folder, 'student'));
const wide = writeTinyLlama(join(folder, 'wide'), 8, undefined, { merges: [['x', 'x']] });
const assets = {
  dataset: (name: string) => Promise.resolve(name),
  model: (name: string) => Promise.resolve({ name, path: name, license: 'none' }),
};
const gold = writeRows(join(folder, 'gold.jsonl'), Array.from({ length: 8 }, (_, i) => ({ input: `held out text number ${i} of its own kind ${'abcdefgh'[i]?.repeat(9)}`, gold: i % 2 === 0 ? 'negative' : 'positive' })));
const words = ['alpha', 'bravo', 'charlie', 'delta', 'echo', 'foxtrot', 'golf', 'hotel'];
const short = words.map((word, i) => ({ input: `${word} ${word.repeat(2)} is a text of its own ${i * 7919}` }));

const specOf = (pool: readonly object[], changes: Partial<CampaignSpecInput> = {}): CampaignSpec =>
  campaignSpecSchema.parse({
    name: 'lengths',
    task: { description: 'Tell good from bad.', instruction: 'Review: {input}\nSentiment:', output: { kind: 'label', labels: ['negative', 'positive'] } },
    teacher: { provider: 'openai', model: 'gpt-4o-mini', price: { inputUsdPerMillion: 1, outputUsdPerMillion: 1 } },
    sampling: { source: { kind: 'inputs', dataset: writeRows(join(folder, `pool-${Math.random()}.jsonl`), pool) }, rows: 20 },
    student: { model },
    training: { maxTokens: 128 },
    evaluation: { source: { kind: 'dataset', dataset: gold }, developmentRows: 2, testRows: 4, scorer: { kind: 'label' } },
    ...changes,
  } as CampaignSpecInput);

async function prepared(spec: CampaignSpec) {
  const store = createFileStore(temporaryFolder());
  const data = await prepareCampaign({ store, assets, lengths: lengthsBy(assets) }, { campaign: spec.name, spec: await putJson(store, 'spec', spec) });
  return { data, pool: await getRows<InputRow>(store, data.pool ?? assert.fail('expected a pool')), excluded: data.excluded === undefined ? [] : await getRows<RejectedSample>(store, data.excluded) };
}

/** The tokens of an input's prompt and the longest label, as the student reads them. */
function tokensOf(input: string, path = model): number {
  const tokenizer = openTokenizer(path);
  return tokenizer.encodeForTraining([{ role: 'user', content: `Review: ${input}\nSentiment:` }, { role: 'assistant', content: 'negative' }]).ids.length;
}

test('rows that are too long for the student, by its own tokens and template, are left out before anything is bought', async () => {
  const overhead = tokensOf('');
  const exact = 'e'.repeat(128 - overhead);
  const { pool, excluded } = await prepared(specOf([...short, { input: exact }, { input: `${'q'.repeat(129 - overhead)}` }, { input: '长'.repeat(60) }, { input: 'z'.repeat(600) }]));
  assert.deepEqual(pool.map(({ input }) => input).toSorted(), [...short.map(({ input }) => input), exact].toSorted(), 'one that fits to the last token stays');
  assert.deepEqual(excluded.map(({ reason, detail }) => [reason, detail.replace(/^.*?: /, '')]), [
    ['length', '129 tokens, training.maxTokens 128'],
    ['length', `${overhead + 180} tokens, training.maxTokens 128`],
    ['length', `${overhead + 600} tokens, training.maxTokens 128`],
  ]);
});

test('inputs that the filter turns away are not bought either; no number of characters is a limit by default', async () => {
  const filtered = await prepared(specOf([...short, { input: 'tiny' }, { input: `${'w'.repeat(70)}` }], { filter: { minInputCharacters: 6, maxInputCharacters: 60 } }));
  assert.deepEqual(filtered.excluded.map(({ reason, detail }) => [reason, detail.replace(/^.*?: /, '')]), [['length', 'input of 4 characters, expected 6 to 60'], ['length', 'input of 70 characters, expected 6 to 60']]);
  const open = await prepared(specOf([...short, { input: 'long '.repeat(1_500) }], { training: { maxTokens: 8_192 } }));
  assert.equal(open.pool.length, short.length + 1);
  await assert.rejects(prepared(specOf([{ input: 'y'.repeat(300) }, { input: 'v'.repeat(400) }])), /expected rows that filter and training\.maxTokens let through, got none of 2; the first: \d+ tokens, training\.maxTokens 128/);
});

test('the contestants of a tournament learn one dataset: the smallest limit counts, in the tokens of each', async () => {
  const input = `text of x ${'x'.repeat(160)}`;
  const only = (contestants: readonly object[]) => prepared(specOf([...short, { input }], { training: { maxTokens: 400 }, tournament: { contestants } } as Partial<CampaignSpecInput>));
  const [bytes, pairs] = [tokensOf(input), tokensOf(input, wide)];
  assert.ok(pairs < bytes - 20);
  assert.equal((await only([{ name: 'a' }, { name: 'b', student: { model: wide }, training: { maxTokens: pairs } }])).excluded.length, 0);
  assert.match((await only([{ name: 'a' }, { name: 'b', student: { model: wide }, training: { maxTokens: pairs - 1 } }])).excluded[0]?.detail ?? '', new RegExp(`${pairs} tokens, training.maxTokens ${pairs - 1}`));
});

test("a hosted student's tokens are its provider's: nobody counts characters in their place", async () => {
  const { pool } = await prepared(specOf([...short, { input: 'h'.repeat(3_000) }], { student: { provider: 'openai', model: 'gpt-4o-mini-2024-07-18' }, training: {} }));
  assert.equal(pool.length, short.length + 1);
});

test('a row as long as a book is counted in time', async () => {
  const startedMs = performance.now();
  const { excluded } = await prepared(specOf([...short, { input: 'a book of many words, '.repeat(50_000) }]));
  assert.equal(excluded.length, 1);
  assert.ok(performance.now() - startedMs < 20_000, `${performance.now() - startedMs} ms`);
});

test('an estimate counts the rows that will not fit, and asks nothing about them', async () => {
  const spec = specOf([...short, { input: 'k'.repeat(300) }, { input: 'm'.repeat(350) }]);
  const estimated = await estimateCampaign({ assets, lengths: lengthsBy(assets) }, spec);
  assert.deepEqual(estimated.leftOut?.map(({ reason, rows }) => [reason, rows]), [['length', 2]]);
  assert.match(estimated.leftOut?.[0]?.example ?? '', /\d+ tokens, training\.maxTokens 128/);
  assert.equal(estimated.parts[0]?.calls.high, short.length);
  const away = await estimateCampaign({ assets, lengths: lengthsBy({ model: () => Promise.reject(new StillhouseError('UNAVAILABLE', 'the hub is away')) }) }, spec);
  assert.equal(away.leftOut, undefined);
  assert.ok(away.basis.includes('rows that are too long for the student were not counted: the hub is away'));
});

test('answers that make a sample too long are rejected rows with their length; a rationale counts where it is learned', async () => {
  await using home = await DataHome.start({ answer: () => 'positive' });
  const pool = home.file('pool.jsonl', short);
  const task = { description: 'Explain.', instruction: 'Review: {input}\nSentiment:', output: { kind: 'text' as const } };
  const judge = { kind: 'judge' as const, judge: { provider: 'openai' as const, model: 'gpt-4o-mini', baseUrl: home.server.baseUrl }, rubric: 'r' };
  home.server.options = { ...home.server.options, answer: ({ messages }) => (JSON.stringify(messages).includes('charlie') ? 'far too long an answer '.repeat(20) : 'fine') };
  const spec = home.spec({
    task, student: { model }, training: { maxTokens: 128 }, sampling: { source: { kind: 'inputs', dataset: pool }, rows: 8 },
    evaluation: { source: { kind: 'dataset', dataset: home.file('gold.jsonl', [{ input: 'one of the held-out rows', gold: 'x' }, { input: 'quite another, kept apart', gold: 'y' }]) }, developmentRows: 1, testRows: 1, scorer: judge },
  });
  const round = await home.round(spec, await home.prepare(spec), [], lengthsBy(assets));
  assert.deepEqual(round.rejected.map(({ reason }) => reason), ['length']);
  assert.match(round.rejected[0]?.detail ?? '', /^\d{3} tokens, training\.maxTokens 128$/);
  assert.equal(round.samples.length, 7);
  const lengths = await lengthsBy(assets)({ ...spec, training: campaignSpecSchema.shape.training.parse({ method: 'step-by-step', maxTokens: 128 }) });
  const sample = { id: 'r', messages: [{ role: 'user' as const, content: 'short' }, { role: 'assistant' as const, content: 'yes' }] };
  assert.equal(lengths?.ofSample(sample), undefined);
  assert.match(lengths?.ofSample({ ...sample, rationale: 'because '.repeat(20) }) ?? '', /tokens, training\.maxTokens 128/);
});

test('a training goes on without rows that are too long, names the first, and refuses only where none is left', () => {
  const line = (id: string, content: string): string => JSON.stringify({ id, messages: [{ role: 'user', content }, { role: 'assistant', content: 'good' }] });
  const rows = [line('a', 'short'), line('b', 'l'.repeat(200)), line('c', 'also short'), ...Array.from({ length: 7 }, (_, i) => line(`d${i}`, 'm'.repeat(150 + i)))].join('\n');
  const samples = tokenizeSamples(rows, openTokenizer(model), {});
  const fit = fittingRows(rows, samples, 128);
  assert.deepEqual(fit.samples.map(({ id }) => id), ['a', 'c']);
  assert.deepEqual(fit.rows.trim().split('\n'), [line('a', 'short'), line('c', 'also short')]);
  assert.deepEqual([fit.tooLong.count, fit.tooLong.first.map(({ id }) => id)], [8, ['b', 'd0', 'd1', 'd2', 'd3']]);
  assert.throws(() => fittingRows(rows, samples, 20), /expected one row or more of at most training\.maxTokens = 20 tokens, got longer ones alone, 10: a \(\d+ tokens\), b/);
});

const host = createModelHost({ assets, cache: join(folder, 'cache'), threads: 1 });
let student: Awaited<ReturnType<typeof host.open>>;
before(async () => {
  student = await host.open({ model });
});
after(() => student[Symbol.asyncDispose]());

test('a held-out row that the student cannot read is answered by nothing, with the reason, and the others as ever', async () => {
  const row = (id: string, input: string): InputRow => ({ id, input, origin: 'x', gold: 'positive' });
  const rows = [row('a', 'fine'), row('b', 'n'.repeat(900)), row('c', 'poor'), row('d', 'o'.repeat(800))];
  const spec = specOf(short);
  const answers = await answerRows(student, spec, rows);
  assert.deepEqual(answers.map(({ id, output }) => [id, output === '']), [['a', false], ['b', true], ['c', false], ['d', true]]);
  assert.match(answers[1]?.problem ?? '', /^9\d\d tokens, the student reads 512$/);
  assert.deepEqual([answers[0], answers[2]], await answerRows(student, spec, [rows[0], rows[2]] as InputRow[]));
  assert.equal(answers[1]?.labelLogProbs, undefined);
  const text = { ...spec, task: { ...spec.task, output: { kind: 'text' as const } }, teacher: { ...spec.teacher, maxTokens: 4 } };
  assert.deepEqual((await answerRows(student, text, rows)).map(({ problem }) => problem !== undefined), [false, true, false, true]);
  assert.deepEqual((await answerRows(student, spec, [rows[1] as InputRow])).map(({ output }) => output), ['']);
});
