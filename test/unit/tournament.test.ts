/** A tournament in the spec, in its contestants' own specs, and on the page of the report. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { planTournament } from '../../activities/tournament.ts';
import { contestantsOf } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpec, CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { specToPlan } from '../../src/contracts/campaign.ts';
import { parseSpec, validateSpec } from '../../src/contracts/parse-spec.ts';
import type { ContestantState } from '../../src/contracts/state.ts';
import { certainty } from '../../src/evaluation/report/tournament.ts';
import { writeReport } from '../../src/evaluation/report.ts';
import { getJson, putJson } from '../../src/store/jsonl.ts';
import { createMemoryStore } from '../../src/store/memory-store.ts';
import type { ApiClient, CampaignResource } from '../../src/cli/api-client.ts';
import { follow } from '../../src/cli/follow.ts';
import { campaignText } from '../../src/cli/format.ts';
import { withAbsolutePaths } from '../../src/cli/spec-file.ts';
import { realisticReport } from '../support/report-data.ts';
import { workspace } from '../support/rows.ts';

const text = await readFile(new URL('../../campaigns/review-sentiment.yaml', import.meta.url), 'utf8');
type Tournament = NonNullable<CampaignSpecInput['tournament']>;
const base = (changes: Partial<CampaignSpecInput> = {}): CampaignSpecInput => ({ ...(parse(text) as CampaignSpecInput), ...changes });
const spec = (contestants: Tournament['contestants'], changes: Partial<CampaignSpecInput> = {}): CampaignSpec => validateSpec({ ...base(changes), tournament: { contestants } });
const refused = (contestants: readonly object[], changes: Partial<CampaignSpecInput> = {}): string => {
  try {
    spec(contestants as Tournament['contestants'], changes);
    return 'accepted';
  } catch (error) {
    return (error as Error).message;
  }
};

describe('a tournament', () => {
  it('gives each contestant the campaign with its own changes, and no settings of what it did not choose', () => {
    const made = contestantsOf(spec(
      [{ name: 'plain' }, { name: 'full', training: { tune: 'full', learningRate: 1e-4, epochs: 5 }, student: { keepLayers: 15 } }, { name: 'logit', training: { method: 'logit', logit: { temperature: 4 } } }, { name: 'whole', student: { layers: null } }],
      { training: { lora: { r: 8 }, development: { share: 0.2 } }, student: { model: 'smollm2-135m-instruct', layers: [0, 3] } },
    ));
    const [plain, full, logit, whole] = made.map((each) => each.spec);
    assert.deepEqual(made.map(({ name }) => name), ['plain', 'full', 'logit', 'whole']);
    assert.equal(plain?.tournament, undefined);
    assert.deepEqual([plain?.training.method, plain?.training.lora?.r, plain?.student], ['sft', 8, { provider: 'local', model: 'smollm2-135m-instruct', layers: [0, 3] }]);
    assert.deepEqual([full?.training.lora, full?.training.epochs, full?.training.development?.share], [undefined, 5, 0.2]);
    assert.deepEqual(full?.student, { provider: 'local', model: 'smollm2-135m-instruct', keepLayers: 15 });
    assert.deepEqual([logit?.training.logit?.temperature, logit?.training.lora?.r], [4, 8]);
    assert.deepEqual(whole?.student, { provider: 'local', model: 'smollm2-135m-instruct' });
    // As a campaign of its own each of them is valid and stays as it is.
    for (const each of made) assert.deepEqual(validateSpec(each.spec), each.spec);
  });

  it('is refused where a contestant could be no campaign of its own, by the contestant and its key', () => {
    assert.match(refused([{ name: 'a' }]), /tournament\.contestants: expected at least 2 entries/);
    assert.match(refused([{ name: 'a' }, { name: 'a' }]), /contestants\[1\]\.name: expected a name of its own, got "a" again/);
    assert.match(refused([{ name: 'a' }, { name: 'b', training: { epoch: 3 } }]), /contestants\[1\]\.training\.epoch: expected one of the keys method, .*, got an unknown key/);
    assert.match(refused([{ name: 'a' }, { name: 'b', training: { method: 'step-by-step' } }]), /contestants\[1\]\.training\.method: expected sft without sampling\.rationale: true/);
    assert.match(refused([{ name: 'a' }, { name: 'b', training: { tune: 'full', lora: { r: 4 } } }]), /contestants\[1\]\.training\.lora: expected nothing with tune: full/);
    assert.match(refused([{ name: 'a' }, { name: 'b', student: { layers: [3, 1] } }]), /contestants\[1\]\.student\.layers: expected distinct layers in ascending order/);
    assert.match(refused([{ name: 'a' }, { name: 'b' }], { student: { provider: 'openai', model: 'gpt-4o-mini' }, training: { epochs: 2 } }), /tournament: expected none with a student that its provider trains/);
    assert.match(refused([{ name: 'a', training: { epochs: 300 } }, { name: 'b', training: { epochs: 201 } }]), /tournament\.contestants: expected at most 500 epochs, all contestants together, got 501/);
  });

  it('is valid as the page on methods shows it', async () => {
    const page = await readFile(new URL('../../docs/methods.md', import.meta.url), 'utf8');
    const shown = [...page.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, part]) => parse(part ?? '') as Partial<CampaignSpecInput>).find((part) => part.tournament !== undefined);
    assert.equal(contestantsOf(validateSpec(base(shown))).length, 4);
  });

  it('is planned as one spec a contestant', async () => {
    const store = createMemoryStore();
    const whole = spec([{ name: 'a' }, { name: 'b', training: { epochs: 7 } }]);
    const { contestants } = await planTournament(store, { campaign: 'x', spec: await putJson(store, 'spec', whole) });
    assert.deepEqual(contestants.map(({ name, epochs }) => [name, epochs]), [['a', whole.training.epochs], ['b', 7]]);
    assert.deepEqual(await getJson(store, contestants[1]?.spec as (typeof contestants)[number]['spec']), contestantsOf(whole)[1]?.spec);
    assert.deepEqual(specToPlan(whole).tournament, { firstRung: 1, reductionFactor: 2, concurrent: 1 });
    assert.equal(specToPlan(parseSpec(text)).tournament, undefined);
  });

  it('has the paths of its contestants made absolute', () => {
    const { tournament } = withAbsolutePaths(spec([{ name: 'a', student: { model: './half' } }, { name: 'b', training: { method: 'logit', teacher: { model: 'models/big.gguf' } } }]), '/campaigns');
    assert.deepEqual(tournament?.contestants.map(({ student, training }) => [student?.['model'], (training?.['teacher'] as { readonly model: string } | undefined)?.model]), [['/campaigns/half', undefined], [undefined, '/campaigns/models/big.gguf']]);
  });

  it('stands on the page with its table, its plot, its winner and how sure that is', async () => {
    const space = workspace();
    const { store } = space;
    const whole = spec([{ name: 'sft' }, { name: 'half', student: { keepLayers: 15 } }, { name: 'broken', training: { tune: 'full' } }]);
    const input = await realisticReport(store, space.folder, contestantsOf(whole)[1]?.spec as CampaignSpec);
    const [first, second] = input.developmentEvaluations;
    const contestant = (name: string, fields: Partial<ContestantState>): ContestantState => ({
      name, status: 'stopped', epochs: 3, trained: 1, measured: [], trainedTokens: 9_000, trainedSeconds: 61, answeredTokens: 8_000, answeredSeconds: 4, usd: 0, ...fields,
    });
    const interval = { mean: 0.9, low: 0.85, high: 0.94 };
    const tournament = {
      spec: await putJson(store, 'spec', whole),
      contestants: [
        contestant('sft', { measured: [{ epoch: 1, score: 0.86 }], best: { epoch: 1, score: { ...interval, mean: 0.86 }, checkpoint: await store.put('checkpoint', 'a'), evaluation: first as NonNullable<typeof first> }, ended: { epoch: 1, reason: 'place 2 of 2' } }),
        contestant('half', { status: 'winner', trained: 3, sizeBytes: 270_000_000, measured: [{ epoch: 1, score: 0.88 }, { epoch: 2, score: 0.9 }], best: { epoch: 2, score: interval, checkpoint: await store.put('checkpoint', 'b'), evaluation: second as NonNullable<typeof second> }, ended: { epoch: 3, reason: 'the highest development score' } }),
        contestant('broken', { status: 'failed', trained: 0, ended: { epoch: 0, reason: 'expected a finite loss, got NaN' } }),
      ],
    };
    const models = { facts: async () => ({ license: 'Apache-2.0' }) };
    const { report, manifest } = await writeReport({ store, models }, { ...input, tournament });
    const page = (await store.get(report)).toString('utf8');
    const target = process.env['STILLHOUSE_TEST_REPORT'];
    if (target !== undefined) await writeFile(target.replace('.html', '-tournament.html'), page);
    assert.doesNotMatch(page, /NaN(?!<)|undefined|Infinity|\[object/);
    assert.match(page, /<b>half<\/b> \(sft, LoRA, 15 layers of smollm2-135m-instruct\) won: the highest development score\. Against sft it is ahead by -?\d/);
    assert.match(page, /aria-label="Development score by epoch and contestant"/);
    assert.match(page, /failed after epoch 0: expected a finite loss, got NaN/);
    assert.match(page, /<td class="n">270\.0.MB<\/td><td class="n">2.000<\/td><td class="n">1.min 01.s<\/td>/);
    assert.ok(page.includes(tournament.contestants[0]?.best?.checkpoint.sha256 as string));
    assert.deepEqual((await getJson<{ readonly tournament: unknown }>(store, manifest)).tournament, tournament);
    const { report: undecided } = await writeReport({ store, models }, { ...input, tournament: { ...tournament, contestants: tournament.contestants.map((each) => ({ ...each, status: 'competing' as const, measured: [] })) } });
    assert.match((await store.get(undecided)).toString('utf8'), /It was not decided: the campaign ended before one contestant was left/);
  });

  it('is followed line by line, each score and each end once, and shown as a table', async () => {
    const contestant = (name: string, fields: Partial<ContestantState>): ContestantState => ({
      name, status: 'competing', epochs: 3, trained: 1, measured: [], trainedTokens: 0, trainedSeconds: 0, answeredTokens: 0, answeredSeconds: 0, usd: 0, ...fields,
    });
    const measured = { trained: 1, measured: [{ epoch: 1, score: 0.86 }] };
    const stopped = contestant('sft', { ...measured, status: 'stopped', ended: { epoch: 1, reason: 'place 2 of 2' } });
    const resource = (status: 'running' | 'completed', contestants: readonly ContestantState[]): CampaignResource => ({
      campaign: 'x', status, specSha256: '', startedAtMs: 0, rounds: [],
      state: { campaign: 'x', status, stage: 'training', round: 1, maxRounds: 1, progress: 0, budget: {}, spending: { usd: 0, tokens: 0, callsBought: 0, callsReused: 0, callsRepeated: 0 }, startedAtMs: 0, tournament: { spec: { kind: 'spec', sha256: '', sizeBytes: 0 }, contestants } },
    });
    const answers = [resource('running', [contestant('sft', {})]), resource('running', [contestant('sft', measured)]), resource('completed', [stopped])];
    const lines: string[] = [];
    const screen = { line: (line: string) => void lines.push(line), live: () => undefined, plain: () => undefined };
    await follow({ get: () => Promise.resolve(answers.length > 1 ? answers.shift() : answers[0]) } as unknown as ApiClient, 'x', screen, AbortSignal.timeout(20_000));
    assert.deepEqual(lines.filter((line) => line.includes('sft')), ['  sft: 86.0 % on the development rows after epoch 1 of 3', '  sft stopped: place 2 of 2']);
    assert.match(campaignText(answers[0] as CampaignResource), /sft +stopped +1\/3 +place 2 of 2/);
  });

  it('calls a difference proven only where its interval leaves zero out', () => {
    const format = (value: number): string => value.toFixed(2);
    assert.equal(certainty({ name: 'b', rows: 50, difference: { mean: 0.1, low: 0.02, high: 0.2 } }, format), 'Against b it is ahead by 0.10 on the same 50 rows (95 % paired bootstrap 0.02 to 0.20).');
    assert.match(certainty({ name: 'b', rows: 50, difference: { mean: 0.1, low: -0.02, high: 0.2 } }, format), /: a difference that so few rows do not prove\.$/);
  });
});
