import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { checkSpec } from '../../src/api/check-spec.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpec, CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { addUsd, formatUsd, roundUsdUp, subtractUsd } from '../../src/contracts/money.ts';
import { PRICES, parsePrices, useOwnPrices } from '../../src/teacher/price-table.ts';
import type { ListedPrice } from '../../src/teacher/price-table.ts';
import { batchPrice, costUsd, listedPrice, priceOf, retirementDay, retirementOf } from '../../src/teacher/prices.ts';
import { temporaryFolder } from '../support/folder.ts';

const STILL = join(import.meta.dirname, '..', '..', 'src', 'cli', 'still.ts');
const at = (day: string): number => Date.parse(`${day}T12:00:00Z`);

function specWith(teacher: Partial<CampaignSpecInput['teacher']>, budget: CampaignSpecInput['budget'] = {}): CampaignSpec {
  return campaignSpecSchema.parse({
    name: 'a', task: { description: 'd', output: { kind: 'label', labels: ['x', 'y'] } }, teacher: { provider: 'openai', model: 'gpt-4o', ...teacher },
    sampling: { source: { kind: 'inputs', dataset: 'catalogue:hutto-reviews-pool' }, rows: 10 }, student: { model: 'smollm2-135m-instruct' },
    evaluation: { source: { kind: 'dataset', dataset: 'catalogue:hutto-reviews-gold' }, developmentRows: 5, testRows: 5, scorer: { kind: 'label' } }, budget,
  });
}
const check = (spec: CampaignSpec, day: string): Promise<readonly string[]> => checkSpec(spec, () => true, at(day));

describe('money', () => {
  it('sums, subtracts and rounds in whole billionths of a dollar', () => {
    assert.equal(addUsd(0.1, 0.2), 0.3);
    assert.equal(subtractUsd(0.3, 0.1), 0.2);
    assert.equal(Array.from({ length: 1_000_000 }).reduce<number>((sum) => addUsd(sum, 0.000_000_3), 0), 0.3);
    assert.equal(roundUsdUp(0.1 + 0.2), 0.3, 'what floating point added is no billionth');
    assert.equal(roundUsdUp(0.000_000_000_1), 0.000_000_001);
    const large = 2_000_000;
    assert.equal(subtractUsd(addUsd(large, 0.000_000_001), large), 0.000_000_001);
    assert.deepEqual([0, 5, 0.2, 0.000012, 1.5e-9, 1234.5].map(formatUsd), ['$0.00', '$5.00', '$0.20', '$0.000012', '$0.000000002', '$1234.50']);
  });
});

