/**
 * One limiter for each provider key, shared by all teachers in the process that use the key: it learns
 * requests and tokens per minute from the responses' headers and from 429s, holds calls back
 * accordingly, and serves its users in turn so that none starves.
 */
import { StillhouseError } from '../contracts/errors.ts';

/** What a response said about the key's limits. Absent fields were not in the headers. */
export interface RateFeedback {
  readonly limitRequests?: number;
  readonly remainingRequests?: number;
  readonly limitTokens?: number;
  readonly remainingTokens?: number;
  /** The call was answered with 429. */
  readonly refused?: boolean;
  /** Milliseconds for which the provider asks not to be called. */
  readonly retryAfterMs?: number;
}

/** A permission to make one call; `done` must be called once, with what came back. */
export interface Permit {
  done(feedback: RateFeedback): void;
}

interface Waiting {
  readonly tokens: number;
  readonly grant: (permit: Permit) => void;
}

/** After a 429 that names no time: long enough for one request at 60 a minute. */
const DEFAULT_PAUSE_MS = 1_000;
/** The longest pause that a header may ask for; beyond it the caller should rather give up and come back. */
const MAX_PAUSE_MS = 10 * 60_000;

/** A bucket as the providers run it: full at `limit`, refilled continuously at `limit` a minute. */
class Bucket {
  limit = Infinity;
  available = Infinity;
  #updatedAtMs = 0;

