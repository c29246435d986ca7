/**
 * A teacher behind an OpenAI-compatible endpoint. The openai package makes the calls and never retries;
 * concurrency, pacing, retries and what becomes durable when are decided here.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { OpenAI } from 'openai';
import type { EndpointSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherAnswer, TeacherRequest } from '../contracts/records.ts';
import type { BatchService } from './batch-service.ts';
import { Grouped } from './grouped.ts';
import { limiterOf } from './limiter.ts';
import type { Limiter, Permit } from './limiter.ts';
import { chatBody, learnTraits, readAnswer, traitsOf, withoutRefusedFeature } from './openai-chat.ts';
import type { EndpointTraits } from './openai-chat.ts';
import { createOpenAIBatches } from './openai-batches.ts';
import { baseUrlOf, OPENAI_BASE_URL, openClient } from './openai-client.ts';
import type { ReadSecret } from './openai-client.ts';
import { callFailure } from './openai-failure.ts';
import type { CallContext, CallFailure } from './openai-failure.ts';
import { costUpperBound, priceOf } from './prices.ts';
import type { Price } from './prices.ts';
import { rateFeedback } from './rate-headers.ts';
import { createSharedLimits } from './shared-limits.ts';
import type { SharedLimits } from './shared-limits.ts';
import type { AskOptions, Teacher, TeacherIdentity } from './teacher.ts';

export interface CallTimings {
  /** One attempt, from sending to the last byte. Long outputs of slow models take minutes. */
  readonly attemptTimeoutMs: number;
  /** From a request's first failure to giving up: the campaign then pauses and comes back later. */
  readonly retryBudgetMs: number;
  readonly firstRetryDelayMs: number;
  readonly maxRetryDelayMs: number;
  /** How long calls in flight may go on after a stop: they are paid for. */
  readonly stopGraceMs: number;
}

const TIMINGS: CallTimings = { attemptTimeoutMs: 180_000, retryBudgetMs: 60_000, firstRetryDelayMs: 500, maxRetryDelayMs: 30_000, stopGraceMs: 5_000 };

export interface OpenAITeacherOptions {
  readonly endpoint: EndpointSpec;
  /** The value of a named secret: read when the first call is made, and not kept beyond the client. */
  readonly readKey: ReadSecret;
  readonly timings?: Partial<CallTimings>;
  /** The accounts of provider keys. Default: this process's own. */
  readonly limits?: SharedLimits;
}

/** What one `ask` shares among its calls. */
interface Asking {
  readonly client: OpenAI;
  readonly limiter: Limiter;
  readonly context: CallContext;
  readonly user: string;
  readonly metadata?: (request: TeacherRequest) => Readonly<Record<string, string>>;
  /** Aborts waiting: no further attempt begins. */
  readonly stop: AbortController;
  /** Aborts calls in flight. */
  readonly kill: AbortController;
  readonly intents: Grouped<TeacherRequest, ReadonlySet<TeacherRequest> | undefined>;
  readonly answers: Grouped<{ readonly request: TeacherRequest; readonly answer: TeacherAnswer }>;
  readonly refusals: Grouped<TeacherRequest>;
  /** Answers on their way to the disk. */
  readonly recordings: Set<Promise<void>>;
  failure: unknown;
  readonly fail: (error: unknown) => void;
}

interface CallProgress {
  intended: boolean;
  /** An attempt ended in a way that the provider may have billed. */
  maybeBought: boolean;
  lastFailure: StillhouseError | undefined;
}

/** An endpoint lacks at most so many features: schemas, JSON objects, log-probabilities, stored completions, the newer name of the token limit. */
const MAX_LESSONS = 5;

let asks = 0;
let ownLimits: SharedLimits | undefined;
const limitsOfProcess = (): SharedLimits => (ownLimits ??= createSharedLimits());

class OpenAITeacher implements Teacher {
  readonly identity: TeacherIdentity;
  readonly groupSize = 1;
  readonly #endpoint: EndpointSpec;
  readonly #readKey: ReadSecret;
  readonly #price: Price;
  readonly #timings: CallTimings;
  readonly #limits: SharedLimits;
  #traits: EndpointTraits;

  constructor({ endpoint, readKey, timings, limits }: OpenAITeacherOptions) {
    const baseUrl = baseUrlOf(endpoint);
    this.identity = { provider: baseUrl, model: endpoint.model };
    this.#endpoint = endpoint;
    this.#readKey = readKey;
    this.#price = priceOf(endpoint, baseUrl);
    const { timeoutSeconds } = endpoint;
    this.#timings = { ...TIMINGS, ...(timeoutSeconds === undefined ? {} : { attemptTimeoutMs: 1_000 * timeoutSeconds }), ...timings };
    this.#traits = traitsOf(baseUrl, endpoint.model, baseUrl === OPENAI_BASE_URL ? 'max_completion_tokens' : 'max_tokens');
    this.#limits = limits ?? limitsOfProcess();
  }

