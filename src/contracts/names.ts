/** Names that two processes must agree on. Each string equals its constant's stem. */
import type { ErrorCode } from './errors.ts';

export const ORCHESTRATOR_QUEUE = 'orchestrator';
export const TEACHER_QUEUE = 'teacher';
export const TRAINER_QUEUE = 'trainer';

export const CAMPAIGN_WORKFLOW = 'campaign';

/** Workflow id of a campaign: its name is its identity. */
export const campaignWorkflowId = (campaign: string): string => `campaign-${campaign}`;
export const campaignOfWorkflowId = (workflowId: string): string => workflowId.replace(/^campaign-/, '');

export const CHECK_WORKFLOW = 'check';

export const CONTESTANT_WORKFLOW = 'contestant';
/** Workflow id of a contestant in a campaign's tournament. */
export const contestantWorkflowId = (campaign: string, contestant: string): string => `contestant-${campaign}/${contestant}`;

/** The contestant whose workflow it is; undefined for any other workflow. */
export function contestantOfWorkflowId(campaign: string, workflowId: string): string | undefined {
  const before = contestantWorkflowId(campaign, '');
  return workflowId.startsWith(before) ? workflowId.slice(before.length) : undefined;
}

/** Search attributes, for lists and dashboards only: no decision may read them. */
export const SEARCH_ATTRIBUTES = {
  StillhouseCampaign: 'Keyword',
  StillhouseStatus: 'Keyword',
  StillhouseStage: 'Keyword',
  StillhouseRound: 'Int',
  StillhouseRetention: 'Double',
  StillhouseSpentUsd: 'Double',
} as const;

/** `type` of an ApplicationFailure that stands for a StillhouseError: its code. See activities/failures.ts. */
export const failureType = (code: string): string => `Stillhouse:${code}`;
/** The code in such a type; undefined for any other. */
export const failureCode = (type: string | null | undefined): ErrorCode | undefined => (type?.startsWith('Stillhouse:') === true ? (type.slice('Stillhouse:'.length) as ErrorCode) : undefined);
