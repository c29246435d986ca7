/**
 * A teacher behind an OpenAI-compatible endpoint. The openai package makes the calls and never retries;
 * concurrency, pacing, retries and what becomes durable when are decided here.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { OpenAI } from 'openai';
import type { EndpointSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherAnswer, TeacherRequest } from '../contracts/records.ts';
import type { Cost } from '../contracts/state.ts';
import type { BatchService } from './batch-service.ts';
import { callUpperBound } from './call-bound.ts';
import { Concessions } from './concessions.ts';
import type { EndpointTraits, TraitChange } from './endpoint-traits.ts';
import { Grouped } from './grouped.ts';
import { limiterOf } from './limiter.ts';
import type { Limiter, Permit } from './limiter.ts';
import { chatBody, leastRoom, readAnswer, roomOf } from './openai-chat.ts';
import { createOpenAIBatches } from './openai-batches.ts';
import { baseUrlOf, openClient } from './openai-client.ts';
import type { ReadSecret } from './openai-client.ts';
import { callFailure } from './openai-failure.ts';
import type { CallContext, CallFailure } from './openai-failure.ts';
import { batchPrice, priceOf } from './prices.ts';
import type { Price } from './prices.ts';
import { rateFeedback } from './rate-headers.ts';
import { roomUsedUp, secondRoom, sumOf } from './second-asking.ts';
import { createSharedLimits } from './shared-limits.ts';
import type { SharedLimits } from './shared-limits.ts';
import { Slack } from './slack.ts';
import type { AskOptions, Teacher, TeacherIdentity } from './teacher.ts';
import { createTraitBook, traitsOf } from './trait-book.ts';
import type { Lesson, TraitBook } from './trait-book.ts';
import { UnreadableResponse } from './transport.ts';

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

/** What ends in nothing that can be read was paid for: it is tried so often in all. */
const UNREADABLE_TRIES = 2;
/** Where others are answered, so many questions of a batch may be turned away for reasons of their own; more, and it is the endpoint. */
const DOUBTFUL_SHARE = 0.1;
/** Without any answer so many are enough. */
const DOUBTFUL_AT_FIRST = 3;

export interface OpenAITeacherOptions {
  readonly endpoint: EndpointSpec;
  /** The value of a named secret: read when the first call is made, and not kept beyond the client. */
  readonly readKey: ReadSecret;
  readonly timings?: Partial<CallTimings>;
  /** The accounts of provider keys. Default: this process's own. */
  readonly limits?: SharedLimits;
  /** What endpoints turned out to take. Default: this process's own. */
  readonly traits?: TraitBook;
}

/** A question that got no answer although the endpoint gives some to others. */
interface Doubtful {
  readonly request: TeacherRequest;
  readonly failure: CallFailure;
}

/** What one `ask` shares among its calls. */
interface Asking {
  readonly client: OpenAI;
  readonly limiter: Limiter;
  readonly context: CallContext;
  readonly options: AskOptions;
  readonly user: string;
  /** What the endpoint was taken for when the bounds were made. */
  readonly began: EndpointTraits;
  readonly slack: Slack;
  /** Aborts waiting: no further attempt begins. */
  readonly stop: AbortController;
  /** Aborts calls in flight. */
  readonly kill: AbortController;
  readonly intents: Grouped<TeacherRequest, ReadonlySet<TeacherRequest> | undefined>;
  readonly answers: Grouped<{ readonly request: TeacherRequest; readonly answer: TeacherAnswer }>;
  readonly refusals: Grouped<TeacherRequest>;
  readonly losses: Grouped<{ readonly request: TeacherRequest; readonly bound: Cost; readonly reason?: string }>;
  readonly dearer: Grouped<{ readonly request: TeacherRequest; readonly bound: Cost }>;
  /** Answers on their way to the disk. */
  readonly recordings: Set<Promise<void>>;
  /** Came back empty, because the room was used up before anything was written. */
  readonly empty: { readonly request: TeacherRequest; readonly answer: TeacherAnswer }[];
  readonly doubtful: Doubtful[];
  answered: number;
  failure: unknown;
  readonly fail: (error: unknown) => void;
}

