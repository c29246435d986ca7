/**
 * The campaign's state as a pure reducer: every change is an event, and the same events give the
 * same state. Nothing here knows Temporal, so decisions are tested without a server.
 */
import type { CampaignPlan, BestRound } from '../src/contracts/campaign.ts';
import type { Budget, CampaignState, Cost, RoundSummary, Spending, Stage, StopReason } from '../src/contracts/state.ts';

/** What the workflow keeps beside the public state. */
export interface Memory {
  readonly state: CampaignState;
  /** Upper bounds of the batches in flight. */
  readonly reserved: Cost;
  /** What a campaign that is paused for its budget waits to be able to reserve. */
  readonly wanted?: Cost;
  readonly cancelReason?: string;
}

export type CampaignEvent =
  | { readonly type: 'stage-entered'; readonly stage: Stage; readonly round: number }
  | { readonly type: 'progressed'; readonly progress: number }
  | { readonly type: 'reserved'; readonly cost: Cost }
  /** The batch is over, whether it was answered or failed. */
  | { readonly type: 'settled'; readonly cost: Cost; readonly spending?: Spending }
  | { readonly type: 'paused'; readonly reason: string }
  | { readonly type: 'failed'; readonly reason: string }
  | { readonly type: 'budget-short'; readonly wanted: Cost; readonly nowMs: number }
  | { readonly type: 'budget-raised'; readonly budget: Budget; readonly nowMs: number }
  | { readonly type: 'resumed' }
  | { readonly type: 'cancel-requested'; readonly reason: string }
  | { readonly type: 'round-finished'; readonly best: BestRound }
  | { readonly type: 'stopped'; readonly reason: StopReason }
  | { readonly type: 'changed'; readonly fields: Partial<Pick<CampaignState, 'test' | 'report' | 'manifest' | 'adapter' | 'history'>> }
  | { readonly type: 'finished'; readonly status: 'completed' | 'cancelled' };

export const NO_COST: Cost = { usd: 0, tokens: 0 };
const MS_PER_HOUR = 3_600_000;

export function initialState(campaign: string, plan: CampaignPlan, budget: Budget, startedAtMs: number): CampaignState {
  return {
    campaign,
    status: 'running',
    stage: 'preparing',
    round: 1,
    maxRounds: plan.maxRounds,
    progress: 0,
    budget,
    spending: { usd: 0, tokens: 0, callsBought: 0, callsReused: 0, callsRepeated: 0 },
    startedAtMs,
  };
}

export function reduce(memory: Memory, event: CampaignEvent): Memory {
  const { state } = memory;
  const withState = (fields: Partial<CampaignState>): Memory => ({ ...memory, state: { ...state, ...fields } });
  switch (event.type) {
    case 'stage-entered':
      return withState({ stage: event.stage, round: event.round, progress: 0 });
    case 'progressed':
      return withState({ progress: event.progress });
    case 'reserved':
      return { ...memory, reserved: add(memory.reserved, event.cost) };
    case 'settled':
      return {
        ...memory,
        reserved: { usd: Math.max(0, memory.reserved.usd - event.cost.usd), tokens: Math.max(0, memory.reserved.tokens - event.cost.tokens) },
        state: event.spending === undefined ? state : { ...state, spending: addSpending(state.spending, event.spending) },
      };
    case 'paused':
      return withState({ status: 'paused', pauseKind: 'user', pauseReason: event.reason });
    case 'failed':
      return withState({ status: 'paused', pauseKind: 'failure', pauseReason: event.reason });
    case 'budget-short':
      return {
        ...memory,
        wanted: event.wanted,
        state: { ...state, status: 'paused', pauseKind: 'budget', pauseReason: describeShortfall(memory, event.wanted, event.nowMs) },
      };
    case 'budget-raised': {
      const raised = withState({ budget: { ...state.budget, ...event.budget } });
      const waits = state.status === 'paused' && state.pauseKind === 'budget' && memory.wanted !== undefined;
      if (!waits) return raised;
      if (covers(raised, memory.wanted, event.nowMs)) return goOn(raised);
      return { ...raised, state: { ...raised.state, pauseReason: describeShortfall(raised, memory.wanted, event.nowMs) } };
    }
    case 'resumed':
      return goOn(memory);
    case 'cancel-requested':
      return { ...goOn(memory), cancelReason: event.reason };
    case 'round-finished':
      return withState({ bestRound: event.best.round, bestRetention: event.best.retention });
    case 'stopped':
      return withState({ stopReason: event.reason });
    case 'changed':
      return withState(event.fields);
    case 'finished':
      return { ...goOn(memory), state: { ...goOn(memory).state, status: event.status, stage: 'finished', progress: 1 } };
  }
}

/** Running again, with nothing left of the pause. */
function goOn(memory: Memory): Memory {
  const { pauseKind: _kind, pauseReason: _reason, ...state } = memory.state;
  const { wanted: _wanted, ...rest } = memory;
  return { ...rest, state: { ...state, status: 'running' } };
}

