/** The forms in which servers wrap an error, and what several dialects have in common. */
import type { DialectInput, Json } from '../dialect.ts';

/** Tokens of the prompt and what may be written. Every model here has this little room, so that a row can be too long without megabytes. */
export const CONTEXT_TOKENS = 16_384;
/** Longer than what the small tasks of tests leave room for: a reasoning model needs more than the label that it writes. */
export const REASONING_TOKENS = 180;

export const source = (at: string, quote?: string): { readonly at: string; readonly quote?: string } => ({ at, ...(quote === undefined ? {} : { quote }) });

/** {"error": {"message", "type", "param", "code"}}: https://platform.openai.com/docs/guides/error-codes */
export const openaiError = (message: string, { type = 'invalid_request_error', param = null, code = null }: { readonly type?: string | null; readonly param?: string | null; readonly code?: Json } = {}): Json => ({ error: { message, type, param, code } });

type Rules = DialectInput['rules'];
export type RuleInput = Rules[number];
export type FailureInput = NonNullable<DialectInput['failures']>[number];
type Sources = RuleInput['sources'];

export const refuses = (name: string, when: RuleInput['when'], status: number, body: Json, sources: Sources, contentType?: string): RuleInput => ({ name, when, reply: { status, body, ...(contentType === undefined ? {} : { contentType }) }, sources });
export const failure = (name: string, means: FailureInput['means'], status: number, body: Json, sources: Sources, more: { readonly headers?: Readonly<Record<string, string>>; readonly contentType?: string; readonly waitMs?: number } = {}): FailureInput => {
  const { waitMs, ...reply } = more;
  return { name, means, reply: { status, body, ...reply }, ...(waitMs === undefined ? {} : { waitMs }), sources };
};

/** One rule for each parameter that is refused as soon as it is there. */
export const refusesParameters = (names: readonly string[], status: number, body: (name: string) => Json, sources: Sources, more: RuleInput['when'] = {}): RuleInput[] =>
  names.map((name) => refuses(`takes no ${name}`, { has: name, ...more }, status, body(name), sources));
