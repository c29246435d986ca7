/**
 * What workflows ask of activities. One object in, one object out; bytes travel as ArtifactRefs, and
 * every input and output stays under 4 KB, a tournament's under 12, so that workflow history stays small.
 */
import type { ArtifactRef } from './artifacts.ts';
import type { RequestPurpose } from './records.ts';
import type { Budget, Cost, Interval, RoundSummary, Spending, TestSummary, TournamentState } from './state.ts';

/** What every activity of a campaign needs: whose it is and what it was asked for. */
export interface CampaignContext {
  readonly campaign: string;
  readonly spec: ArtifactRef;
}

export interface ImportedCompletions {
  /** TeacherRequest[], each with its row; the ledger holds the answer to every one. */
  readonly completions: ArtifactRef;
  readonly count: number;
}

export interface PrepareCampaignInput extends CampaignContext {
  /** Where the spec names stored completions as a source: those that were found. */
  readonly completions?: ArtifactRef;
}

/** The rows of a campaign after import: split, deduplicated, the held-out ones kept apart. */
export interface PreparedData {
  /** Inputs that the teacher may be asked about; absent where it writes its own. */
  readonly pool?: ArtifactRef;
  readonly development: ArtifactRef;
  readonly test: ArtifactRef;
  /** TeacherRequest[] that completions stored by the provider have answered: asked about such a row, the ledger knows. */
  readonly completions?: ArtifactRef;
  /** RejectedSample[] of the rows that import left out: duplicates, and pool rows too close to held-out ones. */
  readonly excluded?: ArtifactRef;
  readonly poolRows: number;
  readonly developmentRows: number;
  readonly testRows: number;
}

export interface PlanRequestsInput extends CampaignContext {
  readonly data: PreparedData;
  readonly purpose: Exclude<RequestPurpose, 'judge' | 'student'>;
  /** 1-based; 0 for development and test. */
  readonly round: number;
  /** The requests of earlier rounds, which are not asked again. */
  readonly earlier?: ArtifactRef;
  /** Chosen by selectInputs: pool rows in the order of preference. */
  readonly selection?: ArtifactRef;
}
export interface PlannedRequests {
  readonly requests: ArtifactRef;
  readonly count: number;
  readonly batchSize: number;
  /** Upper bound of one batch's cost, reserved before it is scheduled. */
  readonly batchUpperBoundUsd: number;
  readonly batchUpperBoundTokens: number;
  /** Their answers decide what else is asked: have them answered, then plan again. */
  readonly preliminary?: boolean;
}

export interface ReassignRequestsInput extends CampaignContext {
  readonly requests: ArtifactRef;
  /** Default: the spec's. */
  readonly batchSize?: number;
}

/** One question of each kind that the campaign will ask, to be asked before all others. */
export interface PlanFirstQuestionsInput extends CampaignContext {
  readonly data: PreparedData;
  /** Rows that were tried before. */
  readonly skip: number;
  /** Teacher's requests, answered: what the judge is asked is about one of them. Absent: teacher and hosted student are asked. */
  readonly judged?: ArtifactRef;
}
export interface ReadFirstAnswersInput extends CampaignContext {
  readonly requests: ArtifactRef;
}
/** What came of one question. */
export interface FirstAnswer {
  /** Whose it is, and of which kind: `teacher: label`, `judge`, `untuned student`. */
  readonly who: string;
  readonly model: string;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly reasoningTokens?: number;
  readonly usd: number;
  readonly latencyMs: number;
  /** Its beginning. */
  readonly answer: string;
  /** Why it cannot be used. */
  readonly problem?: string;
}
export interface FirstAnswers {
  readonly answers: readonly FirstAnswer[];
  /** What the endpoints turned out not to take, a line each. */
  readonly learned: readonly string[];
}

/** What a check of a spec has found. */
export interface CheckedSpec extends FirstAnswers, Pick<PreparedData, 'poolRows' | 'developmentRows' | 'testRows' | 'excluded'> {
  readonly usd: number;
  /** Why the campaign would pause at its first questions. */
  readonly problem?: string;
}

