/**
 * Chat completions that a provider has stored (`store: true`), read back as answers that are bought
 * already. https://platform.openai.com/docs/api-reference/chat/list
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { OpenAI } from 'openai';
import type { ChatCompletion } from 'openai/resources/chat/completions';
import type { CampaignContext, ImportedCompletions } from '../contracts/activities.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { ChatMessage, TeacherAnswer, TeacherRequest } from '../contracts/records.ts';
import { sourcesOf } from '../contracts/sampling-spec.ts';
import type { StoredCompletionsSource } from '../contracts/sampling-spec.ts';
import { rowId } from '../dataset/text.ts';
import { ledgerKey, ledgerRequest } from '../ledger/key.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { getJson, putRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { baseUrlOf, openClient } from './openai-client.ts';
import type { ReadSecret } from './openai-client.ts';
import { callFailure } from './openai-failure.ts';
import type { CallContext } from './openai-failure.ts';
import type { TeacherDirectory } from './teacher.ts';

export interface ImportDeps {
  readonly store: ArtifactStore;
  readonly ledger: Ledger;
  readonly directory: Pick<TeacherDirectory, 'identify'>;
  readonly readSecret: ReadSecret;
}

export interface ImportOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
}

const PAGE = 100;
/** Conversations are fetched one by one; a few side by side hide the latency. */
const FETCHED_AT_ONCE = 8;
/** Listings are cheap: a page that fails is asked for again at once, and then by the next attempt. */
const TIMEOUT_MS = 60_000;
const RETRIES = 4;
const FIRST_RETRY_DELAY_MS = 500;

interface Stored {
  readonly completion: ChatCompletion;
  readonly messages: readonly ChatMessage[];
}

/**
 * Lists the completions with the spec's metadata and records each in the ledger under a key of its own,
 * at no cost. Doing it again records nothing twice. BAD_INPUT when there is none.
 */
export async function importCompletions(deps: ImportDeps, input: CampaignContext, options: ImportOptions = {}): Promise<ImportedCompletions> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const source = sourcesOf(spec.sampling.source).map((each) => each.source).find((each) => each.kind === 'stored-completions');
  if (source === undefined) throw new StillhouseError('INTERNAL', `expected a source of kind stored-completions, got ${spec.sampling.source.kind}`);
  const library = new Library(spec, deps.readSecret, options.signal);
  const completions = await library.list(source);
  if (completions.length === 0) {
    const filter = Object.entries(source.metadata).map(([name, value]) => `${name}=${value}`).join(', ');
    throw new StillhouseError('BAD_INPUT', `sampling.source.metadata: expected completions stored at ${baseUrlOf(spec.teacher)} with ${filter}${source.model === undefined ? '' : ` by ${source.model}`}, got none`);
  }
  const identity = await deps.directory.identify(spec.teacher);
  const requests: TeacherRequest[] = [];
  for (let from = 0; from < completions.length; from += FETCHED_AT_ONCE) {
    const stored = await Promise.all(completions.slice(from, from + FETCHED_AT_ONCE).map((completion) => library.withMessages(completion)));
    const answered = stored.map((each) => ({ request: requestOf(spec, each), answer: answerOf(each.completion) }));
    const keyed = answered.map((each) => ({ ...each, key: ledgerKey(identity, each.request) }));
    await deps.ledger.recordIntents(keyed.map(({ key, request }) => ({ key, ...identity, request: ledgerRequest(request), campaign: input.campaign, purpose: request.purpose })));
    await deps.ledger.recordAnswers(keyed);
    requests.push(...answered.map(({ request }) => request));
    options.onProgress?.(requests.length, completions.length);
  }
  return { completions: await putRows(deps.store, 'requests', requests), count: requests.length };
}

/** The provider's store of completions. */
class Library {
  readonly #client: OpenAI;
  readonly #context: CallContext;
  readonly #signal: AbortSignal | undefined;

  constructor({ teacher }: CampaignSpec, readSecret: ReadSecret, signal: AbortSignal | undefined) {
    const { client, context } = openClient(teacher, readSecret, TIMEOUT_MS);
    this.#client = client;
    this.#context = context;
    this.#signal = signal;
  }

