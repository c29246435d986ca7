/** Campaigns over Temporal: the only place where a client of Temporal is used, and its errors become ours. */
import { randomUUID } from 'node:crypto';
import {
  ApplicationFailure, Client, Connection, ServiceError, WorkflowExecutionAlreadyStartedError, WorkflowFailedError, WorkflowNotFoundError,
  WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError, isGrpcServiceError,
} from '@temporalio/client';
import type { WorkflowExecutionDescription, WorkflowExecutionInfo, WorkflowHandle } from '@temporalio/client';
import { defaultPayloadConverter, defineSearchAttributeKey, rootCause } from '@temporalio/common';
import type { CheckedSpec } from '../contracts/activities.ts';
import type { CampaignInput } from '../contracts/campaign.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { ErrorCode } from '../contracts/errors.ts';
import { cancelUpdate, pauseUpdate, raiseBudgetUpdate, resumeUpdate, roundsQuery, setSpecUpdate, setTeacherUpdate, stateQuery } from '../contracts/messages.ts';
import { CAMPAIGN_WORKFLOW, CHECK_WORKFLOW, ORCHESTRATOR_QUEUE, campaignOfWorkflowId, campaignWorkflowId, contestantOfWorkflowId, contestantWorkflowId, failureCode, failureType } from '../contracts/names.ts';
import type { CampaignState } from '../contracts/state.ts';
import type { CampaignDescription, CampaignListing, CampaignRunStatus, Campaigns, RunningActivity } from './campaigns.ts';

/** The server answers in milliseconds; the rest is for one that is just starting. */
const SERVER_DEADLINE_MS = 10_000;
/** Queries and updates need a worker: one that is there answers at once, even when it must replay. */
const WORKER_DEADLINE_MS = 5_000;

const ATTRIBUTES = {
  status: defineSearchAttributeKey('StillhouseStatus', 'KEYWORD'),
  stage: defineSearchAttributeKey('StillhouseStage', 'KEYWORD'),
  round: defineSearchAttributeKey('StillhouseRound', 'INT'),
  retention: defineSearchAttributeKey('StillhouseRetention', 'DOUBLE'),
  spentUsd: defineSearchAttributeKey('StillhouseSpentUsd', 'DOUBLE'),
};

export interface Gateway extends Campaigns {
  close(): Promise<void>;
}

/** Connects at the first call, so that an API can start before its Temporal server. */
export function openGateway(temporal: { readonly address: string; readonly namespace: string }): Gateway {
  const connection = Connection.lazy({ address: temporal.address });
  return { ...createCampaigns(new Client({ connection, namespace: temporal.namespace })), close: () => connection.close() };
}

