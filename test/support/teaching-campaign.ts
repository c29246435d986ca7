/**
 * Campaigns whose teaching is real (rows, requests, ledger, calls to a server on a socket, datasets) and
 * whose student follows a script, for tests of money and of providers that fail.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createOrchestratorActivities } from '../../activities/orchestrator.ts';
import type { Assets } from '../../src/assets/assets.ts';
import type { OrchestratorStages } from '../../activities/stages.ts';
import { createTeacherActivities } from '../../activities/teacher.ts';
import type { BuiltDataset, CampaignContext, CampaignHistory } from '../../src/contracts/activities.ts';
import type { CampaignInput } from '../../src/contracts/campaign.ts';
import { specToPlan } from '../../src/contracts/campaign.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpec, CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { buildDataset } from '../../src/dataset/build.ts';
import { prepareCampaign } from '../../src/dataset/prepare.ts';
import type { Ledger } from '../../src/ledger/ledger.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { planJudgements } from '../../src/evaluation/judge.ts';
import { evaluate } from '../../src/evaluation/evaluate.ts';
import { planFirstQuestions, readFirstAnswers } from '../../src/evaluation/first-questions.ts';
import { planStudentRequests, readStudentAnswers } from '../../src/evaluation/hosted-student.ts';
import { createReportModels } from '../../src/evaluation/report-models.ts';
import { writeReport } from '../../src/evaluation/report.ts';
import { selectInputs } from '../../src/dataset/select.ts';
import { exportHostedStudent } from '../../src/training/hosted/folder.ts';
import { lengthsBy } from '../../src/training/lengths.ts';
import { openHostedTraining, withTrainingBound } from '../../src/training/hosted/hosted-training.ts';
import type { HostedTimings } from '../../src/training/hosted/provider.ts';
import { putJson } from '../../src/store/jsonl.ts';
import type { ArtifactStore } from '../../src/store/store.ts';
import { createAnswerFinder, createAnswerReader } from '../../src/teacher/answers.ts';
import type { CallTimings } from '../../src/teacher/openai.ts';
import { planRequests } from '../../src/teacher/plan.ts';
import { reassignRequests } from '../../src/teacher/reassign.ts';
import { importCompletions } from '../../src/teacher/stored-completions.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import type { TeacherDirectory } from '../../src/teacher/teacher.ts';
import { writeRows } from './folder.ts';
import { hostedDirectory, noModels } from './hosted-directory.ts';
import { TEST_KEY } from './openai-server.ts';
import type { ScriptedActivities } from './scripted-activities.ts';

export const LABELS = ['negative', 'positive'] as const;

/** Seconds instead of minutes until a call gives up. */
const IMPATIENT: CallTimings = { attemptTimeoutMs: 2_000, retryBudgetMs: 250, firstRetryDelayMs: 20, maxRetryDelayMs: 100, stopGraceMs: 500 };

const IMPATIENT_TRAINING: HostedTimings = { pollMs: 20, attemptTimeoutMs: 2_000, retryBudgetMs: 250, firstRetryDelayMs: 20, settleMs: 200 };

export interface TeachingOptions {
  readonly folder: string;
  readonly poolRows?: number;
  readonly heldOutRows?: number;
  /** Of students that are really trained: where their files are. */
  readonly models?: Pick<Assets, 'model'>;
}

export class Teaching implements AsyncDisposable {
  readonly store: ArtifactStore;
  readonly ledger: Ledger;
  /** The value of the environment variable that a spec names; changing it is what an operator does. */
  key = TEST_KEY;
  readonly #folder: string;
  readonly #models: Pick<Assets, 'model'> | undefined;
  readonly #directory: TeacherDirectory & AsyncDisposable;

  constructor({ folder, poolRows = 200, heldOutRows = 20, models }: TeachingOptions) {
    this.#models = models;
    mkdirSync(folder, { recursive: true });
    this.#folder = folder;
    this.store = createFileStore(join(folder, 'objects'));
    this.ledger = createLedger(join(folder, 'ledger.sqlite'));
    this.#directory = hostedDirectory({ readSecret: () => this.key, timings: IMPATIENT });
    writeRows(join(folder, 'pool.jsonl'), Array.from({ length: poolRows }, (_, index) => ({ input: `${word(index)} ${word(index * 7 + 3)} of number ${index}` })));
    writeRows(join(folder, 'gold.jsonl'), Array.from({ length: heldOutRows }, (_, index) => ({ input: `held ${word(index * 13 + 5)} apart ${index * 31}`, gold: LABELS[index % 2] })));
  }

