import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ActivityFailure, ApplicationFailure, CancelledFailure, TimeoutFailure } from '@temporalio/common';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import { specToPlan } from '../../src/contracts/campaign.ts';
import type { Budget, RoundSummary, Spending } from '../../src/contracts/state.ts';
import { describeState } from '../../workflows/details.ts';
import { codeOf, factsOf, isSilent, reasonOf, shorten } from '../../workflows/failure.ts';
import { NO_COST, covers, remaining, whyNotRaise } from '../../workflows/money.ts';
import type { CampaignEvent, Memory } from '../../workflows/state.ts';
import { batchRanges, betterRound, decide, initialMemory, initialState, reduce } from '../../workflows/state.ts';
import { PLAN, refOf } from '../support/scripted-activities.ts';

const HOUR_MS = 3_600_000;
const memoryOf = (budget: Budget): Memory => initialMemory(initialState('c', PLAN, budget, 0));
const after = (memory: Memory, ...events: readonly CampaignEvent[]): Memory => events.reduce(reduce, memory);
const spendingOf = (usd: number, tokens = 0, callsRepeated = 0): Spending => ({ usd, tokens, callsBought: 3, callsReused: 2, callsRepeated });
const round = (number: number, studentScore: number, low = 0.5): RoundSummary => ({
  round: number, requests: 1, accepted: 1, rejected: 0, dataset: refOf('dataset', number), checkpoint: refOf('checkpoint', number),
  lossCurve: refOf('loss-curve', number), lossFirstNats: 2, lossLastNats: 1, teacherScore: 1, studentScore, retention: { mean: studentScore, low, high: 1 }, stageMs: {},
});