export function createCampaigns(client: Client): Campaigns {
  const handleOf = (campaign: string): WorkflowHandle => client.workflow.getHandle(campaignWorkflowId(campaign));
  const within = <T>(deadlineMs: number, call: () => Promise<T>): Promise<T> => client.withDeadline(Date.now() + deadlineMs, call);
  const describeWorkflow = (campaign: string): Promise<WorkflowExecutionDescription> =>
    within(SERVER_DEADLINE_MS, () => handleOf(campaign).describe()).catch((error: unknown) => Promise.reject(asStillhouseError(error, campaign)));

  async function update(campaign: string, send: (handle: WorkflowHandle) => Promise<CampaignState>): Promise<CampaignState> {
    try {
      return await within(WORKER_DEADLINE_MS, () => send(handleOf(campaign)));
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) throw asStillhouseError(error, campaign);
      // Temporal says the same of a closed workflow and of one that never was; describe tells them apart.
      const { status } = await describeWorkflow(campaign);
      throw new StillhouseError('CONFLICT', `campaign ${campaign}: expected one that is not over, got one that is ${runStatus(status.name, undefined)}`, { cause: error });
    }
  }

  /** What the campaign's children do. One that has ended meanwhile does nothing. */
  async function contestantActivities(campaign: string, { raw }: WorkflowExecutionDescription): Promise<readonly RunningActivity[]> {
    const names = (raw.pendingChildren ?? []).flatMap(({ workflowId }) => contestantOfWorkflowId(campaign, workflowId ?? '') ?? []);
    const found = await Promise.all(names.map(async (contestant) => {
      const described = await within(SERVER_DEADLINE_MS, () => client.workflow.getHandle(contestantWorkflowId(campaign, contestant)).describe()).catch(() => undefined);
      return (described?.raw.pendingActivities ?? []).map((pending) => ({ ...runningActivity(pending), contestant }));
    }));
    return found.flat();
  }

  return {
    async start(input) {
      const workflowId = campaignWorkflowId(input.campaign);
      try {
        await within(SERVER_DEADLINE_MS, () => client.workflow.start(CAMPAIGN_WORKFLOW, startOptions(workflowId, input)));
        return { created: true };
      } catch (error) {
        if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw asStillhouseError(error, input.campaign);
        const { specSha256 } = memoOf(await describeWorkflow(input.campaign));
        if (specSha256 === input.spec.sha256) return { created: false };
        throw new StillhouseError('CONFLICT', `campaign ${input.campaign}: expected the spec ${specSha256} that it was started with, got ${input.spec.sha256}; give the other campaign another name`, { cause: error });
      }
    },
    async describe(campaign) {
      const description = await describeWorkflow(campaign);
      const handle = handleOf(campaign);
      const [{ state, failure }, contestants] = await Promise.all([
        stateOf(description.status.name, handle, (call) => within(WORKER_DEADLINE_MS, call)),
        contestantActivities(campaign, description),
      ]);
      return describeCampaign(campaign, description, contestants, state, failure);
    },
    async rounds(campaign) {
      try {
        return await within(WORKER_DEADLINE_MS, () => handleOf(campaign).query(roundsQuery));
      } catch (error) {
        throw asStillhouseError(error, campaign);
      }
    },
    async list() {
      const query = `WorkflowType = '${CAMPAIGN_WORKFLOW}' AND ExecutionStatus != 'ContinuedAsNew'`;
      try {
        return await within(SERVER_DEADLINE_MS, async () => {
          const listings: CampaignListing[] = [];
          for await (const info of client.workflow.list({ query })) listings.push(listing(info));
          return listings;
        });
      } catch (error) {
        throw asStillhouseError(error);
      }
    },
    pause: (campaign, reason, by) => update(campaign, (handle) => handle.executeUpdate(pauseUpdate, { args: [{ reason, ...(by === undefined ? {} : { by }) }] })),
    resume: (campaign) => update(campaign, (handle) => handle.executeUpdate(resumeUpdate)),
    cancel: (campaign, reason) => update(campaign, (handle) => handle.executeUpdate(cancelUpdate, { args: [{ reason }] })),
    raiseBudget: (campaign, budget) => update(campaign, (handle) => handle.executeUpdate(raiseBudgetUpdate, { args: [budget] })),
    setTeacher: (campaign, change) => update(campaign, (handle) => handle.executeUpdate(setTeacherUpdate, { args: [change] })),
    setSpec: (campaign, change) => update(campaign, (handle) => handle.executeUpdate(setSpecUpdate, { args: [change] })),
    async checkSpec(input) {
      try {
        const workflowId = `${CHECK_WORKFLOW}-${input.campaign}-${randomUUID()}`;
        const result: unknown = await client.workflow.execute(CHECK_WORKFLOW, { workflowId, taskQueue: ORCHESTRATOR_QUEUE, args: [input], staticSummary: `check ${input.campaign}`, workflowExecutionTimeout: '20 minutes' });
        return result as CheckedSpec;
      } catch (error) {
        throw checkFailure(error, input.campaign);
      }
    },
    async check() {
      try {
        await within(WORKER_DEADLINE_MS, () => client.workflowService.getSystemInfo({}));
      } catch (error) {
        throw asStillhouseError(error);
      }
    },
  };
}

/** What an activity failed by, in its own words and with its own code. */
function checkFailure(error: unknown, campaign: string): unknown {
  if (!(error instanceof WorkflowFailedError)) return asStillhouseError(error, campaign);
  for (let at: unknown = error.cause; at instanceof Error; at = at.cause) {
    const code = at instanceof ApplicationFailure ? failureCode(at.type) : undefined;
    if (code !== undefined) return new StillhouseError(code, at.message, { cause: error });
  }
  return new StillhouseError('UNAVAILABLE', `expected the check of ${campaign} to end, got: ${rootCause(error.cause) ?? error.message}`, { cause: error });
}

