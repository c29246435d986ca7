import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { specToPlan } from '../../src/contracts/campaign.ts';
import { validateSpec } from '../../src/contracts/parse-spec.ts';
import { shareOut } from '../../src/dataset/shares.ts';

const hosted = { provider: 'openai', model: 'gpt-4o', temperature: 1 } as const;
const local = { provider: 'local', model: 'smollm2-135m-instruct' } as const;
const inputs = { kind: 'inputs', dataset: 'pool.jsonl' } as const;
const description = { kind: 'description' } as const;
const stored = { kind: 'stored-completions', metadata: { task: 'reviews' } } as const;

function spec(teacher: CampaignSpecInput['teacher'], sampling: Partial<CampaignSpecInput['sampling']>): CampaignSpecInput {
  return {
    name: 'test',
    task: { description: 'Tell good from bad.', output: { kind: 'label', labels: ['negative', 'positive'] } },
    teacher,
    sampling: { source: inputs, rows: 10, ...sampling },
    student: { model: 'student' },
    evaluation: { source: { kind: 'dataset', dataset: 'gold.jsonl' }, developmentRows: 2, testRows: 2, scorer: { kind: 'label' } },
  };
}

const refused: readonly (readonly [string, CampaignSpecInput, RegExp])[] = [
  ['draws at temperature 0', spec({ ...hosted, temperature: 0 }, { answersPerInput: 5 }), /sampling\.answersPerInput: expected 1 at teacher\.temperature 0, where every answer is the same, got 5/],
  ['draws of labels from a local model', spec({ ...local, temperature: 1 }, { answersPerInput: 3 }), /sampling\.answersPerInput: expected 1 with a local teacher and labels, .*, got 3/],
  ['draws where the teacher writes the inputs', spec(hosted, { source: description, answersPerInput: 3 }), /sampling\.answersPerInput: expected 1 where the teacher writes the inputs itself, .*, got 3/],
  ['draws with a prior', spec({ ...hosted, calibration: 'prior' }, { answersPerInput: 3 }), /teacher\.calibration: expected none with sampling\.answersPerInput 3, .*, got prior/],
  ['rationales of a local model', spec(local, { rationale: true }), /sampling\.rationale: expected false with a local teacher, got true/],
  ['rationales with a prior', spec({ ...hosted, calibration: 'prior' }, { rationale: true }), /teacher\.calibration: expected none with sampling\.rationale, .*, got prior/],
  ['soft targets of a local model', spec(local, { softTargets: {} }), /sampling\.softTargets: expected none with a local teacher, got some/],
  ['soft targets of JSON', spec(hosted, { softTargets: {}, rationale: true }), /sampling\.softTargets: expected none with sampling\.rationale, got some: they would be of the JSON/],
  ['more alternatives than an endpoint gives', spec(hosted, { softTargets: { topK: 50 } }), /sampling\.softTargets\.topK: expected a number of at most 20, got 50/],
  ['a description for a local model', spec(local, { source: description }), /sampling\.source\.kind: expected inputs or tasks with a local teacher, got description/],
  ['stored completions for a local model', spec(local, { source: stored }), /sampling\.source\.kind: expected inputs or tasks with a local teacher, got stored-completions/],
  ['stored completions without a filter', spec(hosted, { source: { ...stored, metadata: {} } }), /sampling\.source\.metadata: expected 1 to 16 entries, got \{\}/],
  ['one source as a mixture', spec(hosted, { source: { kind: 'mixed', sources: [inputs] } }), /sampling\.source\.sources: expected at least 2 entries, got/],
  ['a mixture of mixtures', spec(hosted, { source: { kind: 'mixed', sources: [inputs, { kind: 'mixed' } as never] } }), /sampling\.source\.sources\[1\]\.kind: expected one of inputs, tasks, description, stored-completions, got "mixed"/],
  ['a share of nothing', spec(hosted, { source: { kind: 'mixed', sources: [inputs, { ...description, share: 0 }] } }), /sampling\.source\.sources\[1\]\.share: expected a number above 0, got 0/],
  ['two descriptions', spec(hosted, { source: { kind: 'mixed', sources: [description, description] } }), /sampling\.source\.sources\[1\]\.kind: expected at most one source of kind description, got another/],
  ['a mistyped key inside a source', spec(hosted, { source: { kind: 'mixed', sources: [inputs, { ...description, pairPerCall: 3 } as never] } }), /sampling\.source\.sources\[1\]\.pairPerCall: expected one of the keys kind, pairsPerCall, attributes, plan, share, got an unknown key/],
];

for (const [what, value, message] of refused) {
  test(`${what}: refused with the path and the reason`, () => {
    assert.throws(() => validateSpec(value), message);
  });
}

test('every source has its place in the plan of the campaign', () => {
  const plan = (source: CampaignSpecInput['sampling']['source']) => specToPlan(validateSpec(spec(hosted, { source })));
  assert.deepEqual([plan(inputs).selectsInputs, plan(description).selectsInputs, plan(stored).selectsInputs], [true, false, true]);
  assert.deepEqual([plan(inputs).importsCompletions, plan(stored).importsCompletions], [undefined, true]);
  const mixed = plan({ kind: 'mixed', sources: [{ ...inputs, share: 2 }, { ...stored, share: 1 }] });
  assert.deepEqual([mixed.selectsInputs, mixed.importsCompletions], [true, true]);
});

test('rows are shared out in whole numbers, and what one source lacks the others give', () => {
  const out = (count: number, ...entries: readonly (readonly [share: number, most: number])[]) => shareOut(count, entries.map(([share, most]) => ({ share, most })));
  assert.deepEqual(out(10, [3, 100], [1, 100]), [8, 2]);
  assert.deepEqual(out(10, [1, 100], [1, 100], [1, 100]), [4, 3, 3]);
  assert.deepEqual(out(10, [1, 2], [1, 100], [2, 100]), [2, 3, 5]);
  assert.deepEqual(out(10, [1, 2], [1, 3]), [2, 3], 'all that there is');
  assert.deepEqual(out(0, [1, 2]), [0]);
  for (let count = 1; count < 40; count += 1) assert.equal(out(count, [0.3, 7], [5, 11], [1, 100]).reduce((sum, each) => sum + each, 0), count);
});
