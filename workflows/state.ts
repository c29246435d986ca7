/**
 * The campaign's state as a pure reducer: every change is an event, and the same events give the
 * same state. Nothing here knows Temporal, so decisions are tested without a server.
 */
import type { ArtifactRef } from '../src/contracts/artifacts.ts';
import type { BestRound, CampaignPlan, ForkedFrom, ProbeIntervals } from '../src/contracts/campaign.ts';
import type { ErrorCode } from '../src/contracts/errors.ts';
import type { Budget, CampaignState, Cost, KeptTraining, RoundSummary, Spending, Stage, StopReason, TournamentState } from '../src/contracts/state.ts';
import { NO_COST, NO_SPENDING, addCost, addSpending, covers, inFlightOf, needsOf, shortfallOf, subtractSpending } from './money.ts';
import type { Reservation, Shortfall } from './money.ts';
import { BEYOND_SETTINGS, remediesOf } from './remedies.ts';

/** What the workflow keeps beside the public state. */
export interface Memory {
  readonly state: CampaignState;
  /** Purchases that have begun, by name. */
  readonly reservations: Readonly<Record<string, Reservation>>;
  /** What a campaign that is paused for its budget waits to be able to reserve. */
  readonly wanted?: Shortfall;
  /** How often in a row the provider was found away. */
  readonly outages: number;
  readonly cancelReason?: string;
  /** The plan of a spec that was changed; absent: that of the start. */
  readonly plan?: CampaignPlan;
  /** When a provider that was found away is asked again: it outlives a pause of another kind, in which it has no effect. */
  readonly probesAtMs?: number;
  /** The training under way began by other settings than those of now: why it is begun anew. */
  readonly outdated?: string;
}

export type CampaignEvent =
  | { readonly type: 'stage-entered'; readonly stage: Stage; readonly round: number }
  | { readonly type: 'progressed'; readonly progress: number; readonly parts: number }
  /** An upper bound is set aside under a name. */
  | { readonly type: 'reserved'; readonly name: string; readonly bound: Cost }
  /** What the purchase has cost so far, all attempts together; may come again with more. */
  /** Nobody says what the purchase has bought: all that is set aside for it may be spent. */
  | { readonly type: 'unsettled'; readonly name: string }
  | { readonly type: 'billed'; readonly name: string; readonly spending: Spending; readonly uncertain: Cost }
  /** The purchase is over; what was set aside and not spent is free again. */
  | { readonly type: 'released'; readonly name: string }
  | { readonly type: 'paused'; readonly reason: string; readonly by?: string; readonly nowMs?: number }
  | { readonly type: 'failed'; readonly reason: string; readonly code?: ErrorCode; readonly nowMs?: number; readonly stage?: Stage }
  /** The next step is measured to take so many hours, more than are left. */
  | { readonly type: 'time-short'; readonly reason: string; readonly hours: number; readonly nowMs: number }
  /** What an unfinished epoch has left; nothing once it is finished. */
  | { readonly type: 'kept'; readonly kept?: KeptTraining }
  | { readonly type: 'trained-anew'; readonly why: string }
  | { readonly type: 'provider-away'; readonly reason: string; readonly probes: ProbeIntervals; readonly retryAfterMs: number; readonly nowMs: number }
  /** The time has come to ask the provider again. */
  | { readonly type: 'probe-due' }
  | { readonly type: 'provider-answered' }
  | { readonly type: 'budget-short'; readonly wanted: Shortfall; readonly nowMs: number }
  | { readonly type: 'budget-raised'; readonly budget: Budget; readonly nowMs: number }
  | { readonly type: 'teacher-set'; readonly spec: ArtifactRef; readonly plan?: CampaignPlan; readonly outdates?: string }
  /** Settings that change nothing of what was bought. */
  | { readonly type: 'spec-set'; readonly spec: ArtifactRef; readonly plan: CampaignPlan; readonly outdates?: string; readonly nowMs: number }
  | { readonly type: 'resumed' }
  | { readonly type: 'cancel-requested'; readonly reason: string }
  | { readonly type: 'contestants'; readonly tournament: TournamentState }
  /** `spec` is the winner's, by which the campaign goes on. */
  | { readonly type: 'tournament-won'; readonly spec: ArtifactRef; readonly plan: CampaignPlan }
  | { readonly type: 'round-finished'; readonly best: BestRound }
  | { readonly type: 'stopped'; readonly reason: StopReason }
  | { readonly type: 'changed'; readonly fields: Partial<Pick<CampaignState, 'test' | 'report' | 'manifest' | 'adapter' | 'history' | 'firstAnswers'>> }
  | { readonly type: 'finished'; readonly status: 'completed' | 'cancelled' };

