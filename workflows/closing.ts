/** The end of a campaign: the test rows are looked at once, the best student is measured and exported, and all is written down. */
import type { MeasuredSpeed, PreparedData } from '../src/contracts/activities.ts';
import type { ArtifactRef } from '../src/contracts/artifacts.ts';
import { answer, plan } from './answer.ts';
import { judgeAndEvaluate } from './evaluating.ts';
import type { RoundStart } from './round.ts';
import type { CampaignRun } from './run.ts';
import { device, rowWork } from './run.ts';
import { askStudent, exportStudent } from './student.ts';

/** What the closing stages have found so far; a cancelled campaign reports what is there. */
export interface Findings {
  data?: PreparedData;
  testEvaluation?: ArtifactRef;
  speed?: MeasuredSpeed;
}

export async function close(run: CampaignRun, from: RoundStart, findings: Findings): Promise<void> {
  const { best } = from;
  if (best !== undefined) {
    run.enter('testing');
    await examine(run, from, best.checkpoint, findings);
    // The time of a student behind an endpoint is the network's as well: it is not measured.
    if (run.plan.hostedStudent !== true) {
      findings.speed = await run.attempt('Measuring speed', () =>
        device.measureSpeed.executeWithOptions({ summary: 'measure speed' }, [{ ...run.context, rows: from.data.test, checkpoint: best.checkpoint }]),
      );
    }
    run.progressed(4, 5);
    run.apply({ type: 'changed', fields: { adapter: await exportStudent(run, best) } });
  }
  await run.attempt('Writing the report', () => report(run, findings));
}

async function examine(run: CampaignRun, from: RoundStart, checkpoint: ArtifactRef, findings: Findings): Promise<void> {
  const { data } = from;
  const planned = await plan(run, 'Planning the test rows', (context) =>
    rowWork.planRequests.executeWithOptions({ summary: 'plan test requests' }, [{ ...context, data, purpose: 'test', round: 0 }]),
  );
  const teacherRequests = await answer(run, planned, 'teacher (test rows)', 'evaluation', 1 / 5);
  run.progressed(1, 5);
  const ask = (who: string, tuned: { readonly checkpoint?: ArtifactRef }) => askStudent(run, { summary: `${who} answers ${data.testRows} test rows`, rows: data.test, ...tuned });
  const untuned = await ask('untuned student', {});
  run.progressed(2, 5);
  const student = await ask('best student', { checkpoint });
  run.progressed(3, 5);
  const evaluated = await judgeAndEvaluate(run, 'test', {
    rows: data.test, teacherRequests, student: student.predictions, untuned: untuned.predictions,
    ...(from.calibration === undefined ? {} : { calibration: from.calibration }),
  });
  findings.testEvaluation = evaluated.evaluation;
  const { rows, teacherScore, studentScore, untunedScore, retention } = evaluated;
  run.apply({ type: 'changed', fields: { test: { rows, teacherScore, studentScore, untunedScore: untunedScore ?? 0, retention } } });
}

/** Writes the report of what there is; the state then names it. */
export async function report(run: CampaignRun, findings: Findings): Promise<void> {
  const { state } = run;
  run.enter('reporting');
  const { test, adapter, history, tournament } = state;
  const written = await rowWork.writeReport.executeWithOptions({ summary: 'write the report' }, [
    {
      ...run.context,
      ...(findings.data === undefined ? {} : { data: findings.data }),
      bestRound: state.bestRound ?? 0,
      spending: state.spending,
      budget: state.budget,
      ...(state.uncertain === undefined ? {} : { uncertain: state.uncertain }),
      ...(state.forkedFrom === undefined ? {} : { forkedFrom: state.forkedFrom }),
      stopReason: state.stopReason ?? 'cancelled',
      startedAtMs: state.startedAtMs,
      finishedAtMs: Date.now(),
      ...(history === undefined ? {} : { history }),
      ...(findings.testEvaluation === undefined ? {} : { testEvaluation: findings.testEvaluation }),
      ...(test === undefined ? {} : { test }),
      ...(findings.speed === undefined ? {} : { speed: findings.speed }),
      ...(tournament === undefined ? {} : { tournament }),
      ...(adapter === undefined ? {} : { adapter }),
    },
  ]);
  run.apply({ type: 'changed', fields: { report: written.report, manifest: written.manifest } });
}
