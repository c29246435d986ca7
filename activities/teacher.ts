/** Activities of the teacher queue: paid or slow calls. */
import type { TeacherActivities } from '../src/contracts/activities.ts';
import { supervised } from './heartbeat.ts';
import { stageOptions } from './orchestrator.ts';
import type { TeacherStages } from './stages.ts';

export function createTeacherActivities({ stages }: { readonly stages: TeacherStages }): TeacherActivities {
  return {
    // A repeated attempt finds what the one before bought in the ledger: its progress needs no heartbeat to survive.
    sampleBatch: (input) =>
      supervised((supervision) => stages.sampleBatch(input, { ...stageOptions(supervision), run: supervision.workflowRunId }), { surfacesOutages: true }),
    importCompletions: (input) => supervised((supervision) => stages.importCompletions(input, stageOptions(supervision)), { surfacesOutages: true }),
  };
}
