/** Calls to a provider's fine-tuning API that are not chat completions: retried while it is away for a moment, its failures in our terms. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { OpenAI } from 'openai';
import { hostedEndpoint } from '../../contracts/campaign-spec.ts';
import type { HostedStudentSpec } from '../../contracts/campaign-spec.ts';
import { StillhouseError } from '../../contracts/errors.ts';
import { openClient } from '../../teacher/openai-client.ts';
import type { ReadSecret } from '../../teacher/openai-client.ts';
import { callFailure } from '../../teacher/openai-failure.ts';
import type { CallFailure } from '../../teacher/openai-failure.ts';

export interface HostedTimings {
  /** Between two looks at a running job. */
  readonly pollMs: number;
  /** One call, an upload of the largest file included. */
  readonly attemptTimeoutMs: number;
  /** From a call's first failure to giving up; the campaign then pauses and comes back. */
  readonly retryBudgetMs: number;
  readonly firstRetryDelayMs: number;
  /** How long a job may take to appear in the list whose creation was cut off in flight. */
  readonly settleMs: number;
}

export const HOSTED_TIMINGS: HostedTimings = { pollMs: 10_000, attemptTimeoutMs: 300_000, retryBudgetMs: 60_000, firstRetryDelayMs: 500, settleMs: 15_000 };
const MAX_RETRY_DELAY_MS = 10_000;

export class Provider {
  readonly baseUrl: string;
  readonly timings: HostedTimings;
  readonly #client: OpenAI;
  readonly #fail: (error: unknown) => CallFailure;
  readonly #signal: AbortSignal | undefined;

  constructor(student: HostedStudentSpec, readSecret: ReadSecret, timings: HostedTimings, signal?: AbortSignal) {
    const { client, context } = openClient(hostedEndpoint(student), readSecret, timings.attemptTimeoutMs);
    this.baseUrl = context.baseUrl;
    this.timings = timings;
    this.#signal = signal;
    this.#client = client;
    this.#fail = (error) => callFailure(error, context);
  }

  /** For calls that may be made twice. */
  call<T>(work: (client: OpenAI) => Promise<T>): Promise<T> {
    return this.retried(() => this.once(work));
  }

  /** One attempt. */
  async once<T>(work: (client: OpenAI) => Promise<T>): Promise<T> {
    try {
      return await work(this.#client);
    } catch (error) {
      throw this.#fail(error).error;
    }
  }

  /** Repeats `attempt` while it fails in a way that may pass, for as long as the retry budget lasts. */
  async retried<T>(attempt: () => Promise<T>): Promise<T> {
    const { retryBudgetMs, firstRetryDelayMs } = this.timings;
    let firstFailureMs: number | undefined;
    for (let tries = 0; ; tries += 1) {
      this.throwIfStopped();
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof StillhouseError) || !(error.code === 'UNAVAILABLE' || error.code === 'RATE_LIMITED')) throw error;
        firstFailureMs ??= performance.now();
        const delayMs = Math.max(Math.min(MAX_RETRY_DELAY_MS, firstRetryDelayMs * 2 ** tries) * (0.5 + Math.random() / 2), error.retryAfterMs ?? 0);
        if (performance.now() - firstFailureMs + delayMs > retryBudgetMs) throw error;
        await this.pause(delayMs);
      }
    }
  }

  async pause(ms: number): Promise<void> {
    await sleep(ms, undefined, this.#signal === undefined ? {} : { signal: this.#signal }).catch(() => this.throwIfStopped());
  }

  throwIfStopped(): void {
    if (this.#signal?.aborted === true) throw new StillhouseError('CANCELLED', 'stopped while a provider trains');
  }
}
