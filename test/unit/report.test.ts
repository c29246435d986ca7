import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import type { WriteReportInput } from '../../src/contracts/activities.ts';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import type { Sample } from '../../src/contracts/records.ts';
import { parseSpec } from '../../src/contracts/parse-spec.ts';
import { createReportModels } from '../../src/evaluation/report-models.ts';
import { writeReport } from '../../src/evaluation/report.ts';
import type { CampaignManifest, ReportModels } from '../../src/evaluation/report.ts';
import { count, dollars, duration, html, size } from '../../src/evaluation/report/markup.ts';
import { verdict } from '../../src/evaluation/report/page.ts';
import { lossPlot, niceTicks } from '../../src/evaluation/report/plots.ts';
import { packSoftTargets } from '../../src/dataset/soft-targets.ts';
import { getJson, getRows, putJson, putRows } from '../../src/store/jsonl.ts';
import { realisticReport } from '../support/report-data.ts';
import { workspace } from '../support/rows.ts';
import type { Workspace } from '../support/rows.ts';

const spec = parseSpec(await readFile(new URL('../../campaigns/review-sentiment.yaml', import.meta.url), 'utf8'));
const models: ReportModels = { facts: async () => ({ license: 'Apache-2.0', sha256: 'b'.repeat(64), parameters: 134_515_008, sizeBytes: 98_362_432 }) };

async function written(context: TestContext, change: (input: WriteReportInput) => WriteReportInput = (input) => input, developmentLosses: readonly (readonly [step: number, lossNats: number])[] = []): Promise<{ readonly page: string; readonly input: WriteReportInput; readonly manifest: CampaignManifest; readonly space: Workspace }> {
  const space = workspace();
  const input = change(await realisticReport(space.store, space.folder, spec, developmentLosses));
  const result = await writeReport({ store: space.store, models }, input);
  const again = await writeReport({ store: space.store, models }, input);
  assert.deepEqual(again, result, 'the same input gives the same bytes');
  return { page: (await space.store.get(result.report)).toString('utf8'), input, manifest: await getJson(space.store, result.manifest), space };
}

