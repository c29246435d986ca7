/** What the API and the CLI ask of the running campaigns. src/client/gateway.ts answers it over Temporal. */
import type { CheckedSpec } from '../contracts/activities.ts';
import type { CampaignInput, CheckInput } from '../contracts/campaign.ts';
import type { SetSpecInput, SetTeacherInput } from '../contracts/messages.ts';
import type { Budget, CampaignState, RoundSummary } from '../contracts/state.ts';

/** How the campaign's workflow stands: `failed` also stands for one that was terminated or timed out from outside. */
export type CampaignRunStatus = 'running' | 'completed' | 'cancelled' | 'failed';

/** An activity that runs or waits for its next attempt; what it last reported, a few seconds old. */
export interface RunningActivity {
  readonly name: string;
  /** In a tournament: whose it is. */
  readonly contestant?: string;
  /** 1-based. */
  readonly attempt: number;
  readonly done?: number;
  readonly total?: number;
  readonly lossNats?: number;
  /** Of a training: which epoch, counted from 1, and of how many. */
  readonly epoch?: number;
  readonly epochs?: number;
  readonly tokensPerSecond?: number;
  /** What is going on elsewhere, as at a provider that trains. */
  readonly note?: string;
  /** Why the attempt before failed. */
  readonly lastFailure?: string;
}

export interface CampaignDescription {
  readonly campaign: string;
  readonly status: CampaignRunStatus;
  /** SHA-256 of the spec artifact that it was started with. */
  readonly specSha256: string;
  /** The workflow's own state; absent where it cannot be asked (no worker within a few seconds). */
  readonly state?: CampaignState;
  /** Why it failed, in one sentence. */
  readonly failure?: string;
  readonly activities?: readonly RunningActivity[];
  /** Epoch milliseconds. */
  readonly startedAtMs: number;
  readonly closedAtMs?: number;
}

/** A line of the list, from search attributes: may lag behind by a second. */
export interface CampaignListing {
  readonly campaign: string;
  readonly status: CampaignRunStatus;
  readonly stage?: string;
  /** The campaign's own status, as far as search attributes know it: running, paused, completed, cancelled. */
  readonly campaignStatus?: string;
  readonly round?: number;
  readonly retention?: number;
  readonly spentUsd?: number;
  readonly startedAtMs: number;
  readonly closedAtMs?: number;
}

/**
 * Errors of every method: NOT_FOUND for a campaign that does not exist; CONFLICT for an update of one
 * that is finished; BAD_INPUT for an update that the workflow's validator turned down (with its
 * reason); UNAVAILABLE when the Temporal server or every worker is away.
 */
export interface Campaigns {
  /**
   * Starts the campaign unless one of that name exists, running or closed: with the same spec
   * (`input.spec.sha256`) that one is meant and `created` is false; with another spec CONFLICT.
   */
  start(input: CampaignInput): Promise<{ readonly created: boolean }>;
  describe(campaign: string): Promise<CampaignDescription>;
  /** The latest finished rounds, newest last; all of them are in the artifact `state.history`. */
  rounds(campaign: string): Promise<readonly RoundSummary[]>;
  list(): Promise<readonly CampaignListing[]>;
  pause(campaign: string, reason: string, by?: string): Promise<CampaignState>;
  resume(campaign: string): Promise<CampaignState>;
  cancel(campaign: string, reason: string): Promise<CampaignState>;
  raiseBudget(campaign: string, budget: Budget): Promise<CampaignState>;
  /** CONFLICT when the spec was changed by someone else in between. */
  setTeacher(campaign: string, change: SetTeacherInput): Promise<CampaignState>;
  /** The same for settings. */
  setSpec(campaign: string, change: SetSpecInput): Promise<CampaignState>;
  /** Prepares the spec's rows and asks one question of each kind; starts no campaign. What fails is thrown as it would pause one. */
  checkSpec(input: CheckInput): Promise<CheckedSpec>;
  /** Whether Temporal answers; UNAVAILABLE otherwise. */
  check(): Promise<void>;
}
