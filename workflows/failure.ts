/** What a failed activity tells its workflow: which kind of failure it is, in which words, and what the work has kept. */
import { ActivityFailure, ApplicationFailure, CancelledFailure, TimeoutFailure } from '@temporalio/common';
import type { FailureFacts, TrainHeartbeat } from '../src/contracts/activities.ts';
import type { ErrorCode } from '../src/contracts/errors.ts';
import { failureCode } from '../src/contracts/names.ts';

/** Long messages belong in logs: a reason travels in payloads. What it begins with says where, what it ends with says what to do. */
const LONGEST_REASON = 1_500;

export function shorten(message: string, longest = LONGEST_REASON): string {
  if (message.length <= longest) return message;
  const tail = Math.floor(longest / 3);
  return `${message.slice(0, longest - tail - 5)} ... ${message.slice(-tail)}`;
}

/** The sentence that the activity was given up with. Its causes are only fragments of it: they stay in Temporal's history. */
export function reasonOf(error: ActivityFailure): string {
  const { cause } = error;
  if (cause === undefined) return error.message;
  if (!(cause instanceof TimeoutFailure)) return cause.message;
  const before = cause.cause instanceof Error ? `; the attempt before: ${cause.cause.message}` : '';
  return `no attempt ended in time (${cause.message})${before}`;
}

/** The code of the StillhouseError that the failure stands for: activities/failures.ts. */
export const codeOf = ({ cause }: ActivityFailure): ErrorCode | undefined => (cause instanceof ApplicationFailure ? failureCode(cause.type) : undefined);

/** Of an activity that timed out, what its last heartbeat said is all that is known. */
export function factsOf({ cause }: ActivityFailure): FailureFacts | undefined {
  if (cause instanceof TimeoutFailure) return keptOf(cause.lastHeartbeatDetails);
  const [facts] = cause instanceof ApplicationFailure || cause instanceof CancelledFailure ? (cause.details ?? []) : [];
  return typeof facts === 'object' && facts !== null ? facts : undefined;
}

/** Its process died or hung: nobody said what the activity had done. */
export const isSilent = (error: unknown): boolean => error instanceof ActivityFailure && error.cause instanceof TimeoutFailure;

function keptOf(details: unknown): FailureFacts | undefined {
  if (typeof details !== 'object' || details === null) return undefined;
  const { checkpoint, checkpointStep, steps } = details as Partial<TrainHeartbeat>;
  if (checkpoint?.kind !== 'checkpoint') return undefined;
  return { checkpoint, ...(checkpointStep === undefined || steps === undefined ? {} : { checkpointStep, steps }) };
}
