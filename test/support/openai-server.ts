/**
 * An OpenAI-compatible server on a real socket, after the published API reference: chat completions,
 * models, authentication, usage and rate limits with their headers, and faults on demand. It keeps its
 * own count of every call and of what it would have billed.
 */
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface ChatCall {
  readonly model: string;
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly max_tokens?: number;
  readonly max_completion_tokens?: number;
  readonly temperature?: number;
  readonly response_format?: { readonly type: string; readonly json_schema?: { readonly name: string; readonly schema: unknown; readonly strict?: boolean } };
  readonly logprobs?: boolean;
  readonly top_logprobs?: number;
  readonly [key: string]: unknown;
}

export type Fault =
  | '429' // a rate limit that the headers do not show beforehand; Retry-After unless `retryAfter` is none
  | '500'
  | '503'
  | 'reset' // the connection breaks before any work
  | 'reset-after-work' // the work is done and billed, the answer lost
  | 'stall' // nothing ever comes
  | 'truncated-body' // half of the HTTP body's JSON
  | 'truncated-json' // the model's JSON ends early, finish_reason length
  | 'broken-schema' // JSON of another shape
  | 'refusal'
  | 'content-filter' // finish_reason content_filter
  | 'content-filter-400' // the prompt itself is turned away, as Azure does
  | 'context-length';

export interface ScriptedAnswer {
  readonly content?: string;
  readonly fault?: Fault;
  /** Alternatives to the first token. */
  readonly topLogprobs?: readonly { readonly token: string; readonly logprob: number }[];
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
  /** Dollars per million tokens, by model. */
  readonly models?: Readonly<Record<string, { readonly input: number; readonly output: number }>>;
  readonly requestsPerMinute?: number;
  readonly tokensPerMinute?: number;
  /** Limits are enforced in shares of this length, as the reference warns. Default: a minute. */
  readonly enforcedOverMs?: number;
  readonly retryAfter?: 'seconds' | 'milliseconds' | 'date' | 'none';
  /** Keeps no bodies and no questions, so that a long run measures the client's memory and not the server's. */
  readonly forget?: boolean;
  /** Features that this server does not have. */
  readonly without?: readonly ('json_schema' | 'json_object' | 'logprobs' | 'max_tokens' | 'max_completion_tokens')[];
}

export interface OpenAIServerCounts {
  calls: number;
  billedCalls: number;
  /** Of the billed calls, those whose answer a fault kept from arriving whole: whoever asks must buy them again. */
  lostAnswers: number;
  promptTokens: number;
  completionTokens: number;
  usd: number;
  inFlight: number;
  mostInFlight: number;
  readonly statuses: Map<string, number>;
  /** Billed calls by the hash of their messages. */
  readonly billedByQuestion: Map<string, number>;
}

const MODELS = { 'gpt-4o-mini': { input: 0.15, output: 0.6 }, 'gpt-4o': { input: 2.5, output: 10 } };
const tokensOf = (text: string): number => Math.max(1, Math.ceil(Buffer.byteLength(text) / 4));
export const TEST_KEY = 'sk-test-0123456789abcdef';