  upperBound(request: TeacherRequest): { readonly usd: number; readonly tokens: number } {
    return costUpperBound(this.#price, request);
  }

  async ask(requests: readonly TeacherRequest[], options: AskOptions): Promise<void> {
    const asking = this.#begin(options);
    const onAbort = (): void => {
      asking.stop.abort();
      setTimeout(() => asking.kill.abort(), this.#timings.stopGraceMs).unref();
    };
    if (options.signal?.aborted === true) onAbort();
    options.signal?.addEventListener('abort', onAbort, { once: true });
    let next = 0;
    const work = async (): Promise<void> => {
      while (!asking.stop.signal.aborted) {
        const request = requests[next];
        next += 1;
        if (request === undefined) return;
        try {
          await this.#askOne(request, asking);
        } catch (error) {
          asking.fail(error);
        }
      }
    };
    try {
      await Promise.all(Array.from({ length: Math.min(this.#endpoint.concurrency, requests.length) }, work));
      await Promise.all(asking.recordings);
    } finally {
      options.signal?.removeEventListener('abort', onAbort);
    }
    if (options.signal?.aborted === true) throw new StillhouseError('CANCELLED', `stopped while asking ${this.identity.model}`);
    if (asking.failure !== undefined) throw asking.failure;
  }

  batches(signal: AbortSignal | undefined): BatchService {
    const { client, context } = openClient(this.#endpoint, this.#readKey, this.#timings.attemptTimeoutMs);
    return createOpenAIBatches({
      client, context, signal,
      firstRetryDelayMs: this.#timings.firstRetryDelayMs,
      body: (request) => chatBody(this.identity.model, request, this.#traits),
      read: (request, completion) => readAnswer(request, completion, this.#price, 0),
      settle: (failure) => this.#rejectedInput(failure) ?? (this.#learnTraits(this.#traits, failure) ? 'learned' : undefined),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing is held between calls: connections close by themselves.
  }

  #begin(options: AskOptions): Asking {
    const { client, context, keyId } = openClient(this.#endpoint, this.#readKey, this.#timings.attemptTimeoutMs);
    asks += 1;
    const stop = new AbortController();
    const asking: Asking = {
      client,
      context,
      limiter: limiterOf({ id: keyId, provider: context.baseUrl, keyName: context.keyName }, this.#limits),
      user: options.user ?? `ask-${asks}`,
      ...(options.metadata === undefined ? {} : { metadata: options.metadata }),
      stop,
      kill: new AbortController(),
      recordings: new Set(),
      failure: undefined,
      fail: (error) => {
        // The first failure is the cause; what stops because of it is not.
        asking.failure ??= error;
        stop.abort();
      },
      intents: new Grouped(async (requests) => options.onAsk?.(requests)),
      answers: new Grouped((answers) => options.onAnswers(answers)),
      refusals: new Grouped(async (requests) => options.onRefused?.(requests)),
    };
    return asking;
  }

  /** Asks until there is an answer, and makes it durable, unless somebody else asks; throws when trying again cannot help or the budget for it is spent. */
  async #askOne(request: TeacherRequest, asking: Asking): Promise<void> {
    const progress: CallProgress = { intended: false, maybeBought: false, lastFailure: undefined };
    try {
      const answer = await this.#answerTo(request, asking, progress);
      if (answer === 'elsewhere') return;
      // Not awaited: it becomes durable in one transaction with the next intent, before which no other call is made.
      const recording: Promise<void> = asking.answers.add({ request, answer }).catch(asking.fail).finally(() => asking.recordings.delete(recording));
      asking.recordings.add(recording);
    } catch (error) {
      if (progress.intended && !progress.maybeBought) await asking.refusals.add(request);
      throw asking.stop.signal.aborted ? (progress.lastFailure ?? error) : error;
    }
  }

  async #answerTo(request: TeacherRequest, asking: Asking, progress: CallProgress): Promise<TeacherAnswer | 'elsewhere'> {
    let firstFailureMs: number | undefined;
    let lessons = 0;
    for (let attempt = 0; ; attempt += 1) {
      const permit = await asking.limiter.acquire({ user: asking.user, tokens: estimatedTokens(request), limits: this.#endpoint.limits, signal: asking.stop.signal });
      const traits = this.#traits;
      let outcome: TeacherAnswer | CallFailure;
      try {
        // Only now: a request that waits for its turn has cost nothing yet.
        if (!progress.intended && (await asking.intents.add(request))?.has(request) === true) {
          permit.done({ unused: true });
          return 'elsewhere';
        }
        progress.intended = true;
        outcome = await this.#attempt(request, traits, asking, permit);
      } finally {
        permit.done({});
      }
      if (!('error' in outcome)) {
        progress.maybeBought = true;
        return outcome;
      }
      progress.lastFailure = outcome.error;
      if (!outcome.refused) progress.maybeBought = true;
      const nothing = this.#rejectedInput(outcome);
      if (nothing !== undefined) return nothing;
      if (lessons < MAX_LESSONS && this.#learnTraits(traits, outcome)) {
        lessons += 1;
        continue;
      }
      firstFailureMs ??= performance.now();
      const delayMs = this.#retryDelayMs(outcome, attempt, performance.now() - firstFailureMs);
      if (delayMs === undefined) throw outcome.error;
      await sleep(delayMs, undefined, { signal: asking.stop.signal });
    }
  }

  async #attempt(request: TeacherRequest, traits: EndpointTraits, asking: Asking, permit: Permit): Promise<TeacherAnswer | CallFailure> {
    const controller = new AbortController();
    const abort = (): void => controller.abort();
    // The package's own timeout ends with the headers; a body can stall as well.
    const timer = setTimeout(abort, this.#timings.attemptTimeoutMs);
    asking.kill.signal.addEventListener('abort', abort, { once: true });
    const startedMs = performance.now();
    try {
      const { data, response } = await asking.client.chat.completions
        .create(chatBody(this.identity.model, request, traits, asking.metadata?.(request)), { signal: controller.signal })
        .withResponse();
      permit.done(rateFeedback(response.headers, response.status));
      return readAnswer(request, data, this.#price, performance.now() - startedMs);
    } catch (error) {
      const { attemptTimeoutMs } = this.#timings;
      const late = new StillhouseError('UNAVAILABLE', `expected an answer of ${this.identity.model} from ${this.identity.provider} within ${attemptTimeoutMs} ms, got none`);
      const failure = callFailure(controller.signal.aborted ? late : error, asking.context);
      permit.done(failure.feedback);
      return failure;
    } finally {
      clearTimeout(timer);
      asking.kill.signal.removeEventListener('abort', abort);
    }
  }

  /** A question that the provider will not take, though it takes others, is answered for good: by nothing. */
  #rejectedInput(failure: CallFailure): TeacherAnswer | undefined {
    if (failure.rejectedInput === undefined) return undefined;
    const usage = { promptTokens: 0, cachedPromptTokens: 0, completionTokens: 0 };
    return { text: '', finishReason: failure.rejectedInput, usage, costUsd: 0, latencyMs: 0, model: this.identity.model };
  }

  /** True when the endpoint complained of a feature that the next attempt does without. */
  #learnTraits(used: EndpointTraits, failure: CallFailure): boolean {
    if (failure.status === undefined) return false;
    const fewer = withoutRefusedFeature(used, failure.status, failure.complaint);
    if (fewer === undefined) return false;
    // Several calls in flight make the same discovery: what one has learned is kept.
    this.#traits = learnTraits(this.identity.provider, this.identity.model, this.#traits, fewer);
    return true;
  }

  /** Undefined: give up. Exponential with jitter, at least what the provider asked for. */
  #retryDelayMs(failure: CallFailure, attempt: number, failingForMs: number): number | undefined {
    if (!failure.retry) return undefined;
    const { firstRetryDelayMs, maxRetryDelayMs, retryBudgetMs } = this.#timings;
    const backoffMs = Math.min(maxRetryDelayMs, firstRetryDelayMs * 2 ** attempt) * (0.5 + Math.random() / 2);
    const delayMs = Math.max(backoffMs, failure.error.retryAfterMs ?? 0);
    return failingForMs + delayMs > retryBudgetMs ? undefined : delayMs;
  }
}

/** What the provider's limiter is likely to count: a quarter of the bytes, and the most that may be written. */
function estimatedTokens(request: TeacherRequest): number {
  const bytes = request.task.messages.reduce((sum, message) => sum + Buffer.byteLength(message.content), 0);
  return Math.ceil(bytes / 4) + request.task.parameters.maxTokens;
}

export function createOpenAITeacher(options: OpenAITeacherOptions): Teacher {
  return new OpenAITeacher(options);
}
