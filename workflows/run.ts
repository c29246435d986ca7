/** One run of the campaign workflow: its memory, and the gates that every activity passes. */
import { ActivityFailure, ApplicationFailure, defineSearchAttributeKey, rootCause } from '@temporalio/common';
import { condition, isCancellation, proxyActivities, setCurrentDetails, upsertSearchAttributes } from '@temporalio/workflow';
import type { CampaignContext, OrchestratorActivities, PlannedRequests, TeacherActivities, TrainerActivities } from '../src/contracts/activities.ts';
import type { CampaignInput } from '../src/contracts/campaign.ts';
import type { CampaignState, Cost, RoundSummary, Stage } from '../src/contracts/state.ts';
import { describeState } from './details.ts';
import type { CampaignEvent, Memory } from './state.ts';
import { NO_COST, batchRanges, covers, initialState, reduce, remaining } from './state.ts';
import { DEVICE_WORK, PREPARATION, ROW_WORK, TEACHER_CALLS, TRAIN_EPOCH } from './timeouts.ts';

export const preparation = proxyActivities<Pick<OrchestratorActivities, 'prepareCampaign'>>(PREPARATION);
export const rowWork = proxyActivities<OrchestratorActivities>(ROW_WORK);
export const training = proxyActivities<Pick<TrainerActivities, 'trainEpoch'>>(TRAIN_EPOCH);
export const device = proxyActivities<TrainerActivities>(DEVICE_WORK);
const teacher = proxyActivities<TeacherActivities>(TEACHER_CALLS);

const ATTRIBUTES = {
  campaign: defineSearchAttributeKey('StillhouseCampaign', 'KEYWORD'),
  status: defineSearchAttributeKey('StillhouseStatus', 'KEYWORD'),
  stage: defineSearchAttributeKey('StillhouseStage', 'KEYWORD'),
  round: defineSearchAttributeKey('StillhouseRound', 'INT'),
  retention: defineSearchAttributeKey('StillhouseRetention', 'DOUBLE'),
  spentUsd: defineSearchAttributeKey('StillhouseSpentUsd', 'DOUBLE'),
};
/** Events after which lists and dashboards are brought up to date; the others only change the details, which cost no history. */
const INDEXED: ReadonlySet<CampaignEvent['type']> = new Set(['stage-entered', 'paused', 'failed', 'budget-short', 'resumed', 'budget-raised', 'round-finished', 'finished']);

/** Six events a batch at worst: these bounds and an ordinary number of epochs keep a round's history under 500. */
const MAX_TRAINING_BATCHES = 32;
const MAX_EVALUATION_BATCHES = 10;

export class CampaignRun {
  readonly input: CampaignInput;
  /** The rounds this run knows in full: the last of the run before, and its own. */
  readonly rounds: RoundSummary[];
  memory: Memory;
  private inFlight = 0;
  private stageStartedMs = Date.now();
  private stageMs: Partial<Record<Stage, number>> = {};
  private indexed = '';

  constructor(input: CampaignInput) {
    this.input = input;
    this.rounds = input.carried === undefined ? [] : [input.carried.last];
    const state = input.carried?.state ?? initialState(input.campaign, input.plan, input.budget, Date.now());
    this.memory = { state, reserved: NO_COST };
    this.publish(true);
  }

  get state(): CampaignState {
    return this.memory.state;
  }

  /** What every activity of this campaign is given. */
  get context(): CampaignContext {
    return { campaign: this.input.campaign, spec: this.input.spec };
  }

  apply(event: CampaignEvent): void {
    this.memory = reduce(this.memory, event);
    this.publish(INDEXED.has(event.type));
  }

  enter(stage: Stage, round: number = this.state.round): void {
    this.addStageTime();
    this.apply({ type: 'stage-entered', stage, round });
  }

  progressed(done: number, total: number): void {
    this.apply({ type: 'progressed', progress: total === 0 ? 1 : done / total });
  }