  refill(nowMs: number): void {
    if (this.limit !== Infinity) this.available = Math.min(this.limit, this.available + ((nowMs - this.#updatedAtMs) * this.limit) / 60_000);
    this.#updatedAtMs = nowMs;
  }

  /** `inFlight` calls may or may not be in `remaining` already: taken off to stay on the safe side. */
  learn(limit: number | undefined, remaining: number | undefined, inFlight: number): void {
    if (limit !== undefined && limit > 0) {
      if (this.limit === Infinity) this.available = limit;
      this.limit = limit;
    }
    if (this.limit !== Infinity && remaining !== undefined) this.available = Math.min(this.available, remaining - inFlight);
  }

  /** Milliseconds until `amount` is there; a call larger than the whole bucket waits for a full one. */
  waitMs(amount: number): number {
    const missing = Math.min(amount, this.limit) - this.available;
    return this.limit === Infinity || missing <= 0 ? 0 : Math.ceil((missing * 60_000) / this.limit);
  }
}

export class Limiter {
  readonly #requests = new Bucket();
  readonly #tokens = new Bucket();
  /** Queues by user; the map's order is the order of turns. */
  readonly #queues = new Map<string, Waiting[]>();
  #pausedUntilMs = 0;
  /** Calls at once that a provider without limit headers has shown to bear: halved by a 429, slowly raised by successes. */
  #window = Infinity;
  #inFlight = 0;
  #inFlightTokens = 0;
  #timer: NodeJS.Timeout | undefined;

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Waits until `user` may make a call of about `tokens` tokens; CANCELLED when `signal` aborts first. */
  acquire(user: string, tokens: number, signal?: AbortSignal): Promise<Permit> {
    return new Promise((resolve, reject) => {
      const cancelled = (): StillhouseError => new StillhouseError('CANCELLED', 'stopped while waiting for the provider\'s rate limit');
      if (signal?.aborted === true) {
        reject(cancelled());
        return;
      }
      const onAbort = (): void => {
        this.#forget(user, waiting);
        reject(cancelled());
      };
      const waiting: Waiting = {
        tokens,
        grant: (permit) => {
          signal?.removeEventListener('abort', onAbort);
          resolve(permit);
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      const queue = this.#queues.get(user);
      if (queue === undefined) this.#queues.set(user, [waiting]);
      else queue.push(waiting);
      this.#serve();
    });
  }

  #forget(user: string, waiting: Waiting): void {
    const rest = (this.#queues.get(user) ?? []).filter((other) => other !== waiting);
    if (rest.length > 0) this.#queues.set(user, rest);
    else this.#queues.delete(user);
  }

  #serve(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (;;) {
      const turn = this.#queues.entries().next().value;
      if (turn === undefined) return;
      const [user, queue] = turn;
      const next = queue[0];
      if (next === undefined) {
        this.#queues.delete(user);
        continue;
      }
      if (this.#inFlight >= this.#window) return; // The next `done` serves again.
      const waitMs = this.#waitMs(next.tokens);
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.#serve(), waitMs);
        return;
      }
      queue.shift();
      // To the back of the turns.
      this.#queues.delete(user);
      if (queue.length > 0) this.#queues.set(user, queue);
      next.grant(this.#permit(next.tokens));
    }
  }

  #waitMs(tokens: number): number {
    const nowMs = performance.now();
    this.#requests.refill(nowMs);
    this.#tokens.refill(nowMs);
    return Math.max(Math.ceil(this.#pausedUntilMs - nowMs), this.#requests.waitMs(1), this.#tokens.waitMs(tokens), 0);
  }

  #permit(tokens: number): Permit {
    this.#requests.available -= 1;
    this.#tokens.available -= tokens;
    this.#inFlight += 1;
    this.#inFlightTokens += tokens;
    let open = true;
    return {
      done: (feedback) => {
        if (!open) return;
        open = false;
        this.#inFlight -= 1;
        this.#inFlightTokens -= tokens;
        this.#learn(feedback);
        this.#serve();
      },
    };
  }

  #learn(feedback: RateFeedback): void {
    const nowMs = performance.now();
    this.#requests.refill(nowMs);
    this.#tokens.refill(nowMs);
    this.#requests.learn(feedback.limitRequests, feedback.remainingRequests, this.#inFlight);
    this.#tokens.learn(feedback.limitTokens, feedback.remainingTokens, this.#inFlightTokens);
    if (feedback.refused === true) {
      const pauseMs = Math.min(feedback.retryAfterMs ?? DEFAULT_PAUSE_MS, MAX_PAUSE_MS);
      this.#pausedUntilMs = Math.max(this.#pausedUntilMs, nowMs + pauseMs);
      if (feedback.limitRequests === undefined) this.#window = Math.max(1, Math.floor(Math.min(this.#window, this.#inFlight + 1) / 2));
    } else {
      this.#window += 1 / this.#window;
    }
  }
}

const limiters = new Map<string, Limiter>();

/** The limiter of a key at a provider. `keyId` is a digest: the key itself is not kept here. */
export function sharedLimiter(provider: string, keyId: string): Limiter {
  const name = `${provider}\n${keyId}`;
  const existing = limiters.get(name);
  if (existing !== undefined) return existing;
  const limiter = new Limiter();
  limiters.set(name, limiter);
  return limiter;
}

const numberOf = (text: string | null): number | undefined => {
  const value = text === null || text.trim() === '' ? NaN : Number(text);
  return Number.isFinite(value) ? value : undefined;
};

/** `retry-after-ms`, else `retry-after` in seconds or as an HTTP date (RFC 9110 §10.2.3). */
export function retryAfterMs(headers: Headers, nowMs: number = Date.now()): number | undefined {
  const milliseconds = numberOf(headers.get('retry-after-ms'));
  if (milliseconds !== undefined) return Math.max(0, milliseconds);
  const text = headers.get('retry-after');
  const seconds = numberOf(text);
  if (seconds !== undefined) return Math.max(0, seconds * 1_000);
  const dateMs = text === null ? NaN : Date.parse(text);
  return Number.isNaN(dateMs) ? undefined : Math.max(0, dateMs - nowMs);
}

/** The x-ratelimit headers, https://platform.openai.com/docs/guides/rate-limits. */
export function rateFeedback(headers: Headers, status: number): RateFeedback {
  const fields = {
    limitRequests: numberOf(headers.get('x-ratelimit-limit-requests')),
    remainingRequests: numberOf(headers.get('x-ratelimit-remaining-requests')),
    limitTokens: numberOf(headers.get('x-ratelimit-limit-tokens')),
    remainingTokens: numberOf(headers.get('x-ratelimit-remaining-tokens')),
    retryAfterMs: retryAfterMs(headers),
  };
  const given = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
  return { ...given, ...(status === 429 ? { refused: true } : {}) };
}
