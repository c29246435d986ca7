/** Chat completions: what the model says, its faults, and the bill. https://platform.openai.com/docs/api-reference/chat/create */
import { createHash } from 'node:crypto';
import { ApiError, nowSeconds } from './http.ts';
import type { Reply } from './http.ts';
import { retryAfterHeaders } from './limits.ts';
import { countsOfKey, LOSSES, MODELS, tokensOf } from './options.ts';
import type { ChatCall, Fault, ModelPrice, OpenAIServerCounts, OpenAIServerOptions, ScriptedAnswer } from './options.ts';

/** What becomes of the connection: an answer, or one of the ways in which none comes. */
export type Outcome = { readonly kind: 'reply'; readonly reply: Reply } | { readonly kind: 'reset' | 'stall' };

export interface Completion extends Readonly<Record<string, unknown>> {
  readonly id: string;
  readonly model: string;
}

const CONTEXT_TOKENS = 128_000;

export class Model {
  readonly #options: () => OpenAIServerOptions;
  readonly #counts: OpenAIServerCounts;
  /** What fine-tuned models have learned: their base, and answers by the messages before them. */
  readonly tuned = new Map<string, { readonly base: string; readonly answers: ReadonlyMap<string, string> }>();
  readonly received: ChatCall[] = [];
  #taken = 0;
  #completions = 0;
  #lastContent = '';

  constructor(options: () => OpenAIServerOptions, counts: OpenAIServerCounts) {
    this.#options = options;
    this.#counts = counts;
  }