export interface SampleBatchInput extends CampaignContext {
  /** Not through a provider's batch service, whatever the spec says. */
  readonly direct?: boolean;
  readonly requests: ArtifactRef;
  /** Half-open range of request indices. */
  readonly from: number;
  readonly to: number;
  /** How many purchases of the same range this run has made before: attempts at one purchase are settled together, purchases apart. Absent: none. */
  readonly purchasesBefore?: number;
}
/** What a failed or cancelled activity still tells, as the first detail of its failure. */
export interface FailureFacts {
  /** What its batch has cost so far, all attempts together. */
  readonly spending?: Spending;
  /** For how long the provider asked not to be called. */
  readonly retryAfterMs?: number;
  /** The newest checkpoint of an epoch that was not finished: it is durable, and the next attempt goes on from it. */
  readonly checkpoint?: ArtifactRef;
  /** Steps of the epoch that the checkpoint holds, and of how many. */
  readonly checkpointStep?: number;
  readonly steps?: number;
  /** Too little time is left: hours that the work is measured to take from now on. */
  readonly hoursNeeded?: number;
}

/** After it returns, the ledger holds an answer to every request of the range, but for those that were left. */
export interface SampledBatch {
  readonly answered: number;
  /** Requests that need more room than was set aside, since their model turned out to reason: to be planned again. */
  readonly left?: number;
  readonly spending: Spending;
}

export interface BuildDatasetInput extends CampaignContext {
  readonly round: number;
  readonly data: PreparedData;
  /** The requests of each round so far, in order. */
  readonly requests: readonly ArtifactRef[];
}
export interface BuiltDataset {
  readonly dataset: ArtifactRef;
  readonly rejected: ArtifactRef;
  readonly calibration?: ArtifactRef;
  readonly accepted: number;
  readonly rejectedCount: number;
  /** Of a hosted student: the most that its training on this dataset may cost. */
  readonly trainingUpperBound?: Cost;
}

export interface TrainEpochInput extends CampaignContext {
  readonly round: number;
  /** 0-based. */
  readonly epoch: number;
  readonly dataset: ArtifactRef;
  /** The newest checkpoint: of the epoch before, or of this one where an attempt at it has left one; absent at the first. */
  readonly from?: ArtifactRef;
  /** What the budget leaves: training that a measured step shows to take longer is refused. */
  readonly hoursLeft?: number;
}
export interface TrainedEpoch {
  readonly checkpoint: ArtifactRef;
  /** Every point since the first epoch. */
  readonly lossCurve: ArtifactRef;
  readonly steps: number;
  readonly tokens: number;
  readonly lossFirstNats: number;
  readonly lossLastNats: number;
  readonly seconds: number;
  /** Rows of the dataset that are longer than training.maxTokens: they were left out. */
  readonly tooLongRows?: number;
  /** The development loss ended the training: no epoch follows. */
  readonly stopped?: boolean;
  /** The lowest development loss so far; the checkpoint's student is the one that had it. */
  readonly best?: { readonly step: number; readonly developmentNats: number };
}

export interface RunStudentInput extends CampaignContext {
  readonly rows: ArtifactRef;
  /** Absent: the untuned student. */
  readonly checkpoint?: ArtifactRef;
  /** Answer only the first so many rows. */
  readonly limit?: number;
}
export interface StudentAnswers {
  readonly predictions: ArtifactRef;
  readonly rows: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly seconds: number;
  /** Of a local student's weights as they are stored. */
  readonly sizeBytes?: number;
}

/** All epochs of a hosted student's training: one job at its provider. */
export interface FineTuneInput extends CampaignContext {
  readonly round: number;
  readonly dataset: ArtifactRef;
  /** InputRow[]: those with a gold output let the provider measure a loss that it does not learn from. */
  readonly development: ArtifactRef;
}
export interface FineTuned extends TrainedEpoch {
  /** Of all attempts at the job. */
  readonly spending: Spending;
}

export interface PlanStudentInput extends CampaignContext {
  readonly rows: ArtifactRef;
  /** Absent: the untuned student. */
  readonly checkpoint?: ArtifactRef;
}
export interface ReadStudentInput extends CampaignContext {
  readonly rows: ArtifactRef;
  /** Of planStudentRequests, all answered. */
  readonly requests: ArtifactRef;
}

export interface PlanJudgementsInput extends CampaignContext {
  readonly rows: ArtifactRef;
  /** Answers of the teacher as requests, of students as predictions. */
  readonly teacherRequests: ArtifactRef;
  readonly predictions: readonly ArtifactRef[];
}

