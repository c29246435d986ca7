import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import { specToPlan } from '../../src/contracts/campaign.ts';
import type { Budget, RoundSummary } from '../../src/contracts/state.ts';
import { describeState } from '../../workflows/details.ts';
import type { Memory } from '../../workflows/state.ts';
import { NO_COST, batchRanges, betterRound, covers, decide, initialState, reduce, remaining, whyNotRaise } from '../../workflows/state.ts';
import { PLAN, refOf } from '../support/scripted-activities.ts';

const HOUR_MS = 3_600_000;
const memoryOf = (budget: Budget): Memory => ({ state: initialState('c', PLAN, budget, 0), reserved: NO_COST });
const round = (number: number, studentScore: number, low = 0.5): RoundSummary => ({
  round: number, requests: 1, accepted: 1, rejected: 0, dataset: refOf('dataset', number), checkpoint: refOf('checkpoint', number),
  lossCurve: refOf('loss-curve', number), lossFirstNats: 2, lossLastNats: 1, teacherScore: 1, studentScore, retention: { mean: studentScore, low, high: 1 }, stageMs: {},
});

describe('campaign state', () => {
  it('sets a batch aside and settles what it truly cost', () => {
    const cost = { usd: 0.5, tokens: 100 };
    const reserved = reduce(memoryOf({ usd: 1, tokens: 1_000 }), { type: 'reserved', cost });
    assert.deepEqual(remaining(reserved, 0), { usd: 0.5, tokens: 900, hours: Infinity });
    const spending = { usd: 0.2, tokens: 40, callsBought: 3, callsReused: 2, callsRepeated: 1 };
    const settled = reduce(reserved, { type: 'settled', cost, spending });
    assert.deepEqual(remaining(settled, 0), { usd: 0.8, tokens: 960, hours: Infinity });
    assert.deepEqual(settled.state.spending, spending);
    assert.deepEqual(reduce(reserved, { type: 'settled', cost }).state.spending.usd, 0);
  });

  it('covers a batch to the last cent, and nothing at all once the hours are over, except while closing', () => {
    const memory = memoryOf({ usd: 0.3, hours: 1 });
    const spent = reduce(memory, { type: 'settled', cost: NO_COST, spending: { usd: 0.1, tokens: 0, callsBought: 1, callsReused: 0, callsRepeated: 0 } });
    assert.ok(covers(spent, { usd: 0.2, tokens: 0 }, 0));
    assert.ok(!covers(spent, { usd: 0.2001, tokens: 0 }, 0));
    assert.ok(!covers(memory, NO_COST, HOUR_MS));
    assert.ok(covers(reduce(memory, { type: 'stage-entered', stage: 'testing', round: 1 }), NO_COST, HOUR_MS));
  });

  it('goes on by itself when the budget is raised far enough, and only then', () => {
    const short = reduce(memoryOf({ usd: 1, hours: 1 }), { type: 'budget-short', wanted: { usd: 2, tokens: 0 }, nowMs: 2 * HOUR_MS });
    assert.equal(short.state.status, 'paused');
    assert.match(short.state.pauseReason ?? '', /\$2\.0000 and \$1\.0000 of \$1 is left; all 1 hours are over/);
    const money = reduce(short, { type: 'budget-raised', budget: { usd: 3 }, nowMs: 2 * HOUR_MS });
    assert.equal(money.state.status, 'paused');
    assert.equal(money.state.pauseReason, 'Budget: all 1 hours are over. Raise the budget to go on.');
    const both = reduce(money, { type: 'budget-raised', budget: { hours: 3 }, nowMs: 2 * HOUR_MS });
    assert.equal(both.state.status, 'running');
    assert.equal(both.state.pauseReason, undefined);
    const user = reduce(memoryOf({ usd: 1 }), { type: 'paused', reason: 'lunch' });
    assert.equal(reduce(user, { type: 'budget-raised', budget: { usd: 3 }, nowMs: 0 }).state.status, 'paused');
  });

  it('refuses budgets that are lower, limitless, empty or no numbers', () => {
    assert.equal(whyNotRaise({ usd: 1 }, { usd: 1 }), undefined);
    assert.match(whyNotRaise({ usd: 1 }, { usd: 0.5 }) ?? '', /at least the present 1, got 0\.5/);
    assert.match(whyNotRaise({ usd: 1 }, { hours: 5 }) ?? '', /hours: expected nothing/);
    assert.match(whyNotRaise({ usd: 1 }, {}) ?? '', /at least one of/);
    assert.match(whyNotRaise({ usd: 1 }, { usd: NaN }) ?? '', /expected a number/);
    assert.match(whyNotRaise({ usd: 1 }, undefined as unknown as Budget) ?? '', /at least one of/);
  });

  it('decides by the interval, the gain, the rounds and the budget, in the order of what is good news', () => {
    const free = memoryOf({});
    const first = betterRound(undefined, round(1, 0.8));
    assert.equal(decide(free, { ...PLAN, targetRetention: 0.9 }, undefined, round(1, 0.95, 0.9), NO_COST, 0), 'target-retention');
    assert.equal(decide(free, { ...PLAN, targetRetention: 0.9 }, undefined, round(1, 0.95, 0.89), NO_COST, 0), undefined);
    assert.equal(decide(free, PLAN, first, round(2, 0.9), NO_COST, 0), 'max-rounds');
    const longer = { ...PLAN, maxRounds: 9 };
    assert.equal(decide(free, longer, first, round(2, 0.8), NO_COST, 0), 'no-gain');
    assert.equal(decide(free, longer, first, round(2, 0.81), NO_COST, 0), undefined);
    assert.equal(decide(memoryOf({ usd: 1 }), longer, undefined, round(1, 0.8), { usd: 1.1, tokens: 0 }, 0), 'budget');
    assert.equal(decide(memoryOf({ hours: 1 }), longer, undefined, round(1, 0.8), NO_COST, HOUR_MS), 'budget');
  });

  it('keeps the earlier of two equal rounds', () => {
    const first = betterRound(undefined, round(1, 0.8));
    assert.equal(betterRound(first, round(2, 0.8)).round, 1);
    assert.equal(betterRound(first, round(2, 0.81)).round, 2);
  });

  it('covers every request once in at most so many ranges', () => {
    for (const [count, batchSize, limit] of [[0, 10, 32], [1, 10, 32], [101, 10, 5], [400_000, 10, 32], [64, 64, 1]] as const) {
      const ranges = batchRanges(count, batchSize, limit);
      assert.ok(ranges.length <= limit);
      assert.equal(ranges.reduce((next, { from, to }) => (assert.equal(from, next), assert.ok(to > from), to), 0), count);
    }
  });

  it('tells an operator where it stands, why it is paused and what was spent', () => {
    const paused = reduce(reduce(memoryOf({ usd: 2 }), { type: 'stage-entered', stage: 'sampling', round: 2 }), { type: 'failed', reason: 'no key' });
    const text = describeState(paused.state);
    assert.match(text, /\*\*paused\*\* · sampling · round 2 of 2/);
    assert.match(text, /> Paused: no key/);
    assert.match(text, /0\.0000 of 2 USD/);
  });
});

