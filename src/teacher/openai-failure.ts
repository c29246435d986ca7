/** What a failed call means: whether trying again can help, whether it may have been billed, and what to tell a person. */
import { APIConnectionTimeoutError, APIError } from 'openai';
import { StillhouseError } from '../contracts/errors.ts';
import type { ErrorCode } from '../contracts/errors.ts';
import { rateFeedback, retryAfterMs } from './rate-headers.ts';
import type { RateFeedback } from './rate-headers.ts';

export interface CallFailure {
  readonly error: StillhouseError;
  readonly retry: boolean;
  /** The provider certainly did no work: it said so before it began. */
  readonly refused: boolean;
  readonly feedback: RateFeedback;
  readonly status?: number;
  /** The provider's own words and parameter, for learning what it does not accept. */
  readonly complaint: string;
  /** The provider's code when it turned away this one question and would take others. */
  readonly rejectedInput?: 'content_filter' | 'length';
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
  return (text) => (key === '' ? text : text.replaceAll(key, '[key]')).replace(/\bsk-[\w*.-]{4,}/g, '[key]');
}

/** Codes of a system call or of fetch, which say more than `Connection error.` */
function networkCode(error: unknown): string {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if ('code' in at && typeof at.code === 'string') return at.code;
  }
  return error instanceof Error ? error.message : String(error);
}

const QUOTA_CODES = new Set(['insufficient_quota', 'billing_hard_limit_reached', 'billing_not_active', 'access_terminated']);
const FILTER_CODES = new Set(['content_filter', 'content_policy_violation']);

function codeOf(status: number, quota: boolean): ErrorCode {
  if (quota || status === 402) return 'QUOTA_EXHAUSTED';
  switch (status) {
    case 401:
    case 403:
      return 'UNAUTHORIZED';
    case 404:
      return 'NOT_FOUND';
    case 429:
      return 'RATE_LIMITED';
    case 408:
    case 409:
      return 'UNAVAILABLE';
    default:
      return status >= 500 ? 'UNAVAILABLE' : 'BAD_INPUT';
  }
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

function statusFailure(error: APIError<number, Headers, object | undefined>, context: CallContext): CallFailure {
  const { status, headers } = error;
  const words = context.redact(error.message.replace(/^\d{3} /, '')).slice(0, 500);
  const providerCode = error.code ?? error.type ?? '';
  const code = codeOf(status, QUOTA_CODES.has(error.code ?? '') || QUOTA_CODES.has(error.type ?? ''));
  const wait = retryAfterMs(headers);
  const retry = code === 'RATE_LIMITED' || code === 'UNAVAILABLE';
  const rejectedInput = status === 400 && FILTER_CODES.has(providerCode) ? 'content_filter' as const
    : status === 400 && error.code === 'context_length_exceeded' ? 'length' as const : undefined;
  return {
    error: new StillhouseError(code, `${expectation(code, context)}, got ${status}: ${words}`, {
      ...(wait === undefined ? {} : { retryAfterMs: wait }),
      details: { status, code: providerCode, ...(error.requestID == null ? {} : { requestId: error.requestID }) },
    }),
    retry,
    refused: status < 500 && status !== 408 && status !== 409,
    // An exhausted quota is no sign of speed.
    feedback: rateFeedback(headers, code === 'RATE_LIMITED' ? status : 200),
    status,
    complaint: `${error.param ?? ''} ${words}`,
    ...(rejectedInput === undefined ? {} : { rejectedInput }),
  };
}

/** Never carries the original error: it may quote the key. */
export function callFailure(error: unknown, context: CallContext): CallFailure {
  if (error instanceof APIError && typeof error.status === 'number' && error.headers !== undefined) {
    return statusFailure(error as APIError<number, Headers, object | undefined>, context);
  }
  if (error instanceof StillhouseError) {
    return { error, retry: error.code === 'UNAVAILABLE', refused: false, feedback: {}, complaint: '' };
  }
  const what = error instanceof APIConnectionTimeoutError ? 'no answer in time' : context.redact(networkCode(error));
  return {
    error: new StillhouseError('UNAVAILABLE', `${expectation('UNAVAILABLE', context)}, got ${what}`),
    retry: true,
    refused: what === 'ECONNREFUSED' || what === 'ENOTFOUND',
    feedback: {},
    complaint: '',
  };
}
