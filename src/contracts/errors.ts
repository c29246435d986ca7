/**
 * The one root of every error that Stillhouse raises on purpose.
 *
 * A message says what was expected, what came, and where. How a code becomes an HTTP status is
 * decided in src/api/errors.ts alone; whether it is retried, in activities/failures.ts alone.
 */
export type ErrorCode =
  /** A spec, file or argument is not what it should be. Retrying cannot help. */
  | 'BAD_INPUT'
  /** A file, model, dataset or campaign that was named does not exist. */
  | 'NOT_FOUND'
  /** The name is taken by something else. */
  | 'CONFLICT'
  /** A credential is missing, wrong or lacks a right. */
  | 'UNAUTHORIZED'
  /** The provider refuses more work until someone pays or raises a quota. */
  | 'QUOTA_EXHAUSTED'
  /** The provider asks us to slow down; `retryAfterMs` says for how long. */
  | 'RATE_LIMITED'
  /** A server, network or process failed in a way that may pass. */
  | 'UNAVAILABLE'
  /** Nothing is wrong: the work goes on elsewhere; `retryAfterMs` says when to look again. */
  | 'PENDING'
  /** Bytes differ from their recorded hash or format. */
  | 'CORRUPT'
  /** The disk is full. */
  | 'DISK_FULL'
  /** A port or file that must be exclusive is held by someone else. */
  | 'IN_USE'
  /** A checkpoint is gone or belongs to other settings, rows or weights: its training begins anew. */
  | 'STALE'
  /** Training diverged: NaN or infinite loss. */
  | 'DIVERGED'
  /** A host's memory or time cannot hold what was asked. */
  | 'TOO_LARGE'
  /** A child process ended before its job did. */
  | 'PROCESS_DIED'
  /** The caller asked for the work to stop. */
  | 'CANCELLED'
  /** A defect of ours. */
  | 'INTERNAL';

export interface ErrorOptions {
  readonly cause?: unknown;
  /** Milliseconds after which a retry may succeed. */
  readonly retryAfterMs?: number;
  /** Facts for a program to read: the path of a key, a row, a file. Never a secret. */
  readonly details?: Readonly<Record<string, unknown>>;
}

export class StillhouseError extends Error {
  override readonly name: string = 'StillhouseError';
  readonly code: ErrorCode;
  readonly retryAfterMs: number | undefined;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryAfterMs = options.retryAfterMs;
    this.details = options.details ?? {};
  }
}