function add(a: Cost, b: Cost): Cost {
  return { usd: a.usd + b.usd, tokens: a.tokens + b.tokens };
}

function addSpending(a: Spending, b: Spending): Spending {
  return {
    usd: a.usd + b.usd,
    tokens: a.tokens + b.tokens,
    callsBought: a.callsBought + b.callsBought,
    callsReused: a.callsReused + b.callsReused,
    callsRepeated: a.callsRepeated + b.callsRepeated,
  };
}

/** What is left of each limit; Infinity where there is none. Elapsed hours include those spent paused. */
export function remaining(memory: Memory, nowMs: number): { readonly usd: number; readonly tokens: number; readonly hours: number } {
  const { budget, spending, startedAtMs } = memory.state;
  return {
    usd: (budget.usd ?? Infinity) - spending.usd - memory.reserved.usd,
    tokens: (budget.tokens ?? Infinity) - spending.tokens - memory.reserved.tokens,
    hours: (budget.hours ?? Infinity) - (nowMs - startedAtMs) / MS_PER_HOUR,
  };
}

/**
 * Whether the budget covers `wanted` besides what is reserved. The closing stages ignore the hours:
 * a campaign that stopped because its time is over still has to measure and write down what it has.
 */
export function covers(memory: Memory, wanted: Cost, nowMs: number): boolean {
  const left = remaining(memory, nowMs);
  const closing = memory.state.stage === 'testing' || memory.state.stage === 'reporting';
  return fits(wanted.usd, left.usd) && fits(wanted.tokens, left.tokens) && (closing || left.hours > 0);
}

/** Nothing always fits, even where a little too much was spent; sums of dollars are equal to a billionth. */
function fits(wanted: number, left: number): boolean {
  return wanted === 0 || wanted <= left + 1e-9;
}

function describeShortfall(memory: Memory, wanted: Cost, nowMs: number): string {
  const left = remaining(memory, nowMs);
  const parts: string[] = [];
  if (!fits(wanted.usd, left.usd)) parts.push(`the next batch may cost $${wanted.usd.toFixed(4)} and $${Math.max(0, left.usd).toFixed(4)} of $${memory.state.budget.usd} is left`);
  if (!fits(wanted.tokens, left.tokens)) parts.push(`the next batch may take ${wanted.tokens} tokens and ${Math.max(0, left.tokens)} of ${memory.state.budget.tokens} are left`);
  if (left.hours <= 0) parts.push(`all ${memory.state.budget.hours} hours are over`);
  return `Budget: ${parts.join('; ')}. Raise the budget to go on.`;
}

/** Why `budget` cannot replace the present one; undefined when it can. */
export function whyNotRaise(current: Budget, budget: Budget): string | undefined {
  const limits = ['usd', 'tokens', 'hours'] as const;
  if (typeof budget !== 'object' || budget === null || !limits.some((limit) => budget[limit] !== undefined)) {
    return 'expected at least one of usd, tokens, hours';
  }
  for (const limit of limits) {
    const value = budget[limit];
    if (value === undefined) continue;
    if (typeof value !== 'number' || !Number.isFinite(value)) return `${limit}: expected a number, got ${JSON.stringify(value)}`;
    const present = current[limit];
    if (present === undefined) return `${limit}: expected nothing, because it has no limit, got ${value}`;
    if (value < present) return `${limit}: expected at least the present ${present}, got ${value}`;
  }
  return undefined;
}

/** The best of a finished round and the best before it. The earlier one stays on a tie: it cost less. */
export function betterRound(best: BestRound | undefined, round: RoundSummary): BestRound {
  if (best !== undefined && best.studentScore >= round.studentScore) return best;
  const { studentScore, retention, checkpoint, dataset } = round;
  return { round: round.round, studentScore, retention, checkpoint, dataset };
}

/** Why there is no next round; undefined when there is one. `nextRound` is the least that going on would cost. */
export function decide(memory: Memory, plan: CampaignPlan, bestBefore: BestRound | undefined, round: RoundSummary, nextRound: Cost, nowMs: number): StopReason | undefined {
  if (round.retention.low >= plan.targetRetention) return 'target-retention';
  if (round.round >= plan.maxRounds) return 'max-rounds';
  if (bestBefore !== undefined && round.studentScore - bestBefore.studentScore < plan.minGain) return 'no-gain';
  if (!covers(memory, nextRound, nowMs)) return 'budget';
  return undefined;
}

/** Half-open request ranges of whole planned batches, at most `maxRanges` of them. */
export function batchRanges(count: number, batchSize: number, maxRanges: number): readonly { readonly from: number; readonly to: number }[] {
  const size = batchSize * Math.max(1, Math.ceil(count / batchSize / maxRanges));
  return Array.from({ length: Math.ceil(count / size) }, (_, index) => ({ from: index * size, to: Math.min(count, (index + 1) * size) }));
}
