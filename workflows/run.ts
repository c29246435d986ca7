/** One run of the campaign workflow: its memory, and the gates that every activity passes. */
import { ActivityFailure, ApplicationFailure, defineSearchAttributeKey } from '@temporalio/common';
import { condition, isCancellation, patched, proxyActivities, setCurrentDetails, upsertSearchAttributes } from '@temporalio/workflow';
import type { CampaignContext, FailureFacts, OrchestratorActivities, TeacherActivities, TrainerActivities } from '../src/contracts/activities.ts';
import type { CampaignInput, CampaignPlan } from '../src/contracts/campaign.ts';
import type { ErrorCode } from '../src/contracts/errors.ts';
import type { CampaignState, Cost, RoundSummary, Spending, Stage } from '../src/contracts/state.ts';
import { describeState } from './details.ts';
import { codeOf, factsOf, isSilent, reasonOf, shorten } from './failure.ts';
import { NO_COST, NO_SPENDING, covers, leftOf, remaining, subtractCost, subtractSpending, timesCost } from './money.ts';
import type { CampaignEvent, Memory } from './state.ts';
import { initialMemory, initialState, reduce } from './state.ts';
import { DEVICE_WORK, HOSTED_CANCELLATION, HOSTED_TRAINING, PREPARATION, PROVIDER_PROBES, ROW_WORK, TEACHER_CALLS, TRAIN_EPOCH } from './timeouts.ts';

export const preparation = proxyActivities<Pick<OrchestratorActivities, 'prepareCampaign'>>(PREPARATION);
export const rowWork = proxyActivities<OrchestratorActivities>(ROW_WORK);
export const training = proxyActivities<Pick<TrainerActivities, 'trainEpoch'>>(TRAIN_EPOCH);
export const device = proxyActivities<TrainerActivities>(DEVICE_WORK);
export const teacher = proxyActivities<TeacherActivities>(TEACHER_CALLS);
export const hostedTraining = proxyActivities<Pick<TeacherActivities, 'fineTune'>>(HOSTED_TRAINING);
export const hostedCancellation = proxyActivities<Pick<TeacherActivities, 'cancelFineTuning'>>(HOSTED_CANCELLATION);

const ATTRIBUTES = {
  campaign: defineSearchAttributeKey('StillhouseCampaign', 'KEYWORD'),
  status: defineSearchAttributeKey('StillhouseStatus', 'KEYWORD'),
  stage: defineSearchAttributeKey('StillhouseStage', 'KEYWORD'),
  round: defineSearchAttributeKey('StillhouseRound', 'INT'),
  retention: defineSearchAttributeKey('StillhouseRetention', 'DOUBLE'),
  spentUsd: defineSearchAttributeKey('StillhouseSpentUsd', 'DOUBLE'),
};
/** Events after which lists and dashboards are brought up to date; the others only change the details, which cost no history. */
const INDEXED: ReadonlySet<CampaignEvent['type']> = new Set([
  'stage-entered', 'paused', 'failed', 'provider-away', 'probe-due', 'budget-short', 'time-short', 'resumed', 'budget-raised', 'teacher-set', 'spec-set', 'round-finished', 'finished',
]);

/** Commands after which the campaign goes on. */
const RESUMING: ReadonlySet<CampaignEvent['type']> = new Set(['resumed', 'teacher-set', 'spec-set']);

/** Something that costs money: one batch of calls, one hosted training job. */
export interface Purchase {
  /** What it is, at the beginning of the reason for a pause. */
  readonly what: string;
  /** The most that it may cost. */
  readonly bound: Cost;
  /** The most that all of the stage which is left may cost, this purchase included. */
  readonly stage: Cost;
  /** Into how many calls the bound is divided. */
  readonly calls: number;
  /** Whether it is still to be bought; asked again after each pause. */
  readonly wanted?: () => boolean;
}

interface AttemptOptions {
  readonly wanted?: () => boolean;
  /** Awaited before each try. */
  readonly before?: () => Promise<void>;
  /** Told what a failed or cancelled activity still knows. */
  readonly onFacts?: (facts: FailureFacts) => void;
  /** Whether the caller deals with such a failure itself: the attempt then gives nothing, and the campaign does not pause. */
  readonly takes?: (code: ErrorCode | undefined, reason: string) => boolean;
}

export class CampaignRun {
  readonly input: CampaignInput;
  /** The rounds this run knows in full: the last of the run before, and its own. */
  readonly rounds: RoundSummary[];
  memory: Memory;
  private purchases = 0;
  /** How often somebody had the campaign go on. */
  private resumes = 0;
  private readonly bought = new Map<string, number>();
  /** A call is finding out whether the provider is back. */
  private probing = false;
  private stageStartedMs = Date.now();
  private stageMs: Partial<Record<Stage, number>> = {};
  private indexed = '';

