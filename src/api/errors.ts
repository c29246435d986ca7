/** The one place where an error becomes an HTTP answer. */
import type { FastifyError } from 'fastify';
import { StillhouseError } from '../contracts/errors.ts';
import type { ErrorCode } from '../contracts/errors.ts';

const STATUS: Readonly<Record<ErrorCode, number>> = {
  BAD_INPUT: 400,
  NOT_FOUND: 404,
  CONFLICT: 409,
  UNAUTHORIZED: 401,
  QUOTA_EXHAUSTED: 402,
  RATE_LIMITED: 429,
  UNAVAILABLE: 503,
  PENDING: 503,
  CORRUPT: 500,
  DISK_FULL: 507,
  IN_USE: 409,
  STALE: 409,
  DIVERGED: 500,
  TOO_LARGE: 413,
  PROCESS_DIED: 500,
  CANCELLED: 409,
  INTERNAL: 500,
};

/** The shape of every answer that is not a success. */
export interface ErrorBody {
  readonly error: { readonly code: ErrorCode; readonly message: string; readonly details: Readonly<Record<string, unknown>> };
}

export interface ErrorAnswer {
  readonly status: number;
  readonly body: ErrorBody;
  readonly retryAfterSeconds?: number;
  /** The text was withheld, so that it has to be in the log. */
  readonly hidden: boolean;
}

/** What a caller may read of a failure on our side. */
const HIDDEN_TEXT: Partial<Record<ErrorCode, string>> = {
  UNAVAILABLE: 'a part of the service does not answer; try again, and see the log for the cause',
  DISK_FULL: 'the disk of the service is full',
};

/** A code for a refusal of the HTTP layer itself: a body that is not JSON, too large, of an unknown type. */
function codeOfStatus(status: number): ErrorCode {
  if (status === 404) return 'NOT_FOUND';
  if (status === 413) return 'TOO_LARGE';
  if (status === 429) return 'RATE_LIMITED';
  return status < 500 ? 'BAD_INPUT' : 'INTERNAL';
}

export function answerOf(error: FastifyError | Error, requestId: string): ErrorAnswer {
  if (error instanceof StillhouseError) {
    const status = STATUS[error.code];
    const hidden = status >= 500;
    return {
      status,
      hidden,
      ...(error.retryAfterMs === undefined ? {} : { retryAfterSeconds: Math.ceil(error.retryAfterMs / 1_000) }),
      body: {
        error: hidden
          ? { code: error.code, message: HIDDEN_TEXT[error.code] ?? 'the service failed; see its log for the cause', details: { requestId } }
          : { code: error.code, message: error.message, details: error.details },
      },
    };
  }
  const status = 'statusCode' in error && typeof error.statusCode === 'number' ? error.statusCode : 500;
  const hidden = status >= 500;
  const code = codeOfStatus(status);
  return {
    status,
    hidden,
    body: { error: hidden ? { code, message: 'the service failed; see its log for the cause', details: { requestId } } : { code, message: error.message, details: {} } },
  };
}