  get names(): readonly string[] {
    return [...Object.keys(this.#options().models ?? MODELS), ...this.tuned.keys()];
  }

  price(model: string): ModelPrice | undefined {
    return (this.#options().models ?? MODELS)[this.tuned.get(model)?.base ?? model];
  }

  /** What the call's limit is charged with: its prompt and all that it may write. */
  static tokens(call: ChatCall): number {
    return call.messages.reduce((sum, message) => sum + tokensOf(message.content), 0) + (call.max_tokens ?? call.max_completion_tokens ?? 16);
  }

  /** Throws why the call cannot be taken as it is. */
  check(call: ChatCall): void {
    const without = new Set<string>(this.#options().without ?? []);
    const format = call.response_format?.type;
    if (this.price(call.model) === undefined || this.#options().withdrawn?.includes(call.model) === true) throw new ApiError(404, `The model \`${call.model}\` does not exist or you do not have access to it.`, { code: 'model_not_found' });
    if (!Array.isArray(call.messages) || call.messages.length === 0) throw new ApiError(400, "Missing required parameter: 'messages'.", { param: 'messages', code: 'missing_required_parameter' });
    if (format !== undefined && without.has(format)) throw new ApiError(400, `Invalid parameter: 'response_format' of type '${format}' is not supported with this model.`, { param: 'response_format' });
    if (format === 'json_object' && !call.messages.some((message) => /json/i.test(message.content))) {
      throw new ApiError(400, "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.", { param: 'messages' });
    }
    if (call.logprobs === true && without.has('logprobs')) throw new ApiError(403, 'You are not allowed to request logprobs from this model.');
    if (call.max_tokens !== undefined && without.has('max_tokens')) {
      throw new ApiError(400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", { param: 'max_tokens', code: 'unsupported_parameter' });
    }
    if (call.max_completion_tokens !== undefined && without.has('max_completion_tokens')) throw new ApiError(400, 'Unrecognized request argument supplied: max_completion_tokens');
    if (call.store !== undefined && without.has('store')) throw new ApiError(400, 'Unrecognized request argument supplied: store');
    if (call.metadata !== undefined && call.store !== true) throw new ApiError(400, "The 'metadata' parameter is only allowed when 'store' is enabled.", { param: 'metadata' });
  }

  /** Draws the answer and its fault; waits for the latency unless the line belongs to a batch. */
  async answer(call: ChatCall, key: string, inBatch: boolean): Promise<Outcome & { readonly completion?: Completion }> {
    const options = this.#options();
    const index = this.#taken;
    this.#taken += 1;
    if (options.forget !== true) this.received.push(call);
    const scripted = this.tuned.get(call.model)?.answers.get(questionOf(call)) ?? options.answer?.(call, index) ?? call.messages.at(-1)?.content ?? '';
    const answer: ScriptedAnswer = typeof scripted === 'string' ? { content: scripted } : scripted;
    const fault = answer.fault ?? this.#drawFault(options);
    if (fault !== undefined) this.#counts.faults.set(fault, (this.#counts.faults.get(fault) ?? 0) + 1);
    throwFault(fault, options);
    if (fault === 'reset' || fault === 'stall') return { kind: fault };
    const { latencyMs = 0 } = options;
    const delayMs = inBatch ? 0 : typeof latencyMs === 'number' ? latencyMs : latencyMs();
    if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
    const completion = this.#complete(call, answer, fault, key, inBatch);
    const text = JSON.stringify(completion);
    const whole = { kind: 'reply', completion, reply: { status: 200, body: text } } as const;
    return fault === undefined || inBatch ? whole : lossOf(fault, text) ?? whole;
  }

  #drawFault({ faults, random = Math.random }: OpenAIServerOptions): Fault | undefined {
    if (faults === undefined) return undefined;
    let draw = random();
    for (const [fault, probability] of Object.entries(faults)) {
      draw -= probability;
      if (draw < 0) return fault as Fault;
    }
    return undefined;
  }

  #complete(call: ChatCall, answer: ScriptedAnswer, fault: Fault | undefined, key: string, inBatch: boolean): Completion {
    const content = contentOf(fault === 'duplicate' && this.#lastContent !== '' ? this.#lastContent : (answer.content ?? ''), fault);
    if (fault !== 'duplicate') this.#lastContent = content;
    this.#completions += 1;
    const usage = { prompt_tokens: call.messages.reduce((sum, message) => sum + tokensOf(message.content) + 4, 3), completion_tokens: answer.completionTokens ?? tokensOf(content) };
    const lost = !inBatch && fault !== undefined && LOSSES.has(fault);
    this.#bill(call, usage, key, inBatch, lost);
    const refusal = fault === 'refusal';
    return {
      id: `chatcmpl-${this.#completions}`,
      object: 'chat.completion',
      created: nowSeconds(),
      model: call.model,
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: refusal ? null : content, refusal: refusal ? content : null, annotations: [] },
          logprobs: call.logprobs === true ? logprobsOf(answer, call.top_logprobs ?? 0) : null,
          finish_reason: fault === 'truncated-json' ? 'length' : fault === 'content-filter' ? 'content_filter' : 'stop',
        },
      ],
      usage: { ...usage, total_tokens: usage.prompt_tokens + usage.completion_tokens, prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 } },
      service_tier: 'default',
      system_fingerprint: 'fp_test',
    };
  }

  #bill(call: ChatCall, usage: { readonly prompt_tokens: number; readonly completion_tokens: number }, key: string, inBatch: boolean, lost: boolean): void {
    const counts = this.#counts;
    const price = this.price(call.model) ?? { input: 0, output: 0 };
    const usd = ((usage.prompt_tokens * price.input + usage.completion_tokens * price.output) / 1e6) * (inBatch ? 0.5 : 1);
    const ofKey = countsOfKey(counts, key);
    counts.billedCalls += 1;
    ofKey.billedCalls += 1;
    if (inBatch) counts.billedInBatches += 1;
    if (lost) {
      counts.lostAnswers += 1;
      ofKey.lostAnswers += 1;
    }
    counts.promptTokens += usage.prompt_tokens;
    counts.completionTokens += usage.completion_tokens;
    counts.usd += usd;
    ofKey.usd += usd;
    ofKey.tokens += usage.prompt_tokens + usage.completion_tokens;
    const most = { prompt: Buffer.byteLength(JSON.stringify(call)), completion: call.max_tokens ?? call.max_completion_tokens ?? 0 };
    const { mostOfOneCall } = ofKey;
    ofKey.mostOfOneCall = {
      usd: Math.max(mostOfOneCall.usd, (most.prompt * price.input + most.completion * price.output) / 1e6),
      tokens: Math.max(mostOfOneCall.tokens, most.prompt + most.completion),
    };
    if (this.#options().forget === true) return;
    const question = createHash('sha256').update(JSON.stringify(call.messages)).digest('hex');
    counts.billedByQuestion.set(question, (counts.billedByQuestion.get(question) ?? 0) + 1);
  }
}

/** Everything before an assistant's last word, as it stands in calls and in training files alike. */
export function questionOf({ messages }: Pick<ChatCall, 'messages'>): string {
  return JSON.stringify(messages.map(({ role, content }) => [role, content]));
}

/** What arrives of a completion that was billed; undefined: all of it. */
function lossOf(fault: Fault, text: string): Outcome | undefined {
  switch (fault) {
    case 'reset-after-work':
      return { kind: 'reset' };
    case 'stall-after-work':
      return { kind: 'stall' };
    case '500-after-work':
      return { kind: 'reply', reply: new ApiError(500, 'The server had an error while processing your request. Sorry about that!', { type: 'server_error' }).reply };
    case 'truncated-body':
      return { kind: 'reply', reply: { status: 200, body: text.slice(0, text.length / 2) } };
    case 'unreadable-body':
      return { kind: 'reply', reply: { status: 200, body: '<html><body>Bad gateway</body></html>' } };
    default:
      return undefined;
  }
}

function throwFault(fault: Fault | undefined, { retryAfter }: OpenAIServerOptions): void {
  switch (fault) {
    case '429':
      throw new ApiError(429, 'Too many requests.', { type: 'requests', headers: retryAfter === 'none' ? {} : retryAfterHeaders(20) });
    case '500':
      throw new ApiError(500, 'The server had an error while processing your request. Sorry about that!', { type: 'server_error' });
    case '503':
      throw new ApiError(503, 'The engine is currently overloaded, please try again later.', { type: 'server_error' });
    case 'content-filter-400':
      throw new ApiError(400, 'The response was filtered due to the prompt triggering the content management policy.', { code: 'content_filter', param: 'prompt' });
    case 'context-length':
      throw new ApiError(400, `This model's maximum context length is ${CONTEXT_TOKENS} tokens.`, { code: 'context_length_exceeded', param: 'messages' });
    default:
  }
}

function logprobsOf({ tokens, topLogprobs }: ScriptedAnswer, top: number): unknown {
  const listed = tokens ?? (topLogprobs?.[0] === undefined ? undefined : [{ ...topLogprobs[0], top: topLogprobs }]);
  if (listed === undefined) return null;
  const withBytes = ({ token, logprob }: { readonly token: string; readonly logprob: number }) => ({ token, logprob, bytes: [...Buffer.from(token)] });
  return { content: listed.map((each) => ({ ...withBytes(each), top_logprobs: each.top.slice(0, top).map(withBytes) })), refusal: null };
}

function contentOf(content: string, fault: Fault | undefined): string {
  switch (fault) {
    case 'truncated-json':
      return content.slice(0, Math.ceil(content.length / 2));
    case 'broken-schema':
      return '{"unexpected": [1, 2, 3]}';
    case 'refusal':
      return "I'm sorry, I can't help with that.";
    case 'content-filter':
      return '';
    default:
      return content;
  }
}