function startOptions(workflowId: string, input: CampaignInput) {
  return {
    workflowId,
    taskQueue: ORCHESTRATOR_QUEUE,
    args: [input],
    // A name belongs to one campaign for good, be it running (conflict) or closed (reuse).
    workflowIdConflictPolicy: 'FAIL',
    workflowIdReusePolicy: 'REJECT_DUPLICATE',
    staticSummary: `distill ${input.campaign}`,
    memo: { specSha256: input.spec.sha256, startedAtMs: Date.now() },
  } as const;
}

/** The final state of a campaign that is over needs no worker; one that runs is asked, and has no state where nobody answers in time. */
async function stateOf(status: string, handle: WorkflowHandle, within: <T>(call: () => Promise<T>) => Promise<T>): Promise<{ readonly state?: CampaignState; readonly failure?: string }> {
  try {
    if (status === 'COMPLETED') return { state: (await within(() => handle.result())) as CampaignState };
    if (status === 'FAILED' || status === 'TERMINATED' || status === 'TIMED_OUT') {
      const failure = await within(() => handle.result()).then(() => undefined, (error: unknown) => (error instanceof WorkflowFailedError ? (rootCause(error.cause) ?? error.message) : undefined));
      return { failure: failure ?? `the workflow was ${status.toLowerCase().replace('_', ' ')}` };
    }
    return { state: await within(() => handle.query(stateQuery)) };
  } catch {
    // No worker, or one that is restarting: the description says all that the server knows.
    return {};
  }
}

function describeCampaign(campaign: string, description: WorkflowExecutionDescription, contestants: readonly RunningActivity[], state: CampaignState | undefined, failure: string | undefined): CampaignDescription {
  const { specSha256, startedAtMs } = memoOf(description);
  const activities = [...(description.raw.pendingActivities ?? []).map(runningActivity), ...contestants];
  return {
    campaign,
    status: runStatus(description.status.name, state?.status ?? description.typedSearchAttributes.get(ATTRIBUTES.status)),
    specSha256,
    startedAtMs: state?.startedAtMs ?? startedAtMs ?? description.startTime.getTime(),
    ...(state === undefined ? {} : { state }),
    ...(failure === undefined ? {} : { failure }),
    ...(activities.length === 0 ? {} : { activities }),
    ...(description.closeTime === undefined ? {} : { closedAtMs: description.closeTime.getTime() }),
  };
}

function listing(info: WorkflowExecutionInfo): CampaignListing {
  const { typedSearchAttributes: attributes } = info;
  const [campaignStatus, stage, round, retention, spentUsd] = [
    attributes.get(ATTRIBUTES.status), attributes.get(ATTRIBUTES.stage), attributes.get(ATTRIBUTES.round), attributes.get(ATTRIBUTES.retention), attributes.get(ATTRIBUTES.spentUsd),
  ];
  return {
    campaign: campaignOfWorkflowId(info.workflowId),
    status: runStatus(info.status.name, campaignStatus),
    startedAtMs: memoOf(info).startedAtMs ?? info.startTime.getTime(),
    ...(campaignStatus === undefined ? {} : { campaignStatus }),
    ...(stage === undefined ? {} : { stage }),
    ...(round === undefined ? {} : { round }),
    ...(retention === undefined ? {} : { retention }),
    ...(spentUsd === undefined ? {} : { spentUsd }),
    ...(info.closeTime === undefined ? {} : { closedAtMs: info.closeTime.getTime() }),
  };
}

function memoOf(info: Pick<WorkflowExecutionInfo, 'memo'>): { readonly specSha256: string; readonly startedAtMs: number | undefined } {
  const { specSha256, startedAtMs } = info.memo ?? {};
  return { specSha256: typeof specSha256 === 'string' ? specSha256 : '', startedAtMs: typeof startedAtMs === 'number' ? startedAtMs : undefined };
}

/** A campaign that was cancelled by its own update completes, with a report; its state says that it was cancelled. */
function runStatus(workflow: string, campaign: string | undefined): CampaignRunStatus {
  switch (workflow) {
    case 'RUNNING':
    case 'PAUSED':
    case 'CONTINUED_AS_NEW':
      return 'running';
    case 'COMPLETED':
      return campaign === 'cancelled' ? 'cancelled' : 'completed';
    case 'CANCELLED':
      return 'cancelled';
    default:
      return 'failed';
  }
}