describe('specToPlan', () => {
  const spec = (change: object) =>
    specToPlan(campaignSpecSchema.parse({
      name: 'a', task: { description: 'd', output: { kind: 'label', labels: ['x', 'y'] } }, teacher: { provider: 'local', model: 'm' },
      sampling: { source: { kind: 'inputs', dataset: 'rows.jsonl' }, rows: 10 }, student: { model: 'm' },
      evaluation: { source: { kind: 'dataset', dataset: 'gold.jsonl' }, developmentRows: 5, testRows: 5, scorer: { kind: 'label' } }, ...change,
    }));

  it('runs a local teacher one batch at a time, an endpoint several', () => {
    assert.equal(spec({}).concurrentBatches, 1);
    assert.equal(spec({ teacher: { provider: 'openai', model: 'm' } }).concurrentBatches, 4);
  });

  it('selects inputs where the student can be unsure about rows of a pool', () => {
    assert.equal(spec({}).selectsInputs, true);
    const judge = { kind: 'judge', judge: { provider: 'openai', model: 'm' }, rubric: 'r' };
    const evaluation = { source: { kind: 'dataset', dataset: 'gold.jsonl' }, developmentRows: 5, testRows: 5, scorer: judge };
    const text = spec({ task: { description: 'd', output: { kind: 'text' } }, evaluation });
    assert.equal(text.selectsInputs, false);
    assert.equal(text.usesJudge, true);
  });
});
