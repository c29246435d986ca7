/** One teacher request as a chat completion, and what comes back as an answer. https://platform.openai.com/docs/api-reference/chat */
import type { ChatCompletion, ChatCompletionCreateParamsNonStreaming, ChatCompletionTokenLogprob } from 'openai/resources/chat/completions';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherAnswer, TeacherRequest, TokenUsage } from '../contracts/records.ts';
import { labelOf } from '../dataset/labels.ts';
import { packSoftTargets } from '../dataset/soft-targets.ts';
import type { TokenLogProb } from '../dataset/soft-targets.ts';
import { costUsd } from './prices.ts';
import type { Price } from './prices.ts';

/** How an endpoint is asked for JSON, the strictest first: by schema, as some object, in words alone. */
const JSON_MODES = ['schema', 'object', 'text'] as const;

/** What an endpoint turned out to accept; learned from its refusals. */
export interface EndpointTraits {
  readonly json: (typeof JSON_MODES)[number];
  readonly logprobs: boolean;
  readonly store: boolean;
  readonly tokenLimit: 'max_tokens' | 'max_completion_tokens';
}

/** What an endpoint is taken for before it has refused anything. */
const hopefulTraits = (tokenLimit: EndpointTraits['tokenLimit']): EndpointTraits => ({ json: 'schema', logprobs: true, store: true, tokenLimit });

/** By base URL and model, for as long as the process lives: a teacher is opened anew for each batch. */
const learned = new Map<string, EndpointTraits>();
const endpointId = (baseUrl: string, model: string): string => `${baseUrl} ${model}`;

export const traitsOf = (baseUrl: string, model: string, tokenLimit: EndpointTraits['tokenLimit']): EndpointTraits => learned.get(endpointId(baseUrl, model)) ?? hopefulTraits(tokenLimit);

/** Keeps what a refusal has taught; returns all that is known. */
export function learnTraits(baseUrl: string, model: string, known: EndpointTraits, fewer: EndpointTraits): EndpointTraits {
  const traits = fewerTraits(fewerTraits(learned.get(endpointId(baseUrl, model)) ?? known, known), fewer);
  learned.set(endpointId(baseUrl, model), traits);
  return traits;
}

/** What two calls in flight have learned, together. The name of the token limit is what `learned` says. */
function fewerTraits(known: EndpointTraits, learned: EndpointTraits): EndpointTraits {
  const json = JSON_MODES[Math.max(JSON_MODES.indexOf(known.json), JSON_MODES.indexOf(learned.json))] ?? 'text';
  return { json, logprobs: known.logprobs && learned.logprobs, store: known.store && learned.store, tokenLimit: learned.tokenLimit };
}

/** The most that the API reference allows. */
const TOP_LOGPROBS = 20;

function responseFormat(request: TeacherRequest, traits: EndpointTraits): Pick<ChatCompletionCreateParamsNonStreaming, 'messages' | 'response_format'> {
  const { task } = request;
  const messages = task.messages.map((message) => ({ ...message }));
  if (task.kind !== 'json') return { messages };
  if (traits.json === 'schema') {
    const schema = { name: task.schemaName, schema: task.schema, strict: isStrictSchema(task.schema) };
    return { messages, response_format: { type: 'json_schema', json_schema: schema } };
  }
  // The schema goes into the prompt; json_object also demands that the word JSON is there.
  const wish = { role: 'system' as const, content: `Answer with one JSON object and nothing else. It must match this JSON schema:\n${JSON.stringify(task.schema)}` };
  return { messages: [wish, ...messages], ...(traits.json === 'object' ? { response_format: { type: 'json_object' } } : {}) };
}

/** Structured outputs are strict only for schemas that require every property and allow no other. */
function isStrictSchema(schema: unknown): boolean {
  if (Array.isArray(schema)) return schema.every(isStrictSchema);
  if (schema === null || typeof schema !== 'object') return true;
  const node = schema as Record<string, unknown>;
  if (node['type'] === 'object') {
    const required = Array.isArray(node['required']) ? node['required'] : [];
    const names = Object.keys(node['properties'] ?? {});
    if (node['additionalProperties'] !== false || names.some((name) => !required.includes(name))) return false;
  }
  return Object.values(node).every(isStrictSchema);
}

/** `metadata`: keep the call at the provider under it. It decides nothing about the answer and is no part of the ledger key. */
export function chatBody(model: string, request: TeacherRequest, traits: EndpointTraits, metadata?: Readonly<Record<string, string>>): ChatCompletionCreateParamsNonStreaming {
  const { parameters, kind } = request.task;
  const topLogProbs = parameters.topLogProbs ?? (kind === 'label' ? TOP_LOGPROBS : undefined);
  return {
    model,
    ...responseFormat(request, traits),
    [traits.tokenLimit]: parameters.maxTokens,
    temperature: parameters.temperature,
    ...(parameters.topP === undefined ? {} : { top_p: parameters.topP }),
    ...(parameters.seed === undefined ? {} : { seed: parameters.seed }),
    ...(parameters.stop === undefined || parameters.stop.length === 0 ? {} : { stop: [...parameters.stop] }),
    ...(topLogProbs !== undefined && traits.logprobs ? { logprobs: true, top_logprobs: topLogProbs } : {}),
    ...(metadata !== undefined && traits.store ? { store: true, metadata: { ...metadata } } : {}),
  };
}

