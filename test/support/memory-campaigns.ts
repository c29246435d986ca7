/** Campaigns without Temporal, for tests of what stands in front of it. */
import type { CampaignDescription, CampaignListing, CampaignRunStatus, Campaigns } from '../../src/client/campaigns.ts';
import type { CheckedSpec } from '../../src/contracts/activities.ts';
import type { CampaignInput } from '../../src/contracts/campaign.ts';
import type { CampaignSpec } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { Estimate } from '../../src/estimate/estimate.ts';
import type { SetSpecInput, SetTeacherInput } from '../../src/contracts/messages.ts';
import type { Budget, CampaignState, RoundSummary } from '../../src/contracts/state.ts';

/** Campaigns kept in memory, by the rules of the interface. */
export class MemoryCampaigns implements Campaigns {
  readonly started = new Map<string, { input: CampaignInput; state: CampaignState }>();
  away = false;
  status: CampaignRunStatus = 'running';
  roundsSoFar: readonly RoundSummary[] = [];

  #of(campaign: string): { input: CampaignInput; state: CampaignState } {
    if (this.away) throw new StillhouseError('UNAVAILABLE', 'temporal at secret-host:7233 refused');
    const found = this.started.get(campaign);
    if (found === undefined) throw new StillhouseError('NOT_FOUND', `campaign ${campaign}: expected one that was started, got none of that name`);
    return found;
  }
  /** Changes a state as its workflow would. */
  change(campaign: string, change: Partial<CampaignState>): CampaignState {
    return this.#change(campaign, change);
  }
  #change(campaign: string, change: Partial<CampaignState>): CampaignState {
    const entry = this.#of(campaign);
    entry.state = { ...entry.state, ...change };
    return entry.state;
  }
  async start(input: CampaignInput): Promise<{ readonly created: boolean }> {
    const existing = this.started.get(input.campaign);
    if (existing !== undefined) {
      if (existing.input.spec.sha256 !== input.spec.sha256) throw new StillhouseError('CONFLICT', `campaign ${input.campaign}: expected the spec that it was started with, got another`);
      return { created: false };
    }
    const spending = { usd: 0, tokens: 0, callsBought: 0, callsReused: 0, callsRepeated: 0 };
    this.started.set(input.campaign, {
      input,
      state: { campaign: input.campaign, status: 'running', stage: 'preparing', round: 1, maxRounds: input.plan.maxRounds, progress: 0, budget: input.budget, spending, startedAtMs: 1 },
    });
    return { created: true };
  }
  async describe(campaign: string): Promise<CampaignDescription> {
    const { input, state } = this.#of(campaign);
    return { campaign, status: this.status, specSha256: input.spec.sha256, state, startedAtMs: 1 };
  }
  async rounds(): Promise<readonly RoundSummary[]> {
    return this.roundsSoFar;
  }
  async list(): Promise<readonly CampaignListing[]> {
    return [...this.started.keys()].map((campaign) => ({ campaign, status: this.status, startedAtMs: 1 }));
  }
  async pause(campaign: string, reason: string, by?: string): Promise<CampaignState> {
    return this.#change(campaign, { status: 'paused', pauseReason: reason, ...(by === undefined ? {} : { pausedBy: by }) });
  }
  async resume(campaign: string): Promise<CampaignState> {
    return this.#change(campaign, { status: 'running' });
  }
  async cancel(campaign: string): Promise<CampaignState> {
    return this.#change(campaign, { status: 'cancelled' });
  }
  async raiseBudget(campaign: string, budget: Budget): Promise<CampaignState> {
    return this.#change(campaign, { budget });
  }
  readonly teachers: SetTeacherInput[] = [];
  async setTeacher(campaign: string, change: SetTeacherInput): Promise<CampaignState> {
    this.teachers.push(change);
    const { spec, replaces } = change;
    const { input, state } = this.#of(campaign);
    if ((state.changedSpec ?? input.spec).sha256 !== replaces) throw new StillhouseError('CONFLICT', `campaign ${campaign}: the teacher was changed in between`);
    return this.#change(campaign, { changedSpec: spec });
  }
  readonly set: SetSpecInput[] = [];
  setSpec(campaign: string, change: SetSpecInput): Promise<CampaignState> {
    this.set.push(change);
    return this.setTeacher(campaign, change);
  }
  async checkSpec(): Promise<CheckedSpec> {
    return { answers: [], learned: [], usd: 0, poolRows: 1, developmentRows: 1, testRows: 1 };
  }
  async check(): Promise<void> {
    if (this.away) throw new StillhouseError('UNAVAILABLE', 'temporal at secret-host:7233 refused');
  }
}

const same = (value: number) => ({ low: value, expected: value, high: value });
/** An estimate without a plan: ten calls of 100 tokens for $0.20. */
export const scriptedEstimate = (spec: CampaignSpec): Promise<Estimate> => {
  const figures = { calls: same(10), tokens: same(1_000), reasoningTokens: same(0), usd: same(0.2) };
  return Promise.resolve({
    rounds: same(1), parts: [{ what: 'training rows', model: spec.teacher.model, ...figures }], ...figures, answeredAlready: 3, callHours: same(0.5), basis: ['a script'],
  });
};
