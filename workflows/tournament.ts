/**
 * A tournament: the ways to train that the spec names are trained epoch by epoch on the round's dataset as child
 * workflows, compared on the development rows at each rung, and stopped where others do better (halving.ts). The
 * campaign owns the money and the decisions; before every step of a contestant stand the gates that stand before its own.
 */
import { isCancellation, patched } from '@temporalio/workflow';
import type { Evaluated, EvaluateInput, PlannedContestant, StudentAnswers, TrainedEpoch } from '../src/contracts/activities.ts';
import type { ArtifactRef } from '../src/contracts/artifacts.ts';
import type { TournamentPlan } from '../src/contracts/campaign.ts';
import type { ErrorCode } from '../src/contracts/errors.ts';
import type { ContestantReport } from '../src/contracts/contestant.ts';
import { subtractUsd } from '../src/contracts/money.ts';
import { rungEpochs } from '../src/contracts/rungs.ts';
import type { ContestantState } from '../src/contracts/state.ts';
import { Arena } from './arena.ts';
import { judgeAndEvaluate } from './evaluating.ts';
import { compareRung } from './halving.ts';
import type { Standing, Verdict } from './halving.ts';
import type { CampaignRun } from './run.ts';
import { planOfWinner, rowWork } from './run.ts';
import { shorten } from './failure.ts';

export type Trained = Pick<TrainedEpoch, 'checkpoint' | 'lossCurve' | 'lossFirstNats' | 'lossLastNats' | 'tooLongRows'>;

export interface TournamentInput extends Pick<EvaluateInput, 'rows' | 'teacherRequests' | 'calibration'> {
  readonly round: number;
  readonly dataset: ArtifactRef;
}

/** A student of the winner as it was when it had its best score. */
export interface TournamentResult {
  readonly trained: Trained;
  readonly predictions: ArtifactRef;
  readonly evaluated: Evaluated;
}

/** What is known of a contestant beside its public state. */
interface Entry {
  planned: PlannedContestant;
  state: ContestantState;
  lossFirstNats?: number;
  /** Of the last epoch. */
  trained?: Trained;
  /** The newest checkpoint, in the middle of an epoch too. */
  from?: ArtifactRef;
  /** Of the failure that it could not be trained for. */
  code?: ErrorCode;
  /** It trains no more. */
  over: boolean;
  /** Answers of its newest student that are not scored yet. */
  answers?: StudentAnswers;
  best?: TournamentResult;
}

export async function compete(run: CampaignRun, input: TournamentInput): Promise<TournamentResult> {
  const plan = run.plan.tournament as TournamentPlan;
  const { context } = run;
  const { contestants } = await run.attempt('Planning the tournament', () => rowWork.planTournament.executeWithOptions({ summary: 'plan the tournament' }, [context]));
  const tournament = new Tournament(run, input, context.spec, contestants);
  try {
    const winner = await tournament.play(plan);
    await adopt(run, winner, tournament.spec);
    return winner.best as TournamentResult;
  } catch (error) {
    // Nothing of a cancelled campaign is on the device when its report is written.
    if (isCancellation(error)) await tournament.arena.emptied();
    throw error;
  }
}

/** From now on the campaign is one by the winner's spec; a teacher that was changed meanwhile stays changed. */
async function adopt(run: CampaignRun, { planned }: Entry, began: ArtifactRef): Promise<void> {
  let [spec, made] = [began, planned.spec];
  while (run.context.spec.sha256 !== spec.sha256) {
    const { context } = run;
    const { contestants } = await run.attempt('Planning the winner', () => rowWork.planTournament.executeWithOptions({ summary: 'the winner by the changed spec' }, [context]));
    [spec, made] = [context.spec, (contestants.find(({ name }) => name === planned.name) as PlannedContestant).spec];
  }
  run.apply({ type: 'tournament-won', spec: made, plan: planOfWinner(run.plan, planned.epochs) });
}

class Tournament {
  readonly arena = new Arena();
  private readonly run: CampaignRun;
  private readonly input: TournamentInput;
  /** The campaign's, by which the contestants train. */
  spec: ArtifactRef;
  private readonly entries: readonly Entry[];
  /** Orders say by which spec they are carried out. */
  private replanned = false;

  constructor(run: CampaignRun, input: TournamentInput, spec: ArtifactRef, contestants: readonly PlannedContestant[]) {
    this.run = run;
    this.input = input;
    this.spec = spec;
    this.entries = contestants.map((planned) => ({ planned, over: false, state: freshState(planned) }));
    this.publish();
  }

  async play(plan: TournamentPlan): Promise<Entry> {
    await this.admitAll();
    for (let rung = 0; ; ) {
      await this.trainAll(rungEpochs(plan, rung), plan.concurrent);
      await this.measureAll();
      const standings = this.standings();
      if (standings.length === 0) {
        await this.startAgain();
        continue;
      }
      const winner = await this.settle(compareRung(standings, plan));
      if (winner !== undefined) return winner;
      rung += 1;
    }
  }

