/** What is bought anew after a change of the spec, for every kind of source, by the server's own count. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { asked, DataHome } from '../support/data-home.ts';
import type { ChatCall } from '../support/openai-server.ts';

const json = JSON.stringify;
const sentence = (index: number): string => Array.from({ length: 5 }, (_, part) => createRandom(index * 10 + part, 'words')().toString(36).slice(2, 9)).join(' ');

function teacher(call: ChatCall, index: number): string {
  const text = asked(call);
  if (text.includes('Plan what they differ in')) return json({ attributes: [{ name: 'topic', values: ['a', 'b', 'c', 'd'] }, { name: 'style', values: ['x', 'y'] }] });
  if (text.includes('"rationale": …, "answer"')) return json({ rationale: 'so it is', answer: 'positive' });
  if (call.response_format !== undefined) return json({ pairs: [{ input: sentence(5_000 + index), output: 'positive' }] });
  return 'positive';
}

type Sampling = CampaignSpecInput['sampling'];
type Changes = Parameters<DataHome['spec']>[0];

/** Changes after which every question is the one it was. */
const HARMLESS: readonly Changes[] = [
  { filter: { minInputCharacters: 3, maxInputCharacters: 500, nearDuplicateSimilarity: 0.95, minConfidence: 0.1 } },
  { training: { epochs: 9, learningRate: 1e-3, batchSize: 16 } },
  { student: { model: 'another' } },
  { iterate: { maxRounds: 3, minGain: 0.1 } },
  { budget: { usd: 9 } },
  { teacher: { concurrency: 2, store: true } },
];

async function buys(home: DataHome, changes: Changes): Promise<number> {
  const before = home.server.counts.billedCalls;
  const spec = home.spec({ name: `c${before}`, ...changes, teacher: { temperature: 1, ...changes?.teacher } });
  await home.round(spec, await home.prepare(spec));
  return home.server.counts.billedCalls - before;
}

const poolOf = (home: DataHome): string => home.file('pool.jsonl', Array.from({ length: 30 }, (_, index) => ({ input: sentence(index) })));
const instruction: Changes = { task: { description: 'Tell good from bad.', instruction: 'Opinion: {input}\nSentiment:', output: { kind: 'label', labels: ['negative', 'positive'] } } };

interface Case {
  readonly what: string;
  readonly sampling: (home: DataHome) => Sampling;
  readonly first: number;
  /** After a change of the instruction. */
  readonly reworded: number;
  /** With two more rows. */
  readonly more: number;
}
const cases: readonly Case[] = [
  { what: 'inputs of a file', sampling: (home) => ({ source: { kind: 'inputs', dataset: poolOf(home) }, rows: 6 }), first: 6, reworded: 6, more: 2 },
  { what: 'three answers to each input', sampling: (home) => ({ source: { kind: 'inputs', dataset: poolOf(home) }, rows: 6, answersPerInput: 3 }), first: 18, reworded: 18, more: 6 },
  { what: 'inputs with rationales', sampling: (home) => ({ source: { kind: 'inputs', dataset: poolOf(home) }, rows: 6, rationale: true }), first: 6, reworded: 6, more: 2 },
  // The plan of attributes does not contain the instruction.
  { what: 'a description whose attributes are planned', sampling: () => ({ source: { kind: 'description', pairsPerCall: 1 }, rows: 6 }), first: 7, reworded: 6, more: 2 },
  { what: 'a mixture', sampling: (home) => ({ source: { kind: 'mixed', sources: [{ kind: 'inputs', dataset: poolOf(home), share: 1 }, { kind: 'description', pairsPerCall: 1, share: 1 }] }, rows: 6 }), first: 7, reworded: 6, more: 2 },
];

for (const { what, sampling, first, reworded, more } of cases) {
  test(`${what}: other filters, training or limits buy nothing, another prompt only what it must`, async () => {
    await using home = await DataHome.start({ answer: teacher });
    const base: Changes = { sampling: sampling(home) };
    assert.equal(await buys(home, base), first);
    for (const change of HARMLESS) assert.equal(await buys(home, { ...base, ...change }), 0, json(change));
    assert.equal(await buys(home, { ...base, ...instruction }), reworded, 'another instruction');
    assert.equal(await buys(home, { sampling: { ...sampling(home), rows: 8 } }), more, 'two more rows');
    assert.equal(await buys(home, base), 0, 'the answers to the first prompt are still there');
  });
}

test('more answers to each input buy only the new ones', async () => {
  await using home = await DataHome.start({ answer: teacher });
  const draws = (answersPerInput: number): Changes => ({ sampling: { source: { kind: 'inputs', dataset: poolOf(home) }, rows: 6, answersPerInput } });
  assert.deepEqual([await buys(home, draws(1)), await buys(home, draws(5)), await buys(home, draws(3))], [6, 24, 0]);
});

test('another share buys only the rows that it adds', async () => {
  await using home = await DataHome.start({ answer: teacher });
  const shares = (own: number): Changes => ({ sampling: { source: { kind: 'mixed', sources: [{ kind: 'inputs', dataset: poolOf(home), share: own }, { kind: 'description', pairsPerCall: 1, share: 1 }] }, rows: 8 } });
  assert.deepEqual([await buys(home, shares(1)), await buys(home, shares(3)), await buys(home, shares(1))], [9, 2, 0]);
});
