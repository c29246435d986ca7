/** One teacher request as a chat completion, and what comes back as an answer. https://platform.openai.com/docs/api-reference/chat */
import type { ChatCompletionCreateParamsNonStreaming } from 'openai/resources/chat/completions';
import { DEFAULT_REASONING_TOKENS } from '../contracts/campaign-spec.ts';
import type { ChatMessage, TeacherAnswer, TeacherRequest, TeacherTask } from '../contracts/records.ts';
import { labelLogProbs } from '../dataset/label-log-probs.ts';
import { labelOf } from '../dataset/labels.ts';
import { packSoftTargets } from '../dataset/soft-targets.ts';
import { answerTokens, completionSchema, endOf, messageText, tokensOfAnswer, usageOf } from './completion.ts';
import type { EndpointTraits } from './endpoint-traits.ts';
import { costUsd } from './prices.ts';
import type { Price } from './prices.ts';
import { UnreadableResponse } from './transport.ts';

/** Labels listed in a schema: OpenAI takes 500 values, and 15,000 characters of them. */
const MAX_SCHEMA_LABELS = 500;
const MAX_SCHEMA_LABEL_CHARACTERS = 12_000;
/** Tokens of the document around a label. */
const LABEL_DOCUMENT_TOKENS = 16;

/** Room for what the model reasons before it answers: the spec's, else as much as is usual where it is known to reason. */
export function reasoningRoom({ parameters: { reasoning } }: TeacherTask, { reasons }: EndpointTraits): number {
  if (reasoning === undefined) return reasons === true ? DEFAULT_REASONING_TOKENS : 0;
  return reasoning.effort === 'none' ? 0 : reasoning.maxTokens;
}

/** What a question needs at the least: the whole of a label's, half of a text's. */
export const leastRoom = ({ kind, parameters: { maxTokens } }: TeacherTask): number => (kind === 'label' ? maxTokens + LABEL_DOCUMENT_TOKENS : Math.ceil(maxTokens / 2));

/** Reasoning and answer have rooms of their own; the wire knows one limit for both. `extra`: further room, where an answer came back empty. */
export function roomOf(task: TeacherTask, traits: EndpointTraits, extra = 0): number {
  const wanted = task.parameters.maxTokens + reasoningRoom(task, traits) + extra + (task.kind === 'label' ? LABEL_DOCUMENT_TOKENS : 0);
  return Math.min(traits.mostTokens ?? Infinity, wanted);
}