describe('the price table', () => {
  it('has a source, a day and prices in their order for every entry', () => {
    for (const { model, from, source, inputUsdPerMillion, cachedInputUsdPerMillion, outputUsdPerMillion } of PRICES) {
      assert.match(from, /^\d{4}-\d{2}-\d{2}$/, model);
      assert.match(source, /^https:/, model);
      assert.ok((cachedInputUsdPerMillion ?? inputUsdPerMillion) <= inputUsdPerMillion && inputUsdPerMillion < outputUsdPerMillion, model);
    }
  });

  it('gives the entry that holds on the day', () => {
    const entry = (from: string, input: number, until?: string): ListedPrice => ({ model: 'm', from, source: 'https://example.com', inputUsdPerMillion: input, cachedInputUsdPerMillion: input, outputUsdPerMillion: 2 * input, ...(until === undefined ? {} : { until }) });
    const table = [entry('2026-03-01', 3, '2026-05-31'), entry('2026-01-01', 4, '2026-02-28')];
    const on = (day: string): number | undefined => listedPrice('m', at(day), undefined, table)?.inputUsdPerMillion;
    assert.deepEqual(['2025-12-01', '2026-01-01', '2026-02-28', '2026-03-01', '2026-05-31', '2026-06-01'].map(on), [4, 4, 4, 3, 3, undefined]);
    assert.equal(listedPrice('m-2026-01-01', at('2026-03-01'), undefined, table)?.inputUsdPerMillion, 3, 'a snapshot of the family');
    assert.equal(listedPrice('mm', at('2026-03-01'), undefined, table), undefined);
  });

  it('knows cached input and batches, which a spec may override', () => {
    const listed = priceOf(specWith({}).teacher, 'https://api.openai.com/v1');
    const usage = { promptTokens: 1_000_000, cachedPromptTokens: 400_000, completionTokens: 100_000 };
    assert.equal(costUsd(listed, usage), 0.6 * 2.5 + 0.4 * 1.25 + 1);
    assert.equal(costUsd(batchPrice(listed), usage), (0.6 * 2.5 + 0.4 * 1.25 + 1) / 2);
    const own = priceOf(specWith({ price: { inputUsdPerMillion: 4, outputUsdPerMillion: 8, cachedInputUsdPerMillion: 1, batchShare: 0.25 } }).teacher, 'https://api.openai.com/v1');
    assert.deepEqual([own.cachedInputUsdPerMillion, batchPrice(own).inputUsdPerMillion], [1, 1]);
    const plain = priceOf(specWith({ price: { inputUsdPerMillion: 4, outputUsdPerMillion: 8 } }).teacher, 'https://api.openai.com/v1');
    assert.deepEqual([plain.cachedInputUsdPerMillion, batchPrice(plain).inputUsdPerMillion], [4, 4]);
  });

  it('takes the home\'s own entries first, read again when the file changes, and says every key of it that is wrong', () => {
    const path = join(temporaryFolder(), 'prices.yaml');
    const write = (...entries: readonly string[]): void => writeFileSync(path, `prices:\n${entries.map((entry) => `  - { ${entry} }\n`).join('')}`);
    const input = (model: string, baseUrl?: string): number | undefined => listedPrice(model, at('2026-11-25'), baseUrl)?.inputUsdPerMillion;
    useOwnPrices(path);
    assert.equal(input('gpt-4o'), 2.5, 'no file');
    write('model: gpt-4o, inputUsdPerMillion: 1, outputUsdPerMillion: 2, from: 2026-11-01, source: contract', 'model: in-house, host: llm.example.com, inputUsdPerMillion: 7, outputUsdPerMillion: 8, from: 2026-11-01, source: contract');
    assert.deepEqual([input('gpt-4o'), input('gpt-4o-2024-05-13'), input('gpt-4.1')], [1, 1, 2]);
    assert.deepEqual(['https://llm.example.com/v1', 'https://other.example.com/v1'].map((url) => input('in-house', url)), [7, undefined]);
    const { teacher } = specWith({});
    assert.deepEqual([retirementDay(teacher), listedPrice('gpt-4o')?.batchShare, listedPrice('ft:gpt-4o:a::b')?.inputUsdPerMillion], ['2027-01-14', undefined, 3.75], 'dates and tuned models are the shipped entry\'s, its discount is not');
    write('model: gpt-4o, inputUsdPerMillion: 3, outputUsdPerMillion: 2, from: 2026-12-01, source: contract');
    assert.equal(input('gpt-4o'), 2.5, 'not yet');
    write('model: gpt-4o, inputUsdPerMillion: -1, outputUsdPerMillion: "2", from: yesterday, source: contract, outputUsd: 3');
    assert.throws(() => input('gpt-4o'), (error: unknown) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && [path, 'prices[0].inputUsdPerMillion', 'prices[0].outputUsdPerMillion', 'prices[0].from', 'outputUsd'].every((part) => error.message.includes(part)));
    writeFileSync(path, '');
    assert.equal(input('gpt-4o'), 2.5, 'an empty file has no entries');
    for (const text of ['prices: [', '- 1', 'prices: {}', 'text']) assert.throws(() => parsePrices(text, path), { code: 'BAD_INPUT', message: /prices\.yaml, got / });
  });

  it('holds Anthropic\'s prices at its own address alone', () => {
    assert.equal(listedPrice('claude-opus-5-5', at('2026-11-25'), 'https://api.anthropic.com/v1/')?.outputUsdPerMillion, 20);
    assert.equal(listedPrice('claude-opus-5-5', at('2026-11-25'), 'https://gateway.example.com/v1'), undefined);
    assert.equal(listedPrice('gpt-4o', at('2026-11-25'), 'https://gateway.example.com/v1')?.outputUsdPerMillion, 10);
  });

  it('knows the end of a model and of its fine-tunes where the provider is the one that announced it', () => {
    const { teacher } = specWith({});
    assert.equal(retirementDay(teacher), '2027-01-14');
    assert.equal(retirementDay({ ...teacher, model: 'ft:gpt-4o-mini-2024-07-18:acme::abc' }), '2027-01-14');
    assert.equal(retirementDay({ ...teacher, model: 'gpt-5' }), undefined);
    assert.equal(retirementDay({ ...teacher, baseUrl: 'https://llm.example.com/v1' }), undefined);
    assert.equal(retirementOf(teacher, undefined, at('2026-11-25')), undefined);
    assert.deepEqual(retirementOf(teacher, undefined, at('2026-12-20')), { day: '2027-01-14', state: 'retiring' });
    assert.deepEqual(retirementOf(teacher, undefined, at('2027-01-14')), { day: '2027-01-14', state: 'retired' });
  });
});

