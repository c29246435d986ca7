/** What a model has written, as the document that a dialect sends of it. */
import { holds, promptTokensOf, tokenLimitOf } from './call.ts';
import type { ChatBody } from './call.ts';
import type { Dialect, Json, Rule } from './dialect.ts';
import { alternativesOf, tokensOf } from './tokens.ts';
import { filled, valueAt } from './template.ts';

export interface Written {
  readonly document: { readonly [key: string]: Json };
  /** What the model has generated and its provider bills, reasoning included. */
  readonly completionTokens: number;
}

const thought = (count: number): readonly string[] => Array.from({ length: count }, (_, index) => (index === 0 ? 'Let' : index % 12 === 0 ? ' hmm,' : ' think'));

interface Generated {
  /** Every token before the answer, with the tags around it. */
  readonly reasoning: readonly string[];
  /** There was room left for an answer. */
  readonly thoughtThrough: boolean;
  readonly text: readonly string[];
  readonly cut: boolean;
}

function generate({ answer }: Dialect, body: ChatBody, text: string): Generated {
  const limit = tokenLimitOf(body) ?? answer.defaultMaxTokens;
  const { reasoning } = answer;
  const reasons = reasoning !== undefined && !(reasoning.unless !== undefined && holds(reasoning.unless, body));
  const opened = reasoning?.place === 'think-without-opening' ? [] : ['<think>', '\n'];
  const before = reasons ? [...opened, ...thought(reasoning.tokens), '\n', '</think>', '\n\n'] : [];
  const all = tokensOf(text);
  const written = all.slice(0, Math.max(0, limit - before.length));
  return { reasoning: before.slice(0, limit), thoughtThrough: before.length < limit || before.length === 0, text: written, cut: before.length + all.length > limit };
}

/** What the model writes where nothing holds it to a form: a document stands after a sentence, between fences. */
const said = ({ answer }: Dialect, text: string): string => (answer.fencesJson && text.startsWith('{') ? `Here is the JSON:\n\n\`\`\`json\n${text}\n\`\`\`` : text);

function messageOf({ answer }: Dialect, { reasoning, thoughtThrough, text }: Generated): { readonly [key: string]: Json } {
  const content = text.join('');
  const place = reasoning.length === 0 ? undefined : answer.reasoning?.place;
  const thinking = reasoning.join('').replace(/^<think>\n|\n<\/think>\s*$/g, '');
  const parts = answer.content === 'parts' ? [{ type: 'text', text: content }] : content;
  switch (place) {
    case 'reasoning_content':
    case 'reasoning':
      // Nothing but reasoning was written: there is no content to give.
      return { content: content === '' && !thoughtThrough ? null : parts, [place]: thinking };
    case 'think':
    case 'think-without-opening':
      return { content: reasoning.join('') + content };
    case 'part':
      return { content: [{ type: 'thinking', thinking: [{ type: 'text', text: thinking }] }, ...(thoughtThrough ? [{ type: 'text', text: content }] : [])] };
    case 'hidden':
    case undefined:
      return { content: parts };
  }
}

function logprobsOf({ answer }: Dialect, body: ChatBody, generated: Generated): { readonly logprobs?: Json } {
  const { shape, most = 20, ofReasoning } = answer.logprobs;
  if (shape === 'absent') return {};
  if (body['logprobs'] !== true || shape === 'null') return { logprobs: null };
  if (shape === 'empty') return { logprobs: { content: [] } };
  const asked = valueAt(body, 'top_logprobs');
  const count = Math.min(most, typeof asked === 'number' ? asked : 0);
  const content = [...(ofReasoning ? generated.reasoning : []), ...generated.text].map((token) => {
    const [written] = alternativesOf(token, 1, shape === 'openai');
    return { ...written, top_logprobs: alternativesOf(token, count, shape === 'openai') };
  });
  return { logprobs: { content, refusal: null } as unknown as Json };
}

function usageOf({ answer }: Dialect, promptTokens: number, { reasoning, text }: Generated): { readonly usage?: Json } {
  const inside = answer.reasoning?.inCompletionTokens ?? true;
  const completionTokens = text.length + (inside ? reasoning.length : 0);
  const total = promptTokens + text.length + reasoning.length;
  const details = answer.reasoning?.counted === true ? { completion_tokens_details: { reasoning_tokens: reasoning.length } } : {};
  const full = { prompt_tokens: promptTokens, completion_tokens: completionTokens, total_tokens: total, ...details, ...answer.usageExtra };
  switch (answer.usage) {
    case 'full':
      return { usage: full };
    case 'missing':
      return {};
    case 'null':
      return { usage: null };
    case 'empty':
      return { usage: {} };
    case 'without-completion':
      return { usage: { prompt_tokens: promptTokens, total_tokens: total } };
  }
}

export function completion(dialect: Dialect, body: ChatBody, text: string, id: string, alter: Rule['alter']): Written {
  const { answer } = dialect;
  const generated = generate(dialect, body, alter?.content ?? said(dialect, text));
  const promptTokens = promptTokensOf(body);
  const finish = alter?.finish !== undefined ? alter.finish : generated.cut ? answer.finish.length : answer.finish.stop;
  const names = { promptTokens, completionTokens: generated.text.length + generated.reasoning.length };
  const message = { role: 'assistant', ...messageOf(dialect, generated), ...(alter?.content === null ? { content: null } : {}), ...answer.message, ...alter?.message };
  const document: Json = {
    id: `chatcmpl-${id}`,
    object: 'chat.completion',
    created: 1_790_000_000,
    model: answer.model ?? body.model,
    choices: [{ index: 0, message, finish_reason: finish, ...logprobsOf(dialect, body, generated), ...answer.choice, ...alter?.choice }],
    ...usageOf(dialect, promptTokens, generated),
    ...answer.top,
    ...alter?.top,
  };
  return { document: filled(document, body, names) as { readonly [key: string]: Json }, completionTokens: generated.text.length + generated.reasoning.length };
}

/** The same as the events that a stream would have been: https://platform.openai.com/docs/api-reference/chat-streaming. */
export function asEvents(document: { readonly [key: string]: Json }): string {
  const choice = valueAt(document, 'choices.0') as { readonly [key: string]: Json };
  const head = { ...document, object: 'chat.completion.chunk' };
  const { message, finish_reason: finish, ...rest } = choice;
  const chunks: Json[] = [{ ...head, usage: null, choices: [{ ...rest, delta: message ?? null, finish_reason: null }] }, { ...head, choices: [{ index: 0, delta: {}, finish_reason: finish ?? null }] }];
  return `${chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join('')}data: [DONE]\n\n`;
}
