/** A real server that speaks a dialect: it checks the key, refuses by the dialect's rules, answers what a small teacher says, and keeps its own bill. */
import { createServer } from 'node:http';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { asEvents, completion } from './completion.ts';
import { holds, lastUserText, OPENAI_PARAMETERS, promptTokensOf, tokenLimitOf } from './call.ts';
import type { ChatBody } from './call.ts';
import type { Dialect, Failure, Json, Reply, Rule } from './dialect.ts';
import { filled, filledText } from './template.ts';
import { tokensOf } from './tokens.ts';

export const DIALECT_KEY = 'sk-dialect-0123456789abcdef';
/** What the bill is in, whatever the model: dollars a million tokens. */
export const DIALECT_PRICE = { inputUsdPerMillion: 2, outputUsdPerMillion: 8 } as const;

/** What the model would write to the body; `draw` counts the calls with the same last message that were answered before. */
export type Say = (body: ChatBody, draw: number) => string;

export interface DialectServerOptions {
  readonly say: Say;
  /** Answer calls with this: all, the first `failures`, or those whose last message has `failingAbout` in it. */
  readonly failing?: Failure;
  readonly failures?: number;
  readonly failingAbout?: string;
}

export interface Refused {
  /** The rule's name, or the failure's. */
  readonly by: string;
  readonly status: number;
  readonly question: string;
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

const isBody = (value: unknown): value is ChatBody => typeof value === 'object' && value !== null && 'messages' in value && Array.isArray(value.messages) && value.messages.every((message: unknown) => typeof message === 'object' && message !== null && 'content' in message && typeof message.content === 'string');

export class DialectServer implements AsyncDisposable {
  readonly dialect: Dialect;
  readonly #options: DialectServerOptions;
  readonly #server = createServer((request, response) => {
    this.#handle(request)
      .then(({ status, contentType, headers, text }) => {
        response.writeHead(status, { 'content-type': contentType, ...headers });
        response.end(text);
      })
      .catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined));
  });
  readonly #drawn = new Map<string, number>();
  readonly #passing = new Map<string, number>();
  /** Bodies of all calls, in their order. */
  readonly received: ChatBody[] = [];
  readonly refused: Refused[] = [];
  /** Keys that neither the OpenAI reference nor the server documents. */
  readonly unknownKeys = new Set<string>();
  readonly bill = { calls: 0, promptTokens: 0, completionTokens: 0, usd: 0 };

  constructor(dialect: Dialect, options: DialectServerOptions) {
    this.dialect = dialect;
    this.#options = options;
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
  }

  get baseUrl(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}${this.dialect.basePath}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #handle(request: IncomingMessage): Promise<{ readonly status: number; readonly contentType: string; readonly headers: Readonly<Record<string, string>>; readonly text: string }> {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const body: unknown = JSON.parse((await textOf(request)) || 'null');
    const { dialect } = this;
    const rightQuery = Object.entries(dialect.query).every(([name, value]) => url.searchParams.get(name) === value);
    if (request.method !== 'POST' || url.pathname !== `${dialect.basePath}/chat/completions` || !rightQuery) return { status: 404, contentType: 'text/plain', headers: {}, text: `no such path: ${request.method} ${url.pathname}${url.search}` };
    if (!isBody(body)) return { status: 400, contentType: 'text/plain', headers: {}, text: 'expected a body with messages of text' };
    this.received.push(body);
    for (const key of Object.keys(body)) if (!OPENAI_PARAMETERS.includes(key) && !dialect.parameters.includes(key)) this.unknownKeys.add(key);
    const failure = this.#failureOf(request, body);
    if (failure !== undefined) return this.#refuse(failure.name, failure.reply, body, request);
    const rule = dialect.rules.find((each) => this.#applies(each, body));
    if (rule?.reply !== undefined) return this.#refuse(rule.name, rule.reply, body, request);
    const text = this.#say(body);
    const { document, completionTokens } = completion(dialect, body, text, String(this.received.length), rule?.alter);
    this.#charge(body, completionTokens);
    const { answer } = dialect;
    const events = answer.form === 'event-stream';
    return { status: 200, contentType: events ? 'text/event-stream; charset=utf-8' : answer.contentType, headers: {}, text: answer.before + (events ? asEvents(document) : JSON.stringify(document)) };
  }

  #failureOf(request: IncomingMessage, body: ChatBody): Failure | undefined {
    const { failing, failures = Infinity, failingAbout = '' } = this.#options;
    if (failing !== undefined && this.refused.length < failures && lastUserText(body).includes(failingAbout)) return failing;
    const { auth } = this.dialect;
    const key = this.#keyOf(request);
    const meaning = auth !== 'none' && key !== DIALECT_KEY ? 'unauthorized' : body.model !== this.dialect.model ? 'not-found' : undefined;
    return meaning === undefined ? undefined : this.dialect.failures.find(({ means }) => means === meaning);
  }

  #keyOf(request: IncomingMessage): string {
    const header = this.dialect.auth === 'api-key' ? request.headers['api-key'] : /^Bearer (.*)$/.exec(request.headers.authorization ?? '')?.[1];
    return typeof header === 'string' ? header : '';
  }

  #applies(rule: Rule, body: ChatBody): boolean {
    if (!holds(rule.when, body)) return false;
    if (rule.calls === undefined) return true;
    const id = `${rule.name} ${lastUserText(body)}`;
    const before = this.#passing.get(id) ?? 0;
    this.#passing.set(id, before + 1);
    return before < rule.calls;
  }

  #say(body: ChatBody): string {
    const question = lastUserText(body);
    const draw = this.#drawn.get(question) ?? 0;
    this.#drawn.set(question, draw + 1);
    return this.#options.say(body, draw);
  }

  #charge(body: ChatBody, completionTokens: number): void {
    const promptTokens = promptTokensOf(body);
    this.bill.calls += 1;
    this.bill.promptTokens += promptTokens;
    this.bill.completionTokens += completionTokens;
    this.bill.usd += (promptTokens * DIALECT_PRICE.inputUsdPerMillion + completionTokens * DIALECT_PRICE.outputUsdPerMillion) / 1e6;
  }

  #refuse(by: string, reply: Reply, body: ChatBody, request: IncomingMessage): { readonly status: number; readonly contentType: string; readonly headers: Readonly<Record<string, string>>; readonly text: string } {
    this.refused.push({ by, status: reply.status, question: lastUserText(body) });
    const promptTokens = promptTokensOf(body);
    const known = [...OPENAI_PARAMETERS, ...this.dialect.parameters];
    const maxTokens = tokenLimitOf(body) ?? 0;
    const names: Readonly<Record<string, Json>> = {
      key: this.#keyOf(request), promptTokens, maxTokens, totalTokens: promptTokens + maxTokens, completionTokens: tokensOf(lastUserText(body)).length,
      outsideKey: Object.keys(body).find((key) => (rule(this.dialect, by)?.when.keyOutside ?? known).every((each) => each !== key)) ?? '',
      outsideValue: (Object.entries(body).find(([key]) => (rule(this.dialect, by)?.when.keyOutside ?? known).every((each) => each !== key))?.[1] ?? null) as Json,
      inSeconds: new Date(Date.now() + 2_000).toUTCString(),
    };
    const headers = Object.fromEntries(Object.entries(reply.headers).map(([name, value]) => [name, filledText(value, body, names)]));
    const text = typeof reply.body === 'string' ? filledText(reply.body, body, names) : JSON.stringify(filled(reply.body, body, names));
    return { status: reply.status, contentType: reply.contentType, headers, text };
  }
}

const rule = (dialect: Dialect, name: string): Rule | undefined => dialect.rules.find((each) => each.name === name);

export async function startDialectServer(dialect: Dialect, options: DialectServerOptions): Promise<DialectServer> {
  const server = new DialectServer(dialect, options);
  await server.listen();
  return server;
}
