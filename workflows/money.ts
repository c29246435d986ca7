/**
 * The campaign owns its money. Every purchase sets its upper bound aside before it begins, is billed
 * what it truly cost, and gives the rest back. Pure: the reducer of state.ts is the only one to call it.
 */
import { addUsd, formatUsd, roundUsdUp, subtractUsd } from '../src/contracts/money.ts';
import type { Budget, CampaignState, Cost, Spending } from '../src/contracts/state.ts';

export interface Reservation {
  /** The most that it may cost. */
  readonly bound: Cost;
  /** What it has cost so far. */
  readonly billed: Spending;
  /** The most that those of its calls cost which may have been billed twice. */
  readonly uncertain: Cost;
}

/** What the next step may cost; its hours are counted from now on. */
export type Wanted = Cost & { readonly hours?: number };

/** What a purchase needs that the budget does not cover. */
export interface Shortfall {
  readonly next: Wanted;
  /** The upper bound of all that is left of the stage, `next` included. */
  readonly stage: Wanted;
  /** What a step that was tried has found out about it. */
  readonly found?: string;
}

/** What the arithmetic below needs of the workflow's memory. */
export interface Purse {
  readonly state: Pick<CampaignState, 'budget' | 'spending' | 'startedAtMs' | 'stage' | 'uncertain'>;
  readonly reservations: Readonly<Record<string, Reservation>>;
}

export const NO_COST: Cost = { usd: 0, tokens: 0 };
export const NO_SPENDING: Spending = { usd: 0, tokens: 0, callsBought: 0, callsReused: 0, callsRepeated: 0 };
const MS_PER_HOUR = 3_600_000;

export const addCost = (a: Cost, b: Cost): Cost => ({ usd: addUsd(a.usd, b.usd), tokens: a.tokens + b.tokens });
export const subtractCost = (a: Cost, b: Cost): Cost => ({ usd: subtractUsd(a.usd, b.usd), tokens: a.tokens - b.tokens });
/** What of a bound is not spent. */
export const leftOf = (bound: Cost, { usd, tokens }: Cost): Cost => ({ usd: Math.max(0, subtractUsd(bound.usd, usd)), tokens: Math.max(0, bound.tokens - tokens) });
/** `count` times as much, rounded up. */
export const timesCost = (cost: Cost, count: number): Cost => ({ usd: roundUsdUp(cost.usd * count), tokens: Math.ceil(cost.tokens * count) });

/** None is the same as a count of none. */
const reasoning = (tokens: number): Pick<Spending, 'reasoningTokens'> => (tokens === 0 ? {} : { reasoningTokens: tokens });

export function addSpending(a: Spending, b: Spending): Spending {
  return {
    usd: addUsd(a.usd, b.usd),
    tokens: a.tokens + b.tokens,
    ...reasoning((a.reasoningTokens ?? 0) + (b.reasoningTokens ?? 0)),
    callsBought: a.callsBought + b.callsBought,
    callsReused: a.callsReused + b.callsReused,
    callsRepeated: a.callsRepeated + b.callsRepeated,
  };
}

export function subtractSpending(a: Spending, b: Spending): Spending {
  return {
    usd: subtractUsd(a.usd, b.usd),
    tokens: a.tokens - b.tokens,
    ...reasoning((a.reasoningTokens ?? 0) - (b.reasoningTokens ?? 0)),
    callsBought: a.callsBought - b.callsBought,
    callsReused: a.callsReused - b.callsReused,
    callsRepeated: a.callsRepeated - b.callsRepeated,
  };
}

/** What all reservations may still cost: their bounds less what they have been billed. */
export function inFlightOf(reservations: Readonly<Record<string, Reservation>>): Cost {
  return Object.values(reservations).reduce<Cost>((sum, { bound, billed }) => addCost(sum, leftOf(bound, billed)), NO_COST);
}

/** Spent, in flight, and possibly billed twice: what counts against the limits. */
export function committed({ state, reservations }: Purse): Cost {
  const { spending, uncertain = NO_COST } = state;
  return addCost(addCost(spending, uncertain), inFlightOf(reservations));
}

