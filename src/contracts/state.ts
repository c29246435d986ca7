/** A campaign's state as its workflow keeps it, queries return it and continue-as-new carries it. */
import type { ArtifactRef } from './artifacts.ts';

export type Stage = 'preparing' | 'sampling' | 'filtering' | 'training' | 'evaluating' | 'selecting' | 'testing' | 'reporting' | 'finished';
export type CampaignStatus = 'running' | 'paused' | 'completed' | 'cancelled';
/** Who paused it: a person; the budget, which goes on by itself when it is raised; a failure that retrying could not cure. */
export type PauseKind = 'user' | 'budget' | 'failure';

/** Limits; an absent one does not bind. */
export interface Budget {
  readonly usd?: number;
  readonly tokens?: number;
  readonly hours?: number;
}

/** Money and tokens: of a batch, its upper bound. */
export interface Cost {
  readonly usd: number;
  readonly tokens: number;
}

/** What was spent, teacher and judge together. `reused` counts answers the ledger already held. */
export interface Spending {
  readonly usd: number;
  readonly tokens: number;
  readonly callsBought: number;
  readonly callsReused: number;
  /** Calls whose intent was recorded by an attempt that died before their result was: possibly bought twice. */
  readonly callsRepeated: number;
}

/** A mean with a 95 % interval. */
export interface Interval {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
}

export interface RoundSummary {
  readonly round: number;
  /** Of all rounds so far, like the rows accepted from them and rejected. */
  readonly requests: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly dataset: ArtifactRef;
  /** RejectedSample[] of the round's dataset. */
  readonly rejectedRows?: ArtifactRef;
  readonly checkpoint: ArtifactRef;
  readonly lossCurve: ArtifactRef;
  readonly lossFirstNats: number;
  readonly lossLastNats: number;
  /** Scores on the development rows. */
  readonly teacherScore: number;
  readonly studentScore: number;
  readonly retention: Interval;
  /** Wall-clock milliseconds by stage. */
  readonly stageMs: Readonly<Partial<Record<Stage, number>>>;
}

export type StopReason = 'target-retention' | 'no-gain' | 'max-rounds' | 'budget' | 'no-inputs-left' | 'cancelled';

export interface TestSummary {
  readonly rows: number;
  readonly teacherScore: number;
  readonly untunedScore: number;
  readonly studentScore: number;
  readonly retention: Interval;
}

export interface CampaignState {
  readonly campaign: string;
  readonly status: CampaignStatus;
  readonly stage: Stage;
  /** 1-based. */
  readonly round: number;
  readonly maxRounds: number;
  /** 0…1 within the stage. */
  readonly progress: number;
  /** Why it is paused, in one sentence for a person. */
  readonly pauseReason?: string;
  readonly pauseKind?: PauseKind;
  readonly budget: Budget;
  readonly spending: Spending;
  /** Epoch milliseconds. */
  readonly startedAtMs: number;
  readonly bestRound?: number;
  /** Of the best round, on the development rows. */
  readonly bestRetention?: Interval;
  /** CampaignHistory of the rounds that are finished. */
  readonly history?: ArtifactRef;
  readonly stopReason?: StopReason;
  readonly test?: TestSummary;
  readonly report?: ArtifactRef;
  readonly manifest?: ArtifactRef;
  readonly adapter?: ArtifactRef;
}