export function initialState(campaign: string, plan: CampaignPlan, budget: Budget, startedAtMs: number, fork?: ForkedFrom): CampaignState {
  return {
    campaign,
    status: 'running',
    stage: 'preparing',
    round: 1,
    maxRounds: plan.maxRounds,
    progress: 0,
    budget,
    spending: NO_SPENDING,
    startedAtMs,
    ...(fork === undefined ? {} : { forkedFrom: { campaign: fork.campaign, round: fork.round }, history: fork.history }),
  };
}

export function initialMemory(state: CampaignState): Memory {
  return { state, reservations: {}, outages: 0 };
}

/** A stage that has just begun has said nothing of its parts. */
const withoutParts = ({ stageParts: _parts, ...state }: CampaignState): CampaignState => state;

export function reduce(memory: Memory, event: CampaignEvent): Memory {
  const { state } = memory;
  const withState = (fields: Partial<CampaignState>): Memory => ({ ...memory, state: { ...state, ...fields } });
  switch (event.type) {
    case 'stage-entered':
      return upToDate({ ...memory, state: { ...withoutParts(state), stage: event.stage, round: event.round, progress: 0 } });
    case 'progressed':
      return withState({ progress: event.progress, stageParts: event.parts });
    case 'reserved':
      return withReservations(memory, { ...memory.reservations, [event.name]: { bound: event.bound, billed: NO_SPENDING, uncertain: NO_COST } });
    case 'unsettled':
      return unsettled(memory, event.name);
    case 'billed':
      return billed(memory, event);
    case 'released': {
      const { [event.name]: _over, ...rest } = memory.reservations;
      return withReservations(memory, rest);
    }
    case 'paused':
      return pause(memory, { pauseKind: 'user', pauseReason: event.reason, pausedBy: event.by ?? 'user', ...atMs(event.nowMs) });
    case 'failed':
      if (pausedByPerson(state)) return memory;
      return pause(memory, { pauseKind: 'failure', pauseReason: event.reason, pausedBy: 'failure', ...(event.code === undefined ? {} : { pauseCode: event.code }), ...atMs(event.nowMs) }, event.stage);
    case 'time-short': {
      if (pausedByPerson(state)) return memory;
      const wanted = { ...NO_COST, hours: event.hours };
      return short(memory, { next: wanted, stage: wanted, found: event.reason }, event.nowMs);
    }
    case 'kept': {
      const { kept: _before, ...rest } = state;
      return { ...memory, state: event.kept === undefined ? rest : { ...rest, kept: event.kept } };
    }
    case 'trained-anew': {
      const { kept: _kept, ...rest } = state;
      return upToDate({ ...memory, state: { ...rest, trainedAnew: event.why, progress: 0 } });
    }
    case 'provider-away':
      return providerAway(memory, event);
    case 'probe-due':
      return state.status === 'paused' && state.pauseKind === 'provider' ? goOn(memory) : memory;
    case 'provider-answered':
      return memory.outages === 0 ? memory : { ...memory, outages: 0 };
    case 'budget-short':
      return short(memory, event.wanted, event.nowMs);
    case 'budget-raised': {
      const raised = withState({ budget: { ...state.budget, ...event.budget } });
      const waits = state.status === 'paused' && state.pauseKind === 'budget' && memory.wanted !== undefined;
      if (!waits) return raised;
      return covers(raised, memory.wanted.next, event.nowMs) ? goOn(raised) : short(raised, memory.wanted, event.nowMs);
    }
    case 'teacher-set': {
      const changed = { ...withSpec(memory, event), outages: 0 };
      const cured = state.status === 'paused' && (state.pauseKind === 'failure' || state.pauseKind === 'provider');
      return cured ? goOn(changed) : changed;
    }
    case 'spec-set': {
      const changed = withSpec(memory, event);
      return state.status === 'paused' && mayCure(memory, event.nowMs) ? goOn(changed) : changed;
    }
    case 'resumed':
      return goOn(memory);
    case 'cancel-requested':
      return { ...goOn(memory), cancelReason: event.reason };
    case 'contestants':
      return withState({ tournament: event.tournament });
    case 'tournament-won':
      return withSpec(memory, event);
    case 'round-finished':
      return finishRound(memory, event.best);
    case 'stopped':
      return withState({ stopReason: event.reason });
    case 'changed':
      return withState(event.fields);
    case 'finished':
      return { ...goOn(memory), state: { ...goOn(memory).state, status: event.status, stage: 'finished', progress: 1 } };
  }
}

