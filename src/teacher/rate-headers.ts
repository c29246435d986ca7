/** What responses say about a key's limits. */

/** Absent fields were not in the headers. */
export interface RateFeedback {
  readonly limitRequests?: number;
  readonly remainingRequests?: number;
  readonly limitTokens?: number;
  readonly remainingTokens?: number;
  /** The call was answered with 429. */
  readonly refused?: boolean;
  /** Milliseconds for which the provider asks not to be called. */
  readonly retryAfterMs?: number;
  /** No call was made after all. */
  readonly unused?: boolean;
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
