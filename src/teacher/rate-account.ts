/**
 * The account of one provider key: two buckets, of requests and of tokens, and the campaigns that draw
 * on them. Pure: whoever keeps it says what time it is. Providers run such buckets themselves; ours
 * follows theirs by what the headers say and stays on its safe side.
 */
import type { RateFeedback } from './rate-headers.ts';

export interface Rates {
  readonly requestsPerMinute?: number | undefined;
  readonly tokensPerMinute?: number | undefined;
}

export interface Bucket {
  /** A minute, as the provider's headers say. */
  learned: number | null;
  /** A minute, as a person says. */
  set: number | null;
  /** The most that the provider has said remained: what may be used at once. */
  burst: number | null;
  available: number;
  /** Granted since the account was opened. */
  granted: number;
}

/** One campaign's part in an account. */
export interface Drawer {
  /** Minutes' worth of the limit that it has been served: the one with the least comes first. */
  served: number;
  /** Until then it counts as waiting. */
  waitingUntilMs: number;
  /** What its own spec allows the key, and until when that counts. */
  limits: Rates;
  limitsUntilMs: number;
}

export interface Account {
  readonly requests: Bucket;
  readonly tokens: Bucket;
  readonly drawers: Map<string, Drawer>;
  updatedAtMs: number;
  pausedUntilMs: number;
}

/** What one campaign wants in one process. */
export interface Demand {
  readonly user: string;
  /** About how many tokens each of the next calls takes, in order. */
  readonly calls: readonly number[];
  readonly limits?: Rates | undefined;
}

export interface Admission {
  /** How many calls of each demand may be made now. */
  readonly admitted: readonly number[];
  /** When to ask again for the rest; 0 when nothing is left. */
  readonly waitMs: number;
}

/** What was granted up to the moment at which a call was: headers of its response speak of that moment. */
export interface Stamp {
  readonly requests: number;
  readonly tokens: number;
  readonly atMs: number;
}

const MINUTE_MS = 60_000;
/** After a 429 that names no time: long enough for one request at 60 a minute. */
const DEFAULT_PAUSE_MS = 1_000;
/** The longest pause that a header may ask for; beyond it the caller should rather give up and come back. */
const MAX_PAUSE_MS = 10 * MINUTE_MS;
/** A limit set by a person is spread over the minute: what is used at once is at most a second's worth. */
const SET_BURST_SHARE = 1 / 60;
/** Minutes' worth by which a campaign may run ahead of one that waits: a tenth of a second. */
const LEAD = 1 / 600;
/** A campaign that has not asked for so long does not wait any more: its process has died. */
const WAITING_MS = 500;
/** A spec's own limits count for so long after its campaign last called. */
const LIMITS_MS = 5_000;
/** At least so often is asked again: what other processes learn is seen then. */
export const MAX_WAIT_MS = 250;
/** How much of what a response says is there beyond our own count is believed. */
const TRUST_IN_MORE = 0.1;
/** Minutes' worth of the limit that is left alone then: calls that are on their way. */
const RESERVE = 1 / 600;
/** Until another campaign, which is behind, has had its turn. */
const TURN_MS = 15;

const newBucket = (): Bucket => ({ learned: null, set: null, burst: null, available: Infinity, granted: 0 });

export function newAccount(nowMs: number): Account {
  return { requests: newBucket(), tokens: newBucket(), drawers: new Map(), updatedAtMs: nowMs, pausedUntilMs: 0 };
}

/** Calls a minute, or tokens; Infinity where nobody has set or named a limit. */
export function limitOf(account: Account, what: 'requests' | 'tokens', nowMs: number): number {
  const { learned, set } = account[what];
  let limit = Math.min(learned ?? Infinity, set ?? Infinity);
  for (const { limits, limitsUntilMs } of account.drawers.values()) {
    if (limitsUntilMs > nowMs) limit = Math.min(limit, (what === 'requests' ? limits.requestsPerMinute : limits.tokensPerMinute) ?? Infinity);
  }
  return limit;
}

function capacity({ learned, burst }: Bucket, limit: number): number {
  return learned !== null && learned <= limit ? (burst ?? learned) : Math.max(1, limit * SET_BURST_SHARE);
}

function refill(account: Account, nowMs: number): void {
  const passedMs = Math.max(0, nowMs - account.updatedAtMs);
  account.updatedAtMs = nowMs;
  for (const what of ['requests', 'tokens'] as const) {
    const bucket = account[what];
    const limit = limitOf(account, what, nowMs);
    bucket.available = limit === Infinity ? Infinity : Math.min(capacity(bucket, limit), bucket.available + (passedMs * limit) / MINUTE_MS);
  }
}

export const isLimited = (account: Account, nowMs: number): boolean => limitOf(account, 'requests', nowMs) !== Infinity || limitOf(account, 'tokens', nowMs) !== Infinity;

/** Milliseconds until `amount` is there; a call larger than the whole bucket waits for a full one. */
function waitFor(bucket: Bucket, amount: number, limit: number): number {
  if (limit === Infinity) return 0;
  const missing = Math.min(amount, capacity(bucket, limit)) - bucket.available;
  return missing <= 1e-9 ? 0 : Math.ceil((missing * MINUTE_MS) / limit);
}