interface CallProgress {
  intended: boolean;
  /** The most that the last attempt might cost, with what is not recorded of the question. */
  risked?: Cost;
  lastFailure: StillhouseError | undefined;
}

/** A second asking, with what the first has cost. */
interface Again {
  readonly extraTokens: number;
  readonly first: TeacherAnswer;
}

let asks = 0;
let ownLimits: SharedLimits | undefined;
let ownTraits: TraitBook | undefined;
const limitsOfProcess = (): SharedLimits => (ownLimits ??= createSharedLimits());
const traitsOfProcess = (): TraitBook => (ownTraits ??= createTraitBook());
/** By provider, model and kind of question: answered in this process. */
const proven = new Set<string>();

class OpenAITeacher implements Teacher {
  readonly identity: TeacherIdentity;
  readonly groupSize = 1;
  readonly #endpoint: EndpointSpec;
  readonly #readKey: ReadSecret;
  readonly #price: Price;
  readonly #timings: CallTimings;
  readonly #limits: SharedLimits;
  readonly #book: TraitBook;
  #traits: EndpointTraits;

  constructor({ endpoint, readKey, timings, limits, traits }: OpenAITeacherOptions) {
    const baseUrl = baseUrlOf(endpoint);
    this.identity = { provider: baseUrl, model: endpoint.model };
    this.#endpoint = endpoint;
    this.#readKey = readKey;
    this.#price = priceOf(endpoint, baseUrl);
    const { timeoutSeconds } = endpoint;
    this.#timings = { ...TIMINGS, ...(timeoutSeconds === undefined ? {} : { attemptTimeoutMs: 1_000 * timeoutSeconds }), ...timings };
    this.#limits = limits ?? limitsOfProcess();
    this.#book = traits ?? traitsOfProcess();
    this.#traits = this.#known();
  }

  upperBound(request: TeacherRequest): Cost {
    return this.#boundOf(request, this.#traits);
  }

