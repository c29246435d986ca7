/**
 * Timing classes. Liveness is the heartbeat's business: a worker that dies is noticed within
 * HEARTBEAT, whatever the other limits say. startToClose bounds one attempt, scheduleToClose all of
 * them; attempts are not counted, because a redeployed worker counts as a failed attempt. What
 * retrying cannot cure is said to be so in activities/failures.ts, and pauses the campaign at once.
 */
import type { ActivityOptions } from '@temporalio/common';
import type { ProbeIntervals } from '../src/contracts/campaign.ts';
import { ORCHESTRATOR_QUEUE, TEACHER_QUEUE, TRAINER_QUEUE } from '../src/contracts/names.ts';

/**
 * Beats are sent at half of it or more often. Twenty seconds ride out a garbage collection and a
 * slow disk, and lose at most as much time when a process is killed.
 */
const HEARTBEAT = '20 seconds';

/** Backoff of local work: 1, 2, 4 … 30 s, so that a restarted worker finds its work at once. */
const LOCAL_RETRY = { initialInterval: '1 second', backoffCoefficient: 2, maximumInterval: '30 seconds' } as const;

/** Rows in, rows out: planning, filtering, scoring, reporting. Seconds as a rule, minutes at a million rows. */
export const ROW_WORK: ActivityOptions = {
  taskQueue: ORCHESTRATOR_QUEUE,
  startToCloseTimeout: '30 minutes',
  scheduleToCloseTimeout: '6 hours',
  heartbeatTimeout: HEARTBEAT,
  retry: LOCAL_RETRY,
};

/** The first step may download a dataset over a slow line; resumed downloads make every attempt count. */
export const PREPARATION: ActivityOptions = { ...ROW_WORK, startToCloseTimeout: '4 hours', scheduleToCloseTimeout: '1 day' };

/**
 * One batch of teacher or judge calls: minutes as a rule. The budget of three days outlasts workers
 * that are away and a rate limit that lets a few calls through an hour; answers already bought are
 * looked up, so that a late attempt costs nothing twice. A provider's outage is the workflow's
 * business: the attempt gives up after a minute of failures, and the campaign pauses and asks again.
 */
export const TEACHER_CALLS: ActivityOptions = {
  taskQueue: TEACHER_QUEUE,
  startToCloseTimeout: '6 hours',
  scheduleToCloseTimeout: '3 days',
  heartbeatTimeout: HEARTBEAT,
  retry: { initialInterval: '1 second', backoffCoefficient: 2, maximumInterval: '2 minutes' },
  // A cancelled batch still says what it has bought: that takes a beat of its heart, and the calls in flight.
  cancellationType: 'WAIT_CANCELLATION_COMPLETED',
};

/**
 * A provider that is away: asked again after half a minute, then twice as long each time. A short outage
 * costs a minute, one of a day some sixty questions, and one that is over is noticed within half an hour.
 */
export const PROVIDER_PROBES: ProbeIntervals = { firstMs: 30_000, longestMs: 30 * 60_000 };

/** One epoch. The worst on one processor takes hours; every attempt starts from the newest checkpoint. */
export const TRAIN_EPOCH: ActivityOptions = {
  taskQueue: TRAINER_QUEUE,
  startToCloseTimeout: '1 day',
  scheduleToCloseTimeout: '7 days',
  heartbeatTimeout: HEARTBEAT,
  retry: { initialInterval: '1 second', backoffCoefficient: 2, maximumInterval: '2 minutes' },
};

/** The student answers rows, or an adapter is written: minutes, hours for many rows on one processor. */
export const DEVICE_WORK: ActivityOptions = { ...TRAIN_EPOCH, startToCloseTimeout: '6 hours', scheduleToCloseTimeout: '2 days', retry: LOCAL_RETRY };

/** A provider trains: minutes as a rule, a day where its queue is long. Attempts find the job that the ones before them made. */
export const HOSTED_TRAINING: ActivityOptions = { ...TEACHER_CALLS, startToCloseTimeout: '2 days', scheduleToCloseTimeout: '7 days' };

/** One or two calls to the provider. A campaign that is cancelled must end: it does not wait for a provider that is away for long. */
export const HOSTED_CANCELLATION: ActivityOptions = { ...TEACHER_CALLS, startToCloseTimeout: '2 minutes', scheduleToCloseTimeout: '10 minutes', retry: LOCAL_RETRY };
