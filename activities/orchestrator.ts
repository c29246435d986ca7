/** Activities of the orchestrator queue: rows in, rows out. */
import type { OrchestratorActivities } from '../src/contracts/activities.ts';
import type { ArtifactStore } from '../src/store/store.ts';
import { supervised } from './heartbeat.ts';
import type { Supervision } from './heartbeat.ts';
import { earlierRequests, planCandidates, readHistory, recordRound } from './history.ts';
import type { OrchestratorStages, StageOptions } from './stages.ts';
import { planTournament } from './tournament.ts';

export interface OrchestratorDeps {
  readonly store: ArtifactStore;
  readonly stages: OrchestratorStages;
}

export function createOrchestratorActivities({ store, stages }: OrchestratorDeps): OrchestratorActivities {
  return {
    prepareCampaign: (input) => supervised((supervision) => stages.prepareCampaign(input, stageOptions(supervision))),
    planRequests: ({ history, ...input }) =>
      supervised(async () => stages.planRequests({ ...input, ...(await earlierRequests(store, await readHistory(store, history))) })),
    buildDataset: ({ history, requests, ...input }) =>
      supervised(async () => {
        const { requests: earlier } = await readHistory(store, history);
        return await stages.buildDataset({ ...input, requests: [...earlier, requests] });
      }),
    planJudgements: (input) => supervised(() => stages.planJudgements(input)),
    reassignRequests: (input) => supervised(() => stages.reassignRequests(input)),
    planFirstQuestions: (input) => supervised(() => stages.planFirstQuestions(input)),
    readFirstAnswers: (input) => supervised(() => stages.readFirstAnswers(input)),
    evaluate: (input) => supervised(() => stages.evaluate(input)),
    planTournament: (input) => supervised(() => planTournament(store, input)),
    recordRound: (input) => supervised(() => recordRound(store, input)),
    planCandidates: (input) => supervised(() => planCandidates(store, input)),
    selectInputs: ({ history, ...input }) =>
      supervised(async () => stages.selectInputs({ ...input, earlier: (await readHistory(store, history)).requests })),
    planStudentRequests: (input) => supervised(() => stages.planStudentRequests(input)),
    readStudentAnswers: (input) => supervised(() => stages.readStudentAnswers(input)),
    exportHostedStudent: (input) => supervised(() => stages.exportHostedStudent(input)),
    writeReport: ({ history, ...input }) =>
      supervised(async () => {
        const { rounds, developmentEvaluations } = await readHistory(store, history);
        return await stages.writeReport({ ...input, rounds, developmentEvaluations });
      }),
  };
}

/** A stage's view of the supervision: its signal, and progress as heartbeat details. */
export function stageOptions({ signal, beat }: Supervision): StageOptions {
  return { signal, onProgress: beat };
}
