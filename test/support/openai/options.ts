/** What a test decides about the server, and what the server counts. */

export interface ChatCall {
  readonly model: string;
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly max_tokens?: number;
  readonly max_completion_tokens?: number;
  readonly temperature?: number;
  readonly response_format?: { readonly type: string; readonly json_schema?: { readonly name: string; readonly schema: unknown; readonly strict?: boolean } };
  readonly logprobs?: boolean;
  readonly top_logprobs?: number;
  readonly store?: boolean;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly [key: string]: unknown;
}

export type Fault =
  | '429' // a rate limit that the headers do not show beforehand; Retry-After unless `retryAfter` is none
  | '500'
  | '503'
  | 'reset' // the connection breaks before any work
  | 'reset-after-work' // the work is done and billed, the answer lost
  | 'stall' // nothing ever comes
  | '500-after-work' // the work is done and billed, and ends in an error
  | 'stall-after-work' // the work is done and billed, and nothing ever comes
  | 'truncated-body' // half of the HTTP body's JSON
  | 'unreadable-body' // a page in place of the answer that was billed
  | 'truncated-json' // the model's JSON ends early, finish_reason length
  | 'broken-schema' // JSON of another shape
  | 'refusal'
  | 'content-filter' // finish_reason content_filter
  | 'content-filter-400' // the prompt itself is turned away, as Azure does
  | 'context-length'
  | 'duplicate'; // the model says what it said the last time

export interface TokenLogprob {
  readonly token: string;
  readonly logprob: number;
}

export interface ScriptedAnswer {
  readonly content?: string;
  readonly fault?: Fault;
  /** As billed; default: those of the content. */
  readonly completionTokens?: number;
  /** Alternatives to the first token. */
  readonly topLogprobs?: readonly TokenLogprob[];
  /** Every token with its alternatives; in place of `topLogprobs`. */
  readonly tokens?: readonly (TokenLogprob & { readonly top: readonly TokenLogprob[] })[];
}

/** Dollars per million tokens. */
export interface ModelPrice {
  readonly input: number;
  readonly output: number;
  readonly training?: number;
}

export interface OpenAIServerOptions {
  /** What the model says; by default it repeats the last message. `index` counts calls from 0. */
  readonly answer?: (call: ChatCall, index: number) => string | ScriptedAnswer;
  /** Probability of each fault, drawn by `random`. */
  readonly faults?: Readonly<Partial<Record<Fault, number>>>;
  readonly random?: () => number;
  readonly latencyMs?: number | (() => number);
  readonly keys?: readonly string[];
  /** Keys that authenticate but have no quota left. */
  readonly exhaustedKeys?: readonly string[];
  readonly models?: Readonly<Record<string, ModelPrice>>;
  /** Models that are no longer there; calls in progress are answered and billed. */
  readonly withdrawn?: readonly string[];
  /** Of each key by itself. */
  readonly requestsPerMinute?: number;
  readonly tokensPerMinute?: number;
  /** Limits are enforced in shares of this length, as the reference warns. Default: a minute. */
  readonly enforcedOverMs?: number;
  readonly retryAfter?: 'seconds' | 'milliseconds' | 'date' | 'none';
  /** Keeps no bodies and no questions, so that a long run measures the client's memory and not the server's. */
  readonly forget?: boolean;
  /** Features that this server does not have. */
  readonly without?: readonly ('json_schema' | 'json_object' | 'logprobs' | 'max_tokens' | 'max_completion_tokens' | 'store')[];
  /** Serves `…/openai/deployments/NAME/…` to an `api-key` header and this `api-version`, as Azure does, and nothing else. */
  readonly azure?: { readonly apiVersion: string };
  /** A gateway in front of the provider wants these. */
  readonly requiredHeaders?: Readonly<Record<string, string>>;
  /** Told of every request before it is worked on and after it was answered. */
  readonly onRequest?: (method: string, path: string, phase: 'received' | 'answered') => void;
  readonly batches?: BatchSwitches;
  readonly fineTuning?: FineTuningSwitches;
}

