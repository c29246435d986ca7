/** One round: choose inputs, ask the teacher, filter, train, evaluate, decide. */
import { patched } from '@temporalio/workflow';
import type { BuiltDataset, FailureFacts, PlannedRequests, PreparedData } from '../src/contracts/activities.ts';
import type { ArtifactRef } from '../src/contracts/artifacts.ts';
import type { CarriedState, ForkedFrom } from '../src/contracts/campaign.ts';
import type { Cost, RoundSummary, StopReason } from '../src/contracts/state.ts';
import type { Planned } from './answer.ts';
import { answer, answerBoundOf, plan, reassign } from './answer.ts';
import { judgeAndEvaluate } from './evaluating.ts';
import type { CampaignRun } from './run.ts';
import { rowWork, training } from './run.ts';
import { NO_COST, addCost, timesCost } from './money.ts';
import { betterRound, decide } from './state.ts';
import { askStudent, fineTune } from './student.ts';
import { compete } from './tournament.ts';
import type { TournamentResult, Trained } from './tournament.ts';

/** What is known when a round begins: everything of the round before, or only the rows. */
export type RoundStart = Pick<CarriedState, 'data'> & Partial<Omit<CarriedState, 'state' | 'data'>>;

export type RoundOutcome =
  | { readonly kind: 'stopped'; readonly reason: StopReason; readonly from: RoundStart }
  | { readonly kind: 'next'; readonly from: RoundStart & Omit<CarriedState, 'state'> };

type Development = { readonly requests: ArtifactRef; readonly answerUpperBound: Cost };

/** A dataset, and the spec that it was filtered by. */
type Built = BuiltDataset & { readonly spec: ArtifactRef };

/** The round's student, what it answered to the development rows, and how that was scored. */
interface Measured extends Pick<TournamentResult, 'trained' | 'predictions' | 'evaluated'> {
  readonly development: Development;
  readonly answerUpperBound: Cost;
  /** What the student was trained on. */
  readonly built: Built;
}

export async function runRound(run: CampaignRun, start: RoundStart): Promise<RoundOutcome> {
  const inherited = start.last === undefined ? run.input.fork : undefined;
  const round = inherited?.round ?? (start.last?.round ?? 0) + 1;
  const history = run.state.history === undefined ? {} : { history: run.state.history };
  const { data } = start;

  const planned = inherited === undefined ? await planRound(run, start, round) : await takeOver(run, inherited);
  if (planned === 'no-inputs-left') return { kind: 'stopped', reason: planned, from: start };
  const requests = await answer(run, planned, 'teacher', 'training');

  run.enter('filtering');
  const build = (): Promise<Built> =>
    run.attempt('Building the dataset', async () => {
      const { context } = run;
      return { ...(await rowWork.buildDataset.executeWithOptions({ summary: `round ${round}: filter` }, [{ ...context, round, data, ...history, requests }])), spec: context.spec };
    });
  const first = await build();
  const { tournament } = run.plan;
  const measured = tournament !== undefined && start.last === undefined ? await holdTournament(run, round, start, first) : await trainAndEvaluate(run, round, start, first, build);
  const { built, trained, development, predictions, answerUpperBound: studentAnswer, evaluated } = measured;
  const calibration = built.calibration === undefined ? {} : { calibration: built.calibration };

  const { checkpoint, lossCurve, lossFirstNats, lossLastNats, tooLongRows } = trained;
  const { teacherScore, studentScore, retention } = evaluated;
  const summary: RoundSummary = {
    round, requests: (start.last?.requests ?? inherited?.requestsBefore ?? 0) + planned.count, accepted: built.accepted, rejected: built.rejectedCount, rejectedRows: built.rejected,
    dataset: built.dataset, checkpoint, lossCurve, lossFirstNats, lossLastNats, ...(tooLongRows === undefined ? {} : { tooLongRows }),
    teacherScore, studentScore, retention, stageMs: run.takeStageMs(),
  };
  const recorded = await run.attempt('Recording the round', () =>
    rowWork.recordRound.executeWithOptions({ summary: `round ${round}: record` }, [
      { ...run.context, ...history, summary, requests, evaluation: evaluated.evaluation, development: { rows: data.development, requests: development.requests } },
    ]),
  );
  run.apply({ type: 'changed', fields: { history: recorded.history } });
  run.rounds.push(summary);
  const best = betterRound(start.best, summary);
  run.apply({ type: 'round-finished', best });

  const { answerUpperBound } = development;
  const from = {
    data, last: summary, best, developmentRequests: development.requests, developmentPredictions: predictions, answerUpperBound, ...calibration,
  };
  const reason = decide(run.memory, run.plan, start.best, summary, costOfGoingOn(planned, data, built, answerUpperBound, studentAnswer), Date.now());
  return reason === undefined ? { kind: 'next', from } : { kind: 'stopped', reason, from };
}