  /** Those still in, in the spec's order, so many at once: the order decides which device is busy when, not what comes out. */
  private async trainAll(epochs: number, concurrent: number): Promise<void> {
    this.run.enter('training');
    const pending = this.competing().filter(({ over }) => !over);
    let done = 0;
    const waiting = [...pending];
    const lane = async (): Promise<void> => {
      for (let entry = waiting.shift(); entry !== undefined; entry = waiting.shift()) {
        await this.trainTo(entry, epochs);
        this.run.progressed((done += 1), pending.length);
      }
    };
    const lanes = await Promise.allSettled(Array.from({ length: Math.min(concurrent, pending.length) }, lane));
    for (const outcome of lanes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  /** All at once, so that an operator sees who is there; again those whose workflow was ended. */
  private async admitAll(): Promise<void> {
    const { round, dataset, rows } = this.input;
    const { campaign } = this.run.context;
    for (const { planned: { name: contestant, spec, epochs }, state, from } of this.entries) {
      await this.arena.admit({ campaign, contestant, spec, round, dataset, rows, epochs, trained: state.trained, ...(from === undefined ? {} : { from }) });
    }
  }

  private async trainTo(entry: Entry, epochs: number): Promise<void> {
    while (entry.state.trained < Math.min(epochs, entry.planned.epochs) && !entry.over) {
      const report = await this.ordered(entry, () => ({ kind: 'train', ...this.run.hoursLeft() }));
      if (report?.trained !== undefined) this.addEpoch(entry, report.trained);
    }
    if (entry.state.trained >= entry.planned.epochs) entry.over = true;
    // The student of an epoch that is measured already answers the same.
    if (entry.state.status !== 'competing' || entry.state.measured.some(({ epoch }) => epoch === entry.state.trained)) return;
    const report = await this.ordered(entry, () => ({ kind: 'answer' }));
    if (report?.answers !== undefined) this.addAnswers(entry, report.answers);
  }

  /** Asks until it is done or the contestant is out of it: what comes of the machine pauses the campaign, as everywhere. */
  private async ordered(entry: Entry, command: () => Parameters<Arena['order']>[1]): Promise<ContestantReport | undefined> {
    const { name } = entry.planned;
    for (;;) {
      await this.run.withinHours();
      await this.planAgain();
      const report = await this.arena.order(name, { ...command(), ...(this.replanned ? { spec: entry.planned.spec } : {}) });
      const { failure } = report;
      if (failure === undefined) return report;
      this.keep(entry, failure);
      if (failure.stale === true) return undefined;
      if (failure.own) {
        this.fail(entry, failure.reason, failure.code);
        return undefined;
      }
      this.run.failed(`Contestant ${name}: ${failure.reason}`, failure.code, failure.facts);
    }
  }

  /** The contestants by the settings of now, where these were changed after they began. */
  private async planAgain(): Promise<void> {
    while (this.spec.sha256 !== this.run.context.spec.sha256 && patched('contestants-by-changed-spec')) {
      const { context } = this.run;
      const { contestants } = await this.run.attempt('Planning the tournament', () => rowWork.planTournament.executeWithOptions({ summary: 'the contestants by the changed spec' }, [context]));
      for (const entry of this.entries) {
        entry.planned = contestants.find(({ name }) => name === entry.planned.name) ?? entry.planned;
        entry.state = { ...entry.state, epochs: entry.planned.epochs };
      }
      this.spec = context.spec;
      this.replanned = true;
      this.publish();
    }
  }

  /** What is left of an epoch that failed, or nothing where the contestant begins anew. */
  private keep(entry: Entry, { stale, facts, reason }: NonNullable<ContestantReport['failure']>): void {
    const { kept: _before, ...state } = entry.state;
    if (stale === true) {
      delete entry.from;
      delete entry.trained;
      delete entry.lossFirstNats;
      const { best: _best, ...anew } = state;
      entry.state = { ...anew, trained: 0, measured: [] };
      delete entry.best;
      this.publish();
      this.run.apply({ type: 'trained-anew', why: `${state.name}: ${reason}` });
      return;
    }
    if (facts?.checkpoint === undefined) return;
    const { checkpoint, checkpointStep: step, steps } = facts;
    entry.from = checkpoint;
    this.change(entry, { kept: { epoch: state.trained + 1, checkpoint, ...(step === undefined || steps === undefined ? {} : { step, steps }) } });
  }

  private addEpoch(entry: Entry, trained: TrainedEpoch): void {
    const { checkpoint, lossCurve, lossFirstNats, lossLastNats, tooLongRows, tokens, seconds, stopped } = trained;
    entry.lossFirstNats ??= lossFirstNats;
    entry.trained = { checkpoint, lossCurve, lossFirstNats: entry.lossFirstNats, lossLastNats, ...(tooLongRows === undefined ? {} : { tooLongRows }) };
    entry.from = checkpoint;
    entry.over = stopped === true;
    const { kept: _over, ...state } = entry.state;
    entry.state = state;
    this.change(entry, { trained: state.trained + 1, trainedTokens: state.trainedTokens + tokens, trainedSeconds: rounded(state.trainedSeconds + seconds) });
  }

  private addAnswers(entry: Entry, answers: StudentAnswers): void {
    entry.answers = answers;
    const { state } = entry;
    const { promptTokens, completionTokens, seconds, sizeBytes } = answers;
    this.change(entry, {
      answeredTokens: state.answeredTokens + promptTokens + completionTokens, answeredSeconds: rounded(state.answeredSeconds + seconds), ...(sizeBytes === undefined ? {} : { sizeBytes }),
    });
  }

  /** One after the other, so that each is billed what judging its own answers cost. */
  private async measureAll(): Promise<void> {
    this.run.enter('evaluating');
    const answered = this.entries.filter(({ answers }) => answers !== undefined);
    for (const [index, entry] of answered.entries()) {
      await this.measure(entry);
      this.run.progressed(index + 1, answered.length);
    }
  }

  private async measure(entry: Entry): Promise<void> {
    const { rows, teacherRequests, calibration, round } = this.input;
    const { predictions } = entry.answers as StudentAnswers;
    const epoch = entry.state.trained;
    const before = this.run.state.spending.usd;
    const evaluated = await judgeAndEvaluate(this.run, `round ${round}, ${entry.planned.name} after epoch ${epoch}`, {
      rows, teacherRequests, student: predictions, ...(calibration === undefined ? {} : { calibration }),
    });
    delete entry.answers;
    const { state } = entry;
    const { studentScore: mean, studentInterval = { mean, low: mean, high: mean } } = evaluated;
    const better = state.best === undefined || mean > state.best.score.mean;
    if (better) entry.best = { trained: entry.trained as Trained, predictions, evaluated };
    this.change(entry, {
      measured: [...state.measured, { epoch, score: mean }],
      usd: subtractUsd(this.run.state.spending.usd, subtractUsd(before, state.usd)),
      ...(better ? { best: { epoch, score: studentInterval, checkpoint: (entry.trained as Trained).checkpoint, evaluation: evaluated.evaluation } } : {}),
    });
  }

  private standings(): readonly Standing[] {
    return this.competing().flatMap(({ planned: { name }, state: { best }, over }) => (best === undefined ? [] : [{ name, score: best.score.mean, epoch: best.epoch, over }]));
  }

  private async settle({ stopped, winner }: Verdict): Promise<Entry | undefined> {
    for (const { name, reason } of stopped) await this.leave(name, 'stopped', reason);
    if (winner === undefined) return undefined;
    await this.leave(winner.name, 'winner', winner.reason);
    // Those that failed before they had a score are still there, in case that all would fail.
    for (const { planned: { name }, state: { ended } } of this.entries) await this.arena.dismiss(name, ended?.reason ?? '');
    return this.entries.find(({ planned }) => planned.name === winner.name);
  }

  /** One that failed keeps its place by the student that was measured before; its failure stays the reason why it ended. */
  private async leave(name: string, status: 'stopped' | 'winner', reason: string): Promise<void> {
    const entry = this.entries.find(({ planned }) => planned.name === name) as Entry;
    const { trained, ended } = entry.state;
    const why = ended === undefined ? reason : `${ended.reason}; ${reason}`;
    this.change(entry, { status: status === 'stopped' && ended !== undefined ? 'failed' : status, ended: { epoch: trained, reason: why } });
    entry.over = true;
    await this.arena.dismiss(name, why);
  }

  private fail(entry: Entry, reason: string, code: ErrorCode | undefined): void {
    if (code !== undefined) entry.code = code;
    entry.over = true;
    const { trained, best } = entry.state;
    this.change(entry, { ...(best === undefined ? { status: 'failed' as const } : {}), ended: { epoch: trained, reason } });
  }

  /** Nothing can be compared. The campaign pauses with the reasons; when it is resumed all contestants try again. */
  private async startAgain(): Promise<void> {
    const reasons = this.entries.map(({ planned: { name }, state: { ended } }) => `${name}: ${ended?.reason ?? 'no score'}`);
    for (const entry of this.entries) {
      const { ended: _ended, ...state } = entry.state;
      entry.state = { ...state, status: 'competing' };
      entry.over = false;
    }
    this.publish();
    const code = this.entries.find((entry) => entry.code !== undefined)?.code;
    const reason = shorten(`No contestant could be trained. ${reasons.join('; ')}`);
    this.run.apply({ type: 'failed', reason, nowMs: Date.now(), stage: 'training', ...(code === undefined ? {} : { code }) });
    await this.run.withinHours();
    await this.admitAll();
  }

  private competing(): readonly Entry[] {
    return this.entries.filter(({ state }) => state.status === 'competing');
  }

  private change(entry: Entry, fields: Partial<ContestantState>): void {
    entry.state = { ...entry.state, ...fields };
    this.publish();
  }

  private publish(): void {
    this.run.apply({ type: 'contestants', tournament: { spec: this.spec, contestants: this.entries.map(({ state }) => state) } });
  }
}

const freshState = ({ name, epochs }: PlannedContestant): ContestantState => ({
  name, status: 'competing', epochs, trained: 0, measured: [], trainedTokens: 0, trainedSeconds: 0, answeredTokens: 0, answeredSeconds: 0, usd: 0,
});

const rounded = (seconds: number): number => Math.round(1_000 * seconds) / 1_000;