  async list({ metadata, model, limit }: StoredCompletionsSource): Promise<readonly ChatCompletion[]> {
    const found: ChatCompletion[] = [];
    for (let after: string | undefined; ; ) {
      const query = { metadata, limit: Math.min(PAGE, limit - found.length), order: 'asc' as const, ...(model === undefined ? {} : { model }), ...(after === undefined ? {} : { after }) };
      const page = await this.#patiently(() => this.#client.chat.completions.list(query, { signal: this.#signal }));
      found.push(...page.data);
      after = page.data.at(-1)?.id;
      if (after === undefined || page.has_more !== true || found.length >= limit) return found.slice(0, limit);
    }
  }

  async withMessages(completion: ChatCompletion): Promise<Stored> {
    const messages: ChatMessage[] = [];
    for (let after: string | undefined; ; ) {
      const query = { limit: PAGE, order: 'asc' as const, ...(after === undefined ? {} : { after }) };
      const page = await this.#patiently(() => this.#client.chat.completions.messages.list(completion.id, query, { signal: this.#signal }));
      messages.push(...page.data.map(({ role, content }) => ({ role: roleOf(role), content: content ?? '' })));
      after = page.data.at(-1)?.id;
      if (after === undefined || page.has_more !== true) return { completion, messages };
    }
  }

  async #patiently<T>(call: () => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await call();
      } catch (error) {
        if (this.#signal?.aborted === true) throw new StillhouseError('CANCELLED', 'stopped while reading stored completions');
        const failure = callFailure(error, this.#context);
        if (!failure.retry || attempt >= RETRIES) throw failure.error;
        await sleep(Math.max(FIRST_RETRY_DELAY_MS * 2 ** attempt, failure.error.retryAfterMs ?? 0));
      }
    }
  }
}

/** `developer` is the newer name of `system`; whatever is neither that nor the model's own stands for the user. */
const roleOf = (role: string): ChatMessage['role'] => (role === 'developer' || role === 'system' ? 'system' : role === 'assistant' ? 'assistant' : 'user');

function requestOf(spec: CampaignSpec, { completion, messages }: Stored): TeacherRequest {
  const asked = messages.findLast(({ role }) => role === 'user')?.content ?? messages.at(-1)?.content ?? '';
  const input = inputOf(spec.task.instruction, asked);
  const { temperature } = completion as { readonly temperature?: number | null };
  const parameters = { maxTokens: Math.max(1, completion.usage?.completion_tokens ?? 1), temperature: temperature ?? 1 };
  return {
    id: `stored-${completion.id}`,
    purpose: 'train',
    sampleIndex: 0,
    task: { kind: 'text', messages, parameters, completion: completion.id },
    row: { id: rowId(input), input, origin: `stored completion ${completion.id}` },
  };
}

/** What stands in the place of `{input}` where the message is the spec's own instruction, else the whole message. */
export function inputOf(instruction: string, message: string): string {
  const parts = (instruction.includes('{input}') ? instruction : `${instruction}\n{input}`).split('{input}');
  const [before = '', after = ''] = parts;
  const fits = parts.length === 2 && message.startsWith(before) && message.endsWith(after) && message.length > before.length + after.length;
  return fits ? message.slice(before.length, message.length - after.length) : message;
}

function answerOf(completion: ChatCompletion): TeacherAnswer {
  const choice = completion.choices[0];
  const refusal = choice?.message.refusal ?? undefined;
  const { usage } = completion;
  return {
    text: refusal ?? choice?.message.content ?? '',
    finishReason: refusal !== undefined ? 'refusal' : choice?.finish_reason === 'length' || choice?.finish_reason === 'content_filter' ? choice.finish_reason : 'stop',
    usage: { promptTokens: usage?.prompt_tokens ?? 0, cachedPromptTokens: usage?.prompt_tokens_details?.cached_tokens ?? 0, completionTokens: usage?.completion_tokens ?? 0 },
    costUsd: 0,
    latencyMs: 0,
    model: completion.model,
  };
}
