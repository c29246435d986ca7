/**
 * A chat completion as servers send it, checked at the boundary: what is not as it should be is taken as missing, so that
 * nothing of a response reaches arithmetic or the ledger unchecked. https://platform.openai.com/docs/api-reference/chat/object
 */
import { z } from 'zod';
import type { TeacherAnswer, TokenUsage } from '../contracts/records.ts';
import { splitReasoning } from '../dataset/reasoning-text.ts';
import type { TokenLogProb } from '../dataset/soft-targets.ts';

const lenient = <T extends z.ZodType>(schema: T) => schema.nullish().catch(undefined);
const tokens = lenient(z.number().min(0).max(1e9).transform(Math.round));
const text = lenient(z.string());

const tokenSchema = z.object({ token: z.string(), logprob: lenient(z.number()), bytes: lenient(z.array(z.int().min(0).max(255))) });
const positionSchema = tokenSchema.extend({ top_logprobs: lenient(z.array(tokenSchema)) });

/** Content in parts: text, what was reasoned, what was declined. */
const partSchema = z.looseObject({ type: text, text, refusal: text, thinking: z.unknown().optional(), reasoning: z.unknown().optional() });

export const completionSchema = z.object({
  model: text,
  choices: z
    .array(
      z.object({
        message: z.object({
          content: z.union([z.string(), z.array(z.union([partSchema, z.string()]))]).nullish().catch(undefined),
          refusal: text,
          reasoning_content: z.unknown().optional(),
          reasoning: z.unknown().optional(),
          thinking: z.unknown().optional(),
        }),
        finish_reason: z.unknown().optional(),
        error: z.unknown().optional(),
        logprobs: lenient(z.object({ content: lenient(z.array(positionSchema)) })),
      }),
    )
    .min(1),
  usage: lenient(
    z.object({
      prompt_tokens: tokens, completion_tokens: tokens, total_tokens: tokens,
      prompt_tokens_details: lenient(z.object({ cached_tokens: tokens })),
      completion_tokens_details: lenient(z.object({ reasoning_tokens: tokens })),
      prompt_cache_hit_tokens: tokens,
      reasoning_tokens: tokens,
    }),
  ),
});
export type Completion = z.output<typeof completionSchema>;
export type Choice = Completion['choices'][number];

/** Strings in whatever a field of reasoning holds: a text, parts, an object with one. */
function stringsOf(value: unknown, depth = 0): readonly string[] {
  if (typeof value === 'string') return value.trim() === '' ? [] : [value];
  if (depth > 4 || typeof value !== 'object' || value === null) return [];
  if (Array.isArray(value)) return value.flatMap((each: unknown) => stringsOf(each, depth + 1));
  return ['text', 'thinking', 'content', 'reasoning', 'summary'].flatMap((key) => stringsOf((value as Record<string, unknown>)[key], depth + 1));
}

export interface MessageText {
  /** The answer alone. */
  readonly text: string;
  /** The whole of the content, as its tokens spell it. */
  readonly content: string;
  readonly reasoning?: string;
  readonly refusal?: string;
}

export function messageText({ content, refusal, reasoning_content: beside, reasoning, thinking }: Choice['message']): MessageText {
  const parts = typeof content === 'string' ? [content] : (content ?? []);
  const isReasoning = (part: (typeof parts)[number]): boolean => typeof part !== 'string' && /think|reason/.test(part.type ?? '');
  const whole = parts.map((part) => (typeof part === 'string' ? part : isReasoning(part) ? '' : (part.text ?? ''))).join('');
  const declined = refusal ?? parts.flatMap((part) => (typeof part === 'string' ? [] : (part.refusal ?? []))).join('');
  const split = splitReasoning(whole);
  const fields = [stringsOf(beside), stringsOf(reasoning), stringsOf(thinking)].find((texts) => texts.length > 0) ?? [];
  const reasoned = [...fields, ...parts.filter(isReasoning).flatMap((part) => stringsOf(part)), ...(split.reasoning === undefined ? [] : [split.reasoning])].map((each) => each.trim());
  return {
    text: split.text, content: whole,
    ...(reasoned.length === 0 ? {} : { reasoning: [...new Set(reasoned)].join('\n\n') }),
    ...(declined === '' ? {} : { refusal: declined }),
  };
}

/** Of an answer that is whole; null, an absent reason and an empty one are as good as these. */
const COMPLETE = new Set(['stop', 'end_turn', 'eos', 'eos_token', 'stop_sequence', 'stop_token', 'complete', 'completed', 'end', 'finished', 'tool_calls', 'function_call', '']);
const LIMITED = new Set(['length', 'max_tokens', 'max_output_tokens', 'max_length', 'model_length', 'model_context_window_exceeded', 'token_limit', 'context_length']);
const FILTERED = new Set(['content_filter', 'content_filtered', 'safety', 'recitation', 'blocklist', 'prohibited_content', 'spii', 'language', 'sensitive', 'guardrail_intervened', 'filtered', 'moderation']);
const DECLINED = new Set(['refusal', 'refused']);