/**
 * One more batch, and the teacher's answers on the test rows that still have to be bought at the end; of
 * a hosted student another training, and what it answers then and at the end, before and after its training.
 */
function costOfGoingOn(planned: PlannedRequests, data: PreparedData, built: BuiltDataset, answer: Cost, studentAnswer: Cost): Cost {
  const teacher = {
    usd: planned.batchUpperBoundUsd + answer.usd * data.testRows,
    tokens: planned.batchUpperBoundTokens + Math.ceil(answer.tokens * data.testRows),
  };
  if (built.trainingUpperBound === undefined) return teacher;
  return addCost(addCost(teacher, built.trainingUpperBound), timesCost(studentAnswer, data.developmentRows + 2 * data.testRows));
}

/** The round's questions: about inputs that the student's own doubts chose, where it has any yet. */
async function planRound(run: CampaignRun, start: RoundStart, round: number): Promise<Planned | 'no-inputs-left'> {
  const selection = start.last === undefined ? undefined : await selectInputs(run, start, round);
  if (selection === 'no-inputs-left') return selection;
  const history = run.state.history === undefined ? {} : { history: run.state.history };
  run.enter('sampling', round);
  for (;;) {
    const planned = await plan(run, 'Planning the round', (context) =>
      rowWork.planRequests.executeWithOptions({ summary: `round ${round}: plan requests` }, [
        { ...context, data: start.data, purpose: 'train', round, ...history, ...(selection === undefined ? {} : { selection }) },
      ]),
    );
    if (planned.count === 0 && start.last !== undefined) return 'no-inputs-left';
    if (planned.preliminary !== true) return planned;
    // What has to be asked before the requests can be written; the ledger knows it in later rounds.
    await answer(run, planned, 'teacher (plan)', 'training');
  }
}

/** The questions of another campaign's round, whose answers the ledger holds. */
function takeOver(run: CampaignRun, { campaign, round, requests }: ForkedFrom): Promise<Planned> {
  run.enter('sampling', round);
  return plan(run, 'Taking over the requests', (context) =>
    rowWork.reassignRequests.executeWithOptions({ summary: `round ${round}: requests of ${campaign}` }, [{ ...context, requests }]),
  );
}

/** Pool rows in the order in which the teacher's answer would teach the student most; undefined where that cannot be told. */
async function selectInputs(run: CampaignRun, start: RoundStart, round: number): Promise<ArtifactRef | 'no-inputs-left' | undefined> {
  const { selectsInputs, candidates: limit } = run.plan;
  const { data, last, developmentPredictions } = start;
  if (!selectsInputs || data.pool === undefined || last === undefined || developmentPredictions === undefined) return undefined;
  const { pool } = data;
  const history = run.state.history === undefined ? {} : { history: run.state.history };
  run.enter('selecting', round);
  const candidates = await run.attempt('Finding candidates', () =>
    rowWork.planCandidates.executeWithOptions({ summary: `round ${round}: candidates` }, [{ ...run.context, pool, ...history, limit }]),
  );
  if (candidates.count === 0) return 'no-inputs-left';
  const answers = await askStudent(run, { summary: `round ${round}: student answers ${candidates.count} candidates`, rows: candidates.rows, checkpoint: last.checkpoint });
  const selected = await run.attempt('Selecting inputs', () =>
    rowWork.selectInputs.executeWithOptions({ summary: `round ${round}: select inputs` }, [
      { ...run.context, data, ...history, poolPredictions: answers.predictions, developmentPredictions },
    ]),
  );
  return selected.rows === 0 ? 'no-inputs-left' : selected.selection;
}

async function trainAndEvaluate(run: CampaignRun, round: number, start: RoundStart, first: Built, build: () => Promise<Built>): Promise<Measured> {
  const { data } = start;
  const { trained, built } = await train(run, round, data, first, build);
  run.enter('evaluating');
  const development = await askDevelopment(run, start);
  const { predictions, answerUpperBound } = await askStudent(run, {
    summary: `round ${round}: student answers ${data.developmentRows} development rows`, rows: data.development, checkpoint: trained.checkpoint,
  });
  const evaluated = await judgeAndEvaluate(run, `round ${round}`, {
    rows: data.development, teacherRequests: development.requests, student: predictions, ...(built.calibration === undefined ? {} : { calibration: built.calibration }),
  });
  return { built, trained, development, predictions, answerUpperBound, evaluated };
}

