/**
 * An OpenAI-compatible server on a real socket, after the published API reference: chat and stored
 * completions, models, files, batches, fine-tuning jobs, authentication, usage and rate limits with
 * their headers, and faults on demand. It keeps its own count of every call and of what it would bill.
 */
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Batches } from './batches.ts';
import { Model } from './chat.ts';
import { Files } from './files.ts';
import { FineTuningJobs } from './fine-tuning.ts';
import { ApiError, Background, jsonBody, ok } from './http.ts';
import type { Exchange, Reply } from './http.ts';
import { duration, KeyLimits, retryAfterHeaders } from './limits.ts';
import { countsOfKey, newCounts, TEST_KEY } from './options.ts';
import type { ChatCall, OpenAIServerCounts, OpenAIServerOptions } from './options.ts';
import { checkMetadata, StoredCompletions } from './stored.ts';

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export class OpenAIServer implements AsyncDisposable {
  readonly counts: OpenAIServerCounts = newCounts();
  options: OpenAIServerOptions;
  readonly #limits = new Map<string, KeyLimits>();
  readonly #limitOptions: OpenAIServerOptions;
  readonly #background = new Background();
  readonly #model: Model;
  readonly stored = new StoredCompletions();
  readonly files = new Files();
  readonly batches: Batches;
  readonly fineTuning: FineTuningJobs;
  readonly #server = createServer((request, response) => {
    this.#handle(request, response).catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined));
  });

  constructor(options: OpenAIServerOptions) {
    this.options = options;
    this.#limitOptions = options;
    const current = (): OpenAIServerOptions => this.options;
    this.#model = new Model(current, this.counts);
    this.batches = new Batches(current, this.#model, this.files, this.#background);
    this.fineTuning = new FineTuningJobs(current, this.counts, this.#model, this.files, this.#background);
  }

  /** Every chat body that was answered, in order, those of batches too; none with `forget`. */
  get received(): readonly ChatCall[] {
    return this.#model.received;
  }

  #port = 0;

  async listen(port = this.#port): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(port, '127.0.0.1', resolve));
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Nobody answers at the address any more, and calls in flight are cut; `listen` ends the outage. */
  async goDown(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  get origin(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get baseUrl(): string {
    return `${this.origin}/v1`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#background.stop();
    if (this.#server.listening) await this.goDown();
  }

  #count(status: string): void {
    this.counts.statuses.set(status, (this.counts.statuses.get(status) ?? 0) + 1);
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await bodyOf(request);
    const url = new URL(request.url ?? '/', 'http://localhost');
    const { method = 'GET' } = request;
    this.options.onRequest?.(method, url.pathname, 'received');
    let limits: KeyLimits | undefined;
    let reply: Reply;
    try {
      const key = this.#authenticate(request, url);
      limits = this.#limitsOf(key);
      const path = this.options.azure === undefined ? url.pathname : url.pathname.replace(/^\/openai\/deployments\/[^/]+/, '/v1');
      const exchange: Exchange = { method, path, query: url.searchParams, key, contentType: request.headers['content-type'] ?? '', body };
      const routed = exchange.method === 'POST' && path === '/v1/chat/completions' ? await this.#chat(exchange, limits, url, response) : await this.#route(exchange);
      if (routed === 'hung-up') return;
      reply = routed;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      reply = error.reply;
    }
    this.#count(String(reply.status));
    response.writeHead(reply.status, { 'content-type': 'application/json', 'x-request-id': `req_${this.counts.calls}`, ...limits?.headers(), ...reply.headers });
    this.options.onRequest?.(method, url.pathname, 'answered');
    response.end(typeof reply.body === 'string' ? reply.body : JSON.stringify(reply.body));
  }

  /** The key of the request; throws 401 for one that is not known. */
  #authenticate(request: IncomingMessage, url: URL): string {
    const { keys = [TEST_KEY], exhaustedKeys = [], azure, requiredHeaders = {} } = this.options;
    const wrong = Object.entries(requiredHeaders).find(([name, value]) => request.headers[name] !== value);
    if (wrong !== undefined) throw new ApiError(403, `The header ${wrong[0]} is wrong: ${String(request.headers[wrong[0]])}`);
    const header = azure === undefined ? /^Bearer (.*)$/.exec(request.headers.authorization ?? '')?.[1] : request.headers['api-key'];
    const key = typeof header === 'string' ? header : '';
    if (!keys.includes(key) && !exhaustedKeys.includes(key)) {
      // The whole key, where the real one masks its middle: the harder case for whoever must not print it.
      throw new ApiError(401, `Incorrect API key provided: ${key}. You can find your API key at https://platform.openai.com/account/api-keys.`, { code: 'invalid_api_key' });
    }
    if (azure !== undefined && (url.searchParams.get('api-version') !== azure.apiVersion || !url.pathname.startsWith('/openai/deployments/'))) {
      throw new ApiError(404, 'Resource not found', { code: '404' });
    }
    return key;
  }

  #limitsOf(key: string): KeyLimits {
    const known = this.#limits.get(key);
    if (known !== undefined) return known;
    const limits = new KeyLimits(this.#limitOptions);
    this.#limits.set(key, limits);
    return limits;
  }

  async #route(exchange: Exchange): Promise<Reply> {
    if (exchange.method === 'GET' && exchange.path === '/v1/models') {
      return ok({ object: 'list', data: this.#model.names.map((id) => ({ id, object: 'model', created: 0, owned_by: 'test' })) });
    }
    const reply = this.stored.handle(exchange) ?? (await this.files.handle(exchange)) ?? this.batches.handle(exchange) ?? (await this.fineTuning.handle(exchange));
    if (reply === undefined) throw new ApiError(404, `Invalid URL (${exchange.method} ${exchange.path})`);
    return reply;
  }

  async #chat(exchange: Exchange, limits: KeyLimits, url: URL, response: ServerResponse): Promise<Reply | 'hung-up'> {
    const { key } = exchange;
    const ofKey = countsOfKey(this.counts, key);
    this.counts.calls += 1;
    ofKey.calls += 1;
    if ((this.options.exhaustedKeys ?? []).includes(key)) {
      throw new ApiError(429, 'You exceeded your current quota, please check your plan and billing details.', { type: 'insufficient_quota', code: 'insufficient_quota' });
    }
    this.counts.inFlight += 1;
    this.counts.mostInFlight = Math.max(this.counts.mostInFlight, this.counts.inFlight);
    try {
      const body = jsonBody<ChatCall>(exchange);
      // A deployment is one model, whatever the body says.
      const call = this.options.azure === undefined ? body : { ...body, model: decodeURIComponent(url.pathname.split('/')[3] ?? '') };
      this.#model.check(call);
      checkMetadata(call.metadata);
      const waitMs = limits.take(Model.tokens(call));
      if (waitMs > 0) {
        ofKey.refusedByLimit += 1;
        throw new ApiError(429, `Rate limit reached for ${call.model}. Please try again in ${duration(waitMs)}.`, { type: 'requests', code: 'rate_limit_exceeded', headers: retryAfterHeaders(waitMs, this.options.retryAfter) });
      }
      const outcome = await this.#model.answer(call, key, false);
      if (outcome.kind === 'reply') {
        if (call.store === true && outcome.completion !== undefined) this.stored.keep(call, outcome.completion);
        return outcome.reply;
      }
      this.#count(outcome.kind);
      if (outcome.kind === 'reset') response.socket?.resetAndDestroy();
      else await new Promise((resolve) => response.once('close', resolve));
      return 'hung-up';
    } finally {
      this.counts.inFlight -= 1;
    }
  }
}

export async function startOpenAIServer(options: OpenAIServerOptions = {}): Promise<OpenAIServer> {
  const server = new OpenAIServer(options);
  await server.listen();
  return server;
}
