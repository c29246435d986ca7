/**
 * What an error means to Temporal: the only place that decides whether an activity is tried again.
 * A permanent failure does not end a campaign: its workflow pauses with the message as the reason.
 */
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import type { FailureFacts } from '../src/contracts/activities.ts';
import { StillhouseError } from '../src/contracts/errors.ts';
import type { ErrorCode } from '../src/contracts/errors.ts';
import { failureType } from '../src/contracts/names.ts';
import type { Spending } from '../src/contracts/state.ts';

const RETRYABLE: { readonly [Code in ErrorCode]: boolean } = {
  BAD_INPUT: false,
  NOT_FOUND: false,
  CONFLICT: false,
  UNAUTHORIZED: false,
  QUOTA_EXHAUSTED: false,
  RATE_LIMITED: true,
  UNAVAILABLE: true,
  // Looked at again by the next attempt: waiting holds no place on a worker and writes no history.
  PENDING: true,
  // The bytes would be the same the next time.
  CORRUPT: false,
  DISK_FULL: false,
  // Another process of ours that is on its way out, as a rule.
  IN_USE: true,
  // The workflow begins the training anew.
  STALE: false,
  DIVERGED: false,
  TOO_LARGE: false,
  PROCESS_DIED: true,
  CANCELLED: true,
  INTERNAL: false,
};

/** Codes of system calls that fail for a while. */
const TRANSIENT_ERRNO: ReadonlySet<string> = new Set(['ECONNREFUSED', 'ECONNRESET', 'ECONNABORTED', 'ETIMEDOUT', 'EPIPE', 'EAI_AGAIN', 'ENETUNREACH', 'EHOSTUNREACH', 'EBUSY', 'EAGAIN', 'EMFILE', 'ENFILE']);
const FULL_ERRNO: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT']);

/** A process that dies as often as this in one activity will go on doing so: too little memory, as a rule. Attempts that ended for another reason, as by a redeployed worker, do not count. */
const MAX_PROCESS_DEATHS = 10;

/** A provider that asks for a longer pause than this is away for the time being. */
const LONGEST_WAIT_MS = 60_000;

export interface FailureContext {
  /** Attempts of this activity whose process died, this one included. */
  readonly deaths?: number;
  /**
   * The work has retried an absent provider for long enough itself: its campaign should know, pause and
   * ask again later, instead of an activity that retries out of sight.
   */
  readonly surfacesOutages?: boolean;
  /** What the work has kept, whatever ended it. */
  readonly kept?: FailureFacts;
  /** Why the activity was told to stop, when it was: the reason of its cancellation signal. */
  readonly stopped?: unknown;
}

/** The failure that an activity throws in place of `error`. */
export function toFailure(error: unknown, context: FailureContext): Error {
  const facts = factsOf(error, context.kept);
  if (context.stopped !== undefined) return stoppedFailure(context.stopped, facts);
  if (error instanceof ApplicationFailure || error instanceof CancelledFailure) return error;
  const { code, message, retryAfterMs } = asStillhouseError(error);
  const { deaths = 0 } = context;
  const exhausted = code === 'PROCESS_DIED' && deaths >= MAX_PROCESS_DEATHS;
  const away = context.surfacesOutages === true && (code === 'UNAVAILABLE' || (code === 'RATE_LIMITED' && (retryAfterMs ?? 0) > LONGEST_WAIT_MS));
  return ApplicationFailure.create({
    type: failureType(code),
    message: exhausted ? `${message} (${deaths} times: is there enough memory?)` : message,
    nonRetryable: exhausted || away || !RETRYABLE[code],
    ...(facts === undefined ? {} : { details: [facts] }),
    ...(retryAfterMs === undefined ? {} : { nextRetryDelay: retryAfterMs }),
    ...(error instanceof Error ? { cause: error } : {}),
  });
}

/** Whether a process of the activity's died, not by a wish of ours. */
export const isProcessDeath = (error: unknown): boolean => error instanceof StillhouseError && error.code === 'PROCESS_DIED';

/** What the workflow can use of a failure: what was bought and kept before, for how long the provider asked not to be called, which time would do. */
function factsOf(error: unknown, kept: FailureFacts | undefined): FailureFacts | undefined {
  if (!(error instanceof StillhouseError)) return kept;
  const { retryAfterMs, details } = error;
  const spending = details['spending'] as Spending | undefined;
  const hoursNeeded = details['hoursNeeded'] as number | undefined;
  const facts: FailureFacts = {
    ...kept,
    ...(spending === undefined ? {} : { spending }), ...(retryAfterMs === undefined ? {} : { retryAfterMs }), ...(hoursNeeded === undefined ? {} : { hoursNeeded }),
  };
  return Object.keys(facts).length === 0 ? undefined : facts;
}

/** A worker that shuts down hands its activities to the next one; everything else is the caller's own wish. */
function stoppedFailure(reason: unknown, facts: FailureFacts | undefined): Error {
  const failure = reason instanceof CancelledFailure ? reason : new CancelledFailure('CANCELLED');
  if (failure.message !== 'WORKER_SHUTDOWN') return facts === undefined ? failure : new CancelledFailure(failure.message, [facts]);
  return ApplicationFailure.create({ type: failureType('CANCELLED'), message: 'the worker shuts down', nonRetryable: false });
}

function asStillhouseError(error: unknown): Pick<StillhouseError, 'code' | 'message' | 'retryAfterMs'> {
  if (error instanceof StillhouseError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const errno = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
  if (FULL_ERRNO.has(errno)) return { code: 'DISK_FULL', message: `expected free disk space, got ${message}`, retryAfterMs: undefined };
  if (TRANSIENT_ERRNO.has(errno)) return { code: 'UNAVAILABLE', message, retryAfterMs: undefined };
  return { code: 'INTERNAL', message, retryAfterMs: undefined };
}
