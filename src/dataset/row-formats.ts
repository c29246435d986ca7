/** What a record of a data file says: an input with or without its output, or a chat, in the forms that datasets have. */
import { z } from 'zod';
import { StillhouseError } from '../contracts/errors.ts';
import type { ChatMessage } from '../contracts/records.ts';
import { spelledNumber } from './json-text.ts';
import { excerpt } from './pairs.ts';
import type { FileRecord } from './record-file.ts';

type Fields = Readonly<Record<string, unknown>>;

export interface Pair {
  readonly input: string;
  /** The gold output, or what is to be learned. */
  readonly output?: string;
}

/** What may stand beside an output. */
export interface Extras {
  readonly rationale?: string;
  readonly softTargets?: string;
}

const ROLES: Readonly<Record<string, ChatMessage['role']>> = {
  system: 'system', developer: 'system',
  user: 'user', human: 'user',
  assistant: 'assistant', gpt: 'assistant', chatgpt: 'assistant', model: 'assistant',
};
const LIKELY_NAMES = ['text', 'prompt', 'question', 'query', 'sentence', 'message', 'content', 'Input', 'INPUT'];

const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value);
const isBlank = (value: unknown): boolean => value === undefined || value === null || (typeof value === 'string' && value.trim() === '');

const refused = (where: string, expected: string, got: string): StillhouseError => new StillhouseError('BAD_INPUT', `${where}: expected ${expected}, got ${got}`);

/** A text that can be stored, hashed and tokenized as it is. */
function wholeText(text: string, where: string, key: string): string {
  if (text.includes('\0')) throw refused(where, `${key} without NUL characters`, excerpt(text));
  if (!text.isWellFormed()) throw refused(where, `${key} of whole characters`, `half of a surrogate pair in ${excerpt(text)}`);
  return text;
}

/**
 * `{"input", "gold" or "output"}`, or Alpaca's `{"instruction", "input", "output"}`, whose instruction and input are one
 * input with an empty line between. Numbers and booleans as outputs are taken as they are spelled; null and blank
 * outputs are none. Undefined for a record of another form.
 */
export function pairOf({ value, text }: FileRecord, where: string): Pair | undefined {
  if (!isFields(value) || ('input' in value || 'instruction' in value) === false) return undefined;
  const { instruction, input } = value;
  for (const [key, part] of Object.entries({ instruction, input })) if (part !== undefined && part !== null && typeof part !== 'string') throw refused(where, `a string "${key}"`, excerpt(JSON.stringify(part)));
  const parts = [instruction, input].filter((part): part is string => typeof part === 'string' && part.trim() !== '');
  if (parts.length === 0) throw refused(where, `a string "${'instruction' in value ? 'instruction' : 'input'}" that is not blank`, excerpt(text));
  const key = isBlank(value['gold']) ? 'output' : 'gold';
  const output = outputText(value[key], key, text, where);
  return { input: wholeText(parts.join('\n\n'), where, '"input"'), ...(output === undefined ? {} : { output: wholeText(output, where, `"${key}"`) }) };
}

function outputText(output: unknown, key: string, text: string, where: string): string | undefined {
  if (isBlank(output)) return undefined;
  if (typeof output === 'string') return output;
  if (typeof output === 'number') return spelledNumber(text, key) ?? String(output);
  if (typeof output === 'boolean') return String(output);
  throw refused(where, `"${key}" to be a string, a number, true or false`, excerpt(JSON.stringify(output)));
}

/** OpenAI's `{"messages": [{"role", "content"}]}` or ShareGPT's `{"conversations": [{"from", "value"}]}`. Undefined for a record of another form. */
export function chatOf({ value }: FileRecord, where: string): readonly ChatMessage[] | undefined {
  if (!isFields(value)) return undefined;
  const key = 'messages' in value ? 'messages' : 'conversations';
  const turns = value[key];
  if (turns === undefined) return undefined;
  if (!Array.isArray(turns) || turns.length === 0) throw refused(where, `"${key}" to be a list of messages`, excerpt(JSON.stringify(turns)));
  return turns.map((turn: unknown, index) => messageOf(turn, where, `${key}[${index}]`));
}

function messageOf(turn: unknown, where: string, path: string): ChatMessage {
  if (!isFields(turn)) throw refused(where, `${path} to be {"role": "…", "content": "…"} or {"from": "…", "value": "…"}`, excerpt(JSON.stringify(turn)));
  const name = turn['role'] ?? turn['from'];
  const role = typeof name === 'string' && Object.hasOwn(ROLES, name.toLowerCase()) ? ROLES[name.toLowerCase()] : undefined;
  if (role === undefined) throw refused(where, `${path} to be of one of the roles ${Object.keys(ROLES).join(', ')}`, excerpt(JSON.stringify(name) ?? 'none'));
  return { role, content: wholeText(contentOf(turn['content'] ?? turn['value'], where, path), where, path) };
}

/** A text, or a list of parts that are texts. */
function contentOf(content: unknown, where: string, path: string): string {
  if (typeof content === 'string') return content;
  const parts: readonly unknown[] = Array.isArray(content) ? content : [content];
  return parts.map((part) => {
    if (typeof part === 'string') return part;
    if (isFields(part) && typeof part['text'] === 'string') return part['text'];
    throw refused(where, `${path} to be a text or a list of text parts`, excerpt(JSON.stringify(isFields(part) && 'type' in part ? { type: part['type'] } : (part ?? null))));
  }).join('');
}

/** The one input of a record, and its gold output where it has one. A chat must be one question, with or without its answer; its system message is the campaign's to say. */
export function inputOf(record: FileRecord, where: string): Pair {
  const pair = pairOf(record, where);
  if (pair !== undefined) return pair;
  const chat = chatOf(record, where);
  if (chat === undefined) {
    const { value } = record;
    const likely = isFields(value) ? LIKELY_NAMES.filter((name) => typeof value[name] === 'string') : [];
    throw refused(where, 'a string "input"', `${excerpt(record.text)}${likely.length === 0 ? '' : `; rename ${likely.map((name) => JSON.stringify(name)).join(' or ')} to "input"`}`);
  }
  const turns = chat.filter(({ role }) => role !== 'system');
  const [question, answer] = turns;
  if (question?.role !== 'user' || turns.length > 2 || (answer !== undefined && answer.role !== 'assistant')) {
    throw refused(where, 'a chat of one user message, with or without its answer, since a campaign asks about single inputs', `the roles ${chat.map(({ role }) => role).join(', ')}`);
  }
  if (isBlank(question.content)) throw refused(where, 'a user message that is not blank', excerpt(record.text));
  return { input: question.content, ...(answer === undefined || isBlank(answer.content) ? {} : { output: answer.content }) };
}

const extrasSchema = z.looseObject({ rationale: z.string().nullish(), softTargets: z.base64().nullish() });

/** The rationale and the soft targets of a record. */
export function extrasOf({ value, text }: FileRecord, where: string): Extras {
  const read = extrasSchema.safeParse(value);
  if (!read.success) throw refused(where, 'a "rationale" that is a text and "softTargets" in base64', excerpt(text));
  const { rationale, softTargets } = read.data;
  return { ...(rationale == null ? {} : { rationale: wholeText(rationale, where, '"rationale"') }), ...(softTargets == null ? {} : { softTargets }) };
}