/** How an answer ended. What is not known to be whole is none: a half of it would be learned as a whole. */
export function endOf({ finish_reason: reason, error }: Choice): { readonly finishReason: TeacherAnswer['finishReason']; readonly note?: string } {
  const word = typeof reason === 'string' ? reason.trim() : reason === null || reason === undefined ? '' : JSON.stringify(reason);
  const name = word.toLowerCase().replace(/^finish_?reason_/, '');
  const failed = error !== undefined && error !== null;
  if (!failed && COMPLETE.has(name)) return { finishReason: 'stop' };
  if (LIMITED.has(name)) return { finishReason: 'length' };
  if (FILTERED.has(name)) return { finishReason: 'content_filter', ...(name === 'content_filter' ? {} : { note: `finish reason ${word}` }) };
  if (DECLINED.has(name)) return { finishReason: 'refusal' };
  return { finishReason: 'error', note: `finish reason ${word === '' ? 'none' : word}${failed ? `, with the error ${JSON.stringify(error).slice(0, 200)}` : ''}` };
}

/**
 * Tokens as counted by the server. What it leaves out is taken from the total, else estimated: four bytes a token, as in
 * English. Where the total is more than prompt and completion together, the rest is reasoning that was counted beside it.
 * Reasoning that is shown and not counted is its share of what was written, by length.
 */
export function usageOf({ usage }: Completion, promptBytes: number, written: MessageText): TokenUsage {
  const reasoningBytes = Buffer.byteLength(written.reasoning ?? '');
  // The content may hold the reasoning, or have it beside it.
  const writtenBytes = Math.max(Buffer.byteLength(written.content), Buffer.byteLength(written.text) + reasoningBytes);
  const { prompt_tokens: prompt, completion_tokens: completion, total_tokens: total } = usage ?? {};
  const fromTotal = (other: number | null | undefined): number | undefined => (total == null || other == null || total < other ? undefined : total - other);
  const promptTokens = prompt ?? fromTotal(completion) ?? Math.ceil(promptBytes / 4);
  const counted = completion ?? fromTotal(prompt) ?? Math.ceil(writtenBytes / 4);
  const completionTokens = Math.max(counted, fromTotal(promptTokens) ?? 0);
  const told = usage?.completion_tokens_details?.reasoning_tokens || usage?.reasoning_tokens || (completionTokens > counted ? completionTokens - counted : 0);
  const reasoningTokens = told > 0 || reasoningBytes === 0 ? told : Math.ceil((completionTokens * reasoningBytes) / writtenBytes);
  const cached = usage?.prompt_tokens_details?.cached_tokens ?? usage?.prompt_cache_hit_tokens ?? 0;
  return {
    promptTokens,
    cachedPromptTokens: Math.min(cached, promptTokens),
    completionTokens,
    ...(reasoningTokens === 0 ? {} : { reasoningTokens: Math.min(reasoningTokens, completionTokens) }),
  };
}

export interface AnswerToken extends TokenLogProb {
  readonly alternatives: readonly TokenLogProb[];
}

/** In place of a log-probability that is missing or no number below 1: nothing is known of it. */
const isKnown = (logprob: number | null | undefined): logprob is number => typeof logprob === 'number' && logprob <= 1e-3;

/** The tokens of the content with their alternatives, those without a log-probability left out; empty where the server gave none. */
export function answerTokens({ logprobs }: Choice): readonly AnswerToken[] {
  const read = ({ token, bytes, logprob }: z.output<typeof tokenSchema>): TokenLogProb => ({ token, ...(bytes == null ? {} : { bytes }), logProb: Math.min(0, logprob ?? 0) });
  const positions = logprobs?.content ?? [];
  if (positions.some(({ logprob }) => !isKnown(logprob))) return [];
  return positions.map((position) => ({ ...read(position), alternatives: (position.top_logprobs ?? []).filter(({ logprob }) => isKnown(logprob)).map(read) }));
}

/**
 * The tokens that spell the answer alone, where `content` holds more: reasoning before it, space around it. Undefined where
 * the answer does not begin and end between two tokens.
 */
export function tokensOfAnswer(all: readonly AnswerToken[], { content, text: answer, reasoning }: MessageText): readonly AnswerToken[] | undefined {
  if (all.length === 0) return all;
  // Servers that take reasoning off the content leave it among the tokens.
  const spelled = all.map(({ token }) => token).join('');
  if (spelled === answer) return all;
  const from = spelled.lastIndexOf(answer);
  // Tokens that are parts of characters spell another text: where they cannot be laid on the answer, nothing is known but that all of it is the answer.
  if (from < 0 || answer === '') return reasoning === undefined && answer.trim() === content.trim() ? all : undefined;
  let at = 0;
  const spans = all.map((token) => {
    const start = at;
    at += token.token.length;
    return { token, start, end: at };
  });
  const inside = spans.filter(({ start, end }) => end > from && start < from + answer.length);
  const [begin] = inside;
  if (begin === undefined || (begin.start < from && spelled.slice(begin.start, from).trim() !== '')) return undefined;
  return inside.map(({ token }) => token);
}
