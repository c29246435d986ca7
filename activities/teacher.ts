/** Activities of the teacher queue: paid or slow calls. */
import { CancelledFailure } from '@temporalio/common';
import type { FineTuned, FineTuneInput, TeacherActivities, TrainHeartbeat } from '../src/contracts/activities.ts';
import { StillhouseError } from '../src/contracts/errors.ts';
import { supervised } from './heartbeat.ts';
import type { Supervision } from './heartbeat.ts';
import { stageOptions } from './orchestrator.ts';
import type { TeacherStages } from './stages.ts';

export function createTeacherActivities({ stages }: { readonly stages: TeacherStages }): TeacherActivities {
  return {
    // A repeated attempt finds what the one before bought in the ledger: its progress needs no heartbeat to survive.
    sampleBatch: (input) =>
      supervised((supervision) => stages.sampleBatch(input, { ...stageOptions(supervision), run: supervision.workflowRunId }), { surfacesOutages: true }),
    importCompletions: (input) => supervised((supervision) => stages.importCompletions(input, stageOptions(supervision)), { surfacesOutages: true }),
    fineTune: (input) => supervised((supervision) => fineTune(stages, input, supervision), { surfacesOutages: true }),
    cancelFineTuning: (input) =>
      supervised(async ({ workflowRunId }) => {
        const { trainer, job } = await stages.hostedTrainer(input, workflowRunId);
        return { spending: await trainer.cancel(job) };
      }),
  };
}

/** The job outlives its worker: only a wish of the campaign's own ends it. */
async function fineTune(stages: TeacherStages, input: FineTuneInput, { signal, workflowRunId, beat }: Supervision): Promise<FineTuned> {
  const { trainer, job } = await stages.hostedTrainer(input, workflowRunId);
  try {
    return await trainer.trainEpoch(job, {
      signal,
      onProgress: ({ step, steps, lossNats, note }) =>
        beat({ step, steps, note, ...(lossNats === undefined ? {} : { lossNats }) } satisfies TrainHeartbeat),
    });
  } catch (error) {
    if (!isWish(signal)) throw error;
    throw new StillhouseError('CANCELLED', 'the campaign no longer wants the fine-tuning job', { cause: error, details: { spending: await trainer.cancel(job) } });
  }
}

/** Cancelled by the workflow; not shut down, timed out or superseded, after which another attempt goes on with the job. */
function isWish(signal: AbortSignal): boolean {
  const reason: unknown = signal.reason;
  return signal.aborted && reason instanceof CancelledFailure && reason.message === 'CANCELLED';
}
