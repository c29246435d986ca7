/** The student's side of a campaign: on this machine's device, or at the provider that trains and serves it. */
import { ActivityFailure } from '@temporalio/common';
import { CancellationScope, isCancellation } from '@temporalio/workflow';
import type { BuiltDataset, FineTuned, PreparedData } from '../src/contracts/activities.ts';
import type { ArtifactRef } from '../src/contracts/artifacts.ts';
import type { Cost } from '../src/contracts/state.ts';
import { answer, answerBoundOf, plan } from './answer.ts';
import { NO_COST } from './money.ts';
import type { CampaignRun } from './run.ts';
import { device, hostedCancellation, hostedTraining, rowWork } from './run.ts';

export interface StudentQuestions {
  /** Who is asked what, for Temporal's UI: `round 1: student answers 200 development rows`. */
  readonly summary: string;
  readonly rows: ArtifactRef;
  /** Absent: the untuned student. */
  readonly checkpoint?: ArtifactRef;
}

export interface AskedStudent {
  /** The answers to all rows, in their order. */
  readonly predictions: ArtifactRef;
  /** Of one answer; nothing on this machine. */
  readonly answerUpperBound: Cost;
}

export async function askStudent(run: CampaignRun, { summary, rows, checkpoint }: StudentQuestions): Promise<AskedStudent> {
  const tuned = checkpoint === undefined ? {} : { checkpoint };
  if (run.plan.hostedStudent !== true) {
    const answers = await run.attempt('Asking the student', () => device.runStudent.executeWithOptions({ summary }, [{ ...run.context, rows, ...tuned }]));
    return { predictions: answers.predictions, answerUpperBound: NO_COST };
  }
  const planned = await plan(run, 'Planning what the student is asked', (context) =>
    rowWork.planStudentRequests.executeWithOptions({ summary: `plan: ${summary}` }, [{ ...context, rows, ...tuned }]),
  );
  const requests = await answer(run, planned, checkpoint === undefined ? 'untuned student' : 'student', 'evaluation');
  const answers = await run.attempt('Reading the student', () => rowWork.readStudentAnswers.executeWithOptions({ summary }, [{ ...run.context, rows, requests }]));
  return { predictions: answers.predictions, answerUpperBound: answerBoundOf(planned) };
}

/** One job for all epochs. Whatever ends the campaign ends the job as well. */
export async function fineTune(run: CampaignRun, round: number, data: PreparedData, { dataset, trainingUpperBound: bound = NO_COST }: BuiltDataset): Promise<FineTuned> {
  const input = { round, dataset, development: data.development };
  try {
    const tuned = await run.spend({ what: 'Fine-tuning', bound, stage: bound, calls: 1 }, () =>
      hostedTraining.fineTune.executeWithOptions({ summary: `round ${round}: fine-tune at the provider` }, [{ ...run.context, ...input }]),
    );
    return tuned as FineTuned;
  } catch (error) {
    if (!isCancellation(error)) throw error;
    await CancellationScope.nonCancellable(async () => {
      // The activity has cancelled its job itself where it could: not where its worker was gone.
      await hostedCancellation.cancelFineTuning.executeWithOptions({ summary: 'cancel the fine-tuning job' }, [{ ...run.context, ...input }]).catch((failure: unknown) => {
        if (!(failure instanceof ActivityFailure)) throw failure;
      });
    });
    throw error;
  }
}

export async function exportStudent(run: CampaignRun, best: { readonly checkpoint: ArtifactRef; readonly dataset: ArtifactRef }): Promise<ArtifactRef> {
  const { checkpoint, dataset } = best;
  const exported = await run.attempt('Exporting the student', () =>
    run.plan.hostedStudent === true
      ? rowWork.exportHostedStudent.executeWithOptions({ summary: 'write down where the student lives' }, [{ ...run.context, checkpoint, dataset }])
      : device.exportStudent.executeWithOptions({ summary: 'export the adapter' }, [{ ...run.context, checkpoint, dataset }]),
  );
  return exported.adapter;
}