  /** Wall-clock milliseconds by stage since the last call. */
  takeStageMs(): Partial<Record<Stage, number>> {
    this.addStageTime();
    const taken = this.stageMs;
    this.stageMs = {};
    return taken;
  }

  /** Runs an activity when the campaign is not paused; a failure that retrying did not cure pauses it, and resuming tries again. */
  async attempt<T>(what: string, call: () => Promise<T>): Promise<T> {
    for (;;) {
      await this.whenRunning();
      try {
        return await call();
      } catch (error) {
        if (isCancellation(error) || !(error instanceof ActivityFailure)) throw error;
        this.apply({ type: 'failed', reason: `${what}: ${shorten(rootCause(error) ?? error.message)}` });
      }
    }
  }

  /** Goes on when the campaign is running and its hours are not over. */
  async withinHours(): Promise<void> {
    await this.reserve(NO_COST);
    this.settle(NO_COST);
  }

  /** What is left of the budget's hours, where it has any. */
  hoursLeft(): { readonly hoursLeft?: number } {
    const { hours } = remaining(this.memory, Date.now());
    return Number.isFinite(hours) ? { hoursLeft: hours } : {};
  }

  /** Has a teacher or judge answer all planned requests; when it returns the ledger holds every answer. */
  async answer(planned: PlannedRequests, who: string, purpose: 'training' | 'evaluation'): Promise<void> {
    const ranges = batchRanges(planned.count, planned.batchSize, purpose === 'training' ? MAX_TRAINING_BATCHES : MAX_EVALUATION_BATCHES);
    let next = 0;
    let done = 0;
    const lane = async (): Promise<void> => {
      for (let range = ranges[next++]; range !== undefined; range = ranges[next++]) {
        const { from, to } = range;
        const bounds = Math.ceil((to - from) / planned.batchSize);
        const cost = { usd: planned.batchUpperBoundUsd * bounds, tokens: planned.batchUpperBoundTokens * bounds };
        await this.attempt(`${who}, requests ${from + 1} to ${to}`, () => this.answerBatch(planned, from, to, cost, who));
        done += 1;
        this.progressed(done, ranges.length);
      }
    };
    await Promise.all(Array.from({ length: this.input.plan.concurrentBatches }, lane));
  }

  private async answerBatch(planned: PlannedRequests, from: number, to: number, cost: Cost, who: string): Promise<void> {
    await this.reserve(cost);
    try {
      const summary = `round ${this.state.round}: ${who} answers ${from + 1}–${to} of ${planned.count}`;
      const batch = await teacher.sampleBatch.executeWithOptions({ summary }, [{ ...this.context, requests: planned.requests, from, to }]);
      this.settle(cost, batch.spending);
    } catch (error) {
      this.settle(cost);
      throw error;
    }
  }

  /** Waits until the budget covers `cost` and sets it aside. */
  private async reserve(cost: Cost): Promise<void> {
    for (;;) {
      await this.whenRunning();
      if (covers(this.memory, cost, Date.now())) break;
      const before = this.memory;
      // What is in flight may cost less than was set aside for it: only then is it certain that the rest is too little.
      if (this.inFlight > 0) await condition(() => this.memory !== before);
      else this.apply({ type: 'budget-short', wanted: cost, nowMs: Date.now() });
    }
    this.inFlight += 1;
    this.apply({ type: 'reserved', cost });
  }

  private settle(cost: Cost, spending?: CampaignState['spending']): void {
    this.inFlight -= 1;
    this.apply({ type: 'settled', cost, ...(spending === undefined ? {} : { spending }) });
  }

  private whenRunning(): Promise<void> {
    return condition(() => this.state.status !== 'paused');
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

/** Long messages belong in logs: this one travels in payloads and is read on one line. */
function shorten(message: string): string {
  return message.length <= 600 ? message : `${message.slice(0, 597)}...`;
}

/** A refusal that the caller of an update reads. */
export function refusal(type: string, message: string): ApplicationFailure {
  return ApplicationFailure.create({ type, message, nonRetryable: true });
}