/** The traits without the feature that a refusal complains of; undefined when it is about something else. */
export function withoutRefusedFeature(traits: EndpointTraits, status: number, complaint: string): EndpointTraits | undefined {
  if (traits.logprobs && /logprobs/i.test(complaint)) return { ...traits, logprobs: false };
  if (status !== 400 && status !== 422) return undefined;
  if (traits.json !== 'text' && /response_format|json_schema|json_object|structured output/i.test(complaint)) return { ...traits, json: traits.json === 'schema' ? 'object' : 'text' };
  if (traits.store && /\b(?:store|metadata)\b/i.test(complaint)) return { ...traits, store: false };
  if (traits.tokenLimit === 'max_tokens' && complaint.includes('max_completion_tokens')) return { ...traits, tokenLimit: 'max_completion_tokens' };
  if (traits.tokenLimit === 'max_completion_tokens' && complaint.includes('max_completion_tokens')) return { ...traits, tokenLimit: 'max_tokens' };
  return undefined;
}

const bare = (text: string): string => text.trim().replace(/^["'`*]+|["'`*.!]+$/g, '').toLowerCase();

/**
 * Log-probabilities of the labels, normalised over them, from the alternatives to the first token: a
 * token counts for the one label that starts with it. A label that no alternative leads to gets the
 * most that it can have: what the alternatives leave over, at most the least likely of them.
 */
export function labelLogProbs(labels: readonly string[], alternatives: readonly { readonly token: string; readonly logprob: number }[]): readonly number[] | undefined {
  const mass = labels.map(() => 0);
  let seen = 0;
  let least = 1;
  for (const { token, logprob } of alternatives) {
    const probability = Math.exp(logprob);
    seen += probability;
    least = Math.min(least, probability);
    const start = bare(token);
    const matches = start === '' ? [] : labels.flatMap((label, index) => (label.toLowerCase().startsWith(start) ? [index] : []));
    if (matches.length === 1 && matches[0] !== undefined) mass[matches[0]] = (mass[matches[0]] ?? 0) + probability;
  }
  if (mass.every((probability) => probability === 0)) return undefined;
  const floor = Math.max(Math.min(1 - seen, least), 1e-12);
  const bounded = mass.map((probability) => (probability === 0 ? floor : probability));
  const total = bounded.reduce((sum, probability) => sum + probability, 0);
  return bounded.map((probability) => Math.fround(Math.log(probability / total)));
}

type TokenWithLogprob = Pick<ChatCompletionTokenLogprob, 'token' | 'bytes' | 'logprob'>;

/** Undefined where the endpoint gave none: `logprobs: null`, or an empty list. */
function softTargetsOf(content: readonly ChatCompletionTokenLogprob[] | null | undefined): string | undefined {
  if (content === null || content === undefined || content.length === 0) return undefined;
  const read = ({ token, bytes, logprob }: TokenWithLogprob): TokenLogProb => ({ token, ...(bytes == null ? {} : { bytes }), logProb: logprob });
  return packSoftTargets(content.map((each) => ({ ...read(each), alternatives: (each.top_logprobs ?? []).map(read) })));
}

function usageOf(completion: ChatCompletion, request: TeacherRequest, text: string): TokenUsage {
  const { usage } = completion;
  if (usage !== undefined && usage !== null) {
    return { promptTokens: usage.prompt_tokens, cachedPromptTokens: usage.prompt_tokens_details?.cached_tokens ?? 0, completionTokens: usage.completion_tokens };
  }
  // A server that does not count: four bytes a token, as in English text.
  const prompt = request.task.messages.reduce((sum, message) => sum + Buffer.byteLength(message.content), 0);
  return { promptTokens: Math.ceil(prompt / 4), cachedPromptTokens: 0, completionTokens: Math.ceil(Buffer.byteLength(text) / 4) };
}

/** Reads a completion; UNAVAILABLE when the body is not one, as behind a proxy's error page. */
export function readAnswer(request: TeacherRequest, completion: ChatCompletion, price: Price, latencyMs: number): TeacherAnswer {
  const choice = typeof completion === 'object' ? completion?.choices?.[0] : undefined;
  if (choice?.message === undefined) {
    throw new StillhouseError('UNAVAILABLE', `expected a chat completion with one choice, got ${JSON.stringify(completion)?.slice(0, 120) ?? 'nothing'}`);
  }
  const { task } = request;
  const refusal = choice.message.refusal ?? undefined;
  const written = refusal ?? choice.message.content ?? '';
  const label = task.kind === 'label' ? labelOf(written, task.labels) : undefined;
  const alternatives = choice.logprobs?.content?.[0]?.top_logprobs;
  const logProbs = task.kind === 'label' && label !== undefined && alternatives !== undefined ? labelLogProbs(task.labels, alternatives) : undefined;
  const usage = usageOf(completion, request, written);
  const softTargets = task.parameters.topLogProbs === undefined ? undefined : softTargetsOf(choice.logprobs?.content);
  return {
    text: label ?? written,
    ...(softTargets === undefined ? {} : { softTargets }),
    ...(logProbs === undefined ? {} : { labelLogProbs: logProbs }),
    finishReason: refusal !== undefined ? 'refusal' : choice.finish_reason === 'length' || choice.finish_reason === 'content_filter' ? choice.finish_reason : 'stop',
    usage,
    costUsd: costUsd(price, usage),
    latencyMs,
    model: typeof completion.model === 'string' && completion.model !== '' ? completion.model : 'unknown',
  };
}
