/** Requests and tokens per minute as the providers enforce them: a bucket that refills continuously. */
import type { OpenAIServerOptions } from './options.ts';

/** `1s`, `6m0s`, `20ms`: the form of the x-ratelimit-reset headers. */
export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.ceil(ms)}ms`;
  const seconds = Math.ceil(ms / 1_000);
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${seconds % 60}s`;
}

class EnforcedLimit {
  readonly limit: number;
  readonly #capacity: number;
  #available: number;
  #atMs = performance.now();

  constructor(perMinute: number, enforcedOverMs: number) {
    this.limit = perMinute;
    this.#capacity = Math.max(1, (perMinute * enforcedOverMs) / 60_000);
    this.#available = this.#capacity;
  }

  get available(): number {
    const nowMs = performance.now();
    this.#available = Math.min(this.#capacity, this.#available + ((nowMs - this.#atMs) * this.limit) / 60_000);
    this.#atMs = nowMs;
    return this.#available;
  }

  waitMs(amount: number): number {
    return (Math.max(0, Math.min(amount, this.#capacity) - this.available) * 60_000) / this.limit;
  }

  take(amount: number): void {
    this.#available -= amount;
  }

  headers(name: string): Record<string, string> {
    return {
      [`x-ratelimit-limit-${name}`]: String(this.limit),
      [`x-ratelimit-remaining-${name}`]: String(Math.max(0, Math.floor(this.available))),
      [`x-ratelimit-reset-${name}`]: duration(((this.#capacity - this.available) * 60_000) / this.limit),
    };
  }
}

/** The limits of one key. */
export class KeyLimits {
  readonly #requests: EnforcedLimit | undefined;
  readonly #tokens: EnforcedLimit | undefined;

  constructor({ requestsPerMinute, tokensPerMinute, enforcedOverMs = 60_000 }: OpenAIServerOptions) {
    if (requestsPerMinute !== undefined) this.#requests = new EnforcedLimit(requestsPerMinute, enforcedOverMs);
    if (tokensPerMinute !== undefined) this.#tokens = new EnforcedLimit(tokensPerMinute, enforcedOverMs);
  }

  /** 0 when the call is within the limits, and then it is taken; else the milliseconds to wait. */
  take(tokens: number): number {
    const waitMs = Math.max(this.#requests?.waitMs(1) ?? 0, this.#tokens?.waitMs(tokens) ?? 0);
    if (waitMs > 0) return waitMs;
    this.#requests?.take(1);
    this.#tokens?.take(tokens);
    return 0;
  }

  headers(): Record<string, string> {
    return { ...this.#requests?.headers('requests'), ...this.#tokens?.headers('tokens') };
  }
}

export function retryAfterHeaders(waitMs: number, form: OpenAIServerOptions['retryAfter'] = 'milliseconds'): Record<string, string> {
  const seconds = String(Math.ceil(waitMs / 1_000));
  switch (form) {
    case 'seconds':
      return { 'retry-after': seconds };
    case 'milliseconds':
      return { 'retry-after-ms': String(Math.ceil(waitMs)), 'retry-after': seconds };
    case 'date':
      return { 'retry-after': new Date(Date.now() + waitMs + 999).toUTCString() };
    case 'none':
      return {};
  }
}