  constructor(input: CampaignInput) {
    this.input = input;
    this.rounds = input.carried === undefined ? [] : [input.carried.last];
    const state = input.carried?.state ?? initialState(input.campaign, input.plan, input.budget, Date.now(), input.fork);
    const winner = state.tournament?.contestants.find(({ status }) => status === 'winner');
    // After a tournament the winner's method trains the later rounds.
    this.memory = { ...initialMemory(state), ...(winner === undefined || input.plan.tournament === undefined ? {} : { plan: planOfWinner(input.plan, winner.epochs) }) };
    this.publish(true);
  }

  get state(): CampaignState {
    return this.memory.state;
  }

  /** The numbers of the spec as it stands now. */
  get plan(): CampaignPlan {
    return this.memory.plan ?? this.input.plan;
  }

  /** What every activity of this campaign is given. */
  get context(): CampaignContext {
    return { campaign: this.input.campaign, spec: this.state.changedSpec ?? this.input.spec };
  }

  apply(event: CampaignEvent): void {
    if (RESUMING.has(event.type)) this.resumes += 1;
    this.memory = reduce(this.memory, event);
    this.publish(INDEXED.has(event.type));
  }

  enter(stage: Stage, round: number = this.state.round): void {
    this.addStageTime();
    this.apply({ type: 'stage-entered', stage, round });
  }

  progressed(done: number, total: number): void {
    this.apply({ type: 'progressed', progress: total === 0 ? 1 : done / total, parts: total });
  }

  /** Wall-clock milliseconds by stage since the last call. */
  takeStageMs(): Partial<Record<Stage, number>> {
    this.addStageTime();
    const taken = this.stageMs;
    this.stageMs = {};
    return taken;
  }

  /**
   * Runs an activity when the campaign is not paused; a failure that retrying did not cure pauses it,
   * and resuming tries again. Undefined when it is no longer `wanted` by the time it could run, or the caller takes the failure.
   */
  async attempt<T>(what: string, call: () => Promise<T>): Promise<T>;
  async attempt<T>(what: string, call: () => Promise<T>, options: AttemptOptions): Promise<T | undefined>;
  async attempt<T>(what: string, call: () => Promise<T>, { wanted, before, onFacts, takes }: AttemptOptions = {}): Promise<T | undefined> {
    for (;;) {
      await before?.();
      const probe = await this.turn();
      const { resumes } = this;
      try {
        if (wanted?.() === false) return undefined;
        const result = await call();
        this.apply({ type: 'provider-answered' });
        return result;
      } catch (error) {
        if (!(error instanceof ActivityFailure)) throw error;
        const facts = factsOf(error);
        if (facts !== undefined) onFacts?.(facts);
        if (isCancellation(error)) throw error;
        const reason = reasonOf(error);
        if (takes?.(codeOf(error), reason) === true) return undefined;
        // It began before somebody had the campaign go on: what was mended then has not been tried.
        if (this.resumes !== resumes && patched('late-failures')) continue;
        this.failed(shorten(`${what}: ${reason}`), codeOf(error), facts);
      } finally {
        if (probe) this.probing = false;
      }
    }
  }

  /**
   * Buys something: sets its upper bound aside, waiting until the budget covers it, and bills what it
   * truly cost. What was set aside stays so over failures, because a part may be bought already; where
   * something was lost, the budget has to cover the rest again before the next try.
   */
  async spend<T extends { readonly spending: Spending }>(purchase: Purchase, call: () => Promise<T>): Promise<T | undefined> {
    const name = String((this.purchases += 1));
    const { what, bound, calls, wanted } = purchase;
    await this.reserve(name, purchase);
    let told = NO_SPENDING;
    /** What was billed before the rest was set aside anew. */
    let settled = NO_SPENDING;
    const bill = (spending: Spending): void => {
      told = spending;
      const uncertain = spending.lost ?? timesCost(bound, calls === 0 ? 0 : spending.callsRepeated / calls);
      this.apply({ type: 'billed', name, spending: subtractSpending(spending, settled), uncertain: subtractCost(uncertain, settled.lost ?? NO_COST) });
    };
    const cover = async (): Promise<void> => {
      const { lost = NO_COST } = told;
      if (lost.usd <= (settled.lost?.usd ?? 0) && lost.tokens <= (settled.lost?.tokens ?? 0)) return;
      this.apply({ type: 'released', name });
      settled = told;
      await this.reserve(name, { bound: leftOf(bound, told), stage: leftOf(purchase.stage, told) });
    };
    // Whether its newest attempt ended with nobody left to say what it had bought.
    let silent = false;
    const listened = async (): Promise<T> => {
      silent = false;
      try {
        return await call();
      } catch (error) {
        silent = isSilent(error);
        throw error;
      }
    };
    try {
      const bought = await this.attempt(what, listened, {
        before: cover,
        onFacts: ({ spending }) => {
          if (spending !== undefined) bill(spending);
        },
        ...(wanted === undefined ? {} : { wanted }),
      });
      if (bought !== undefined) bill(bought.spending);
      return bought;
    } finally {
      if (silent) this.apply({ type: 'unsettled', name });
      this.apply({ type: 'released', name });
    }
  }