describe('campaign state', () => {
  it('sets an upper bound aside, bills what it truly cost, and gives the rest back', () => {
    const bound = { usd: 0.5, tokens: 100 };
    const reserved = reduce(memoryOf({ usd: 1, tokens: 1_000 }), { type: 'reserved', name: 'a', bound });
    assert.deepEqual(remaining(reserved, 0), { usd: 0.5, tokens: 900, hours: Infinity });
    assert.deepEqual(reserved.state.inFlight, bound);
    const billed = reduce(reserved, { type: 'billed', name: 'a', spending: spendingOf(0.2, 40), uncertain: NO_COST });
    assert.deepEqual(remaining(billed, 0), { usd: 0.5, tokens: 900, hours: Infinity }, 'the rest of the bound is still set aside');
    assert.deepEqual(billed.state.inFlight, { usd: 0.3, tokens: 60 });
    const settled = reduce(billed, { type: 'released', name: 'a' });
    assert.deepEqual(remaining(settled, 0), { usd: 0.8, tokens: 960, hours: Infinity });
    assert.deepEqual(settled.state.spending, spendingOf(0.2, 40));
    assert.equal(settled.state.inFlight, undefined);
    assert.equal(after(reserved, { type: 'released', name: 'a' }).state.spending.usd, 0);
  });

  it('bills a purchase that is told of twice once, and keeps what may have been billed twice out of reach', () => {
    const bill = (usd: number, repeated: number): CampaignEvent => ({ type: 'billed', name: 'a', spending: spendingOf(usd, 10, repeated), uncertain: { usd: 0.05 * repeated, tokens: 5 * repeated } });
    const end = after(memoryOf({ usd: 1 }), { type: 'reserved', name: 'a', bound: { usd: 0.5, tokens: 100 } }, bill(0.1, 1), bill(0.3, 2), { type: 'released', name: 'a' });
    assert.deepEqual(end.state.spending, spendingOf(0.3, 10, 2));
    assert.deepEqual(end.state.uncertain, { usd: 0.1, tokens: 10 });
    assert.equal(remaining(end, 0).usd, 0.6);
  });

  it('counts all that is set aside for a purchase of which nobody says what it bought as uncertain', () => {
    const begun = after(memoryOf({ usd: 1 }), { type: 'reserved', name: 'a', bound: { usd: 0.5, tokens: 100 } });
    const silent = after(begun, { type: 'unsettled', name: 'a' }, { type: 'released', name: 'a' });
    assert.deepEqual([silent.state.spending.usd, silent.state.uncertain, silent.state.inFlight, remaining(silent, 0).usd], [0, { usd: 0.5, tokens: 100 }, undefined, 0.5]);
    const bill: CampaignEvent = { type: 'billed', name: 'a', spending: spendingOf(0.2, 40), uncertain: { usd: 0.05, tokens: 5 } };
    const partly = after(begun, bill, { type: 'unsettled', name: 'a' }, { type: 'released', name: 'a' });
    assert.deepEqual([partly.state.spending.usd, partly.state.uncertain], [0.2, { usd: 0.35, tokens: 65 }], 'what it told before stands');
    assert.equal(reduce(silent, { type: 'unsettled', name: 'b' }), silent);
  });

  it('sums cents without drift', () => {
    let memory = memoryOf({ usd: 1_000 });
    for (let index = 0; index < 10_000; index += 1) {
      const name = String(index);
      memory = after(memory, { type: 'reserved', name, bound: { usd: 0.3, tokens: 0 } }, { type: 'billed', name, spending: spendingOf(0.1), uncertain: NO_COST }, { type: 'released', name });
    }
    assert.equal(memory.state.spending.usd, 1_000);
    assert.equal(remaining(memory, 0).usd, 0);
  });

  it('covers a batch to the last billionth, and nothing at all once the hours are over, except while closing', () => {
    const memory = memoryOf({ usd: 0.3, hours: 1 });
    const spent = after(memory, { type: 'reserved', name: 'a', bound: { usd: 0.2, tokens: 0 } }, { type: 'billed', name: 'a', spending: spendingOf(0.1), uncertain: NO_COST }, { type: 'released', name: 'a' });
    assert.ok(covers(spent, { usd: 0.2, tokens: 0 }, 0));
    assert.ok(!covers(spent, { usd: 0.200000001, tokens: 0 }, 0));
    assert.ok(!covers(memory, NO_COST, HOUR_MS));
    assert.ok(covers(reduce(memory, { type: 'stage-entered', stage: 'testing', round: 1 }), NO_COST, HOUR_MS));
  });

  it('says which limits it needs, and goes on by itself when the budget is raised to them, and only then', () => {
    const wanted = { next: { usd: 2.5, tokens: 0 }, stage: { usd: 7, tokens: 0 } };
    const short = reduce(memoryOf({ usd: 1, hours: 1 }), { type: 'budget-short', wanted, nowMs: 2 * HOUR_MS });
    assert.equal(short.state.status, 'paused');
    assert.deepEqual(short.state.needs, { usd: 2.5, hours: 3 });
    assert.equal(short.state.pauseReason, 'Budget: the next batch may cost $2.50 and $1.00 of $1.00 is left; all 1 hours are over. To go on, raise it to $2.50 and 3 hours; $7.00 and 3 hours covers the rest of this stage.');
    const money = reduce(short, { type: 'budget-raised', budget: { usd: 3 }, nowMs: 2 * HOUR_MS });
    assert.equal(money.state.status, 'paused');
    assert.match(money.state.pauseReason ?? '', /^Budget: all 1 hours are over\. To go on, raise it to 3 hours;/);
    const both = reduce(money, { type: 'budget-raised', budget: { hours: 3 }, nowMs: 2 * HOUR_MS });
    assert.equal(both.state.status, 'running');
    assert.equal(both.state.pauseReason, undefined);
    assert.equal(both.state.needs, undefined);
    const user = reduce(memoryOf({ usd: 1 }), { type: 'paused', reason: 'lunch' });
    assert.equal(reduce(user, { type: 'budget-raised', budget: { usd: 3 }, nowMs: 0 }).state.status, 'paused');
  });

  it('asks a provider that is away again at growing intervals, which an answer or a new teacher ends', () => {
    const probes = { firstMs: 100, longestMs: 300 };
    const away = (memory: Memory, retryAfterMs = 0): Memory => reduce(memory, { type: 'provider-away', reason: 'no answer', probes, retryAfterMs, nowMs: 1_000 });
    const once = away(memoryOf({}));
    assert.deepEqual([once.state.status, once.state.pauseKind, once.state.resumesAtMs], ['paused', 'provider', 1_100]);
    assert.equal(away(once), once, 'another batch finds the same outage');
    const probing = reduce(once, { type: 'probe-due' });
    assert.equal(probing.state.status, 'running');
    const twice = away(probing);
    assert.equal(twice.state.resumesAtMs, 1_200);
    assert.equal(away(reduce(twice, { type: 'probe-due' })).state.resumesAtMs, 1_300, 'at most the longest interval');
    assert.equal(away(memoryOf({}), 5_000).state.resumesAtMs, 6_000, 'no sooner than the provider asked for');
    assert.equal(away(after(twice, { type: 'probe-due' }, { type: 'provider-answered' })).state.resumesAtMs, 1_100);
    const spec = refOf('spec', 'another teacher');
    const changed = reduce(twice, { type: 'teacher-set', spec });
    assert.deepEqual([changed.state.status, changed.state.changedSpec, changed.outages], ['running', spec, 0]);
    const user = reduce(twice, { type: 'paused', reason: 'leave it' });
    assert.equal(reduce(user, { type: 'probe-due' }).state.status, 'paused');
    assert.equal(reduce(user, { type: 'teacher-set', spec }).state.status, 'paused');
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

  const wanted = { next: { usd: 2, tokens: 0 }, stage: { usd: 2, tokens: 0 } };
  const probes = { firstMs: 30_000, longestMs: 1_800_000 };

  it('leaves nothing of one pause in another: neither the time of the next question, nor limits, nor a code', () => {
    const away = reduce(memoryOf({}), { type: 'provider-away', reason: 'no answer', probes, retryAfterMs: 0, nowMs: 0 });
    const held = reduce(away, { type: 'paused', reason: 'leave it', by: 'ada', nowMs: 7 });
    assert.deepEqual([held.state.resumesAtMs, held.state.pausedBy, held.state.pausedAtMs], [undefined, 'ada', 7]);
    assert.doesNotMatch(describeState(held.state), /by itself/);
    const short = reduce(memoryOf({ usd: 1 }), { type: 'budget-short', wanted, nowMs: 0 });
    const failed = reduce(short, { type: 'failed', reason: 'a wrong key', code: 'UNAUTHORIZED', nowMs: 3 });
    assert.deepEqual([failed.state.pauseKind, failed.state.needs, failed.wanted], ['failure', undefined, undefined]);
    assert.deepEqual(failed.state.remedies?.map(({ command }) => command), ['still resume c']);
    const person = reduce(failed, { type: 'paused', reason: 'lunch' });
    assert.deepEqual([person.state.pauseCode, person.state.pausedAtMs], [undefined, undefined]);
    const { status, ...running } = reduce(person, { type: 'resumed' }).state;
    assert.equal(status, 'running');
    assert.ok(!Object.keys(running).some((key) => /pause|remedies|needs|resumes/.test(key)), Object.keys(running).join());
  });

  it("never overwrites a person's pause with a late failure or with too little time, and a change of settings does not end it", () => {
    const person = reduce(memoryOf({ hours: 1 }), { type: 'paused', reason: 'holiday', nowMs: 0 });
    assert.equal(reduce(person, { type: 'failed', reason: 'a batch that was on its way', nowMs: 1 }), person);
    assert.equal(reduce(person, { type: 'time-short', reason: 'too long', hours: 5, nowMs: 1 }), person);
    const spec = refOf('spec', 'x');
    assert.equal(reduce(person, { type: 'teacher-set', spec }).state.status, 'paused');
    assert.equal(reduce(person, { type: 'spec-set', spec, plan: PLAN, nowMs: 1 }).state.status, 'paused');
  });

  it('goes on after other settings where these may cure the pause, and not where the machine or an account is at fault', () => {
    const set: CampaignEvent = { type: 'spec-set', spec: refOf('spec', 'x'), plan: { ...PLAN, maxRounds: 9 }, nowMs: 10 };
    const after = (code: 'BAD_INPUT' | 'DIVERGED' | 'TOO_LARGE' | 'DISK_FULL' | 'UNAUTHORIZED' | 'QUOTA_EXHAUSTED' | 'CORRUPT') => reduce(reduce(memoryOf({}), { type: 'failed', reason: 'r', code }), set).state;
    for (const code of ['BAD_INPUT', 'DIVERGED', 'TOO_LARGE'] as const) assert.equal(after(code).status, 'running', code);
    for (const code of ['DISK_FULL', 'UNAUTHORIZED', 'QUOTA_EXHAUSTED', 'CORRUPT'] as const) assert.equal(after(code).status, 'paused', code);
    assert.equal(after('BAD_INPUT').maxRounds, 9);
    assert.equal(reduce(reduce(memoryOf({ usd: 1 }), { type: 'budget-short', wanted, nowMs: 0 }), set).state.status, 'paused');
    assert.equal(reduce(reduce(memoryOf({ hours: 1 }), { type: 'time-short', reason: 'r', hours: 3, nowMs: 0 }), set).state.status, 'running', 'a shorter training may fit');
  });

  it('says for every kind of pause which commands make it go on', () => {
    const commands = (memory: Memory): readonly string[] => (memory.state.remedies ?? []).map(({ command }) => command);
    const at = (stage: 'sampling' | 'filtering' | 'training') => reduce(memoryOf({ usd: 1, hours: 1 }), { type: 'stage-entered', stage, round: 1 });
    const failed = (stage: 'sampling' | 'filtering' | 'training', code: 'BAD_INPUT' | 'DIVERGED' | 'PROCESS_DIED' | 'QUOTA_EXHAUSTED' | 'INTERNAL') => commands(reduce(at(stage), { type: 'failed', reason: 'r', code }));
    assert.deepEqual(commands(reduce(at('sampling'), { type: 'budget-short', wanted, nowMs: 0 })), ['still budget c --usd 2']);
    assert.deepEqual(commands(reduce(at('sampling'), { type: 'provider-away', reason: 'r', probes, retryAfterMs: 0, nowMs: 0 })), ['still resume c', 'still teacher c --model OTHER']);
    assert.deepEqual(failed('sampling', 'QUOTA_EXHAUSTED'), ['still teacher c --model OTHER', 'still resume c']);
    assert.match(failed('filtering', 'BAD_INPUT')[0] ?? '', /^still set c filter\./);
    assert.match(failed('training', 'DIVERGED')[0] ?? '', /^still set c training\.learningRate=/);
    assert.match(failed('training', 'PROCESS_DIED')[0] ?? '', /^still set c training\.rowTokens=/);
    assert.deepEqual(failed('training', 'INTERNAL'), ['still resume c']);
  });

  it('reads of a failed activity its sentence, its code and what it has kept, of one that timed out its last heartbeat', () => {
    const failureOf = (cause: Error): ActivityFailure => new ActivityFailure('Activity task failed', 'trainEpoch', '1', 'MAXIMUM_ATTEMPTS_REACHED', undefined, cause);
    const checkpoint = refOf('checkpoint', 'step 900');
    const cause = new SyntaxError('Unexpected token in JSON');
    const full = failureOf(ApplicationFailure.create({ type: 'Stillhouse:BAD_INPUT', message: 'rows.jsonl:61: expected JSON', cause, details: [{ checkpoint, checkpointStep: 900, steps: 1_000 }] }));
    assert.deepEqual([reasonOf(full), codeOf(full), factsOf(full)?.checkpoint], ['rows.jsonl:61: expected JSON', 'BAD_INPUT', checkpoint]);
    const late = failureOf(new TimeoutFailure('activity StartToClose timeout', { step: 950, steps: 1_000, lossNats: 1, checkpoint, checkpointStep: 900 }, 'START_TO_CLOSE'));
    assert.deepEqual(factsOf(late), { checkpoint, checkpointStep: 900, steps: 1_000 });
    assert.equal(codeOf(late), undefined);
    assert.match(reasonOf(late), /^no attempt ended in time \(activity StartToClose timeout\)/);
    for (const details of [undefined, null, 'text', { done: 3 }, { checkpoint: 'x' }]) assert.equal(factsOf(failureOf(new TimeoutFailure('t', details, 'HEARTBEAT'))), undefined);
    assert.deepEqual([late, full, failureOf(new CancelledFailure('cancelled'))].map(isSilent), [true, false, false]);
    const long = shorten(`${'a'.repeat(3_000)}: row 61`);
    assert.ok(long.length <= 1_500 && long.startsWith('aaa') && long.endsWith(': row 61'));
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