/** The teacher's answers are there before the first contestant is measured against them. */
async function holdTournament(run: CampaignRun, round: number, start: RoundStart, built: Built): Promise<Measured> {
  run.enter('evaluating');
  const development = await askDevelopment(run, start);
  const { data } = start;
  const result = await compete(run, {
    round, dataset: built.dataset, rows: data.development, teacherRequests: development.requests, ...(built.calibration === undefined ? {} : { calibration: built.calibration }),
  });
  return { ...result, built, development, answerUpperBound: NO_COST };
}

/**
 * Trains the round's student epoch by epoch; a failure in the middle of one is gone on from at its newest checkpoint. Where
 * the settings of now make another training of it, it begins anew, on the dataset as they filter it.
 */
async function train(run: CampaignRun, round: number, data: PreparedData, first: Built, build: () => Promise<Built>): Promise<{ readonly trained: Trained; readonly built: Built }> {
  run.enter('training');
  if (run.plan.hostedStudent === true) {
    await run.withinHours();
    return { trained: await fineTune(run, round, data, first), built: first };
  }
  let built = first;
  let epoch = 0;
  run.progressed(0, run.plan.epochs);
  let from: ArtifactRef | undefined;
  let lossFirstNats: number | undefined;
  const beginAnew = async (why: string): Promise<void> => {
    run.apply({ type: 'trained-anew', why });
    [epoch, from, lossFirstNats] = [0, undefined, undefined];
    built = await build();
  };
  const keep = ({ checkpoint, checkpointStep: step, steps }: FailureFacts): void => {
    if (checkpoint === undefined) return;
    from = checkpoint;
    run.apply({ type: 'kept', kept: { epoch: epoch + 1, checkpoint, ...(step === undefined || steps === undefined ? {} : { step, steps }) } });
  };
  /** Nothing is trained yet, and the settings by which the rows were chosen are no longer those of now. */
  const isOutdated = (): boolean => from === undefined && built.spec.sha256 !== run.context.spec.sha256 && patched('dataset-by-changed-spec');
  for (;;) {
    await run.withinHours();
    const { epochs } = run.plan;
    let stale: string | undefined;
    const trained = await run.attempt(`Training, epoch ${epoch + 1}`, () =>
      training.trainEpoch.executeWithOptions({ summary: `round ${round}: epoch ${epoch + 1} of ${epochs}` }, [
        { ...run.context, round, epoch, dataset: built.dataset, ...(from === undefined ? {} : { from }), ...run.hoursLeft() },
      ]),
      {
        wanted: () => !isOutdated(),
        onFacts: keep,
        takes: (code, reason) => {
          if (code !== 'STALE' || from === undefined) return false;
          stale = reason;
          return true;
        },
      },
    );
    if (trained === undefined) {
      if (stale === undefined) built = await build();
      else await beginAnew(stale);
      continue;
    }
    from = trained.checkpoint;
    lossFirstNats ??= trained.lossFirstNats;
    epoch += 1;
    run.apply({ type: 'kept' });
    run.progressed(epoch, epochs);
    if (trained.stopped !== true && epoch < run.plan.epochs) continue;
    const { outdated } = run.memory;
    if (outdated === undefined) return { trained: { ...trained, lossFirstNats }, built };
    await beginAnew(outdated);
  }
}

/** The teacher's answers on the development rows, bought once a campaign. */
async function askDevelopment(run: CampaignRun, start: RoundStart): Promise<Development> {
  const { developmentRequests, answerUpperBound, data } = start;
  if (developmentRequests !== undefined && answerUpperBound !== undefined) return { requests: developmentRequests, answerUpperBound };
  const planned = await plan(run, 'Planning the development rows', (context) =>
    rowWork.planRequests.executeWithOptions({ summary: 'plan development requests' }, [{ ...context, data, purpose: 'development', round: 0 }]),
  );
  const asked = run.input.fork?.development;
  // The same rows were asked about before, and by whom they were answered is written down there.
  const known = asked?.rows.sha256 === data.development.sha256 ? await reassign(run, asked) : planned;
  const requests = await answer(run, known, 'teacher (development rows)', 'evaluation');
  return { requests, answerUpperBound: answerBoundOf(planned) };
}
