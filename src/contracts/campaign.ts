/** Input of the campaign workflow. */
import type { ArtifactRef } from './artifacts.ts';
import type { DevelopmentRequests, PreparedData } from './activities.ts';
import type { CampaignSpec } from './campaign-spec.ts';
import { sourcesOf } from './sampling-spec.ts';
import type { Halving } from './rungs.ts';
import type { TournamentSpec } from './tournament-spec.ts';
import type { Budget, CampaignState, Cost, Interval, RoundSummary } from './state.ts';

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
  /** Whether rows come from completions that the provider has stored. */
  readonly importsCompletions?: boolean;
  /** Batches of samples in flight at once. */
  readonly concurrentBatches: number;
  /** The student is trained and served by its provider. Absent: by this machine's own engine. */
  readonly hostedStudent?: boolean;
  /** The first round's training is a tournament. */
  readonly tournament?: TournamentPlan;
}

/** By whom it is decided: workflows/halving.ts. */
export interface TournamentPlan extends Halving {
  /** Contestants that train at once. */
  readonly concurrent: number;
}

/** The rounds of another campaign with which one begins: their requests and answers, not their students. */
export interface ForkedFrom {
  readonly campaign: string;
  /** The round from which it goes on; its dataset is built, its student trained and measured anew. */
  readonly round: number;
  /** The training requests of that round. */
  readonly requests: ArtifactRef;
  /** How many there were in the rounds before, whose history follows. */
  readonly requestsBefore: number;
  readonly history: ArtifactRef;
  readonly development?: DevelopmentRequests;
}

/** Input of the check of a spec. */
export interface CheckInput {
  readonly campaign: string;
  readonly spec: ArtifactRef;
  readonly importsCompletions: boolean;
}

export interface ProbeIntervals {
  readonly firstMs: number;
  readonly longestMs: number;
}

export interface CampaignInput {
  readonly campaign: string;
  readonly spec: ArtifactRef;
  readonly plan: CampaignPlan;
  readonly budget: Budget;
  readonly fork?: ForkedFrom;
  /** When a provider that is away is asked again. Default: after 30 s, then twice as long each time, at most 30 min. */
  readonly probes?: ProbeIntervals;
  /** Present after continue-as-new. */
  readonly carried?: CarriedState;
}

/** What decides about the best student and what is needed to go on from it. */
export interface BestRound {
  readonly round: number;
  readonly studentScore: number;
  readonly retention: Interval;
  readonly checkpoint: ArtifactRef;
  readonly dataset: ArtifactRef;
}

/**
 * What one run of the workflow hands to the next, at a round boundary. Its size does not grow with
 * the number of rounds: the lists are in the artifact `state.history`.
 */
export interface CarriedState {
  readonly state: CampaignState;
  readonly data: PreparedData;
  readonly last: RoundSummary;
  readonly best: BestRound;
  readonly developmentRequests: ArtifactRef;
  readonly developmentPredictions: ArtifactRef;
  readonly calibration?: ArtifactRef;
  /** Upper bound of one teacher answer on an evaluation row, to put aside what the test rows will cost. */
  readonly answerUpperBound: Cost;
}

/** The few numbers that the workflow needs, taken from a validated spec. */
export function specToPlan(spec: CampaignSpec): CampaignPlan {
  return {
    maxRounds: spec.iterate.maxRounds,
    epochs: spec.training.epochs,
    targetRetention: spec.iterate.targetRetention,
    minGain: spec.iterate.minGain,
    usesJudge: spec.evaluation.scorer.kind === 'judge',
    // Uncertainty is the margin between labels; free text has none, and a teacher that writes its own inputs has no pool that could end.
    selectsInputs: sourcesOf(spec.sampling.source).every(({ source }) => source.kind !== 'description') && spec.task.output.kind === 'label',
    candidates: spec.iterate.candidates,
    ...(sourcesOf(spec.sampling.source).some(({ source }) => source.kind === 'stored-completions') ? { importsCompletions: true } : {}),
    // A local teacher has one device: batches side by side would only share it.
    concurrentBatches: spec.teacher.provider === 'local' ? 1 : 4,
    ...(spec.student.provider === 'openai' ? { hostedStudent: true } : {}),
    ...(spec.tournament === undefined ? {} : { tournament: tournamentPlan(spec.tournament) }),
  };
}

const tournamentPlan = ({ firstRung, reductionFactor, concurrent }: TournamentSpec): TournamentPlan => ({ firstRung, reductionFactor, concurrent });
