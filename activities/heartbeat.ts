/** Supervision of an activity's work: beats while it runs, a signal when it should stop, failures in Temporal's terms. */
import { Context } from '@temporalio/activity';
import type { FailureFacts } from '../src/contracts/activities.ts';
import { isProcessDeath, toFailure } from './failures.ts';
import type { FailureContext } from './failures.ts';

export interface Supervision {
  /** Aborted when the activity is cancelled or its worker shuts down. */
  readonly signal: AbortSignal;
  /** Of the workflow run that scheduled the activity: one for each round of a campaign. */
  readonly workflowRunId: string;
  /** What the attempt before left, unchecked: it may come from another release. */
  readonly previousDetails: unknown;
  /** Replaces the details that every beat carries, and beats at once. */
  beat(details: unknown): void;
}

export interface SupervisionOptions extends Pick<FailureContext, 'surfacesOutages'> {
  /** What the newest heartbeat details say of work that is kept: a failure tells it to the workflow, which never sees heartbeats. */
  readonly keeps?: (details: unknown) => FailureFacts | undefined;
}

/**
 * Beats at a quarter of the activity's own heartbeat timeout, so that the two cannot drift apart;
 * a cancellation arrives with the answer to a beat and thus within that time. An activity that is
 * retried keeps the details of the attempt before until it has newer ones.
 */
export async function supervised<T>(work: (supervision: Supervision) => Promise<T>, { keeps, ...options }: SupervisionOptions = {}): Promise<T> {
  const context = Context.current();
  const { heartbeatTimeoutMs, heartbeatDetails, workflowExecution } = context.info;
  const signal = context.cancellationSignal;
  const deathsBefore = deathsOf(heartbeatDetails);
  let details: unknown = heartbeatDetails;
  const send = (): void => (details === undefined || details === null ? context.heartbeat() : context.heartbeat(details));
  const timer = heartbeatTimeoutMs === undefined ? undefined : setInterval(send, Math.max(50, heartbeatTimeoutMs / 4));
  const supervision: Supervision = {
    signal,
    workflowRunId: workflowExecution?.runId ?? '',
    previousDetails: heartbeatDetails,
    beat: (next) => {
      details = withDeaths(next, deathsBefore);
      send();
    },
  };
  try {
    return await work(supervision);
  } catch (error) {
    const deaths = deathsBefore + (isProcessDeath(error) && !signal.aborted ? 1 : 0);
    const kept = keeps?.(details);
    // What an activity says last before it fails reaches its next attempt.
    if (deaths > deathsBefore) {
      details = withDeaths(details, deaths);
      send();
    }
    throw toFailure(error, { ...options, deaths, ...(kept === undefined ? {} : { kept }), ...(signal.aborted ? { stopped: signal.reason as unknown } : {}) });
  } finally {
    clearInterval(timer);
  }
}

/** Processes that died under the attempts before; they travel in the details of every beat. */
function deathsOf(details: unknown): number {
  const deaths: unknown = typeof details === 'object' && details !== null && 'deaths' in details ? details.deaths : 0;
  return typeof deaths === 'number' && Number.isSafeInteger(deaths) && deaths > 0 ? deaths : 0;
}

const withDeaths = (details: unknown, deaths: number): unknown => (deaths === 0 ? details : { ...(typeof details === 'object' && details !== null ? details : {}), deaths });
