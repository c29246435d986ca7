/** What the parts of the server share: replies, errors in the provider's form, pages, ids, phases that pass by themselves. */
import { randomBytes } from 'node:crypto';

export interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly key: string;
  readonly contentType: string;
  readonly body: Buffer;
}

export interface Reply {
  readonly status: number;
  /** A text is sent as it is, everything else as JSON. */
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface ErrorFields {
  readonly type?: string;
  readonly code?: string | null;
  readonly param?: string | null;
  readonly headers?: Readonly<Record<string, string>>;
}

/** An error that is answered as one. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly reply: Reply;
  constructor(status: number, message: string, { type = 'invalid_request_error', code = null, param = null, headers = {} }: ErrorFields = {}) {
    super(message);
    this.reply = { status, headers, body: { error: { message, type, param, code } } };
  }
}

export const ok = (body: unknown): Reply => ({ status: 200, body });
export const newId = (prefix: string): string => `${prefix}${randomBytes(12).toString('hex')}`;
export const nowSeconds = (): number => Math.floor(Date.now() / 1_000);

export function jsonBody<T>(exchange: Exchange): T {
  try {
    return JSON.parse(exchange.body.toString('utf8')) as T;
  } catch {
    throw new ApiError(400, 'We could not parse the JSON body of your request.');
  }
}

/** A list in pages: `after` an id, at most `limit`, in the order of creation or against it. */
export function page<T extends { readonly id: string }>(items: readonly T[], query: URLSearchParams, order: 'asc' | 'desc'): Reply {
  const sorted = (query.get('order') ?? order) === 'asc' ? items : [...items].reverse();
  const limit = Number(query.get('limit') ?? 20);
  if (!Number.isInteger(limit) || limit < 1) throw new ApiError(400, `Invalid 'limit': expected a positive integer, got ${query.get('limit')}.`, { param: 'limit' });
  const after = query.get('after');
  const position = after === null ? 0 : sorted.findIndex(({ id }) => id === after) + 1;
  if (after !== null && position === 0) throw new ApiError(404, `No object with id '${after}'.`, { param: 'after' });
  const data = sorted.slice(position, position + limit);
  return ok({ object: 'list', data, first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null, has_more: position + limit < sorted.length });
}

/** `metadata[name]=value` in a query, as the openai package writes it. */
export function metadataFilter(query: URLSearchParams): (metadata: Readonly<Record<string, string>> | null | undefined) => boolean {
  const wanted = [...query].flatMap(([name, value]) => {
    const key = /^metadata\[(.+)\]$/.exec(name)?.[1];
    return key === undefined ? [] : [[key, value] as const];
  });
  return (metadata) => wanted.every(([key, value]) => metadata?.[key] === value);
}

/** Work that goes on by itself after its request was answered; all of it ends with the server. */
export class Background {
  readonly #timers = new Set<NodeJS.Timeout>();

  after(ms: number, work: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      work();
    }, ms);
    this.#timers.add(timer);
  }

  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }
}
