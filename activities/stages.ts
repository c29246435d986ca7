/**
 * The stages that activities call: functions of src, bound to what they need by the worker that
 * composes them. Each runs alone as well, and none of them knows that Temporal exists.
 */
import type * as Contract from '../src/contracts/activities.ts';
import type { ArtifactRef } from '../src/contracts/artifacts.ts';
import type { HostedJob, HostedTrainer } from '../src/training/hosted/hosted-trainer.ts';

export interface StageOptions {
  /** Aborted when the work is no longer wanted: a stage then ends soon, with an error of code CANCELLED. */
  readonly signal: AbortSignal;
  /** How much is done: shown to operators, of no other effect. */
  readonly onProgress: (progress: StageProgress) => void;
}
export interface StageProgress {
  readonly done: number;
  readonly total: number;
}

export interface OrchestratorStages {
  prepareCampaign(input: Contract.PrepareCampaignInput, options: StageOptions): Promise<Contract.PreparedData>;
  planRequests(input: Contract.PlanRequestsInput): Promise<Contract.PlannedRequests>;
  buildDataset(input: Contract.BuildDatasetInput): Promise<Contract.BuiltDataset>;
  planJudgements(input: Contract.PlanJudgementsInput): Promise<Contract.PlannedRequests>;
  reassignRequests(input: Contract.ReassignRequestsInput): Promise<Contract.PlannedRequests>;
  planFirstQuestions(input: Contract.PlanFirstQuestionsInput): Promise<Contract.PlannedRequests>;
  readFirstAnswers(input: Contract.ReadFirstAnswersInput): Promise<Contract.FirstAnswers>;
  evaluate(input: Contract.EvaluateInput): Promise<Contract.Evaluated>;
  selectInputs(input: Contract.SelectInputsInput): Promise<Contract.SelectedInputs>;
  writeReport(input: Contract.WriteReportInput): Promise<Contract.WrittenReport>;
  planStudentRequests(input: Contract.PlanStudentInput): Promise<Contract.PlannedRequests>;
  readStudentAnswers(input: Contract.ReadStudentInput): Promise<Contract.StudentAnswers>;
  exportHostedStudent(input: Contract.ExportStudentInput): Promise<{ readonly adapter: ArtifactRef }>;
}

export interface TeacherStages {
  /** `run` names the workflow run that pays: what all attempts under one name have bought is settled together. */
  sampleBatch(input: Contract.SampleBatchInput, options: StageOptions & { readonly run: string }): Promise<Contract.SampledBatch>;
  importCompletions(input: Contract.CampaignContext, options: StageOptions): Promise<Contract.ImportedCompletions>;
  /** A trainer over the provider of a hosted student; `run` as above. */
  hostedTrainer(input: Contract.FineTuneInput, run: string): Promise<HostedTraining>;
}

/** One campaign's training at a provider. */
export interface HostedTraining {
  readonly trainer: HostedTrainer;
  readonly job: HostedJob;
}

export interface TrainerStages {
  runStudent(input: Contract.RunStudentInput, options: StageOptions): Promise<Contract.StudentAnswers>;
  measureSpeed(input: Contract.MeasureSpeedInput, options: StageOptions): Promise<Contract.MeasuredSpeed>;
  exportStudent(input: Contract.ExportStudentInput): Promise<{ readonly adapter: ArtifactRef }>;
}