type Pause = Pick<CampaignState, 'pauseKind' | 'pauseReason' | 'pauseCode' | 'pausedBy' | 'pausedAtMs' | 'needs' | 'resumesAtMs'>;

const atMs = (nowMs: number | undefined): Pick<Pause, 'pausedAtMs'> => (nowMs === undefined ? {} : { pausedAtMs: nowMs });
const pausedByPerson = ({ status, pauseKind }: CampaignState): boolean => status === 'paused' && pauseKind === 'user';

/** The state and memory with nothing in them of a pause. */
function withoutPause({ wanted: _wanted, state: { pauseKind: _kind, pauseReason: _reason, pauseCode: _code, pausedBy: _by, pausedAtMs: _at, remedies: _remedies, needs: _needs, resumesAtMs: _resumes, ...state }, ...memory }: Memory): Memory {
  return { ...memory, state };
}

/** Paused for this and nothing else: a pause before leaves nothing behind. */
function pause(memory: Memory, fields: Pause, stage?: Stage): Memory {
  const before = withoutPause(memory);
  const state: CampaignState = { ...before.state, status: 'paused', ...fields };
  return { ...before, state: { ...state, remedies: remediesOf(state, stage) } };
}

/** Running again. */
function goOn(memory: Memory): Memory {
  const { probesAtMs: _probes, ...rest } = withoutPause(memory);
  return { ...rest, state: { ...rest.state, status: 'running' } };
}

interface ChangedSpec {
  readonly spec: ArtifactRef;
  readonly plan?: CampaignPlan;
  readonly outdates?: string;
}

function withSpec(memory: Memory, { spec, plan, outdates }: ChangedSpec): Memory {
  const { state } = memory;
  return {
    ...memory,
    ...(plan === undefined ? {} : { plan }),
    ...(outdates === undefined || state.stage !== 'training' ? {} : { outdated: outdates }),
    state: { ...state, changedSpec: spec, ...(plan === undefined ? {} : { maxRounds: plan.maxRounds }) },
  };
}

function upToDate({ outdated: _outdated, ...memory }: Memory): Memory {
  return memory;
}

/** What was told of the round's training is over with it. */
function finishRound(memory: Memory, { round, retention }: BestRound): Memory {
  const { kept: _kept, trainedAnew: _anew, ...state } = memory.state;
  return { ...memory, state: { ...state, bestRound: round, bestRetention: retention } };
}

/** Can other settings mend what it is paused for? */
function mayCure({ state, wanted, reservations }: Memory, nowMs: number): boolean {
  const { pauseKind = 'user' } = state;
  switch (pauseKind) {
    case 'failure':
      return state.pauseCode === undefined || !BEYOND_SETTINGS.has(state.pauseCode);
    case 'provider':
      return true;
    case 'budget':
      // A shorter training fits into the time that is left; what a purchase costs is as it was.
      return wanted?.next.hours !== undefined && covers({ state, reservations }, NO_COST, nowMs);
    case 'user':
      return false;
  }
}