describe('a spec is checked against it', () => {
  it('refuses a model that is retired, with the day', async () => {
    await assert.rejects(check(specWith({}), '2027-01-14'), { code: 'BAD_INPUT', message: /teacher\.model: expected a model that answers, got gpt-4o, which its provider retired on 2027-01-14/ });
  });

  it('warns of one whose end lies within the hours of the campaign, and of no other', async () => {
    assert.deepEqual(await check(specWith({}, { hours: 48 }), '2026-11-25'), []);
    assert.deepEqual(await check(specWith({}, { hours: 24 * 60 }), '2026-11-25'), [
      'teacher.model: gpt-4o answers no more from 2027-01-14, which lies within its 1440 hours; another teacher can be set while it runs',
    ]);
    assert.deepEqual(await check(specWith({ model: 'gpt-5' }, { hours: 24 * 600 }), '2026-11-25'), []);
  });

  it('wants a price for a model that the table does not know, unless the server is this machine', async () => {
    await assert.rejects(check(specWith({ model: 'in-house', baseUrl: 'https://llm.example.com/v1' }), '2026-11-25'), { code: 'BAD_INPUT', message: /teacher\.price: expected a price for the model in-house at https:\/\/llm\.example\.com\/v1, .*, got none: neither/s });
    const { message } = await check(specWith({ model: 'in-house', baseUrl: 'https://llm.example.com/v1' }), '2026-11-25').then(() => assert.fail('expected a refusal'), (error: unknown) => error as StillhouseError);
    // What it shows is what can be written.
    const [, block = ''] = /^ +price: (\{.*?\})/m.exec(message) ?? [];
    const [, line = ''] = /^ +- (\{.*?\}) /m.exec(message) ?? [];
    assert.deepEqual(await check(specWith({ model: 'in-house', baseUrl: 'https://llm.example.com/v1', price: parse(block) as never }), '2026-11-25'), []);
    assert.deepEqual(parsePrices(`prices: [${line}]`, 'x').map(({ model }) => model), ['in-house']);
    assert.deepEqual(await check(specWith({ model: 'in-house', baseUrl: 'http://127.0.0.1:8000/v1' }), '2026-11-25'), []);
  });
});

it('still prices lists both tables with day and source, and says which prices are old', async () => {
  const home = temporaryFolder();
  const still = (...args: readonly string[]) => promisify(execFile)(process.execPath, [STILL, 'prices', ...args], { env: { ...process.env, STILLHOUSE_HOME: home } });
  const today = new Date().toISOString().slice(0, 10);
  writeFileSync(join(home, 'prices.yaml'), `prices: [{ model: gpt-4o, inputUsdPerMillion: 1.5, outputUsdPerMillion: 2, from: ${today}, source: our contract }]`);
  const { stdout } = await still();
  assert.match(stdout, new RegExp(`\\ngpt-4o +1\\.5 +1\\.5 +2 +× 1 +${today} +home +our contract\\n`));
  assert.match(stdout, /\ngpt-4\.1 .* 2026-06-21 .* shipped +https:\S+pricing\n/);
  const told = JSON.parse((await still('--json')).stdout) as { readonly old: number; readonly prices: readonly { readonly model: string; readonly table: string; readonly old: boolean; readonly ageDays: number }[] };
  assert.deepEqual(told.prices.filter(({ model }) => model === 'gpt-4o').map((each) => [each.table, each.old, each.ageDays]), [['home', false, 0]]);
  assert.equal(told.old, told.prices.filter(({ ageDays }) => ageDays > 90).length);
  // The shipped table does not become younger.
  assert.ok(told.old >= 12);
  assert.match(stdout, new RegExp(`\\n${told.old} of ${told.prices.length} prices were read more than 90 days ago, the oldest on 2026-06-21: compare them with their sources`));
});
