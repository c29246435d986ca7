/** One call as a dialect's rules see it: its body, its tokens and what it is about. */
import { SUBJECTS } from './dialect.ts';
import type { Condition } from './dialect.ts';
import { valueAt } from './template.ts';
import { tokensOf } from './tokens.ts';

/** https://platform.openai.com/docs/api-reference/chat/create, every parameter of its body. */
export const OPENAI_PARAMETERS: readonly string[] = [
  'messages', 'model', 'audio', 'frequency_penalty', 'function_call', 'functions', 'logit_bias', 'logprobs', 'max_completion_tokens', 'max_tokens', 'metadata', 'modalities', 'moderation', 'n',
  'parallel_tool_calls', 'prediction', 'presence_penalty', 'prompt_cache_key', 'prompt_cache_options', 'prompt_cache_retention', 'reasoning_effort', 'response_format', 'safety_identifier', 'seed', 'service_tier',
  'stop', 'store', 'stream', 'stream_options', 'temperature', 'tool_choice', 'tools', 'top_logprobs', 'top_p', 'user', 'verbosity', 'web_search_options',
];

export interface ChatBody {
  readonly model: string;
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly [key: string]: unknown;
}

/** Null counts as absent, as it does with every server here. */
const present = (body: ChatBody, path: string): boolean => (valueAt(body, path) ?? null) !== null;
const numberAt = (body: ChatBody, path: string): number | undefined => {
  const value = valueAt(body, path);
  return typeof value === 'number' ? value : undefined;
};
const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

export const lastUserText = (body: ChatBody): string => body.messages.findLast(({ role }) => role === 'user')?.content ?? '';
/** Three for each message: the marks of a chat template. */
export const promptTokensOf = (body: ChatBody): number => body.messages.reduce((sum, { content }) => sum + tokensOf(content).length + 3, 3);
export const tokenLimitOf = (body: ChatBody): number | undefined => numberAt(body, 'max_completion_tokens') ?? numberAt(body, 'max_tokens');

export function schemaKeys(schema: unknown): ReadonlySet<string> {
  const keys = new Set<string>();
  const walk = (node: unknown): void => {
    if (typeof node !== 'object' || node === null) return;
    for (const [key, value] of Object.entries(node)) {
      if (!Array.isArray(node)) keys.add(key);
      walk(value);
    }
  };
  walk(schema);
  return keys;
}

type Simple = Omit<Condition, 'unless'>;
const CHECKS: { readonly [Key in keyof Simple]-?: (body: ChatBody, given: NonNullable<Simple[Key]>) => boolean } = {
  has: present,
  lacks: (body, path) => !present(body, path),
  is: (body, { path, values }) => values.some((value) => same(valueAt(body, path), value)),
  isNot: (body, { path, values }) => present(body, path) && !values.some((value) => same(valueAt(body, path), value)),
  above: (body, { path, than }) => (numberAt(body, path) ?? -Infinity) > than,
  role: (body, role) => body.messages.some((message) => message.role === role),
  laterRole: (body, role) => body.messages.slice(1).some((message) => message.role === role),
  schemaKeyword: (body, keyword) => schemaKeys(valueAt(body, 'response_format.json_schema.schema')).has(keyword),
  wordMissing: (body, word) => !body.messages.some(({ content }) => content.toLowerCase().includes(word.toLowerCase())),
  keyOutside: (body, known) => Object.keys(body).some((key) => !known.includes(key)),
  promptTokensAbove: (body, most) => promptTokensOf(body) > most,
  totalTokensAbove: (body, most) => promptTokensOf(body) + (tokenLimitOf(body) ?? 0) > most,
  about: (body, subject) => lastUserText(body).includes(SUBJECTS[subject]),
};

export function holds({ unless, ...condition }: Condition, body: ChatBody): boolean {
  const all = (simple: Simple): boolean => Object.entries(simple).every(([key, given]) => given === undefined || (CHECKS[key as keyof Simple] as (body: ChatBody, given: unknown) => boolean)(body, given));
  return all(condition) && (unless === undefined || !all(unless));
}
