/** Messages of the workflows. The string equals the constant's stem. */
import { defineQuery, defineSignal, defineUpdate } from '@temporalio/workflow';
import type { ArtifactRef } from './artifacts.ts';
import type { ContestantOrder, ContestantProgress, ContestantReport } from './contestant.ts';
import type { CampaignPlan } from './campaign.ts';
import type { Budget, CampaignState, RoundSummary } from './state.ts';

export interface PauseInput {
  readonly reason: string;
  /** Who asks for it, for the next person. */
  readonly by?: string;
}
/** Each limit given replaces the old one and must not be lower than it. */
export type RaiseBudgetInput = Budget;

export interface SetTeacherInput {
  /** The spec with the new teacher, stored; `teachers` lists all that the campaign has had. */
  readonly spec: ArtifactRef;
  /** SHA-256 of the spec that it replaces: two changes at once cannot undo each other. */
  readonly replaces: string;
  /** The numbers of the new spec. */
  readonly plan?: CampaignPlan;
  /** Why a training under way is begun anew by the new spec, where it is. */
  readonly outdates?: string;
}

/** The spec with other settings of what is still to come; what was bought stays as it is. */
export interface SetSpecInput extends SetTeacherInput {
  readonly plan: CampaignPlan;
}

export const pauseUpdate = defineUpdate<CampaignState, [PauseInput]>('pause');
export const resumeUpdate = defineUpdate<CampaignState, []>('resume');
/** Ends the campaign after its report is written; what was bought and trained stays. */
export const cancelUpdate = defineUpdate<CampaignState, [PauseInput]>('cancel');
export const raiseBudgetUpdate = defineUpdate<CampaignState, [RaiseBudgetInput]>('raiseBudget');
/** Questions without an answer go to the new teacher; what the earlier ones answered stays in use. */
export const setTeacherUpdate = defineUpdate<CampaignState, [SetTeacherInput]>('setTeacher');
/** Later steps go by the new settings. A campaign whose pause they may mend goes on. */
export const setSpecUpdate = defineUpdate<CampaignState, [SetSpecInput]>('setSpec');

export const stateQuery = defineQuery<CampaignState>('state');
/** The latest rounds, newest last, at most two: all of them are in the artifact `state.history`. */
export const roundsQuery = defineQuery<readonly RoundSummary[]>('rounds');

/** The campaign tells a contestant what to do next. */
export const contestantOrderSignal = defineSignal<[ContestantOrder]>('contestantOrder');
/** A contestant tells its campaign what has come of an order. */
export const contestantReportSignal = defineSignal<[ContestantReport]>('contestantReport');
export const contestantQuery = defineQuery<ContestantProgress>('contestant');