  spec(name: string, baseUrl: string, change: Partial<CampaignSpecInput> = {}): CampaignSpec {
    return campaignSpecSchema.parse({
      name,
      task: { description: 'Tell good from bad.', instruction: 'Review: {input}\nSentiment:', output: { kind: 'label', labels: [...LABELS] } },
      teacher: { provider: 'openai', model: 'gpt-4o-mini', baseUrl, concurrency: 4, maxTokens: 4 },
      sampling: { source: { kind: 'inputs', dataset: join(this.#folder, 'pool.jsonl') }, rows: 40, batchSize: 8 },
      filter: { nearDuplicateSimilarity: 1 },
      student: { model: 'student' },
      evaluation: { source: { kind: 'dataset', dataset: join(this.#folder, 'gold.jsonl') }, developmentRows: 6, testRows: 8, scorer: { kind: 'label' } },
      ...change,
    });
  }

  async input(spec: CampaignSpec): Promise<CampaignInput> {
    const { usd, tokens, hours } = spec.budget;
    return {
      campaign: spec.name,
      spec: await putJson(this.store, 'spec', spec),
      plan: { ...specToPlan(spec), selectsInputs: false },
      budget: { ...(usd === undefined ? {} : { usd }), ...(tokens === undefined ? {} : { tokens }), ...(hours === undefined ? {} : { hours }) },
      probes: { firstMs: 300, longestMs: 1_000 },
    };
  }

  /** Real where money is concerned, scripted where a student would be trained; without a script all of it is real. */
  activities(script?: ScriptedActivities): object {
    const { store, ledger } = this;
    const directory = this.#directory;
    const answers = createAnswerReader({ ledger, directory });
    const models = this.#models;
    const lengths = models === undefined ? {} : { lengths: lengthsBy(models) };
    const stages: OrchestratorStages = {
      prepareCampaign: (input) => prepareCampaign({ store, assets: { dataset: (name) => Promise.resolve(name) }, ...lengths }, input),
      planRequests: (input) => planRequests({ store, directory, find: createAnswerFinder({ ledger, directory }) }, input),
      reassignRequests: (input) => reassignRequests({ store, ledger, directory }, input),
      buildDataset: async (input) => withTrainingBound(store, input, await buildDataset({ store, answers, ...lengths }, input)),
      planJudgements: (input) => planJudgements({ store, answers, directory }, input),
      planFirstQuestions: (input) => planFirstQuestions({ store, answers, directory, find: createAnswerFinder({ ledger, directory }) }, input),
      readFirstAnswers: (input) => readFirstAnswers({ store, answers }, input),
      evaluate: (input) => evaluate({ store, answers }, input),
      selectInputs: (input) => selectInputs({ store }, input),
      writeReport: (input) => writeReport({ store, models: createReportModels(models ?? noModels) }, input),
      planStudentRequests: (input) => planStudentRequests({ store, directory }, input),
      readStudentAnswers: (input) => readStudentAnswers({ store, answers }, input),
      exportHostedStudent: (input) => exportHostedStudent({ store }, input),
    };
    const orchestrator = createOrchestratorActivities({ store, stages });
    const { prepareCampaign: prepare, planRequests: plan, planFirstQuestions: first, readFirstAnswers: readFirst, reassignRequests: reassign, buildDataset: build, recordRound } = orchestrator;
    const teacher = createTeacherActivities({
      stages: {
        sampleBatch: (input, { signal, run, onProgress }) => sampleBatch({ store, ledger, directory }, input, { signal, run, onProgress: (done, total) => onProgress({ done, total }) }),
        importCompletions: (input, { signal }) => importCompletions({ store, ledger, directory, readSecret: () => this.key }, input, { signal }),
        hostedTrainer: (input, run) => openHostedTraining({ store, ledger, readSecret: () => this.key, timings: IMPATIENT_TRAINING }, input, run),
      },
    });
    // A hosted student needs no device: nothing of its campaign is scripted.
    if (script === undefined) return { ...orchestrator, ...teacher };
    return { ...script.activities, prepareCampaign: prepare, planRequests: plan, planFirstQuestions: first, readFirstAnswers: readFirst, reassignRequests: reassign, buildDataset: build, recordRound, ...teacher };
  }

  /** The dataset of a finished campaign's first round, built anew from what the ledger holds now. */
  async rebuild(context: CampaignContext, history: CampaignHistory): Promise<BuiltDataset> {
    const { store, ledger } = this;
    const data = await prepareCampaign({ store, assets: { dataset: (name) => Promise.resolve(name) } }, context);
    return await buildDataset({ store, answers: createAnswerReader({ ledger, directory: this.#directory }) }, { ...context, data, round: 1, requests: history.requests.slice(0, 1) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#directory[Symbol.asyncDispose]();
    await this.ledger.close();
  }
}

/** Words that are far from each other, so that no row counts as another's near duplicate. */
function word(seed: number): string {
  let value = (seed + 1) * 2_654_435_761;
  return Array.from({ length: 9 }, () => {
    value = (value * 1_103_515_245 + 12_345) % 2_147_483_648;
    return String.fromCharCode(97 + (Math.floor(value / 65_536) % 26));
  }).join('');
}
