/** Scores answers, after a judge has seen them where the spec names one. */
import type { CampaignContext, EvaluateInput, Evaluated } from '../src/contracts/activities.ts';
import type { ArtifactRef } from '../src/contracts/artifacts.ts';
import { answer, plan } from './answer.ts';
import type { CampaignRun } from './run.ts';
import { rowWork } from './run.ts';

export async function judgeAndEvaluate(run: CampaignRun, where: string, input: Omit<EvaluateInput, keyof CampaignContext>): Promise<Evaluated> {
  const { rows, teacherRequests, student, untuned } = input;
  let judgements: { readonly judgements?: ArtifactRef } = {};
  if (run.plan.usesJudge) {
    const predictions = untuned === undefined ? [student] : [student, untuned];
    const planned = await plan(run, 'Planning the judgements', (context) =>
      rowWork.planJudgements.executeWithOptions({ summary: `${where}: plan judgements` }, [{ ...context, rows, teacherRequests, predictions }]),
    );
    judgements = { judgements: await answer(run, planned, 'judge', 'evaluation') };
  }
  return await run.attempt('Evaluating', () =>
    rowWork.evaluate.executeWithOptions({ summary: `${where}: evaluate` }, [{ ...run.context, ...input, ...judgements }]),
  );
}
