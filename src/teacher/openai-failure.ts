/** What a failed call means: whether trying again can help, whether it may have been billed, and what to tell a person. */
import { APIConnectionTimeoutError, APIError } from 'openai';
import { StillhouseError } from '../contracts/errors.ts';
import type { ErrorCode } from '../contracts/errors.ts';
import { rateFeedback, retryAfterMs } from './rate-headers.ts';
import type { RateFeedback } from './rate-headers.ts';
import { UnreadableResponse } from './transport.ts';

export interface CallFailure {
  readonly error: StillhouseError;
  readonly retry: boolean;
  /** The provider certainly billed nothing: it said so before it began. */
  readonly refused: boolean;
  readonly feedback: RateFeedback;
  readonly status?: number;
  /** The provider's own words and parameter, for learning what it does not accept. */
  readonly complaint: string;
  /** The provider turned away this one question and would take others. */
  readonly rejectedInput?: 'content_filter' | 'length';
  /** Of a question that is too long together with its answer: how many tokens are left for the answer. */
  readonly room?: number;
  /** Something came that is no answer, of work that was done: it may come again, and each time it is billed. */
  readonly unreadable?: boolean;
}

export interface CallContext {
  readonly baseUrl: string;
  readonly model: string;
  readonly keyName: string;
  /** Takes the key out of a text. */
  readonly redact: (text: string) => string;
}

/** Removes a key, and anything that has the form of one, from a text that may be shown or kept. */
export function createRedactor(key: string): (text: string) => string {
  return (text) => (key === '' ? text : text.replaceAll(key, '[key]')).replace(/\b(?:sk|xai|gsk|pplx|hf|nvapi|r8|AIza)[-_]?[\w*.-]{12,}|\bsk-[\w*.-]{4,}/g, '[key]');
}

/** Codes of a system call or of fetch, which say more than `Connection error.` */
function networkCode(error: unknown): string {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if ('code' in at && typeof at.code === 'string') return at.code;
  }
  return error instanceof Error ? error.message : String(error);
}

function causeOf<T extends Error>(error: unknown, kind: abstract new (...args: never[]) => T): T | undefined {
  for (let at: unknown = error; at instanceof Error; at = at.cause) if (at instanceof kind) return at;
  return undefined;
}

/** No way to the server: nothing was sent. */
const UNREACHED = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'ENETUNREACH', 'EHOSTUNREACH', 'UND_ERR_CONNECT_TIMEOUT']);

/*
 * What providers and gateways say, in their wordings: OpenAI, Azure, Anthropic and Gemini behind compatible endpoints, Mistral,
 * DeepSeek, xAI, Groq, OpenRouter, LiteLLM, vLLM, SGLang, llama.cpp, Ollama, TGI, Alibaba, Zhipu. test/dialects cites the sources.
 */
