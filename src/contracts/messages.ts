/** Updates and queries of the campaign workflow. The string equals the constant's stem. */
import { defineQuery, defineUpdate } from '@temporalio/workflow';
import type { Budget, CampaignState, RoundSummary } from './state.ts';

export interface PauseInput {
  readonly reason: string;
}
/** Each limit given replaces the old one and must not be lower than it. */
export type RaiseBudgetInput = Budget;

export const pauseUpdate = defineUpdate<CampaignState, [PauseInput]>('pause');
export const resumeUpdate = defineUpdate<CampaignState, []>('resume');
/** Ends the campaign after its report is written; what was bought and trained stays. */
export const cancelUpdate = defineUpdate<CampaignState, [PauseInput]>('cancel');
export const raiseBudgetUpdate = defineUpdate<CampaignState, [RaiseBudgetInput]>('raiseBudget');

export const stateQuery = defineQuery<CampaignState>('state');
/** The latest rounds, newest last, at most two: all of them are in the artifact `state.history`. */
export const roundsQuery = defineQuery<readonly RoundSummary[]>('rounds');
