/** Stored completions: what was asked with `store: true`, by id and by metadata. https://platform.openai.com/docs/api-reference/chat/list */
import { ApiError, jsonBody, metadataFilter, ok, page } from './http.ts';
import type { Exchange, Reply } from './http.ts';
import type { ChatCall } from './options.ts';

interface StoredCompletion {
  readonly id: string;
  readonly model: string;
  readonly metadata: Readonly<Record<string, string>> | null;
  readonly [field: string]: unknown;
}

const MAX_METADATA = 16;

export class StoredCompletions {
  readonly #stored = new Map<string, { completion: StoredCompletion; readonly call: ChatCall }>();

  keep(call: ChatCall, completion: Readonly<Record<string, unknown>> & { readonly id: string; readonly model: string }): void {
    const { temperature = 1, response_format = null, metadata = null } = call;
    const settings = { request_id: completion.id, tool_choice: null, tools: null, seed: call['seed'] ?? null, top_p: call['top_p'] ?? 1, temperature, presence_penalty: 0, frequency_penalty: 0, input_user: null, response_format };
    this.#stored.set(completion.id, { call, completion: { ...completion, ...settings, metadata } });
  }

  /** Undefined: not one of these paths. */
  handle(exchange: Exchange): Reply | undefined {
    const match = /^\/v1\/chat\/completions(?:\/([^/]+))?(\/messages)?$/.exec(exchange.path);
    if (match === null) return undefined;
    const [, id, messages] = match;
    const { method } = exchange;
    if (id === undefined) return method === 'GET' ? this.#list(exchange.query) : undefined;
    if (messages !== undefined) return method === 'GET' ? this.#messages(id, exchange.query) : undefined;
    const entry = this.#find(id);
    switch (method) {
      case 'GET':
        return ok(entry.completion);
      case 'POST': {
        const { metadata } = jsonBody<{ metadata: Record<string, string> | null }>(exchange);
        checkMetadata(metadata);
        entry.completion = { ...entry.completion, metadata };
        return ok(entry.completion);
      }
      case 'DELETE':
        this.#stored.delete(id);
        return ok({ object: 'chat.completion.deleted', id, deleted: true });
      default:
        return undefined;
    }
  }

  #find(id: string): { completion: StoredCompletion; readonly call: ChatCall } {
    const entry = this.#stored.get(id);
    if (entry === undefined) throw new ApiError(404, `Chat completion with id '${id}' was not found.`, { param: 'completion_id' });
    return entry;
  }

  #list(query: URLSearchParams): Reply {
    const model = query.get('model');
    const matches = metadataFilter(query);
    const found = [...this.#stored.values()].map(({ completion }) => completion).filter((completion) => (model === null || completion.model === model) && matches(completion.metadata));
    return page(found, query, 'asc');
  }

  #messages(id: string, query: URLSearchParams): Reply {
    const { call } = this.#find(id);
    const messages = call.messages.map(({ role, content }, index) => ({ id: `${id}-${index}`, role, content, name: null, content_parts: null }));
    return page(messages, query, 'asc');
  }
}

export function checkMetadata(metadata: unknown): void {
  const entries = Object.entries((metadata ?? {}) as Record<string, unknown>);
  const wrong = entries.find(([name, value]) => name.length > 64 || typeof value !== 'string' || value.length > 512);
  if (wrong !== undefined || entries.length > MAX_METADATA) {
    throw new ApiError(400, `Invalid 'metadata': at most ${MAX_METADATA} keys of 64 characters with texts of 512.`, { param: 'metadata' });
  }
}