/** The schema that is sent with a question; undefined where its answer has no form, or the endpoint takes none. */
export function schemaOf({ task, purpose }: TeacherRequest, traits: EndpointTraits): { readonly name: string; readonly schema: Readonly<Record<string, unknown>> } | undefined {
  if (task.kind === 'json') return { name: task.schemaName, schema: task.schema };
  // A tuned student writes the label alone, as it has learned to; soft targets are those of the label, not of a document around it.
  if (task.kind !== 'label' || purpose === 'student' || task.parameters.topLogProbs !== undefined) return undefined;
  if (traits.json !== 'schema' || !traits.labelSchema) return undefined;
  const characters = task.labels.reduce((sum, label) => sum + label.length, 0);
  if (task.labels.length > MAX_SCHEMA_LABELS || characters > MAX_SCHEMA_LABEL_CHARACTERS) return undefined;
  return { name: 'label', schema: { type: 'object', properties: { label: { type: 'string', enum: task.labels } }, required: ['label'], additionalProperties: false } };
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

/** One system message at the beginning at most, with all that any of them says; none where the endpoint takes none. */
function arranged(messages: readonly ChatMessage[], wishes: readonly string[], takesSystem: boolean): ChatMessage[] {
  const system = [...messages.flatMap(({ role, content }) => (role === 'system' ? [content] : [])), ...wishes].join('\n\n');
  const others = messages.filter(({ role }) => role !== 'system');
  if (system === '') return others.map((message) => ({ ...message }));
  if (takesSystem) return [{ role: 'system', content: system }, ...others.map((message) => ({ ...message }))];
  const [first] = others;
  if (first?.role !== 'user') return [{ role: 'user', content: system }, ...others.map((message) => ({ ...message }))];
  return [{ role: 'user', content: `${system}\n\n${first.content}` }, ...others.slice(1).map((message) => ({ ...message }))];
}

function format(request: TeacherRequest, traits: EndpointTraits): Pick<ChatCompletionCreateParamsNonStreaming, 'messages' | 'response_format'> {
  const { messages } = request.task;
  const form = schemaOf(request, traits);
  if (form === undefined) return { messages: arranged(messages, [], traits.system) };
  if (traits.json === 'schema') {
    return { messages: arranged(messages, [], traits.system), response_format: { type: 'json_schema', json_schema: { ...form, schema: { ...form.schema }, strict: isStrictSchema(form.schema) } } };
  }
  // The schema goes into the prompt; json_object also demands that the word JSON is there.
  const wish = `Answer with one JSON object and nothing else. It must match this JSON schema:\n${JSON.stringify(form.schema)}`;
  return { messages: arranged(messages, [wish], traits.system), ...(traits.json === 'object' ? { response_format: { type: 'json_object' } } : {}) };
}

/** How many alternatives to each token are asked for; 0: no log-probabilities. */
const topLogProbsOf = ({ task }: TeacherRequest, traits: EndpointTraits): number => Math.min(traits.topLogProbs, task.parameters.topLogProbs ?? (task.kind === 'label' ? Infinity : 0));

export interface BodyOptions {
  /** Keep the call at the provider under it. It decides nothing about the answer and is no part of the ledger key. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** Room beyond that of the first asking. */
  readonly extraTokens?: number;
}

export function chatBody(model: string, request: TeacherRequest, traits: EndpointTraits, { metadata, extraTokens }: BodyOptions = {}): ChatCompletionCreateParamsNonStreaming {
  const { parameters } = request.task;
  const { temperature, topP, seed, stop, reasoning } = parameters;
  const topLogProbs = topLogProbsOf(request, traits);
  return {
    model,
    ...format(request, traits),
    ...(traits.tokenLimit === 'none' ? {} : { [traits.tokenLimit]: roomOf(request.task, traits, extraTokens) }),
    ...(traits.temperature ? { temperature } : {}),
    ...(topP === undefined || !traits.topP ? {} : { top_p: topP }),
    ...(seed === undefined || !traits.seed ? {} : { seed }),
    ...(stop === undefined || stop.length === 0 || !traits.stop ? {} : { stop: [...stop] }),
    ...(reasoning?.effort === undefined || !traits.reasoningEffort ? {} : { reasoning_effort: reasoning.effort as 'low' }),
    ...(topLogProbs > 0 ? { logprobs: true, top_logprobs: topLogProbs } : {}),
    ...(metadata !== undefined && traits.store ? { store: true, ...(traits.metadata ? { metadata: { ...metadata } } : {}) } : {}),
  };
}

/** The text before the first stop sequence: what an endpoint would have done that takes none. */
function cutAt(text: string, stop: readonly string[] | undefined): string {
  const ends = (stop ?? []).map((each) => text.indexOf(each)).filter((at) => at >= 0);
  return ends.length === 0 ? text : text.slice(0, Math.min(...ends));
}

/** Reads a completion; throws UnreadableResponse when the body is not one, as behind a proxy's error page. */
export function readAnswer(request: TeacherRequest, completion: unknown, price: Price, latencyMs: number): TeacherAnswer {
  const parsed = completionSchema.safeParse(completion);
  const choice = parsed.data?.choices[0];
  if (parsed.data === undefined || choice === undefined) throw new UnreadableResponse(JSON.stringify(completion)?.slice(0, 160) ?? 'nothing');
  const { task } = request;
  const written = messageText(choice.message);
  const text = cutAt(written.refusal ?? written.text, task.parameters.stop);
  const tokens = tokensOfAnswer(answerTokens(choice), written) ?? [];
  const label = task.kind === 'label' && written.refusal === undefined ? labelOf(text, task.labels) : undefined;
  const logProbs = task.kind === 'label' && label !== undefined ? labelLogProbs(task.labels, label, tokens) : undefined;
  const promptBytes = task.messages.reduce((sum, message) => sum + Buffer.byteLength(message.content), 0);
  const usage = usageOf(parsed.data, promptBytes, written);
  const end = endOf(choice);
  return {
    text: label ?? text,
    ...(task.parameters.topLogProbs === undefined || tokens.length === 0 ? {} : { softTargets: packSoftTargets(tokens) }),
    ...(logProbs === undefined ? {} : { labelLogProbs: logProbs }),
    ...(written.reasoning === undefined ? {} : { reasoning: written.reasoning }),
    ...end,
    ...(written.refusal === undefined ? {} : { finishReason: 'refusal' as const }),
    usage,
    costUsd: costUsd(price, usage),
    latencyMs,
    model: parsed.data.model == null || parsed.data.model === '' ? 'unknown' : parsed.data.model,
  };
}