  async ask(requests: readonly TeacherRequest[], options: AskOptions): Promise<void> {
    const asking = this.#begin(options);
    const onAbort = (): void => {
      asking.stop.abort();
      setTimeout(() => asking.kill.abort(), this.#timings.stopGraceMs).unref();
    };
    if (options.signal?.aborted === true) onAbort();
    options.signal?.addEventListener('abort', onAbort, { once: true });
    try {
      // Nothing is known of an endpoint that was never asked: its first question may be asked a second time.
      const [first] = requests;
      if (asking.began.reasons === undefined && first !== undefined) asking.slack.add(this.#boundOf(first, asking.began, secondRoom(first, this.#endpoint, asking.began)));
      await this.#pool(requests, asking, (request) => this.#askOne(request, asking));
      await this.#askAgain(asking);
      await this.#settle(requests, asking);
      await Promise.all(asking.recordings);
    } finally {
      options.signal?.removeEventListener('abort', onAbort);
    }
    if (options.signal?.aborted === true) throw new StillhouseError('CANCELLED', `stopped while asking ${this.identity.model}`);
    if (asking.failure !== undefined) throw asking.failure;
  }

  ready(): void {
    openClient(this.#endpoint, this.#readKey, this.#timings.attemptTimeoutMs);
  }

  batches(signal: AbortSignal | undefined): BatchService {
    const { client, context } = openClient(this.#endpoint, this.#readKey, this.#timings.attemptTimeoutMs);
    return createOpenAIBatches({
      client, context, signal,
      firstRetryDelayMs: this.#timings.firstRetryDelayMs,
      body: (request) => chatBody(this.identity.model, request, this.#traits),
      read: (request, completion) => this.#readLine(request, completion),
      settle: (failure, request) => this.#rejectedInput(failure) ?? (this.#learnFromLine(request, failure) ? 'learned' : undefined),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing is held between calls: connections close by themselves.
  }

  #known(): EndpointTraits {
    return traitsOf(this.identity, this.#book);
  }

  #begin(options: AskOptions): Asking {
    const { client, context, keyId } = openClient(this.#endpoint, this.#readKey, this.#timings.attemptTimeoutMs);
    asks += 1;
    const stop = new AbortController();
    const asking: Asking = {
      client,
      context,
      options,
      limiter: limiterOf({ id: keyId, provider: context.baseUrl, keyName: context.keyName }, this.#limits),
      user: options.user ?? `ask-${asks}`,
      began: this.#traits,
      slack: new Slack(),
      stop,
      kill: new AbortController(),
      recordings: new Set(),
      empty: [],
      doubtful: [],
      answered: options.answeredBefore ?? 0,
      failure: undefined,
      fail: (error) => {
        // The first failure is the cause; what stops because of it is not.
        asking.failure ??= error;
        stop.abort();
      },
      intents: new Grouped(async (requests) => options.onAsk?.(requests)),
      answers: new Grouped((answers) => options.onAnswers(answers)),
      refusals: new Grouped(async (requests) => options.onRefused?.(requests)),
      losses: new Grouped(async (lost) => options.onLost?.(lost)),
      dearer: new Grouped(async (dearer) => options.onDearer?.(dearer)),
    };
    return asking;
  }

  /** As many at once as the endpoint may be asked; the first failure stops all. */
  async #pool<T>(items: readonly T[], asking: Asking, work: (item: T) => Promise<void>): Promise<void> {
    let next = 0;
    const lane = async (): Promise<void> => {
      while (!asking.stop.signal.aborted) {
        const item = items[next];
        next += 1;
        if (item === undefined) return;
        try {
          await work(item);
        } catch (error) {
          asking.fail(error);
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(this.#endpoint.concurrency, items.length) }, lane));
  }

  /** Asks until there is an answer, and makes it durable, unless somebody else asks; throws when trying again cannot help or the budget for it is spent. */
  async #askOne(request: TeacherRequest, asking: Asking, again?: Again): Promise<void> {
    const progress: CallProgress = { intended: again !== undefined, lastFailure: undefined };
    try {
      const outcome = await this.#answerTo(request, asking, progress, again);
      if (outcome === 'elsewhere') return;
      if ('failure' in outcome) await this.#doubt({ request, failure: outcome.failure }, asking, again);
      else if (again === undefined && roomUsedUp(outcome)) asking.empty.push({ request, answer: outcome });
      else this.#record(request, outcome, asking);
    } catch (error) {
      // What an attempt may have cost is in the books by itself; the first of two answers is an answer.
      if (again !== undefined) this.#record(request, again.first, asking);
      else if (progress.intended) await asking.refusals.add(request);
      throw asking.stop.signal.aborted ? (progress.lastFailure ?? error) : error;
    }
  }

  /** Not awaited: it becomes durable in one transaction with the next intent, before which no other call is made. */
  #record(request: TeacherRequest, answer: TeacherAnswer, asking: Asking): void {
    asking.answered += answer.finishReason === 'rejected' || answer.finishReason === 'error' ? 0 : 1;
    const recording: Promise<void> = asking.answers.add({ request, answer }).catch(asking.fail).finally(() => asking.recordings.delete(recording));
    asking.recordings.add(recording);
  }

  /** The questions that came back empty, each once more with more room, as far as what others left of their bounds covers it. */
  async #askAgain(asking: Asking): Promise<void> {
    const { options, began } = asking;
    const discovered = began.reasons !== true && this.#traits.reasons === true;
    const covered: (Again & { readonly request: TeacherRequest })[] = [];
    const uncovered: TeacherRequest[] = [];
    for (const { request, answer: first } of asking.empty) {
      const extraTokens = secondRoom(request, this.#endpoint, this.#traits);
      const goesOn = !asking.stop.signal.aborted;
      const pays = goesOn && (asking.slack.take(this.#boundOf(request, this.#traits, extraTokens)) || (discovered && options.onUncovered === undefined));
      if (pays) covered.push({ request, first, extraTokens });
      else if (goesOn && discovered) {
        await asking.losses.add({ request, bound: { usd: first.costUsd, tokens: first.usage.promptTokens + first.usage.completionTokens } });
        await asking.refusals.add(request);
        uncovered.push(request);
      } else this.#record(request, first, asking);
    }
    if (uncovered.length > 0) options.onUncovered?.(uncovered);
    const asked = new Set<TeacherRequest>();
    await this.#pool(covered, asking, ({ request, ...again }) => {
      asked.add(request);
      return this.#askOne(request, asking, again);
    });
    for (const { request, first } of covered) if (!asked.has(request)) this.#record(request, first, asking);
  }

  async #doubt(doubtful: Doubtful, asking: Asking, again: Again | undefined): Promise<void> {
    if (again !== undefined) {
      this.#record(doubtful.request, again.first, asking);
      return;
    }
    asking.doubtful.push(doubtful);
    if (asking.answered === 0 && asking.doubtful.length >= DOUBTFUL_AT_FIRST) asking.fail(doubtful.failure.error);
  }

  /** Few questions among many that were answered are turned away with the provider's words; else it is the endpoint that fails. */
  async #settle(requests: readonly TeacherRequest[], asking: Asking): Promise<void> {
    const { doubtful, options } = asking;
    if (doubtful.length === 0) return;
    const most = Math.max(1, Math.floor(DOUBTFUL_SHARE * (requests.length + (options.answeredBefore ?? 0))));
    if (asking.failure === undefined && asking.answered > 0 && doubtful.length <= most) {
      for (const { request, failure } of doubtful) this.#record(request, this.#noAnswer(failure.unreadable === true ? 'error' : 'rejected', failure.error.message), asking);
      return;
    }
    for (const { request } of doubtful) await asking.refusals.add(request);
    asking.fail(doubtful[0]?.failure.error);
  }

  async #answerTo(request: TeacherRequest, asking: Asking, progress: CallProgress, again: Again | undefined): Promise<TeacherAnswer | { readonly failure: CallFailure } | 'elsewhere'> {
    let firstFailureMs: number | undefined;
    let concessions = new Concessions(request, this.#traits);
    let unreadable = 0;
    let room: number | undefined;
    for (let attempt = 0; ; attempt += 1) {
      const permit = await asking.limiter.acquire({ user: asking.user, tokens: estimatedTokens(request, concessions.traits), limits: this.#endpoint.limits, signal: asking.stop.signal });
      // What other calls have learned while this one waited for its turn counts.
      if (attempt === 0) concessions = new Concessions(request, this.#traits);
      const { traits, bound } = this.#affordable(request, { ...concessions.traits, ...(room === undefined ? {} : { mostTokens: room }) }, asking, again);
      let outcome: TeacherAnswer | CallFailure;
      try {
        // Only now: a request that waits for its turn has cost nothing yet.
        if (!progress.intended && (await asking.intents.add(request))?.has(request) === true) {
          permit.done({ unused: true });
          return 'elsewhere';
        }
        progress.intended = true;
        const risked = again === undefined ? bound : withCost(bound, again.first);
        if (isDearer(risked, progress.risked ?? this.#boundOf(request, asking.began))) await asking.dearer.add({ request, bound: risked });
        progress.risked = risked;
        outcome = await this.#attempt(request, traits, asking, permit, again?.extraTokens);
      } finally {
        permit.done({});
      }
      if (!('error' in outcome)) {
        asking.slack.add(bound, { usd: outcome.costUsd, tokens: outcome.usage.promptTokens + outcome.usage.completionTokens });
        this.#learn([...concessions.lessons, ...observed(this.#traits, outcome)]);
        proven.add(this.#kindOf(request));
        return again === undefined ? outcome : sumOf(again.first, outcome);
      }
      progress.lastFailure = outcome.error;
      if (outcome.refused) asking.slack.add(bound);
      else await asking.losses.add({ request, bound, reason: outcome.error.message });
      // A shorter answer may do: what the question needs, and less for reasoning.
      if (outcome.room !== undefined && room === undefined && outcome.room >= leastRoom(request.task) && outcome.room < roomOf(request.task, traits, again?.extraTokens)) {
        room = outcome.room;
        continue;
      }
      const nothing = this.#rejectedInput(outcome);
      if (nothing !== undefined) return nothing;
      const { code } = outcome.error;
      // A gateway that finds no model for the parameters says that it finds none.
      const aboutForm = code === 'BAD_INPUT' || code === 'UNAVAILABLE' || outcome.status === 403 || (outcome.status === 404 && /parameter|support/i.test(outcome.complaint));
      if (outcome.status !== undefined && aboutForm && concessions.concede(outcome.status, outcome.complaint, proven.has(this.#kindOf(request)))) continue;
      if (outcome.unreadable === true) {
        unreadable += 1;
        if (unreadable >= UNREADABLE_TRIES) return { failure: outcome };
      }
      if (code === 'BAD_INPUT' && outcome.unreadable !== true) return { failure: outcome };
      firstFailureMs ??= performance.now();
      const delayMs = this.#retryDelayMs(outcome, attempt, performance.now() - firstFailureMs);
      if (delayMs === undefined) throw outcome.error;
      await sleep(delayMs, undefined, { signal: asking.stop.signal });
    }
  }

  /** A form that costs no more than was set aside for the question, or than others have left of theirs. */
  #affordable(request: TeacherRequest, traits: EndpointTraits, asking: Asking, again: Again | undefined): { readonly traits: EndpointTraits; readonly bound: Cost } {
    const wanted = this.#boundOf(request, traits, again?.extraTokens);
    // A second asking has taken what it needs.
    if (again !== undefined) return { traits, bound: wanted };
    const reserved = this.#boundOf(request, asking.began);
    const more = { usd: Math.max(0, wanted.usd - reserved.usd), tokens: Math.max(0, wanted.tokens - reserved.tokens) };
    if ((more.usd === 0 && more.tokens === 0) || asking.slack.take(more)) return { traits, bound: wanted };
    const { reasons: _reasons, ...others } = traits;
    return { traits: { ...others, ...(asking.began.reasons === undefined ? {} : { reasons: asking.began.reasons }) }, bound: reserved };
  }

  async #attempt(request: TeacherRequest, traits: EndpointTraits, asking: Asking, permit: Permit, extraTokens = 0): Promise<TeacherAnswer | CallFailure> {
    const controller = new AbortController();
    const abort = (): void => controller.abort();
    // The package's own timeout ends with the headers; a body can stall as well.
    const timer = setTimeout(abort, this.#timings.attemptTimeoutMs);
    asking.kill.signal.addEventListener('abort', abort, { once: true });
    const startedMs = performance.now();
    try {
      const body = chatBody(this.identity.model, request, traits, { metadata: asking.options.metadata?.(request), extraTokens });
      const { data, response } = await asking.client.chat.completions.create(body, { signal: controller.signal }).withResponse();
      permit.done(rateFeedback(response.headers, response.status));
      const answer = readAnswer(request, data, this.#price, performance.now() - startedMs);
      return answer.finishReason === 'error' ? this.#halfAnswer(answer) : noteRoom(answer, request, traits, extraTokens);
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

  /** Something failed while it was written: asked again, as after any failure that may pass, and not for ever. */
  #halfAnswer({ note }: TeacherAnswer): CallFailure {
    const error = new StillhouseError('UNAVAILABLE', `expected a whole answer of ${this.identity.model} from ${this.identity.provider}, got one that broke off: ${note ?? 'no reason'}`);
    return { error, retry: true, refused: false, feedback: {}, complaint: '', unreadable: true };
  }

  /** A question that the provider will not take, though it takes others, is answered for good: by nothing. */
  #rejectedInput({ rejectedInput, error }: CallFailure): TeacherAnswer | undefined {
    return rejectedInput === undefined ? undefined : this.#noAnswer(rejectedInput, error.message);
  }

  #noAnswer(finishReason: TeacherAnswer['finishReason'], note: string): TeacherAnswer {
    const usage = { promptTokens: 0, cachedPromptTokens: 0, completionTokens: 0 };
    return { text: '', finishReason, note: note.slice(0, 500), usage, costUsd: 0, latencyMs: 0, model: this.identity.model };
  }

  /** A line of a batch file that cannot be read is one row without an answer: it was paid for as it is, and nobody knows how much. */
  #readLine(request: TeacherRequest, completion: unknown): { readonly answer: TeacherAnswer; readonly lost?: Cost } {
    const price = batchPrice(this.#price);
    try {
      return { answer: noteRoom(readAnswer(request, completion, price, 0), request, this.#traits, 0) };
    } catch (error) {
      if (!(error instanceof UnreadableResponse)) throw error;
      return { answer: this.#noAnswer('error', `expected a chat completion, got ${error.message}`), lost: callUpperBound(price, request, this.#traits) };
    }
  }

  /** In a file nothing is tried out: the first form that the words suggest is what the next asking does without. */
  #learnFromLine(request: TeacherRequest, { status, complaint }: CallFailure): boolean {
    const concessions = new Concessions(request, this.#traits);
    if (status === undefined || !concessions.concede(status, complaint, true)) return false;
    this.#learn(concessions.lessons);
    return true;
  }

  /** Several calls in flight make the same discovery: what one has learned is kept. */
  #learn(lessons: readonly Lesson[]): void {
    if (lessons.length === 0) return;
    const { provider, model } = this.identity;
    this.#book.learn(provider, model, lessons);
    this.#traits = this.#known();
  }

  #kindOf({ task }: TeacherRequest): string {
    return [this.identity.provider, this.identity.model, task.kind, task.parameters.topLogProbs === undefined ? '' : 'soft targets'].join(' ');
  }

  #boundOf(request: TeacherRequest, traits: EndpointTraits, extraTokens = 0): Cost {
    return callUpperBound(this.#price, request, traits, extraTokens);
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

const isDearer = (a: Cost, b: Cost): boolean => a.usd > b.usd || a.tokens > b.tokens;
const withCost = ({ usd, tokens }: Cost, { costUsd, usage }: TeacherAnswer): Cost => ({ usd: usd + costUsd, tokens: tokens + usage.promptTokens + usage.completionTokens });

/** What an answer shows of its model. */
function observed({ reasons }: EndpointTraits, answer: TeacherAnswer): readonly Lesson[] {
  const thought = (answer.usage.reasoningTokens ?? 0) > 0 || answer.reasoning !== undefined || roomUsedUp(answer);
  if (thought && reasons !== true) return [{ change: { reasons: true } satisfies TraitChange, words: 'an answer came with reasoning, or its room was used up before it began' }];
  return reasons === undefined && answer.text !== '' ? [{ change: { reasons: false }, words: 'answers without reasoning' }] : [];
}

/** An empty answer says why it is. */
function noteRoom(answer: TeacherAnswer, request: TeacherRequest, traits: EndpointTraits, extraTokens: number): TeacherAnswer {
  if (!roomUsedUp(answer)) return answer;
  const { reasoningTokens } = answer.usage;
  const spent = reasoningTokens === undefined ? '' : `, ${reasoningTokens} of them by reasoning`;
  return { ...answer, note: `its room of ${roomOf(request.task, traits, extraTokens)} tokens was used up before anything was written${spent}: reasoning.maxTokens beside the model gives more` };
}

/** What the provider's limiter is likely to count: a quarter of the bytes, and the most that may be written. */
function estimatedTokens(request: TeacherRequest, traits: EndpointTraits): number {
  const bytes = request.task.messages.reduce((sum, message) => sum + Buffer.byteLength(message.content), 0);
  return Math.ceil(bytes / 4) + roomOf(request.task, traits);
}

export function createOpenAITeacher(options: OpenAITeacherOptions): Teacher {
  return new OpenAITeacher(options);
}
