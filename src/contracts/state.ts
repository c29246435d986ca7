/** A campaign's state as its workflow keeps it, queries return it and continue-as-new carries it. */
import type { FirstAnswers } from './activities.ts';
import type { ArtifactRef } from './artifacts.ts';
import type { ErrorCode } from './errors.ts';

export type Stage = 'preparing' | 'sampling' | 'filtering' | 'training' | 'evaluating' | 'selecting' | 'testing' | 'reporting' | 'finished';
export type CampaignStatus = 'running' | 'paused' | 'completed' | 'cancelled';
/**
 * Who paused it: a person; the budget, which goes on by itself when it is raised; a provider that is
 * away, which is asked again at growing intervals; a failure that retrying could not cure, which waits
 * for a command.
 */
export type PauseKind = 'user' | 'budget' | 'provider' | 'failure';

/** A command that makes a paused campaign go on, and what it does: `still budget NAME --usd 5`. */
export interface Remedy {
  readonly command: string;
  readonly effect: string;
}

/** An epoch that an attempt has left unfinished: the next one goes on from its newest checkpoint. */
export interface KeptTraining {
  /** 1-based. */
  readonly epoch: number;
  readonly checkpoint: ArtifactRef;
  /** Steps of the epoch that the checkpoint holds, and of how many; absent where the attempt did not say. */
  readonly step?: number;
  readonly steps?: number;
}

/** Limits; an absent one does not bind. */
export interface Budget {
  readonly usd?: number;
  readonly tokens?: number;
  readonly hours?: number;
}

/** Money and tokens: of a purchase, its upper bound. Dollars are exact, see money.ts. */
export interface Cost {
  readonly usd: number;
  readonly tokens: number;
}

/** What was spent, teacher and judge together. `reused` counts answers the ledger already held. */
export interface Spending {
  readonly usd: number;
  readonly tokens: number;
  /** Of `tokens`, those that models spent on reasoning; absent: none. */
  readonly reasoningTokens?: number;
  readonly callsBought: number;
  readonly callsReused: number;
  /** Calls whose intent was recorded by an attempt that died before their result was: possibly bought twice. */
  readonly callsRepeated: number;
  /** Of one purchase: the most that attempts may have cost of which nothing came, with their process or without it. Kept as a campaign's `uncertain`. */
  readonly lost?: Cost;
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
  /** Of the dataset's rows, those that were too long for the training. */
  readonly tooLongRows?: number;
  readonly lossFirstNats: number;
  readonly lossLastNats: number;
  /** Scores on the development rows. */
  readonly teacherScore: number;
  readonly studentScore: number;
  readonly retention: Interval;
  /** Wall-clock milliseconds by stage. */
  readonly stageMs: Readonly<Partial<Record<Stage, number>>>;
}

/** One way to train in a tournament. All scores are of the development rows. */
export interface ContestantState {
  readonly name: string;
  /** `failed`: it could not be trained to its end; what it was measured with before stays in the comparison. */
  readonly status: 'competing' | 'stopped' | 'failed' | 'winner';
  /** Epochs of its whole training, and how many are done. */
  readonly epochs: number;
  readonly trained: number;
  /** What is kept of the epoch after those. */
  readonly kept?: KeptTraining;
  readonly measured: readonly { readonly epoch: number; readonly score: number }[];
  /** The highest score so far, and the student that had it. */
  readonly best?: { readonly epoch: number; readonly score: Interval; readonly checkpoint: ArtifactRef; readonly evaluation: ArtifactRef };
  readonly trainedTokens: number;
  readonly trainedSeconds: number;
  /** Prompt and answer tokens of the development rows, and how long they took. */
  readonly answeredTokens: number;
  readonly answeredSeconds: number;
  /** Of its student as it is stored. */
  readonly sizeBytes?: number;
  /** What judging its answers has cost. */
  readonly usd: number;
  /** After which epoch, and why, it was stopped, failed or won. */
  readonly ended?: { readonly epoch: number; readonly reason: string };
}

export interface TournamentState {
  /** The spec with the tournament in it, by which the contestants began. */
  readonly spec: ArtifactRef;
  readonly contestants: readonly ContestantState[];
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
  /** Parts of the stage that `progress` counts, as epochs or batches; absent before the first is done. */
  readonly stageParts?: number;
  /** Why it is paused, for a person: the whole sentence, with the file, line or row that it speaks of. */
  readonly pauseReason?: string;
  readonly pauseKind?: PauseKind;
  /** Paused by a failure: its code. */
  readonly pauseCode?: ErrorCode;
  /** Who paused it: the person as the command named them; else what kind of pause it is. */
  readonly pausedBy?: string;
  /** Epoch milliseconds. */
  readonly pausedAtMs?: number;
  /** What makes it go on. */
  readonly remedies?: readonly Remedy[];
  /** Paused by the budget: the least limits that let it go on. */
  readonly needs?: Budget;
  /** Paused because a provider is away: when it is asked again, epoch milliseconds. */
  readonly resumesAtMs?: number;
  /** What is kept of the epoch that is under way. */
  readonly kept?: KeptTraining;
  /** Why the round's training was begun anew, where it was. */
  readonly trainedAnew?: string;
  readonly budget: Budget;
  readonly spending: Spending;
  /** Set aside for purchases that have begun: the most that they may still cost. */
  readonly inFlight?: Cost;
  /** The most that calls cost which a provider may have billed twice: a process died between question and answer. Counts against the budget. */
  readonly uncertain?: Cost;
  /** What came of the first question of each kind, asked before all others. */
  readonly firstAnswers?: FirstAnswers;
  /** Epoch milliseconds. */
  readonly startedAtMs: number;
  /** Where its first rounds come from. */
  readonly forkedFrom?: { readonly campaign: string; readonly round: number };
  /** The spec as it stands after settings were changed, or a tournament won; absent before. */
  readonly changedSpec?: ArtifactRef;
  readonly tournament?: TournamentState;
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