export interface BatchSwitches {
  /** From creation to `in_progress`, from there to `finalizing`, and from there to the end. */
  readonly validatingMs?: number;
  readonly runningMs?: number;
  readonly finalizingMs?: number;
  /** The share of a batch's requests that the completion window ends before; drawn by `random`. */
  readonly expiringShare?: number;
  /** What stands in the output file in place of a line, counted from 0; undefined: nothing. */
  readonly outputLine?: (line: string, index: number) => string | undefined;
  /** Every batch fails its validation with this message. */
  readonly failure?: string;
}

export interface FineTuningSwitches {
  /** A job exists for so long before whoever created it is told. */
  readonly creationReplyMs?: number;
  readonly validatingMs?: number;
  readonly queuedMs?: number;
  readonly runningMs?: number;
  /** Every job fails while it runs. */
  readonly failure?: { readonly code: string; readonly message: string };
  /** No new jobs are taken, as after the announced end of the service. */
  readonly closed?: boolean;
}

export interface KeyCounts {
  calls: number;
  billedCalls: number;
  /** Of the billed calls, those whose answer a fault kept from arriving whole. */
  lostAnswers: number;
  refusedByLimit: number;
  /** The bill: every completion that was generated, whether its answer arrived or not. */
  usd: number;
  tokens: number;
  /** No call of this key can have cost more: a token for each byte of its body, and all that it might write. */
  mostOfOneCall: { readonly usd: number; readonly tokens: number };
}

/** Faults that keep the answer to a billed call from arriving whole. */
export const LOSSES: ReadonlySet<Fault> = new Set(['reset-after-work', '500-after-work', 'stall-after-work', 'truncated-body', 'unreadable-body']);

export interface OpenAIServerCounts {
  /** Chat calls that were received; lines of batches are not among them. */
  calls: number;
  billedCalls: number;
  /** Of the billed calls, those whose answer a fault kept from arriving whole: whoever asks must buy them again. */
  lostAnswers: number;
  promptTokens: number;
  completionTokens: number;
  usd: number;
  inFlight: number;
  mostInFlight: number;
  /** Of the billed calls, those that were lines of a batch, at half price. */
  billedInBatches: number;
  trainedTokens: number;
  readonly statuses: Map<string, number>;
  readonly faults: Map<Fault, number>;
  /** Billed calls by the hash of their messages. */
  readonly billedByQuestion: Map<string, number>;
  readonly byKey: Map<string, KeyCounts>;
}

export const MODELS: Readonly<Record<string, ModelPrice>> = {
  'gpt-4o-mini': { input: 0.15, output: 0.6, training: 3 },
  'gpt-4o': { input: 2.5, output: 10, training: 25 },
};
export const TEST_KEY = 'sk-test-0123456789abcdef';

export const tokensOf = (text: string): number => Math.max(1, Math.ceil(Buffer.byteLength(text) / 4));

export function newCounts(): OpenAIServerCounts {
  return {
    calls: 0, billedCalls: 0, lostAnswers: 0, promptTokens: 0, completionTokens: 0, usd: 0, inFlight: 0, mostInFlight: 0, billedInBatches: 0, trainedTokens: 0,
    statuses: new Map(), faults: new Map(), billedByQuestion: new Map(), byKey: new Map(),
  };
}

export function countsOfKey(counts: OpenAIServerCounts, key: string): KeyCounts {
  const known = counts.byKey.get(key);
  if (known !== undefined) return known;
  const fresh: KeyCounts = { calls: 0, billedCalls: 0, lostAnswers: 0, refusedByLimit: 0, usd: 0, tokens: 0, mostOfOneCall: { usd: 0, tokens: 0 } };
  counts.byKey.set(key, fresh);
  return fresh;
}

/** Latencies with a long right tail, as providers have: log-normal, by its median and 95th percentile. */
export function logNormalLatency(medianMs: number, p95Ms: number, random: () => number = Math.random): () => number {
  const sigma = Math.log(p95Ms / medianMs) / 1.6449; // the 95th percentile of the normal distribution
  // Box and Muller (1958): a normal deviate from two uniform ones.
  return () => medianMs * Math.exp(sigma * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()));
}
