import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import type { InputRow } from '../../src/contracts/records.ts';
import { parseSpec, validateSpec } from '../../src/contracts/parse-spec.ts';
import { prepareCampaign } from '../../src/dataset/prepare.ts';
import { getRows, putJson } from '../../src/store/jsonl.ts';
import { workspace } from '../support/rows.ts';import { parsePrices } from '../../src/teacher/price-table.ts';


const path = (name: string): string => fileURLToPath(new URL(`../../campaigns/${name}.yaml`, import.meta.url));
const spec = async (name: string) => parseSpec(await readFile(path(name), 'utf8'), name);

for (const name of ['sentiment-zh', 'code-assistant', 'ticket-routing']) {
  test(`${name} is valid and its data splits as it says, no row lost as a duplicate`, async () => {
    const { store } = workspace();
    const campaign = await spec(name);
    assert.equal(campaign.name, name);
    const assets = { dataset: async (dataset: string) => resolve(dirname(path(name)), dataset) };
    const data = await prepareCampaign({ store, assets }, { campaign: name, spec: await putJson(store, 'spec', campaign) });
    assert.equal(data.excluded, undefined);
    if (name === 'code-assistant') {
      assert.deepEqual([data.poolRows, data.developmentRows, data.testRows], [campaign.sampling.rows, 5, 9]);
      return;
    }
    if (name === 'ticket-routing') {
      assert.deepEqual([data.poolRows, data.developmentRows, data.testRows], [30, 8, 16]);
      assert.ok((await getRows<InputRow>(store, data.pool as NonNullable<typeof data.pool>)).every(({ source }) => source === 0));
      return;
    }
    assert.equal(data.pool, undefined);
    const classes = Map.groupBy(await getRows<InputRow>(store, data.test), (row) => row.gold);
    assert.deepEqual([...classes.values()].map((rows) => rows.length), [12, 12, 12]);
  });
}

test('a spec that holds out rows of a description is refused with the reason', async () => {
  const { evaluation, ...rest } = await spec('sentiment-zh');
  const judge = { kind: 'judge', rubric: 'r', judge: { provider: 'openai', model: 'j' } };
  const text = JSON.stringify({ ...rest, evaluation: { ...evaluation, source: { kind: 'held-out', rows: 90 }, scorer: judge } });
  assert.throws(() => parseSpec(text), /evaluation\.source\.kind: expected dataset where the teacher writes the inputs itself/);
});

test('what the page on teachers shows is valid', async () => {
  const page = await readFile(fileURLToPath(new URL('../../docs/teachers.md', import.meta.url)), 'utf8');
  const blocks = [...page.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, text = '']) => text);
  const isTable = (text: string): boolean => /^prices:/m.test(text);
  const [tables, parts] = [blocks.filter(isTable), blocks.filter((text) => !isTable(text))];
  assert.deepEqual(tables.map((text) => parsePrices(text, 'docs/teachers.md').length), [2]);
  const shown = parts.map((text) => parse(text) as Partial<CampaignSpecInput>);
  assert.ok(shown.length >= 6, `${shown.length}`);
  const base = await spec('code-assistant');
  const evaluation = { ...base.evaluation, source: { kind: 'dataset' as const, dataset: 'gold.jsonl' } };
  for (const part of shown) validateSpec({ ...base, evaluation, ...part, teacher: { ...base.teacher, temperature: 1, ...part.teacher } });
});
