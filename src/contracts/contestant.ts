/** Between a campaign and the contestants of its tournament, which are its child workflows. */
import type { CampaignContext, FailureFacts, StudentAnswers, TrainedEpoch } from './activities.ts';
import type { ArtifactRef } from './artifacts.ts';
import type { ErrorCode } from './errors.ts';

/** `spec` is the contestant's own. */
export interface ContestantInput extends CampaignContext {
  readonly contestant: string;
  readonly round: number;
  readonly dataset: ArtifactRef;
  /** What its student answers when it is asked: the development rows. */
  readonly rows: ArtifactRef;
  readonly epochs: number;
  /** Where it goes on: epochs that are done, and their checkpoint. */
  readonly trained: number;
  readonly from?: ArtifactRef;
}

/**
 * Each is one step, and the campaign's own gates (pause, budget) stand before each: a contestant decides nothing.
 * `spec`: the contestant's own as it stands now; absent, that of its start.
 */
export type ContestantOrder = { readonly number: number; readonly spec?: ArtifactRef } & (
  | { readonly kind: 'train'; readonly hoursLeft?: number }
  | { readonly kind: 'answer' }
  | { readonly kind: 'leave'; readonly reason: string }
);

export interface ContestantReport {
  readonly contestant: string;
  /** Of the order that it answers. */
  readonly number: number;
  readonly trained?: TrainedEpoch;
  readonly answers?: StudentAnswers;
  /**
   * What retrying did not cure. `own`: it comes of the contestant's own settings, not of the machine. `stale`: its checkpoint
   * belongs to other settings, and it begins anew.
   */
  readonly failure?: { readonly reason: string; readonly own: boolean; readonly stale?: boolean; readonly code?: ErrorCode; readonly facts?: FailureFacts };
}

/** What a contestant's own workflow shows, and gives as its result. */
export interface ContestantProgress {
  readonly campaign: string;
  readonly contestant: string;
  readonly status: 'waiting' | 'training' | 'answering' | 'over';
  readonly trained: number;
  readonly epochs: number;
  readonly checkpoint?: ArtifactRef;
  readonly reason?: string;
}