function withReservations(memory: Memory, reservations: Memory['reservations']): Memory {
  const { inFlight: _before, ...state } = memory.state;
  const inFlight = inFlightOf(reservations);
  return { ...memory, reservations, state: Object.keys(reservations).length === 0 ? state : { ...state, inFlight } };
}

function unsettled(memory: Memory, name: string): Memory {
  const purchase = memory.reservations[name];
  if (purchase === undefined) return memory;
  const { billed: spending, uncertain } = purchase;
  return billed(memory, { type: 'billed', name, spending, uncertain: addCost(uncertain, inFlightOf({ [name]: purchase })) });
}

/** Adds what is new since the purchase was last billed. */
function billed(memory: Memory, { name, spending, uncertain }: Extract<CampaignEvent, { readonly type: 'billed' }>): Memory {
  const before = memory.reservations[name];
  if (before === undefined) return memory;
  const added = subtractSpending(spending, before.billed);
  const doubtful = { usd: uncertain.usd - before.uncertain.usd, tokens: uncertain.tokens - before.uncertain.tokens };
  const { uncertain: so = NO_COST } = memory.state;
  const total = addCost(so, doubtful);
  const state: CampaignState = { ...memory.state, spending: addSpending(memory.state.spending, added), ...(total.usd > 0 || total.tokens > 0 ? { uncertain: total } : {}) };
  return withReservations({ ...memory, state }, { ...memory.reservations, [name]: { ...before, billed: spending, uncertain } });
}

/** Since when it has been short does not change with a raise that is too little. */
function short(memory: Memory, wanted: Shortfall, nowMs: number): Memory {
  const { pauseKind, pausedAtMs } = memory.state;
  const since = pauseKind === 'budget' ? (pausedAtMs ?? nowMs) : nowMs;
  return { ...pause(memory, { pauseKind: 'budget', pauseReason: shortfallOf(memory, wanted, nowMs), pausedBy: 'budget', pausedAtMs: since, needs: needsOf(memory, wanted.next, nowMs) }), wanted };
}

/** Several batches find the same outage: the first one counts, and so does a pause that is there for another reason. */
function providerAway(memory: Memory, { reason, probes, retryAfterMs, nowMs }: Extract<CampaignEvent, { readonly type: 'provider-away' }>): Memory {
  if (memory.state.status === 'paused') return memory;
  const intervalMs = Math.min(probes.longestMs, probes.firstMs * 2 ** memory.outages);
  const resumesAtMs = nowMs + Math.max(intervalMs, retryAfterMs);
  return { ...pause(memory, { pauseKind: 'provider', pauseReason: reason, pausedBy: 'provider', pausedAtMs: nowMs, resumesAtMs }), outages: memory.outages + 1, probesAtMs: resumesAtMs };
}

/** The best of a finished round and the best before it. The earlier one stays on a tie: it cost less. */
export function betterRound(best: BestRound | undefined, round: RoundSummary): BestRound {
  if (best !== undefined && best.studentScore >= round.studentScore) return best;
  const { studentScore, retention, checkpoint, dataset } = round;
  return { round: round.round, studentScore, retention, checkpoint, dataset };
}

/** Why there is no next round; undefined when there is one. `nextRound` is the least that going on would cost. */
export function decide(memory: Memory, plan: CampaignPlan, bestBefore: BestRound | undefined, round: RoundSummary, nextRound: Cost, nowMs: number): StopReason | undefined {
  if (round.retention.low >= plan.targetRetention) return 'target-retention';
  if (round.round >= plan.maxRounds) return 'max-rounds';
  if (bestBefore !== undefined && round.studentScore - bestBefore.studentScore < plan.minGain) return 'no-gain';
  if (!covers(memory, nextRound, nowMs)) return 'budget';
  return undefined;
}

/** Half-open request ranges of whole planned batches, at most `maxRanges` of them. */
export function batchRanges(count: number, batchSize: number, maxRanges: number): readonly { readonly from: number; readonly to: number }[] {
  const size = batchSize * Math.max(1, Math.ceil(count / batchSize / maxRanges));
  return Array.from({ length: Math.ceil(count / size) }, (_, index) => ({ from: index * size, to: Math.min(count, (index + 1) * size) }));
}