/** `1s`, `6m0s`, `20ms`: the form of the x-ratelimit-reset headers. */
function duration(ms: number): string {
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

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

export class OpenAIServer implements AsyncDisposable {
  readonly counts: OpenAIServerCounts = {
    calls: 0, billedCalls: 0, lostAnswers: 0, promptTokens: 0, completionTokens: 0, usd: 0, inFlight: 0, mostInFlight: 0, statuses: new Map(), billedByQuestion: new Map(),
  };
  /** Every chat body that was received, in order; none with `forget`. */
  readonly received: ChatCall[] = [];
  #taken = 0;
  options: OpenAIServerOptions;
  readonly #server = createServer((request, response) => {
    this.#handle(request, response).catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined));
  });
  #requests: EnforcedLimit | undefined;
  #tokens: EnforcedLimit | undefined;

  constructor(options: OpenAIServerOptions) {
    this.options = options;
    const { requestsPerMinute, tokensPerMinute, enforcedOverMs = 60_000 } = options;
    if (requestsPerMinute !== undefined) this.#requests = new EnforcedLimit(requestsPerMinute, enforcedOverMs);
    if (tokensPerMinute !== undefined) this.#tokens = new EnforcedLimit(tokensPerMinute, enforcedOverMs);
  }

  listen(): Promise<void> {
    return new Promise((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
  }

  get baseUrl(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #send(response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}): void {
    this.#count(String(status));
    response.writeHead(status, { 'content-type': 'application/json', 'x-request-id': `req_${this.counts.calls}`, ...this.#requests?.headers('requests'), ...this.#tokens?.headers('tokens'), ...headers });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  }

  #count(status: string): void {
    this.counts.statuses.set(status, (this.counts.statuses.get(status) ?? 0) + 1);
  }

  #fail(response: ServerResponse, status: number, message: string, fields: { readonly type?: string; readonly code?: string | null; readonly param?: string | null } = {}, headers: Record<string, string> = {}): void {
    this.#send(response, status, { error: { message, type: fields.type ?? 'invalid_request_error', param: fields.param ?? null, code: fields.code ?? null } }, headers);
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const text = await bodyOf(request);
    const key = /^Bearer (.*)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
    const { keys = [TEST_KEY], exhaustedKeys = [] } = this.options;
    if (!keys.includes(key) && !exhaustedKeys.includes(key)) {
      // The whole key, where the real one masks its middle: the harder case for whoever must not print it.
      this.#fail(response, 401, `Incorrect API key provided: ${key}. You can find your API key at https://platform.openai.com/account/api-keys.`, { code: 'invalid_api_key' });
      return;
    }
    const models = this.options.models ?? MODELS;
    if (request.method === 'GET' && request.url === '/v1/models') {
      this.#send(response, 200, { object: 'list', data: Object.keys(models).map((id) => ({ id, object: 'model', created: 0, owned_by: 'test' })) });
      return;
    }
    if (request.method !== 'POST' || request.url !== '/v1/chat/completions') {
      this.#fail(response, 404, `Invalid URL (${request.method} ${request.url})`);
      return;
    }
    this.counts.calls += 1;
    if (exhaustedKeys.includes(key)) {
      this.#fail(response, 429, 'You exceeded your current quota, please check your plan and billing details.', { type: 'insufficient_quota', code: 'insufficient_quota' });
      return;
    }
    this.counts.inFlight += 1;
    this.counts.mostInFlight = Math.max(this.counts.mostInFlight, this.counts.inFlight);
    try {
      await this.#chat(JSON.parse(text) as ChatCall, models, response);
    } finally {
      this.counts.inFlight -= 1;
    }
  }

  /** Why the call cannot be taken as it is; answered when there is a reason. */
  #refuses(call: ChatCall, models: Readonly<Record<string, unknown>>, response: ServerResponse): boolean {
    const without = new Set<string>(this.options.without ?? []);
    const format = call.response_format?.type;
    if (models[call.model] === undefined) {
      this.#fail(response, 404, `The model \`${call.model}\` does not exist or you do not have access to it.`, { code: 'model_not_found' });
    } else if (!Array.isArray(call.messages) || call.messages.length === 0) {
      this.#fail(response, 400, "Missing required parameter: 'messages'.", { param: 'messages', code: 'missing_required_parameter' });
    } else if (format !== undefined && without.has(format)) {
      this.#fail(response, 400, `Invalid parameter: 'response_format' of type '${format}' is not supported with this model.`, { param: 'response_format' });
    } else if (format === 'json_object' && !call.messages.some((message) => /json/i.test(message.content))) {
      this.#fail(response, 400, "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.", { param: 'messages' });
    } else if (call.logprobs === true && without.has('logprobs')) {
      this.#fail(response, 403, 'You are not allowed to request logprobs from this model.');
    } else if (call.max_tokens !== undefined && without.has('max_tokens')) {
      this.#fail(response, 400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", { param: 'max_tokens', code: 'unsupported_parameter' });
    } else if (call.max_completion_tokens !== undefined && without.has('max_completion_tokens')) {
      this.#fail(response, 400, 'Unrecognized request argument supplied: max_completion_tokens');
    } else {
      return false;
    }
    return true;
  }

  #limits(call: ChatCall, response: ServerResponse): boolean {
    const tokens = call.messages.reduce((sum, message) => sum + tokensOf(message.content), 0) + (call.max_tokens ?? call.max_completion_tokens ?? 16);
    const waitMs = Math.max(this.#requests?.waitMs(1) ?? 0, this.#tokens?.waitMs(tokens) ?? 0);
    if (waitMs <= 0) {
      this.#requests?.take(1);
      this.#tokens?.take(tokens);
      return false;
    }
    const headers: Record<string, Record<string, string>> = {
      seconds: { 'retry-after': String(Math.ceil(waitMs / 1_000)) },
      milliseconds: { 'retry-after-ms': String(Math.ceil(waitMs)), 'retry-after': String(Math.ceil(waitMs / 1_000)) },
      date: { 'retry-after': new Date(Date.now() + waitMs + 999).toUTCString() },
      none: {},
    };
    this.#fail(response, 429, `Rate limit reached for ${call.model}. Please try again in ${duration(waitMs)}.`, { type: 'requests', code: 'rate_limit_exceeded' }, headers[this.options.retryAfter ?? 'milliseconds']);
    return true;
  }

  #drawFault(): Fault | undefined {
    let draw = (this.options.random ?? Math.random)();
    for (const [fault, probability] of Object.entries(this.options.faults ?? {})) {
      draw -= probability;
      if (draw < 0) return fault as Fault;
    }
    return undefined;
  }

  async #chat(call: ChatCall, models: Readonly<Record<string, { readonly input: number; readonly output: number }>>, response: ServerResponse): Promise<void> {
    if (this.#refuses(call, models, response) || this.#limits(call, response)) return;
    const index = this.#taken;
    this.#taken += 1;
    if (this.options.forget !== true) this.received.push(call);
    const scripted = this.options.answer?.(call, index) ?? call.messages.at(-1)?.content ?? '';
    const answer: ScriptedAnswer = typeof scripted === 'string' ? { content: scripted } : scripted;
    const fault = answer.fault ?? this.#drawFault();
    switch (fault) {
      case '429':
        return this.#fail(response, 429, 'Too many requests.', { type: 'requests' }, this.options.retryAfter === 'none' ? {} : { 'retry-after-ms': '20' });
      case '500':
        return this.#fail(response, 500, 'The server had an error while processing your request. Sorry about that!', { type: 'server_error' });
      case '503':
        return this.#fail(response, 503, 'The engine is currently overloaded, please try again later.', { type: 'server_error' });
      case 'content-filter-400':
        return this.#fail(response, 400, "The response was filtered due to the prompt triggering the content management policy.", { code: 'content_filter', param: 'prompt' });
      case 'context-length':
        return this.#fail(response, 400, "This model's maximum context length is 128000 tokens.", { code: 'context_length_exceeded', param: 'messages' });
      case 'reset':
        this.#count('reset');
        response.socket?.resetAndDestroy();
        return undefined;
      case 'stall':
        this.#count('stall');
        await new Promise((resolve) => response.once('close', resolve));
        return undefined;
      default:
    }
    const { latencyMs = 0 } = this.options;
    const delayMs = typeof latencyMs === 'number' ? latencyMs : latencyMs();
    if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
    this.#complete(call, answer, fault, models[call.model] ?? { input: 0, output: 0 }, response);
    return undefined;
  }

  #complete(call: ChatCall, answer: ScriptedAnswer, fault: Fault | undefined, price: { readonly input: number; readonly output: number }, response: ServerResponse): void {
    const content = contentOf(answer.content ?? '', fault);
    const usage = { prompt_tokens: call.messages.reduce((sum, message) => sum + tokensOf(message.content) + 4, 3), completion_tokens: tokensOf(content) };
    const question = createHash('sha256').update(JSON.stringify(call.messages)).digest('hex');
    this.counts.billedCalls += 1;
    if (fault === 'reset-after-work' || fault === 'truncated-body') this.counts.lostAnswers += 1;
    this.counts.promptTokens += usage.prompt_tokens;
    this.counts.completionTokens += usage.completion_tokens;
    this.counts.usd += (usage.prompt_tokens * price.input + usage.completion_tokens * price.output) / 1e6;
    if (this.options.forget !== true) this.counts.billedByQuestion.set(question, (this.counts.billedByQuestion.get(question) ?? 0) + 1);
    if (fault === 'reset-after-work') {
      this.#count('reset');
      response.socket?.resetAndDestroy();
      return;
    }
    const refusal = fault === 'refusal';
    const completion = {
      id: `chatcmpl-${this.counts.calls}`,
      object: 'chat.completion',
      created: Math.floor(Date.now() / 1_000),
      model: call.model,
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: refusal ? null : content, refusal: refusal ? content : null, annotations: [] },
          logprobs: call.logprobs === true && answer.topLogprobs !== undefined
            ? { content: [{ ...answer.topLogprobs[0], bytes: null, top_logprobs: answer.topLogprobs.slice(0, call.top_logprobs ?? 0).map((top) => ({ ...top, bytes: null })) }], refusal: null }
            : null,
          finish_reason: fault === 'truncated-json' ? 'length' : fault === 'content-filter' ? 'content_filter' : 'stop',
        },
      ],
      usage: { ...usage, total_tokens: usage.prompt_tokens + usage.completion_tokens, prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 } },
      service_tier: 'default',
      system_fingerprint: 'fp_test',
    };
    const text = JSON.stringify(completion);
    this.#send(response, 200, fault === 'truncated-body' ? text.slice(0, text.length / 2) : text);
  }
}

function contentOf(content: string, fault: Fault | undefined): string {
  switch (fault) {
    case 'truncated-json':
      return content.slice(0, Math.ceil(content.length / 2));
    case 'broken-schema':
      return '{"unexpected": [1, 2, 3]}';
    case 'refusal':
      return "I'm sorry, I can't help with that.";
    case 'content-filter':
      return '';
    default:
      return content;
  }
}

export async function startOpenAIServer(options: OpenAIServerOptions = {}): Promise<OpenAIServer> {
  const server = new OpenAIServer(options);
  await server.listen();
  return server;
}
