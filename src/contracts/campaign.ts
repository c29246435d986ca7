/** Input of the campaign workflow. */
import type { ArtifactRef } from './artifacts.ts';
import type { PreparedData } from './activities.ts';
import type { Budget, CampaignState, RoundSummary } from './state.ts';

/** The few numbers of a spec that the workflow decides by; everything else stays in the artifact. */
export interface CampaignPlan {
  readonly maxRounds: number;
  readonly epochs: number;
  readonly targetRetention: number;
  readonly minGain: number;
  readonly usesJudge: boolean;
  /** Whether the next round's inputs can be chosen by the student's own uncertainty. */
  readonly selectsInputs: boolean;
  readonly candidates: number;
  /** Batches of samples in flight at once. */
  readonly concurrentBatches: number;
}

export interface CampaignInput {
  readonly campaign: string;
  readonly spec: ArtifactRef;
  readonly plan: CampaignPlan;
  readonly budget: Budget;
  /** Present after continue-as-new. */
  readonly carried?: CarriedState;
}

/** What one run of the workflow hands to the next, at a round boundary. */
export interface CarriedState {
  readonly state: CampaignState;
  readonly rounds: readonly RoundSummary[];
  readonly data: PreparedData;
  readonly requests: readonly ArtifactRef[];
  readonly developmentRequests: ArtifactRef;
  readonly developmentEvaluations: readonly ArtifactRef[];
  readonly calibration?: ArtifactRef;
  readonly selection?: ArtifactRef;
}