/** Takes over what a response said. `stamp` is absent where the call was made before any limit was known; `inFlight` are this process's calls then. */
export function learn(account: Account, feedback: RateFeedback, stamp: Stamp | undefined, inFlight: Stamp, nowMs: number): void {
  refill(account, nowMs);
  learnBucket(account, 'requests', feedback.limitRequests, feedback.remainingRequests, stamp, inFlight, nowMs);
  learnBucket(account, 'tokens', feedback.limitTokens, feedback.remainingTokens, stamp, inFlight, nowMs);
  if (feedback.refused !== true) return;
  const pauseMs = Math.min(feedback.retryAfterMs ?? DEFAULT_PAUSE_MS, MAX_PAUSE_MS);
  account.pausedUntilMs = Math.max(account.pausedUntilMs, nowMs + pauseMs);
  if (account.requests.available !== Infinity) account.requests.available = Math.min(account.requests.available, 0);
}

function learnBucket(account: Account, what: 'requests' | 'tokens', limit: number | undefined, remaining: number | undefined, stamp: Stamp | undefined, inFlight: Stamp, nowMs: number): void {
  const bucket = account[what];
  if (limit !== undefined && limit > 0 && limit !== bucket.learned) {
    if (bucket.available === Infinity) bucket.available = remaining ?? limit;
    bucket.learned = limit;
    bucket.burst = null;
  }
  if (remaining === undefined || bucket.learned === null) return;
  bucket.burst = Math.min(bucket.learned, Math.max(bucket.burst ?? 0, remaining + 1));
  // What was granted after this call may not have reached the provider when it counted; what has flowed in since is there.
  const since = stamp === undefined ? inFlight[what] : bucket.granted - stamp[what] - ((nowMs - stamp.atMs) * bucket.learned) / MINUTE_MS;
  const there = remaining - since;
  // Down at once, up by and by: an estimate that is too low costs a moment, one that is too high a refusal.
  const reserve = Math.max(0, Math.min(there / 2, bucket.learned * RESERVE));
  if (there < bucket.available) bucket.available = there;
  else bucket.available += Math.max(0, there - reserve - bucket.available) * TRUST_IN_MORE;
}

/** Gives back what a grant took that led to no call. */
export function refund(account: Account, tokens: number): void {
  account.requests.available += 1;
  account.requests.granted -= 1;
  account.tokens.available += tokens;
  account.tokens.granted -= tokens;
}

/**
 * Admits as many calls as the buckets hold, `atMost` so many, the least served campaign first; a campaign that waits in
 * another process is left its turn.
 */
export function admit(account: Account, demands: readonly Demand[], atMost: number, nowMs: number): Admission {
  for (const demand of demands) noteDemand(account, demand, nowMs);
  refill(account, nowMs);
  const admitted = demands.map(() => 0);
  const limits = { requests: limitOf(account, 'requests', nowMs), tokens: limitOf(account, 'tokens', nowMs) };
  const left = (index: number): number | undefined => demands[index]?.calls[admitted[index] ?? 0];
  const drawer = (index: number): Drawer => account.drawers.get(demands[index]?.user ?? '') as Drawer;
  let waitMs = Math.ceil(account.pausedUntilMs - nowMs);
  for (let free = atMost; waitMs <= 0 && free > 0; free -= 1) {
    const waiting = demands.flatMap((_, index) => (left(index) === undefined ? [] : [index])).sort((a, b) => drawer(a).served - drawer(b).served);
    const next = waiting[0];
    if (next === undefined) break;
    const tokens = left(next) ?? 0;
    waitMs = Math.max(waitFor(account.requests, 1, limits.requests), waitFor(account.tokens, tokens, limits.tokens));
    if (waitMs > 0) break;
    if (mustYield(account, drawer(next), new Set(demands.map(({ user }) => user)), nowMs)) {
      waitMs = TURN_MS;
      break;
    }
    take(account, tokens);
    drawer(next).served += Math.max(1 / limits.requests, tokens / limits.tokens);
    admitted[next] = (admitted[next] ?? 0) + 1;
  }
  demands.forEach((_, index) => {
    if (left(index) === undefined) drawer(index).waitingUntilMs = 0;
  });
  return { admitted, waitMs: demands.some((_, index) => left(index) !== undefined) ? Math.min(MAX_WAIT_MS, Math.max(1, waitMs)) : 0 };
}

function take(account: Account, tokens: number): void {
  account.requests.available -= 1;
  account.requests.granted += 1;
  account.tokens.available -= tokens;
  account.tokens.granted += tokens;
}

/** A campaign that begins to wait starts beside the one that was served least: it has saved up nothing and owes nothing. */
function noteDemand(account: Account, { user, limits = {} }: Demand, nowMs: number): void {
  const others = [...account.drawers].flatMap(([name, { served, waitingUntilMs }]) => (name !== user && waitingUntilMs > nowMs ? [served] : []));
  const known = account.drawers.get(user);
  const waited = known !== undefined && known.waitingUntilMs > nowMs;
  const served = waited || others.length === 0 ? (known?.served ?? 0) : Math.max(known?.served ?? 0, Math.min(...others));
  account.drawers.set(user, { served, limits, waitingUntilMs: nowMs + WAITING_MS, limitsUntilMs: nowMs + LIMITS_MS });
}

/** Whether a campaign of another process waits that has been served clearly less. */
function mustYield(account: Account, { served }: Drawer, ours: ReadonlySet<string>, nowMs: number): boolean {
  return [...account.drawers].some(([name, other]) => !ours.has(name) && other.waitingUntilMs > nowMs && served > other.served + LEAD);
}
