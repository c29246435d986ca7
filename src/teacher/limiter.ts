/**
 * The queue in front of one provider key: calls of several campaigns wait here for their turn. How fast
 * they may go is decided in the key's account, which all processes of a home share; without a known
 * limit nothing is asked of it, and a window of calls at once is learned from 429s instead.
 */
import { StillhouseError } from '../contracts/errors.ts';
import { MAX_WAIT_MS } from './rate-account.ts';
import type { Demand, Rates, Stamp } from './rate-account.ts';
import type { RateFeedback } from './rate-headers.ts';
import type { KeyAccount, Returned, SharedLimits, Visited } from './shared-limits.ts';

/** A permission to make one call; `done` must be called once, with what came back. */
export interface Permit {
  done(feedback: RateFeedback): void;
}

export interface Turn {
  /** Whose call it is. */
  readonly user: string;
  /** About how many tokens it takes. */
  readonly tokens: number;
  /** What the user's own spec allows the key. */
  readonly limits?: Rates | undefined;
  readonly signal?: AbortSignal;
}

interface Waiting {
  readonly turn: Turn;
  readonly grant: (permit: Permit) => void;
  readonly fail: (error: unknown) => void;
}

/** So many calls of each campaign are shown to the account at once. */
const MAX_SHOWN = 64;
/** Between two visits to the account. */
const GATHER_MS = 5;
/** What came back is told to the account at least so often. */
const TELL_EVERY_MS = 20;

export class Limiter {
  readonly #key: KeyAccount;
  readonly #shared: SharedLimits;
  /** Queues by user; the map's order is the order of turns. */
  readonly #queues = new Map<string, Waiting[]>();
  #limited = false;
  #pausedUntilMs = 0;
  #visitedAtMs = 0;
  /** Calls at once that a provider without limit headers has shown to bear: halved by a 429, slowly raised by successes. */
  #window = Infinity;
  #inFlight = 0;
  #inFlightTokens = 0;
  #returned: Returned | undefined;
  #refunds: number[] = [];
  #timer: NodeJS.Timeout | undefined;
  #timerAtMs = Infinity;

  constructor(key: KeyAccount, shared: SharedLimits) {
    this.#key = key;
    this.#shared = shared;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Waits until a call may be made; CANCELLED when its signal aborts first. */
  acquire(turn: Turn): Promise<Permit> {
    const { user, signal } = turn;
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
      const settled = (): void => signal?.removeEventListener('abort', onAbort);
      const waiting: Waiting = {
        turn,
        grant: (permit) => {
          settled();
          resolve(permit);
        },
        fail: (error) => {
          settled();
          reject(error);
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

  /** Lets out what may go, visiting the account `now` or when it is time; a failure of the account reaches all who wait. */
  #serve(now = false): void {
    try {
      const nowMs = Date.now();
      const asks = now || this.#limited || this.#pausedUntilMs > nowMs || nowMs - this.#visitedAtMs >= MAX_WAIT_MS;
      if (!asks) this.#serveFreely();
      else if (now) this.#visit();
      // Calls gather between two visits, so that one visit admits several of them.
      else if (this.#timer === undefined) this.#setTimer(Math.max(0, this.#visitedAtMs + GATHER_MS - nowMs));
    } catch (error) {
      const all = [...this.#queues.values()].flat();
      this.#queues.clear();
      for (const { fail } of all) fail(error);
    }
  }

  #serveFreely(): void {
    for (;;) {
      const turn = this.#queues.entries().next().value;
      if (turn === undefined || this.#inFlight >= this.#window) return; // The next `done` serves again.
      this.#grant(turn[0], undefined);
    }
  }

  /** Takes the user's next call off its queue and puts the user to the back of the turns. */
  #grant(user: string, stamp: Stamp | undefined): void {
    const queue = this.#queues.get(user) ?? [];
    const next = queue.shift();
    this.#queues.delete(user);
    if (queue.length > 0) this.#queues.set(user, queue);
    next?.grant(this.#permit(next.turn.tokens, stamp));
  }

  /** Tells the account what came back and asks what may go out. */
  #visit(): void {
    this.#clearTimer();
    const free = Math.floor(Math.max(0, Math.min(MAX_SHOWN, this.#window - this.#inFlight)));
    const queues = free === 0 ? [] : [...this.#queues];
    const demands = queues.map(([user, queue]): Demand => ({ user, calls: queue.slice(0, free).map(({ turn }) => turn.tokens), limits: queue[0]?.turn.limits }));
    const returned = this.#returned;
    const refunds = this.#refunds;
    this.#returned = undefined;
    this.#refunds = [];
    const visited: Visited = this.#shared.visit(this.#key, { returned, refunds, demands, atMost: free });
    this.#visitedAtMs = Date.now();
    this.#limited = visited.limited;
    this.#pausedUntilMs = visited.pausedUntilMs;
    demands.forEach(({ user }, index) => {
      for (let count = visited.admitted[index] ?? 0; count > 0; count -= 1) this.#grant(user, visited.limited ? visited.stamp : undefined);
    });
    if (visited.waitMs > 0) this.#setTimer(visited.waitMs);
  }

  #setTimer(delayMs: number): void {
    const atMs = Date.now() + delayMs;
    if (this.#timer !== undefined && this.#timerAtMs <= atMs) return;
    this.#clearTimer();
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => {
      this.#clearTimer();
      this.#serve(true);
    }, delayMs);
  }

  #clearTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerAtMs = Infinity;
  }

  #permit(tokens: number, stamp: Stamp | undefined): Permit {
    this.#inFlight += 1;
    this.#inFlightTokens += tokens;
    let open = true;
    return {
      done: (feedback) => {
        if (!open) return;
        open = false;
        this.#inFlight -= 1;
        this.#inFlightTokens -= tokens;
        const urgent = this.#note(feedback, tokens, stamp);
        if (urgent || this.#queues.size > 0) this.#serve(urgent);
      },
    };
  }

  /** Keeps what came back for the next visit; true when it cannot wait. */
  #note(feedback: RateFeedback, tokens: number, stamp: Stamp | undefined): boolean {
    if (feedback.unused === true) {
      if (stamp !== undefined) this.#refunds.push(tokens);
      return false;
    }
    const { refused = false, limitRequests, limitTokens } = feedback;
    if (!refused) this.#window += 1 / this.#window;
    else if (limitRequests === undefined) this.#window = Math.max(1, Math.floor(Math.min(this.#window, this.#inFlight + 1) / 2));
    if (!refused && limitRequests === undefined && limitTokens === undefined) return false;
    const urgent = refused || !this.#limited;
    // Of several responses the newest call's says most.
    if (urgent || (stamp?.requests ?? 0) >= (this.#returned?.stamp?.requests ?? 0)) {
      this.#returned = { feedback, stamp, inFlight: { requests: this.#inFlight, tokens: this.#inFlightTokens, atMs: Date.now() } };
    }
    if (!urgent) this.#setTimer(TELL_EVERY_MS);
    return urgent;
  }
}

const limiters = new WeakMap<SharedLimits, Map<string, Limiter>>();

/** This process's queue in front of a key. */
export function limiterOf(key: KeyAccount, shared: SharedLimits): Limiter {
  const known = limiters.get(shared) ?? new Map<string, Limiter>();
  limiters.set(shared, known);
  const limiter = known.get(key.id) ?? new Limiter(key, shared);
  known.set(key.id, limiter);
  return limiter;
}