  /** How often the same was bought before in this run; it is once more now. */
  countPurchase(name: string): number {
    const before = this.bought.get(name) ?? 0;
    this.bought.set(name, before + 1);
    return before;
  }

  /** Goes on when the campaign is running and its hours are not over. */
  async withinHours(): Promise<void> {
    await this.reserve('time', { bound: NO_COST, stage: NO_COST });
    this.apply({ type: 'released', name: 'time' });
  }

  /** What is left of the budget's hours, where it has any. */
  hoursLeft(): { readonly hoursLeft?: number } {
    const { hours } = remaining(this.memory, Date.now());
    return Number.isFinite(hours) ? { hoursLeft: hours } : {};
  }

  /** Waits until the budget covers the bound and sets it aside. */
  private async reserve(name: string, { bound, stage }: Pick<Purchase, 'bound' | 'stage'>): Promise<void> {
    for (;;) {
      await this.whenRunning();
      if (covers(this.memory, bound, Date.now())) break;
      const before = this.memory;
      // What is in flight may cost less than was set aside for it: only then is it certain that the rest is too little.
      if (Object.keys(before.reservations).length > 0) await condition(() => this.memory !== before);
      else this.apply({ type: 'budget-short', wanted: { next: bound, stage }, nowMs: Date.now() });
    }
    this.apply({ type: 'reserved', name, bound });
  }

  private whenRunning(): Promise<void> {
    return condition(() => this.state.status !== 'paused');
  }

  /** Waits until the campaign runs. While nobody knows whether the provider is back, one call at a time finds out: then it is true. */
  private async turn(): Promise<boolean> {
    const may = (): boolean => this.state.status !== 'paused' && (this.memory.outages === 0 || !this.probing);
    while (!may()) await condition(may);
    const probe = this.memory.outages > 0;
    this.probing ||= probe;
    return probe;
  }

  /** Pauses for what retrying did not cure, in the way that its end is found out: by time, by a raised limit, by a person. */
  failed(reason: string, code: ErrorCode | undefined, facts: FailureFacts | undefined): void {
    const nowMs = Date.now();
    if (facts?.hoursNeeded !== undefined && this.state.budget.hours !== undefined) {
      this.apply({ type: 'time-short', reason, hours: facts.hoursNeeded, nowMs });
      return;
    }
    if (code === undefined || !OUTAGES.has(code)) {
      this.apply({ type: 'failed', reason, nowMs, ...(code === undefined ? {} : { code }) });
      return;
    }
    const before = this.memory.probesAtMs;
    this.apply({ type: 'provider-away', reason, probes: this.input.probes ?? PROVIDER_PROBES, retryAfterMs: facts?.retryAfterMs ?? 0, nowMs });
    const { probesAtMs } = this.memory;
    if (probesAtMs === undefined || probesAtMs === before) return;
    // Not awaited: whoever waits for a running campaign is woken by it, or by a command that comes first.
    this.probeAt(probesAtMs).catch((reasonOfEnd: unknown) => {
      if (!isCancellation(reasonOfEnd)) throw reasonOfEnd;
    });
  }

  private async probeAt(atMs: number): Promise<void> {
    const changed = await condition(() => this.memory.probesAtMs !== atMs, Math.max(1, atMs - Date.now()));
    if (!changed) this.apply({ type: 'probe-due' });
  }

  private addStageTime(): void {
    const nowMs = Date.now();
    const { stage } = this.state;
    this.stageMs[stage] = (this.stageMs[stage] ?? 0) + nowMs - this.stageStartedMs;
    this.stageStartedMs = nowMs;
  }

  private publish(index: boolean): void {
    setCurrentDetails(describeState(this.state));
    if (!index) return;
    const { state } = this;
    const key = [state.status, state.stage, state.round, state.bestRetention?.mean, state.spending.usd].join(' ');
    if (key === this.indexed) return;
    this.indexed = key;
    upsertSearchAttributes([
      { key: ATTRIBUTES.campaign, value: state.campaign },
      { key: ATTRIBUTES.status, value: state.status },
      { key: ATTRIBUTES.stage, value: state.stage },
      { key: ATTRIBUTES.round, value: state.round },
      { key: ATTRIBUTES.spentUsd, value: state.spending.usd },
      ...(state.bestRetention === undefined ? [] : [{ key: ATTRIBUTES.retention, value: state.bestRetention.mean }]),
    ]);
  }
}

/** How a campaign goes on whose tournament is over. */
export function planOfWinner({ tournament: _over, ...plan }: CampaignPlan, epochs: number): CampaignPlan {
  return { ...plan, epochs };
}

/** What waiting may cure. */
const OUTAGES: ReadonlySet<ErrorCode> = new Set(['UNAVAILABLE', 'RATE_LIMITED']);

/** A refusal that the caller of an update reads. */
export function refusal(type: string, message: string): ApplicationFailure {
  return ApplicationFailure.create({ type, message, nonRetryable: true });
}