type PendingActivity = NonNullable<WorkflowExecutionDescription['raw']['pendingActivities']>[number];

/** Heartbeat details are for people here: what does not read as progress is left out. */
function runningActivity(pending: PendingActivity): RunningActivity {
  const payload = pending.heartbeatDetails?.payloads?.[0];
  const details: unknown = payload === undefined ? undefined : defaultPayloadConverter.fromPayload(payload);
  const fields = typeof details === 'object' && details !== null ? (details as Readonly<Record<string, unknown>>) : {};
  const number = (...names: readonly string[]): number | undefined => names.map((name) => fields[name]).find((value) => typeof value === 'number');
  const [done, total, lossNats] = [number('done', 'step'), number('total', 'steps'), number('lossNats')];
  const lastFailure = pending.lastFailure?.message;
  return {
    name: pending.activityType?.name ?? 'unknown',
    attempt: pending.attempt ?? 1,
    ...(done === undefined ? {} : { done }),
    ...(total === undefined ? {} : { total }),
    ...(lossNats === undefined ? {} : { lossNats }),
    ...Object.fromEntries(['epoch', 'epochs', 'tokensPerSecond'].flatMap((name) => { const value = number(name); return value === undefined ? [] : [[name, value]]; })),
    ...(typeof fields['note'] === 'string' ? { note: fields['note'] } : {}),
    ...(typeof lastFailure === 'string' && lastFailure !== '' ? { lastFailure } : {}),
  };
}

/** By gRPC status (grpc.github.io/grpc/core/md_doc_statuscodes.html); those that are absent are defects of ours. */
const GRPC_CODES: ReadonlyMap<number, ErrorCode> = new Map([
  [3, 'BAD_INPUT'], // INVALID_ARGUMENT
  [4, 'UNAVAILABLE'], // DEADLINE_EXCEEDED
  [5, 'NOT_FOUND'],
  [7, 'UNAUTHORIZED'], // PERMISSION_DENIED
  [8, 'UNAVAILABLE'], // RESOURCE_EXHAUSTED
  [9, 'UNAVAILABLE'], // FAILED_PRECONDITION: no worker polls, or the workflow task cannot be done
  [14, 'UNAVAILABLE'],
  [16, 'UNAUTHORIZED'], // UNAUTHENTICATED
]);

function asStillhouseError(error: unknown, campaign?: string): StillhouseError {
  const where = campaign === undefined ? 'Temporal' : `campaign ${campaign}`;
  if (error instanceof StillhouseError) return error;
  if (error instanceof WorkflowNotFoundError) return new StillhouseError('NOT_FOUND', `${where}: expected a campaign that was started, got none of that name`, { cause: error });
  if (error instanceof WorkflowUpdateFailedError && error.cause instanceof ApplicationFailure) {
    return new StillhouseError(codeOf(error.cause.type), `${where}: ${error.cause.message}`, { cause: error });
  }
  if (error instanceof WorkflowUpdateRPCTimeoutOrCancelledError) {
    return new StillhouseError('UNAVAILABLE', `${where}: expected an answer from a worker within ${WORKER_DEADLINE_MS} ms, got none: is an orchestrator worker running?`, { cause: error });
  }
  const grpc = error instanceof ServiceError && isGrpcServiceError(error.cause) ? error.cause : error;
  if (isGrpcServiceError(grpc)) {
    const code = GRPC_CODES.get(grpc.code) ?? 'INTERNAL';
    const hint = code === 'UNAVAILABLE' ? ': is the Temporal server up, and a worker running?' : '';
    return new StillhouseError(code, `${where}: expected an answer from the Temporal server, got ${grpc.details}${hint}`, { cause: error });
  }
  return new StillhouseError('INTERNAL', `${where}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
}

/** What the workflow's validators throw carries our code in its type. */
function codeOf(type: string | null | undefined): ErrorCode {
  const code = (['BAD_INPUT', 'CONFLICT'] as const).find((known) => failureType(known) === type);
  return code ?? 'INTERNAL';
}