export interface EvaluateInput extends CampaignContext {
  readonly rows: ArtifactRef;
  readonly teacherRequests: ArtifactRef;
  readonly student: ArtifactRef;
  readonly untuned?: ArtifactRef;
  readonly calibration?: ArtifactRef;
  /** With a judge: its requests, all answered. */
  readonly judgements?: ArtifactRef;
}
export interface Evaluated {
  readonly evaluation: ArtifactRef;
  readonly rows: number;
  readonly teacherScore: number;
  readonly studentScore: number;
  readonly untunedScore?: number;
  /** studentScore with its interval. */
  readonly studentInterval?: Interval;
  readonly retention: Interval;
}

export interface SelectInputsInput extends CampaignContext {
  readonly data: PreparedData;
  readonly earlier: readonly ArtifactRef[];
  /** The student's answers to pool candidates and to the development rows. */
  readonly poolPredictions: ArtifactRef;
  readonly developmentPredictions: ArtifactRef;
}
export interface SelectedInputs {
  readonly selection: ArtifactRef;
  readonly rows: number;
}

export interface MeasureSpeedInput extends CampaignContext {
  readonly rows: ArtifactRef;
  readonly checkpoint: ArtifactRef;
}
/** Milliseconds of one answer, one at a time; medians over the measured rows. */
export interface SpeedRow {
  readonly who: 'teacher, prompt not cached' | 'teacher, prompt cached' | 'student';
  readonly msMedian: number;
  readonly msP95: number;
  readonly promptTokens: number;
  readonly parameters: number;
  readonly sizeBytes: number;
}
export interface MeasuredSpeed {
  readonly rows: readonly SpeedRow[];
}

export interface ExportStudentInput extends CampaignContext {
  readonly checkpoint: ArtifactRef;
  readonly dataset: ArtifactRef;
}

export interface WriteReportInput extends CampaignContext {
  readonly rounds: readonly RoundSummary[];
  readonly bestRound: number;
  readonly spending: Spending;
  readonly budget?: Budget;
  /** The most that was possibly billed twice. */
  readonly uncertain?: Cost;
  readonly forkedFrom?: { readonly campaign: string; readonly round: number };
  readonly stopReason: string;
  readonly data?: PreparedData;
  readonly startedAtMs: number;
  readonly finishedAtMs: number;
  readonly developmentEvaluations: readonly ArtifactRef[];
  readonly testEvaluation?: ArtifactRef;
  readonly test?: TestSummary;
  readonly speed?: MeasuredSpeed;
  readonly tournament?: TournamentState;
  readonly adapter?: ArtifactRef;
}
export interface WrittenReport {
  readonly report: ArtifactRef;
  readonly manifest: ArtifactRef;
}

/**
 * What the finished rounds left, as an artifact: lists grow with the number of rounds and therefore
 * never travel in a payload. Activities read it where a function of src wants the lists.
 */
export interface CampaignHistory {
  readonly rounds: readonly RoundSummary[];
  /** The training requests of each round, in order. */
  readonly requests: readonly ArtifactRef[];
  readonly developmentEvaluations: readonly ArtifactRef[];
  readonly development?: DevelopmentRequests;
}
/** What the teacher was asked about the development rows, and which rows those were. */
export interface DevelopmentRequests {
  readonly rows: ArtifactRef;
  readonly requests: ArtifactRef;
}
/** A function's input with its lists replaced by the artifact that holds them; absent before the first round ended. */
type WithHistory<Input, Lists extends keyof Input> = Omit<Input, Lists> & { readonly history?: ArtifactRef };

export type PlanRequestsCall = WithHistory<PlanRequestsInput, 'earlier'>;
/** `requests` are this round's; those of earlier rounds are in the history. */
export type BuildDatasetCall = WithHistory<BuildDatasetInput, 'requests'> & { readonly requests: ArtifactRef };
export type SelectInputsCall = WithHistory<SelectInputsInput, 'earlier'>;
export type WriteReportCall = WithHistory<WriteReportInput, 'rounds' | 'developmentEvaluations'>;