/** What is left of each limit; Infinity where there is none. Elapsed hours include those spent paused. */
export function remaining(purse: Purse, nowMs: number): { readonly usd: number; readonly tokens: number; readonly hours: number } {
  const { budget, startedAtMs } = purse.state;
  const { usd, tokens } = committed(purse);
  return {
    usd: budget.usd === undefined ? Infinity : subtractUsd(budget.usd, usd),
    tokens: (budget.tokens ?? Infinity) - tokens,
    hours: (budget.hours ?? Infinity) - (nowMs - startedAtMs) / MS_PER_HOUR,
  };
}

/**
 * Whether the budget covers `wanted` besides what is committed. The closing stages ignore the hours:
 * a campaign that stopped because its time is over still has to measure and write down what it has.
 */
export function covers(purse: Purse, wanted: Wanted, nowMs: number): boolean {
  const left = remaining(purse, nowMs);
  const closing = purse.state.stage === 'testing' || purse.state.stage === 'reporting';
  return fits(wanted.usd, left.usd) && fits(wanted.tokens, left.tokens) && (closing || hasTime(wanted, left));
}

/** Nothing always fits, even where a little too much was spent. */
const fits = (wanted: number, left: number): boolean => wanted === 0 || wanted <= left;

const hasTime = ({ hours = 0 }: Wanted, left: { readonly hours: number }): boolean => left.hours > 0 && left.hours >= hours;

/** The least limits under which the budget covers `wanted`; only those that are too low now. */
export function needsOf(purse: Purse, wanted: Wanted, nowMs: number): Budget {
  const left = remaining(purse, nowMs);
  const already = committed(purse);
  return {
    ...(fits(wanted.usd, left.usd) ? {} : { usd: addUsd(already.usd, wanted.usd) }),
    ...(fits(wanted.tokens, left.tokens) ? {} : { tokens: Math.ceil(already.tokens + wanted.tokens) }),
    // Time goes on while it is paused: an hour more.
    ...(hasTime(wanted, left) ? {} : { hours: Math.ceil((nowMs - purse.state.startedAtMs) / MS_PER_HOUR + (wanted.hours ?? 0)) + 1 }),
  };
}

/** What is missing and which limits would do, in sentences for a person. */
export function shortfallOf(purse: Purse, { next, stage, found }: Shortfall, nowMs: number): string {
  const left = remaining(purse, nowMs);
  const { budget } = purse.state;
  const needs = needsOf(purse, next, nowMs);
  const all = needsOf(purse, stage, nowMs);
  const parts: string[] = [];
  if (needs.usd !== undefined) parts.push(`the next batch may cost ${formatUsd(next.usd)} and ${formatUsd(Math.max(0, left.usd))} of ${formatUsd(budget.usd ?? 0)} is left`);
  if (needs.tokens !== undefined) parts.push(`the next batch may take ${next.tokens} tokens and ${Math.max(0, left.tokens)} of ${budget.tokens} are left`);
  if (needs.hours !== undefined) parts.push(left.hours > 0 ? `the next step takes about ${(next.hours ?? 0).toFixed(2)} hours and ${left.hours.toFixed(2)} of ${budget.hours} are left` : `all ${budget.hours} hours are over`);
  return `${found === undefined ? '' : `${found}. `}Budget: ${parts.join('; ')}. To go on, raise it to ${limitsText(needs)}${sameLimits(needs, all) ? '' : `; ${limitsText(all)} covers the rest of this stage`}.`;
}

const limitsText = ({ usd, tokens, hours }: Budget): string =>
  [...(usd === undefined ? [] : [formatUsd(usd)]), ...(tokens === undefined ? [] : [`${tokens} tokens`]), ...(hours === undefined ? [] : [`${hours} hours`])].join(' and ');

const sameLimits = (a: Budget, b: Budget): boolean => a.usd === b.usd && a.tokens === b.tokens && a.hours === b.hours;

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