const QUOTA = /insufficient[_ -]?(?:quota|balance|credits?|funds)|exceeded your (?:current )?quota|quota (?:exceeded|exhausted)|billing_?(?:hard_limit|not_active|details)|hard limit|credit balance|(?:out of|no|not enough|run out of|lack of) (?:more )?(?:credits|funds|balance)|requires? (?:more|at least) .{0,20}credits|payment required|access_terminated|arrears|spend(?:ing)? limit|budget has been exceeded|exceeded budget/i;
/** A limit for a time, though it is called a quota. */
const PASSING_QUOTA = /per[ _-]?(?:minute|second|hour)|PerMinute|retryDelay|retry in \d|try again in|retry after|rate[ _]?limit/i;
const FILTER = /content[_ ]?filter|content[_ ]?(?:policy|management)|ContentPolicyViolation|ResponsibleAIPolicy|data_?inspection|content exists risk|inappropriate content|invalid_prompt|usage (?:guidelines|policy|policies)|violat\w+ .{0,60}(?:polic|guideline|terms)|(?:flagged|blocked) (?:as|by|for|due)|flagged .{0,60}(?:moderation|violat)|moderation|prohibited_content|safety (?:system|settings|check|filter|reasons?|guidelines)|\bSAFETY\b|guardrail|sensitive (?:content|words?|information)|敏感|违规|unsafe/i;
const CONTEXT = /context[_ -]?(?:length|window|size|limit)|maximum (?:context|prompt|input|sequence)|max_(?:model|seq\w*|input)_len|(?:prompt|input|request|message|text|query|sequence|inputs?) (?:is |are |was )?too (?:long|large|big)|too (?:long|many) (?:input )?tokens|(?:input|prompt|sequence|token)s?\b.{0,60}(?:exceeds?|exceeded|longer than|larger than|greater than|is over|above) .{0,60}(?:max|limit|context|length|allowed|tokens)|exceed_context|longer than (?:the )?(?:model|max)|reduce (?:the|your) (?:length|prompt|input|message)|string too long|string_above_max_length|request too large|payload too large|entity too large|must be less than .{0,20}(?:max|tokens)|`?inputs?`? (?:tokens )?\+ .{0,20}max_new_tokens|range of input length|exceed\w* (?:the )?(?:model )?(?:token|input|length) limit/i;
const KEY = /api[_ -]?key (?:not valid|is (?:invalid|missing|not valid|expired|disabled|incorrect))|(?:invalid|incorrect|missing|wrong|no|expired|unauthorized) (?:\w+ )?(?:api[_ -]?key|authentication|credentials?|access token|bearer)|API_KEY_INVALID|invalid_api_key|authentication[_ ](?:error|fails|failed)|no auth credentials|token (?:expired|is invalid|incorrect)/i;
const MODEL = /model_not_found|ModelNotFound|(?:unknown|no such|invalid) model(?! (?:parameter|input))|model not (?:exist|found)|not a valid model|model(?: id| name)?:? ['"`]?[\w./:@-]{1,120}['"`]? (?:(?:was |is )?not (?:found|available|a valid|currently)|does ?n[o']t exist|not exist|is invalid|is no longer|has been (?:deprecated|decommissioned|retired))|DeploymentNotFound|no endpoints found|try pulling it first|there are no healthy deployments|invalid model name/i;
const BUSY = /overloaded|capacity|loading|server is busy|try again later|temporarily unavailable|system_?busy/i;

/** A question of so many tokens is never answered at this limit a minute, however long one waits. */
const NEVER_FITS = /request too large for|tokens? .{0,40}exceeds? .{0,40}(?:per[ -]minute|tpm|rate)|requested \d+.{0,40}please reduce/i;

interface Said {
  readonly status: number;
  /** Message, code, type: everything that names what happened. */
  readonly all: string;
  readonly waits: boolean;
}

function rejectionOf({ status, all }: Said): CallFailure['rejectedInput'] {
  if (status === 429) return NEVER_FITS.test(all) ? 'length' : undefined;
  if (![400, 403, 413, 422, 446, 451, 500, 502].includes(status)) return undefined;
  // A limit on what is written is a setting, the same for all questions; see endpoint-traits.ts.
  const aboutRoom = /max_?(?:completion_|new_|output_)?tokens\b.{0,40}(?:is )?too (?:large|high|big)|at most \d+ (?:completion|output) tokens/i.test(all);
  if (CONTEXT.test(all) && !aboutRoom) return 'length';
  if (status === 413) return 'length';
  if (status === 451) return 'content_filter';
  return FILTER.test(all) ? 'content_filter' : undefined;
}

function codeOf(said: Said): ErrorCode {
  const { status, all, waits } = said;
  if (status === 402) return 'QUOTA_EXHAUSTED';
  if (QUOTA.test(all) && ([400, 401, 403, 422, 429].includes(status) || status >= 500)) {
    // An account that is empty says so; a limit that passes says when.
    const passing = status === 429 && (waits || PASSING_QUOTA.test(all)) && !/insufficient_quota|insufficient[_ ]?(?:balance|credits?|funds)/i.test(all);
    return passing ? 'RATE_LIMITED' : 'QUOTA_EXHAUSTED';
  }
  switch (status) {
    case 401:
      return 'UNAUTHORIZED';
    case 403:
      return MODEL.test(all) ? 'NOT_FOUND' : 'UNAUTHORIZED';
    case 404:
    case 410:
      return 'NOT_FOUND';
    case 429:
      return 'RATE_LIMITED';
    case 408:
    case 409:
    case 425:
    case 499:
      return 'UNAVAILABLE';
    default:
  }
  if (status >= 500) return KEY.test(all) && !BUSY.test(all) ? 'UNAUTHORIZED' : 'UNAVAILABLE';
  if (KEY.test(all)) return 'UNAUTHORIZED';
  if (MODEL.test(all)) return 'NOT_FOUND';
  return 'BAD_INPUT';
}

function expectation(code: ErrorCode, context: CallContext): string {
  switch (code) {
    case 'UNAUTHORIZED':
      return `expected ${context.baseUrl} to accept the key in ${context.keyName} for the model ${context.model}`;
    case 'QUOTA_EXHAUSTED':
      return `expected quota left for the key in ${context.keyName} at ${context.baseUrl}`;
    case 'NOT_FOUND':
      return `expected the model ${context.model} at ${context.baseUrl}`;
    case 'BAD_INPUT':
      return `expected ${context.baseUrl} to accept the request to ${context.model}`;
    default:
      return `expected an answer of ${context.model} from ${context.baseUrl}`;
  }
}

/** `Please retry in 28.5s`, `"retryDelay": "28s"`: as milliseconds. */
function saidWaitMs(words: string): number | undefined {
  const [, amount, unit] = /(?:retry|try again) (?:in|after) (\d+(?:\.\d+)?) ?(ms|milliseconds?|s\b|seconds?|m\b|minutes?)?/i.exec(words) ?? [];
  if (amount === undefined) return undefined;
  const scale = unit === undefined || /^s/i.test(unit) ? 1_000 : /^m(?:s|illi)/i.test(unit) ? 1 : 60_000;
  return Math.ceil(Number(amount) * scale);
}

/** Work that was begun may have been billed: a gateway that gave up waiting, a server that failed at it. Overloaded ones have not begun. */
const MAYBE_BILLED = new Set([408, 409, 499, 500, 502, 504, 520, 522, 523, 524]);

function statusFailure(error: APIError<number, Headers, object | undefined>, context: CallContext): CallFailure {
  const { status, headers } = error;
  const words = context.redact(error.message.replace(/^\d{3} /, '')).slice(0, 500);
  const names = [error.code, error.type].filter((name) => typeof name === 'string');
  const wait = retryAfterMs(headers) ?? saidWaitMs(words);
  const said: Said = { status, all: [words, ...names].join(' '), waits: wait !== undefined };
  const rejectedInput = rejectionOf(said);
  const code = rejectedInput === undefined ? codeOf(said) : 'BAD_INPUT';
  return {
    error: new StillhouseError(code, `${expectation(code, context)}, got ${status}: ${words === '' ? 'no words' : words}`, {
      ...(wait === undefined ? {} : { retryAfterMs: wait }),
      details: { status, code: names[0] ?? '', ...(error.requestID == null ? {} : { requestId: error.requestID }) },
    }),
    retry: code === 'RATE_LIMITED' || code === 'UNAVAILABLE',
    refused: !MAYBE_BILLED.has(status),
    // An exhausted quota is no sign of speed.
    feedback: { ...rateFeedback(headers, code === 'RATE_LIMITED' ? status : 200), ...(code === 'RATE_LIMITED' && wait !== undefined ? { retryAfterMs: wait } : {}) },
    status,
    complaint: `${error.param ?? ''} ${words} ${names.join(' ')}`,
    ...(rejectedInput === undefined ? {} : { rejectedInput }),
    ...(rejectedInput === 'length' ? roomLeft(words) : {}),
  };
}

/** "maximum context length is 4096 tokens. However, you requested 5096 tokens (900 in the messages, 4196 in the completion)" leaves 3196. */
function roomLeft(words: string): Pick<CallFailure, 'room'> {
  const number = (pattern: RegExp): number | undefined => {
    const found = pattern.exec(words)?.[1]?.replace(/[,_]/g, '');
    return found === undefined ? undefined : Number(found);
  };
  const most = number(/(?:context (?:length|window|size)(?: is| of)?|must be <=|context limit of) ?\(?(\d[\d,_]*)/i);
  const asked = number(/(\d[\d,_]*) (?:tokens )?(?:in the (?:messages|prompt|input)|of text input|tokens from the input|`?inputs`? tokens|input tokens|prompt tokens)/i);
  return most === undefined || asked === undefined || asked >= most ? {} : { room: most - asked };
}

/** What came is no answer, though the call ended well. */
export function unreadableFailure(came: string, context: CallContext): CallFailure {
  const error = new StillhouseError('BAD_INPUT', `expected a chat completion of ${context.model} from ${context.baseUrl}, got ${context.redact(came)}`);
  return { error, retry: true, refused: false, feedback: {}, complaint: '', unreadable: true };
}

/** Never carries the original error: it may quote the key. */
export function callFailure(error: unknown, context: CallContext): CallFailure {
  if (error instanceof APIError && typeof error.status === 'number' && error.headers !== undefined) {
    return statusFailure(error as APIError<number, Headers, object | undefined>, context);
  }
  const unreadable = causeOf(error, UnreadableResponse);
  if (unreadable !== undefined) return unreadableFailure(unreadable.message, context);
  if (error instanceof StillhouseError) {
    return { error, retry: error.code === 'UNAVAILABLE', refused: false, feedback: {}, complaint: '' };
  }
  const what = error instanceof APIConnectionTimeoutError ? 'no answer in time' : context.redact(networkCode(error));
  return {
    error: new StillhouseError('UNAVAILABLE', `${expectation('UNAVAILABLE', context)}, got ${what}`),
    retry: true,
    refused: UNREACHED.has(what),
    feedback: {},
    complaint: '',
  };
}