export interface RecordRoundInput extends CampaignContext {
  readonly history?: ArtifactRef;
  readonly summary: RoundSummary;
  readonly requests: ArtifactRef;
  readonly evaluation: ArtifactRef;
  readonly development?: DevelopmentRequests;
}
export interface RecordedRound {
  readonly history: ArtifactRef;
}

export interface PlanCandidatesInput extends CampaignContext {
  readonly pool: ArtifactRef;
  readonly history?: ArtifactRef;
  readonly limit: number;
}
/** Pool rows that the teacher was not asked about, at most `limit` of them, in the pool's order. */
export interface PlannedCandidates {
  readonly rows: ArtifactRef;
  readonly count: number;
}

/** The contestants of the spec's tournament, in its order, each as a spec of its own. */
export interface PlannedTournament {
  readonly contestants: readonly PlannedContestant[];
}
export interface PlannedContestant {
  readonly name: string;
  readonly spec: ArtifactRef;
  readonly epochs: number;
}

/** Quick work on rows: splitting, planning, filtering, scoring, reporting. */
export interface OrchestratorActivities {
  prepareCampaign(input: PrepareCampaignInput): Promise<PreparedData>;
  planRequests(input: PlanRequestsCall): Promise<PlannedRequests>;
  buildDataset(input: BuildDatasetCall): Promise<BuiltDataset>;
  planJudgements(input: PlanJudgementsInput): Promise<PlannedRequests>;
  /** The same requests, those without an answer for the teacher that the spec names now. */
  reassignRequests(input: ReassignRequestsInput): Promise<PlannedRequests>;
  evaluate(input: EvaluateInput): Promise<Evaluated>;
  planTournament(input: CampaignContext): Promise<PlannedTournament>;
  planFirstQuestions(input: PlanFirstQuestionsInput): Promise<PlannedRequests>;
  readFirstAnswers(input: ReadFirstAnswersInput): Promise<FirstAnswers>;
  recordRound(input: RecordRoundInput): Promise<RecordedRound>;
  planCandidates(input: PlanCandidatesInput): Promise<PlannedCandidates>;
  selectInputs(input: SelectInputsCall): Promise<SelectedInputs>;
  writeReport(input: WriteReportCall): Promise<WrittenReport>;
  /** A hosted student is asked as a teacher is; what it answered becomes predictions. */
  planStudentRequests(input: PlanStudentInput): Promise<PlannedRequests>;
  readStudentAnswers(input: ReadStudentInput): Promise<StudentAnswers>;
  exportHostedStudent(input: ExportStudentInput): Promise<{ readonly adapter: ArtifactRef }>;
}

/** Paid or slow calls to teachers and judges. */
export interface TeacherActivities {
  sampleBatch(input: SampleBatchInput): Promise<SampledBatch>;
  /** Reads what the provider has stored, into the ledger; asks nothing anew. */
  importCompletions(input: CampaignContext): Promise<ImportedCompletions>;
  /** Waits for a provider's job and needs no device. Cancelling it cancels the job. */
  fineTune(input: FineTuneInput): Promise<FineTuned>;
  /** Ends the job of a fineTune that cannot do so itself, as when its worker is gone. */
  cancelFineTuning(input: FineTuneInput): Promise<{ readonly spending: Spending }>;
}

/** Work on a device: one at a time. */
export interface TrainerActivities {
  trainEpoch(input: TrainEpochInput): Promise<TrainedEpoch>;
  runStudent(input: RunStudentInput): Promise<StudentAnswers>;
  measureSpeed(input: MeasureSpeedInput): Promise<MeasuredSpeed>;
  exportStudent(input: ExportStudentInput): Promise<{ readonly adapter: ArtifactRef }>;
}

/** Details of trainEpoch's heartbeat, sent only after the checkpoint they name is durable. */
export interface TrainHeartbeat {
  readonly step: number;
  readonly steps: number;
  /** Absent before the first step of a training elsewhere. */
  readonly lossNats?: number;
  readonly checkpoint?: ArtifactRef;
  /** Steps of the epoch that the checkpoint holds. */
  readonly checkpointStep?: number;
  /** Of this training, counted from 1: which part of the stage this epoch is. */
  readonly epoch?: number;
  readonly epochs?: number;
  readonly tokensPerSecond?: number;
  /** What is going on, for people. */
  readonly note?: string;
}