test('the report is one page that needs nothing from outside and names every figure and hash', async (context) => {
  const { page, input, manifest } = await written(context);
  const target = process.env['STILLHOUSE_TEST_REPORT'];
  if (target !== undefined) await writeFile(target, page);
  assert.doesNotMatch(page, /<(?:script|link|img|iframe)|url\(|@import|src=|https?:\/\//);
  assert.doesNotMatch(page, /NaN|undefined|Infinity|\[object/);
  assert.equal(page.match(/<svg /g)?.length, 6);
  assert.ok(page.includes(((input.test?.retention.mean ?? 0) * 100).toFixed(1)));
  for (const ref of [input.spec, input.testEvaluation, input.adapter, ...input.developmentEvaluations, ...input.rounds.flatMap((round) => [round.dataset, round.checkpoint, round.lossCurve])]) {
    assert.ok(ref !== undefined && page.includes(ref.sha256));
  }
  assert.match(page, /Teacher, prompt not cached/);
  assert.match(page, /same number of parameters/);
  assert.deepEqual(manifest.rounds.map((round) => round.developmentEvaluation), input.developmentEvaluations);
  assert.equal(manifest.adapter?.sha256, input.adapter?.sha256);
});

test('what is missing is left out, and a campaign without a round says so', async (context) => {
  const { page } = await written(context, ({ testEvaluation: _t, test: _s, speed: _p, adapter: _a, data: _d, ...rest }) => ({ ...rest, rounds: [], developmentEvaluations: [], bestRound: 0, stopReason: 'cancelled' }));
  assert.match(page, /No round was finished: the campaign ended because it was cancelled/);
  assert.doesNotMatch(page, /NaN|undefined|<svg/);
  const early = await written(context, ({ testEvaluation: _t, test: _s, speed: _p, adapter: _a, ...rest }) => ({ ...rest, stopReason: 'budget' }));
  assert.match(early.page, /development rows; the test rows were not reached/);
});

test('the verdict claims what the interval allows', () => {
  assert.match(verdict({ mean: 1.05, low: 1.01, high: 1.1 }, 400, 'T'), /does better than T/);
  assert.match(verdict({ mean: 1.01, low: 0.98, high: 1.03 }, 400, 'T'), /keeps 101\.0.*not measurable/);
  assert.match(verdict({ mean: 0.93, low: 0.9, high: 0.96 }, 400, 'T'), /measurably behind T/);
});

test('text is escaped, also in attributes', () => {
  const evil = `<script>alert("x")</script>'&`;
  assert.equal(html`<b title="${evil}">${[evil]}${false}${undefined}</b>`.markup.match(/<|>|"/g)?.length, 6);
});

test('numbers read as people write them', () => {
  assert.equal(count(98362432).replaceAll('\u202f', ' '), '98 362 432');
  assert.deepEqual([dollars(0), dollars(0.00123), dollars(12.3)], ['$0.00', '$0.0012', '$12.30']);
  assert.deepEqual([800, 42_000, 185_000, 59_800, 7_620_000].map((ms) => duration(ms).replaceAll('\u202f', ' ')), ['0.8 s', '42 s', '3 min 05 s', '1 min 00 s', '2 h 07 min']);
  assert.equal(size(98_362_432).replaceAll('\u202f', ' '), '98.4 MB');
});

test('ticks are round and enclose the values', () => {
  assert.deepEqual(niceTicks(0.837, 0.951, 4), [0.8, 0.85, 0.9, 0.95, 1]);
  for (const [low, high] of [[0, 3], [0.9, 0.9], [0, 0], [120, 9_000]] as const) {
    const ticks = niceTicks(low, high);
    assert.ok((ticks[0] as number) <= low && (ticks.at(-1) as number) >= high, String(ticks));
  }
  assert.doesNotMatch(lossPlot([2], [0]).markup, /NaN/);
});

test('the development loss is drawn where it was measured, and the step of the student is named', async (context) => {
  const { page } = await written(context);
  assert.doesNotMatch(page, /Dots: the development loss/);
  const { page: measured } = await written(context, (input) => input, [[3, 1.5], [9, 0.75], [12, 0.9]]);
  assert.match(measured, /the student has the weights of step 9, where it was lowest \(0\.750\)/);
  assert.match(lossPlot([2, 1, 1], [0], [{ index: 2, lossNats: 5 }]).markup, /<circle class="dot"/);
});

test('models are described by their verified files, endpoints by what binds', async () => {
  const { file } = workspace();
  const path = await file('model.gguf', 'abc');
  const facts = createReportModels({ model: async (name) => ({ name, path, license: 'MIT' }) });
  assert.deepEqual(await facts.facts({ provider: 'local', model: 'm' }), { license: 'MIT', sizeBytes: 3, sha256: 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad' });
  assert.deepEqual(await facts.facts({ provider: 'openai', model: 'gpt-4o' }), { license: 'terms of the provider' });
});

test('the report says how many rows have soft targets, and of what the confidence is', async () => {
  const { store, folder } = workspace();
  const wanting = { ...spec, sampling: { ...spec.sampling, answersPerInput: 5, softTargets: { topK: 20, onMissing: 'continue' as const } } };
  const input = { ...(await realisticReport(store, folder, spec)), spec: await putJson(store, 'spec', wanting) };
  const pageOf = async (report: WriteReportInput): Promise<string> => (await store.get((await writeReport({ store, models }, report)).report)).toString('utf8').replaceAll('\u202f', ' ');
  const without = await pageOf(input);
  assert.match(without, /Soft targets were wanted, but smollm2-135m-instruct gave no log-probabilities with any of \d+ accepted answers/);
  assert.match(without, /the agreement among 5 answers of the teacher/);
  const softTargets = packSoftTargets([{ token: 'positive', logProb: -0.1, alternatives: [{ token: 'positive', logProb: -0.1 }] }]);
  const samples = await getRows<Sample>(store, input.rounds[1]?.dataset as ArtifactRef);
  const dataset = await putRows(store, 'dataset', samples.map((sample, index) => (index < 3 ? { ...sample, softTargets } : sample)));
  const some = await pageOf({ ...input, rounds: input.rounds.map((round) => (round.round === 2 ? { ...round, dataset } : round)) });
  assert.match(some, new RegExp(`Soft targets: 3 of ${samples.length} accepted rows, 3 tokens at ${Buffer.from(softTargets, 'base64').length}\\.0 bytes each\\. With the others`));
});
