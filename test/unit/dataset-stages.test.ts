import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { InputRow, Prediction, RejectedSample, Sample, TeacherAnswer, TeacherRequest } from '../../src/contracts/records.ts';
import { buildDataset } from '../../src/dataset/build.ts';
import { readRows } from '../../src/dataset/import.ts';
import { drawSets, prepareCampaign } from '../../src/dataset/prepare.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { leastSure, mostSimilar, selectInputs } from '../../src/dataset/select.ts';
import type { CampaignSpec, CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { getRows, putJson, putRows } from '../../src/store/jsonl.ts';
import { answer, labelSpec, reader, request, row, workspace } from '../support/rows.ts';
import type { Workspace } from '../support/rows.ts';

const assets = { dataset: (name: string) => Promise.resolve(name) };
const jsonl = (rows: readonly object[]): string => rows.map((entry) => JSON.stringify(entry)).join('\n');
const refusal = (code: string, message: RegExp) => (error: unknown): boolean => error instanceof StillhouseError && error.code === code && message.test(error.message);
/** Sentences that share few shingles. */
const sentence = (index: number): string => `${createRandom(index, 'sentence')().toString(36).slice(2)} ${createRandom(index, 'more')().toString(36).slice(2)}`;

async function collect(path: string): Promise<InputRow[]> {
  const rows: InputRow[] = [];
  for await (const entry of readRows(path)) rows.push(entry);
  return rows;
}

test('JSONL, CSV and text files give the same rows', async () => {
  const { file } = workspace();
  const texts = ['好吃,便宜', 'say "hi"\nagain', 'plain'];
  const lines = await collect(await file('a.jsonl', `\uFEFF${jsonl([{ input: texts[0], gold: 'p' }, { input: texts[1], output: 'n' }, { input: texts[2], id: 9 }])}\n\n`));
  const csv = await collect(await file('a.csv', 'id,input,gold\r\n1,"好吃,便宜",p\r\n2,"say ""hi""\nagain",n\r\n3,plain,'));
  assert.deepEqual(lines.map(({ input, gold }) => [input, gold]), [[texts[0], 'p'], [texts[1], 'n'], [texts[2], undefined]]);
  assert.deepEqual(csv.map(({ id, input, gold }) => ({ id, input, gold })), lines.map(({ id, input, gold }) => ({ id, input, gold })));
  assert.equal(csv[2]?.origin, 'a.csv:5');
  assert.deepEqual((await collect(await file('a.txt', 'one\r\n\r\n two \n'))).map(({ input, origin }) => [input, origin]), [['one', 'a.txt:1'], ['two', 'a.txt:3']]);
});

test('a bad data file is refused with its line', async () => {
  const { file, folder } = workspace();
  await assert.rejects(collect(await file('a.jsonl', '{"input":"x"}\n{"text":"y"}')), refusal('BAD_INPUT', /a\.jsonl:2: expected a string "input", got/));
  await assert.rejects(collect(await file('b.jsonl', 'x')), refusal('BAD_INPUT', /b\.jsonl:1: expected one JSON object/));
  await assert.rejects(collect(await file('a.csv', 'text\nx')), refusal('BAD_INPUT', /column "input", got text; rename "text" to "input"/));
  await assert.rejects(collect(await file('b.csv', 'input,gold\nx')), refusal('BAD_INPUT', /:2: expected 2 fields, got 1/));
  await assert.rejects(collect(`${folder}/none.txt`), refusal('NOT_FOUND', /nothing at .*none\.txt/));
  await assert.rejects(collect(await file('a.parquet', '')), refusal('BAD_INPUT', /ending in \.jsonl, \.ndjson, \.json, \.csv, \.tsv or \.txt, got .*a\.parquet/));
});

async function prepared(space: Workspace, pool: readonly object[], gold: readonly object[], changes: Partial<CampaignSpecInput> = {}) {
  const spec = labelSpec({
    sampling: { source: { kind: 'inputs', dataset: await space.file('pool.jsonl', jsonl(pool)) }, rows: 10 },
    evaluation: { source: { kind: 'dataset', dataset: await space.file('gold.jsonl', jsonl(gold)) }, developmentRows: 4, testRows: 8, scorer: { kind: 'label' } },
    ...changes,
  });
  return { spec, data: await prepareCampaign({ store: space.store, assets }, { campaign: 'test', spec: await putJson(space.store, 'spec', spec) }) };
}

const goldRows = Array.from({ length: 20 }, (_, index) => ({ input: sentence(index), gold: index % 4 === 0 ? 'negative' : 'positive' }));

test('preparing keeps held-out rows apart, in the proportions of the classes, and the same way each time', async () => {
  const space = workspace();
  const fresh = Array.from({ length: 30 }, (_, index) => ({ input: sentence(100 + index), gold: 'positive' }));
  const pool = [...fresh, fresh[0], { input: `  ${(goldRows[0] as { input: string }).input.toUpperCase()}` }, ...goldRows.map(({ input }) => ({ input: `${input}!` }))] as object[];
  const { data } = await prepared(space, pool, goldRows);
  const rows = async (ref: Parameters<typeof getRows>[1]) => await getRows<InputRow>(space.store, ref);
  const [test, development, poolRows] = [await rows(data.test), await rows(data.development), await rows(data.pool as typeof data.test)];
  assert.deepEqual([test.length, development.length], [8, 4]);
  assert.equal(test.filter(({ gold }) => gold === 'negative').length, 2);
  assert.equal(development.filter(({ gold }) => gold === 'negative').length, 1);
  const held = new Set([...test, ...development].map(({ input }) => input));
  assert.equal(held.size, 12);
  assert.equal(data.poolRows, 30 + 20 - 12, 'gold rows that were not drawn may be asked about');
  for (const { input, gold } of poolRows) {
    assert.ok(!held.has(input.replace(/!$/, '')));
    assert.equal(gold, undefined);
  }
  const excluded = await getRows<RejectedSample>(space.store, data.excluded as typeof data.test);
  const reasons = excluded.map(({ reason }) => reason);
  assert.ok(reasons.includes('exact-duplicate') && reasons.filter((reason) => reason.endsWith('held-out')).length >= 12, reasons.join());
  assert.deepEqual((await prepared(space, pool, goldRows)).data, data);
  assert.notDeepEqual((await prepared(space, pool, goldRows, { seed: 18 })).data.test, data.test);
});

test('too few rows and unknown gold labels are refused with what was expected and found', async () => {
  const space = workspace();
  await assert.rejects(prepared(space, [{ input: 'x' }], goldRows.slice(0, 5)), refusal('BAD_INPUT', /4 \+ 8 = 12 distinct rows in .*gold\.jsonl, got 5/));
  await assert.rejects(prepared(space, [{ input: 'x' }], goldRows.with(3, { input: 'odd', gold: 'meh' })), refusal('BAD_INPUT', /negative, positive, got 1 of 20 rows that have not: gold\.jsonl:4 has "meh"$/));
  await assert.rejects(prepared(space, goldRows, goldRows, { evaluation: { source: { kind: 'dataset', dataset: `${space.folder}/gold.jsonl` }, developmentRows: 10, testRows: 10, scorer: { kind: 'label' } } }), refusal('BAD_INPUT', /not held out for evaluation, got none of 20/));
});

test('gold labels that are spelled otherwise are refused in one message, with the first rows and how many', async () => {
  const space = workspace();
  const spelled = goldRows.map((row, index) => (index % 2 === 0 ? { ...row, gold: row.gold === 'positive' ? 'Positive ' : 'negative' } : row)).with(1, { input: 'none' } as never);
  await assert.rejects(prepared(space, [{ input: 'x' }], spelled), refusal('BAD_INPUT', /spelled as one of negative, positive, got 6 of 20 rows that have not: gold\.jsonl:2 has none, gold\.jsonl:3 has "Positive " where the task says "positive", .*:15 [^,]* and 1 more$/));
});

test('near duplicates stay among the gold rows, on one side of the split, and the pool has nothing like a held-out row', async () => {
  const space = workspace();
  const template = (index: number): string => `Your parcel number ${1_000 + index} was handed over to our partner for delivery today`;
  const alike = Array.from({ length: 10 }, (_, index) => ({ input: template(index), gold: 'positive' }));
  const others = Array.from({ length: 30 }, (_, index) => ({ input: sentence(index), gold: index % 3 === 0 ? 'positive' : 'negative' }));
  const pool = [{ input: template(500) }, ...Array.from({ length: 5 }, (_, index) => ({ input: sentence(300 + index) }))];
  for (const seed of [1, 2, 3, 4]) {
    const { data } = await prepared(space, pool, [...alike, ...others, alike[0] as object], { seed });
    const [test, development, poolRows] = await Promise.all([data.test, data.development, data.pool as typeof data.test].map((ref) => getRows<InputRow>(space.store, ref)));
    const parcels = (rows: readonly InputRow[] = []): number => rows.filter(({ input }) => input.startsWith('Your parcel')).length;
    assert.deepEqual([test?.filter(({ gold }) => gold === 'positive').length, development?.filter(({ gold }) => gold === 'positive').length], [4, 2], 'half of the gold rows are positive');
    assert.ok(parcels(test) === 0 || parcels(development) === 0, `${parcels(test)} and ${parcels(development)}`);
    assert.ok(parcels(test) + parcels(development) > 0, `seed ${seed} draws one`);
    assert.equal(parcels(poolRows), 0);
    const excluded = await getRows<RejectedSample>(space.store, data.excluded as typeof data.test);
    assert.deepEqual(excluded.map(({ reason }) => reason), ['exact-duplicate', 'near-held-out']);
  }
});

test('a text under two gold labels is refused with both lines; of two references for one text the first is kept', async () => {
  const space = workspace();
  const first = goldRows[0] as { readonly input: string };
  const repeated = [...goldRows, { input: ` ${first.input.toUpperCase()}`, gold: 'positive' }];
  await assert.rejects(prepared(space, [{ input: 'x' }], repeated), refusal('BAD_INPUT', /one gold label for each text, got 1 row that repeats a text with another: gold\.jsonl:1 "negative" and gold\.jsonl:21 "positive"$/));
  const judge = { kind: 'judge', rubric: 'r', judge: { provider: 'openai', model: 'j' } } as const;
  const { data } = await prepared(space, [{ input: 'x' }], repeated, { task: { description: 'd', output: { kind: 'text' } }, evaluation: { source: { kind: 'dataset', dataset: `${space.folder}/gold.jsonl` }, developmentRows: 4, testRows: 8, scorer: judge } });
  const [excluded] = await getRows<RejectedSample>(space.store, data.excluded as typeof data.test);
  assert.match(excluded?.detail ?? '', /^gold\.jsonl:21: the same text as .*, with another gold output$/);
});

test('a held-out source splits the tasks themselves', async () => {
  const space = workspace();
  const judge = { kind: 'judge', rubric: 'r', judge: { provider: 'openai', model: 'j' } } as const;
  const changes = { task: { description: 'd', output: { kind: 'text' } } } as const;
  const { data } = await prepared(space, goldRows, [], { ...changes, evaluation: { source: { kind: 'held-out', rows: 8 }, developmentRows: 3, testRows: 5, scorer: judge } });
  assert.deepEqual([data.developmentRows, data.testRows, data.poolRows], [3, 5, 12]);
});

test('drawn sets are disjoint and as large as asked', () => {
  const rows = Array.from({ length: 31 }, (_, index) => row(`text ${index}`, index % 3 === 0 ? 'a' : 'b'));
  const [first, second] = drawSets(rows, [10, 21], createRandom(1, 'x'));
  assert.deepEqual([first?.length, second?.length], [10, 21]);
  assert.equal(new Set([...(first ?? []), ...(second ?? [])].map(({ id }) => id)).size, 31);
});

interface Built {
  readonly samples: readonly Sample[];
  readonly rejected: readonly RejectedSample[];
  readonly hash: string;
}

async function build(space: Workspace, spec: CampaignSpec, rounds: readonly (readonly (readonly [TeacherRequest, TeacherAnswer])[])[], held: readonly InputRow[] = []): Promise<Built> {
  const { store } = space;
  const refs = await Promise.all(rounds.map((round) => putRows(store, 'requests', round.map(([asked]) => asked))));
  const answers = reader(Object.fromEntries(rounds.flat().map(([asked, given]) => [asked.id, given])));
  const ref = await putRows(store, 'rows', held);
  const data = { development: ref, test: await putRows(store, 'rows', []), poolRows: 0, developmentRows: held.length, testRows: 0 };
  const built = await buildDataset({ store, answers }, { campaign: 'test', spec: await putJson(store, 'spec', spec), round: rounds.length, data, requests: refs });
  const samples = await getRows<Sample>(store, built.dataset);
  const rejected = await getRows<RejectedSample>(store, built.rejected);
  assert.deepEqual([built.accepted, built.rejectedCount], [samples.length, rejected.length]);
  return { samples, rejected, hash: built.dataset.sha256 };
}

const ask = (text: string, given: TeacherAnswer): readonly [TeacherRequest, TeacherAnswer] => [request(row(text)), given];

test('every answer becomes a sample or a rejected row with its reason', async () => {
  const space = workspace();
  const spec = labelSpec({ filter: { minConfidence: 0.6, maxInputCharacters: 60, nearDuplicateSimilarity: 0.7 } });
  const sure = (label: string): TeacherAnswer => answer(label, { labelLogProbs: label === 'positive' ? [-3, -0.05] : [-0.05, -3] });
  const round = [
    ask('A warm, funny film.', sure('positive')),
    ask('Dull from start to end.', sure('negative')),
    ask('Hmm.', answer('positive', { labelLogProbs: [-0.7, -0.69] })),
    ask('Something private.', answer('', { finishReason: 'refusal' })),
    ask('It is what it is, really.', answer('mixed')),
    ask('Long answer wanted here.', answer('Well, on the one hand', { finishReason: 'length' })),
    ask('x'.repeat(61), sure('positive')),
    ask('A WARM,  funny film.', sure('positive')),
    ask('A warm, funny film!!', sure('positive')),
    ask('Held out sentence number one', sure('positive')),
    ask('Held out sentence number one.', sure('positive')),
    ask('Say nothing at all about it', answer(' ')),
  ];
  const { samples, rejected } = await build(space, spec, [round], [row('held out sentence NUMBER one', 'positive')]);
  assert.deepEqual(samples.map(({ output }) => output), ['positive', 'negative']);
  assert.deepEqual(samples[0]?.messages, [{ role: 'user', content: 'Review: A warm, funny film.\nSentiment:' }, { role: 'assistant', content: 'positive' }]);
  assert.ok(Math.abs((samples[0]?.confidence ?? 0) - 1 / (1 + Math.exp(-2.95))) < 1e-6);
  assert.deepEqual(rejected.map(({ reason }) => reason), [
    'low-confidence', 'refusal', 'unknown-label', 'truncated', 'length', 'exact-duplicate', 'near-duplicate', 'held-out', 'near-held-out', 'empty',
  ]);
  assert.match(rejected[2]?.detail ?? '', /expected one of negative, positive, got "mixed"/);
  assert.match(rejected[6]?.detail ?? '', new RegExp(samples[0]?.id as string));
  const again = await build(space, spec, [round], [row('held out sentence NUMBER one', 'positive')]);
  assert.equal(again.hash, (await build(space, spec, [round], [row('held out sentence NUMBER one', 'positive')])).hash);
});

test('class balance drops the least sure rows of the larger class', async () => {
  const space = workspace();
  const round = Array.from({ length: 9 }, (_, index) => {
    const logit = 1 + index;
    return ask(sentence(index), answer(index < 3 ? 'negative' : 'positive', { labelLogProbs: index < 3 ? [0, -logit] : [-logit, 0] }));
  });
  const { samples, rejected } = await build(space, labelSpec({ filter: { maxClassRatio: 1.4 } }), [round]);
  assert.equal(samples.filter(({ output }) => output === 'positive').length, 4);
  assert.deepEqual(rejected.map(({ id }) => id), [3, 4].map((index) => row(sentence(index)).id));
  assert.ok(rejected.every(({ reason }) => reason === 'class-balance'));
});

test('the prior is measured over the first round alone, so that its samples stay as they are', async () => {
  const space = workspace();
  const spec = labelSpec({ teacher: { provider: 'local', model: 't', calibration: 'prior' } });
  const first = [-2, -1, 0, 1, 2, 3].map((margin, index) => ask(sentence(index), answer('positive', { labelLogProbs: [-4, -1 + margin] })));
  const second = [5, 6, 7].map((margin, index) => ask(sentence(50 + index), answer('positive', { labelLogProbs: [-4, margin] })));
  const one = await build(space, spec, [first]);
  const two = await build(space, spec, [first, second]);
  assert.deepEqual(two.samples.slice(0, one.samples.length), one.samples);
  assert.deepEqual(one.samples.map(({ output }) => output), ['negative', 'negative', 'negative', 'positive', 'positive', 'positive']);
});

test('pairs that the teacher wrote are samples each, non-ASCII as it is', async () => {
  const space = workspace();
  const spec = labelSpec({
    task: { description: '情感', output: { kind: 'label', labels: ['积极', '消极', '中性'] } },
    teacher: { provider: 'openai', model: 'gpt-4o' }, sampling: { source: { kind: 'description' }, rows: 4 },
  });
  const asked = (id: string): TeacherRequest => ({
    id, purpose: 'train', sampleIndex: 0,
    task: { kind: 'json', messages: [{ role: 'user', content: 'write' }], schemaName: 's', schema: {}, parameters: { maxTokens: 99, temperature: 1 } },
  });
  const { samples, rejected } = await build(space, spec, [[
    [asked('a'), answer('{"pairs":[{"input":"手机很好用，电池耐用","output":"积极"},{"input":"快递太慢","output":"糟糕"},{"input":"只有输入"}]}')],
    [asked('b'), answer('{"pairs":[{"input":"手', { finishReason: 'length' })],
    [asked('c'), answer('对不起，我无法完成这个请求。')],
    [asked('d'), answer('[]')],
  ]]);
  assert.deepEqual(samples.map(({ input, output, requestId }) => [input, output, requestId]), [['手机很好用，电池耐用', '积极', 'a']]);
  assert.deepEqual(rejected.map(({ reason }) => reason), ['unknown-label', 'schema', 'truncated', 'refusal', 'schema']);
  assert.ok((await space.store.get((await putRows(space.store, 'dataset', samples)))).includes('手机很好用'));
});

test('code that does not parse is rejected, and an empty dataset is an error that counts the reasons', async () => {
  const space = workspace();
  const spec = labelSpec({
    task: { description: 'code', output: { kind: 'code', language: 'typescript' } },
    evaluation: { source: { kind: 'held-out', rows: 2 }, developmentRows: 1, testRows: 1, scorer: { kind: 'judge', rubric: 'r', judge: { provider: 'openai', model: 'j' } } },
  });
  const round = [ask('sum', answer('```ts\nconst sum = (a: number[]) => a.reduce((x, y) => x + y, 0);\n```')), ask('max', answer('```ts\nconst max = (\n```'))];
  const { samples, rejected } = await build(space, spec, [round]);
  assert.equal(samples.length, 1);
  assert.equal(rejected[0]?.reason, 'does-not-parse');
  await assert.rejects(build(space, spec, [round.slice(1)]), refusal('BAD_INPUT', /at least one of 1 answers.*1 does-not-parse/));
});

test('selection asks about unsure rows and rows like the mistakes, in turn, and about none twice', async () => {
  const space = workspace();
  const { store } = space;
  const pool = [row('The camera broke at once'), row('zebra quilt'), row('sun moon'), row('The battery broke at last'), row('plain words here')];
  const [camera, zebra, sun, battery, plain] = pool as [InputRow, InputRow, InputRow, InputRow, InputRow];
  const development = [row('The battery broke at once', 'negative'), row('Lovely tune', 'positive')];
  const prediction = (of: InputRow, output: string, margin?: number): Prediction => ({
    id: of.id, output, promptTokens: 1, completionTokens: 1, ...(margin === undefined ? {} : { labelLogProbs: [-margin, 0] }),
  });
  const poolPredictions = await putRows(store, 'predictions', [prediction(camera, 'positive', 3), prediction(zebra, 'positive', 0.2), prediction(sun, 'negative', 0.1)]);
  const developmentPredictions = await putRows(store, 'predictions', [prediction(development[0] as InputRow, 'positive'), prediction(development[1] as InputRow, 'positive')]);
  const select = async (rows: number, asked: readonly InputRow[]) => {
    const spec = await putJson(store, 'spec', labelSpec({ sampling: { source: { kind: 'inputs', dataset: 'x' }, rows: 10, rowsPerLaterRound: rows } }));
    const ref = await putRows(store, 'rows', development);
    const data = { pool: await putRows(store, 'rows', pool), development: ref, test: ref, poolRows: 5, developmentRows: 2, testRows: 2 };
    const earlier = [await putRows(store, 'requests', asked.map((entry) => request(entry)))];
    const selected = await selectInputs({ store }, { campaign: 'test', spec, data, earlier, poolPredictions, developmentPredictions });
    const chosen = (await getRows<InputRow>(store, selected.selection)).map(({ input }) => input);
    assert.equal(selected.rows, chosen.length);
    return chosen;
  };
  assert.deepEqual(await select(4, []), [sun.input, battery.input, zebra.input, camera.input]);
  assert.deepEqual(await select(2, [sun, battery]), [zebra.input, camera.input]);
  assert.deepEqual(await select(9, [sun, battery, zebra, camera]), [plain.input]);
  assert.deepEqual(await select(9, pool), []);
});

test('rankings are by margin and by similarity', () => {
  const rows = [row('aaa bbb'), row('ccc ddd'), row('eee fff')];
  const predictions = rows.map(({ id }, index): Prediction => ({ id, output: 'x', promptTokens: 0, completionTokens: 0, labelLogProbs: [-[2, 0.5, 1][index]!, 0, -9] }));
  assert.deepEqual(leastSure(rows, predictions).map(({ input }) => input), ['ccc ddd', 'eee fff', 'aaa bbb']);
  assert.deepEqual(mostSimilar(rows, [row('eee ddd fff')]).map(({ input }) => input), ['eee fff', 'ccc ddd']);
});
