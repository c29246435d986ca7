/**
 * Whole campaigns with random prices and limits on one stack, while workers are killed and the provider
 * fails: each must stay within its limit, say what it needs, and go on when it gets that. The provider's
 * own bill is the measure: the books and what they call uncertain are never less than it.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { addUsd } from '../../src/contracts/money.ts';
import type { Budget, CampaignState } from '../../src/contracts/state.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { budgetFiles, budgetPlan, CONCURRENCY } from './budget-plans.ts';
import type { BudgetPlan, PlanOptions } from './budget-plans.ts';
import { startOpenAIServer } from './openai-server.ts';
import type { ChatCall, OpenAIServer } from './openai-server.ts';
import { killHard } from './processes.ts';
import { Stack } from './stack.ts';
import { until } from './until.ts';

/** Batches of one campaign in flight, see specToPlan. */
const LANES = 4;
const POLL_MS = 500;
const CAMPAIGN_LIMIT_MS = 20 * 60_000;
/** Calls that fail before the work, after it, and on the way back; the last five kinds are billed. */
const FAULTS = {
  429: 0.01, 500: 0.01, 503: 0.01, reset: 0.01, stall: 0.0025,
  'reset-after-work': 0.01, '500-after-work': 0.01, 'stall-after-work': 0.005, 'truncated-body': 0.01, 'unreadable-body': 0.01,
} as const;
/** Of a sum of exact billionths of a dollar. */
const ROUNDING_USD = 1e-8;

export interface BudgetSoakOptions extends PlanOptions {
  readonly folder: string;
  readonly campaigns: number;
  /** Campaigns under way at once. */
  readonly atOnce: number;
  readonly kills: number;
  readonly say?: (line: string) => void;
}

export interface BudgetSoakResult {
  readonly campaigns: number;
  readonly completed: number;
  readonly cancelled: number;
  /** Campaigns that were paused by their limit at least once and completed after a raise. */
  readonly continuedAfterRaise: number;
  readonly raises: number;
  readonly kills: number;
  readonly calls: number;
  /** In flight at the provider at each kill. */
  readonly inFlightAtKills: readonly number[];
  /** Calls that the provider billed and whose answer nobody has: cut by kills or lost by faults. */
  readonly unansweredCalls: number;
  readonly lostByFaults: number;
  /** What the provider billed for them, and what the campaigns call uncertain: never less. */
  readonly unansweredUsd: number;
  readonly uncertainUsd: number;
  /** The most by which a campaign's own books passed its limit at any look: nothing. */
  readonly largestOvershootUsd: number;
  /** The most by which the provider's bill passed a limit at any look, and how many of the campaign's dearest calls that is. */
  readonly largestBillOvershootUsd: number;
  readonly largestBillOvershootCalls: number;
  readonly providerPauses: number;
  readonly seconds: number;
  readonly problems: readonly string[];
}

interface Progress {
  readonly plan: BudgetPlan;
  readonly startedMs: number;
  raises: number;
  limitUsd: number;
  cancelling: boolean;
  providerPaused: boolean;
}

interface Ended {
  readonly plan: BudgetPlan;
  readonly state: CampaignState;
}

const answerOf = (call: ChatCall): string => ((call.messages.at(-1)?.content.length ?? 0) % 2 === 0 ? 'negative' : 'positive');

class BudgetSoak {
  readonly #options: BudgetSoakOptions;
  readonly #stack: Stack;
  readonly #server: OpenAIServer;
  readonly #waiting: BudgetPlan[];
  readonly #running = new Map<string, Progress>();
  readonly #ended: Ended[] = [];
  readonly #problems: string[] = [];
  readonly #inFlightAtKills: number[] = [];
  readonly #random: () => number;
  #completed = 0;
  #cancelled = 0;
  #continued = 0;
  #raises = 0;
  #providerPauses = 0;
  #unansweredCalls = 0;
  #unansweredUsd = 0;
  #uncertainUsd = 0;
  #overshootUsd = 0;
  #billOvershootUsd = 0;
  #billOvershootCalls = 0;

  constructor(options: BudgetSoakOptions, stack: Stack, server: OpenAIServer, plans: readonly BudgetPlan[]) {
    this.#options = options;
    this.#stack = stack;
    this.#server = server;
    this.#waiting = [...plans];
    this.#random = createRandom(options.seed, 'kills');
  }

  async run(): Promise<BudgetSoakResult> {
    const startedMs = performance.now();
    const { campaigns, kills } = this.#options;
    const ended = new AbortController();
    const killing = this.#killWorkers(ended.signal);
    try {
      while (this.#waiting.length > 0 || this.#running.size > 0) {
        await this.#begin();
        await this.#look();
        await sleep(POLL_MS);
      }
    } finally {
      ended.abort();
      await killing;
    }
    // What was cut off goes on at the provider for a moment, and is billed.
    await until(() => this.#server.counts.inFlight, (inFlight) => inFlight === 0);
    for (const ended of this.#ended) this.#audit(ended);
    if (this.#inFlightAtKills.length < kills) this.#problems.push(`expected ${kills} kills, there was time for ${this.#inFlightAtKills.length}`);
    return {
      campaigns, completed: this.#completed, cancelled: this.#cancelled, continuedAfterRaise: this.#continued, raises: this.#raises, kills: this.#inFlightAtKills.length,
      calls: this.#server.counts.billedCalls, inFlightAtKills: this.#inFlightAtKills,
      unansweredCalls: this.#unansweredCalls, lostByFaults: this.#server.counts.lostAnswers, unansweredUsd: this.#unansweredUsd, uncertainUsd: this.#uncertainUsd,
      largestOvershootUsd: this.#overshootUsd, largestBillOvershootUsd: this.#billOvershootUsd, largestBillOvershootCalls: this.#billOvershootCalls, providerPauses: this.#providerPauses,
      seconds: Math.round((performance.now() - startedMs) / 1_000), problems: this.#problems,
    };
  }

  async #begin(): Promise<void> {
    while (this.#running.size < this.#options.atOnce) {
      const plan = this.#waiting.shift();
      if (plan === undefined) return;
      const spec = plan.spec(this.#server.baseUrl);
      await this.#patiently(() => this.#stack.submit(spec));
      this.#running.set(plan.name, { plan, startedMs: performance.now(), raises: 0, limitUsd: spec.budget?.usd ?? Infinity, cancelling: false, providerPaused: false });
    }
  }

  /** A killed worker answers again within seconds. */
  async #patiently(work: () => Promise<void>): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await work();
      } catch (error) {
        if (attempt >= 60) throw error;
        await sleep(1_000);
      }
    }
  }

  async #look(): Promise<void> {
    for (const progress of this.#running.values()) await this.#compare(progress);
    const listed = await this.#stack.list();
    for (const { campaign: name, status, campaignStatus } of listed ?? []) {
      const progress = this.#running.get(name);
      if (progress === undefined || (status === 'running' && campaignStatus !== 'paused')) continue;
      const campaign = await this.#stack.campaign(name);
      if (campaign?.state !== undefined) await this.#see(progress, campaign.state, campaign.status);
    }
    for (const { plan, startedMs } of this.#running.values()) {
      if (performance.now() - startedMs < CAMPAIGN_LIMIT_MS) continue;
      this.#problems.push(`${plan.name}: expected an end within ${CAMPAIGN_LIMIT_MS / 60_000} minutes`);
      this.#running.delete(plan.name);
    }
  }

  /** The provider's bill with the limit of now, at any moment; cancels what is due. */
  async #compare(progress: Progress): Promise<void> {
    const { plan, limitUsd } = progress;
    const billed = this.#server.counts.byKey.get(plan.key);
    if (billed === undefined) return;
    const beyondUsd = billed.usd - limitUsd;
    this.#billOvershootUsd = Math.max(this.#billOvershootUsd, beyondUsd);
    this.#billOvershootCalls = Math.max(this.#billOvershootCalls, beyondUsd / billed.mostOfOneCall.usd);
    if (beyondUsd > LANES * CONCURRENCY * billed.mostOfOneCall.usd) this.#problems.push(`${plan.name}: billed ${billed.usd} of ${limitUsd}, beyond the bounds of the ${LANES * CONCURRENCY} calls that were in flight`);
    if (plan.cancelAfter === undefined || progress.cancelling || billed.billedCalls < plan.cancelAfter) return;
    progress.cancelling = true;
    // Half of the time with nobody left who could say what was bought.
    if (this.#random() < 0.5) this.#killWorker('teacher');
    await this.#patiently(() => this.#stack.steer(plan.name, 'cancel'));
  }

  async #see(progress: Progress, state: CampaignState, status: string): Promise<void> {
    const { plan } = progress;
    const limit = state.budget.usd ?? Infinity;
    this.#overshootUsd = Math.max(this.#overshootUsd, addUsd(state.spending.usd, -limit));
    if (state.spending.usd > limit) this.#problems.push(`${plan.name}: spent ${state.spending.usd} of ${limit}`);
    if (state.spending.tokens > (state.budget.tokens ?? Infinity)) this.#problems.push(`${plan.name}: ${state.spending.tokens} tokens of ${state.budget.tokens}`);
    if (state.status === 'paused') await this.#raise(progress, state);
    else if (status !== 'running') this.#close(progress, state, status);
  }

  async #raise(progress: Progress, { pauseKind, pauseReason, needs, budget }: CampaignState): Promise<void> {
    if (pauseKind === 'provider') {
      if (!progress.providerPaused) this.#providerPauses += 1;
      progress.providerPaused = true;
      return;
    }
    progress.providerPaused = false;
    if (pauseKind !== 'budget' || needs === undefined) {
      this.#problems.push(`${progress.plan.name}: paused by ${pauseKind}: ${pauseReason}`);
      this.#running.delete(progress.plan.name);
      return;
    }
    // Half of the time exactly what it asks for, else enough for a few batches.
    const generous = this.#random() < 0.5 ? 1 : 1.5;
    const raised: Budget = {
      ...(needs.usd === undefined || budget.usd === undefined ? {} : { usd: addUsd(needs.usd * generous) }),
      ...(needs.tokens === undefined ? {} : { tokens: Math.ceil(needs.tokens * generous) }),
    };
    progress.raises += 1;
    this.#raises += 1;
    progress.limitUsd = raised.usd ?? progress.limitUsd;
    await this.#patiently(() => this.#stack.raiseBudget(progress.plan.name, raised));
  }

  #close({ plan, raises, cancelling }: Progress, state: CampaignState, status: string): void {
    this.#running.delete(plan.name);
    if (status === 'completed') this.#completed += 1;
    else if (status === 'cancelled' && cancelling) this.#cancelled += 1;
    else this.#problems.push(`${plan.name}: ended ${status}`);
    if (status === 'completed' && raises > 0) this.#continued += 1;
    this.#ended.push({ plan, state });
    const { spending } = state;
    this.#options.say?.(`${plan.name}: ${status}, ${raises} raises, ${spending.callsBought} calls, ${this.#completed + this.#cancelled} of ${this.#options.campaigns} campaigns, ${this.#inFlightAtKills.length} kills`);
  }

  /** The bill of a campaign that is over: all of it is in the books or uncertain, and no more is uncertain than what was cut off can have cost. */
  #audit({ plan: { name, key }, state: { spending, uncertain = { usd: 0, tokens: 0 } } }: Ended): void {
    const billed = this.#server.counts.byKey.get(key);
    if (billed === undefined) return;
    const { mostOfOneCall } = billed;
    const uncovered = billed.usd - spending.usd - uncertain.usd;
    if (uncovered > ROUNDING_USD) this.#problems.push(`${name}: billed ${billed.usd}, the books have ${spending.usd} and ${uncertain.usd} uncertain`);
    if (billed.tokens > spending.tokens + uncertain.tokens) this.#problems.push(`${name}: billed ${billed.tokens} tokens, the books have ${spending.tokens} and ${uncertain.tokens} uncertain`);
    // Those that were killed before they reached the provider are among them.
    const cut = billed.calls - spending.callsBought + this.#inFlightAtKills.length * LANES * CONCURRENCY;
    if (uncertain.usd > cut * mostOfOneCall.usd + ROUNDING_USD) this.#problems.push(`${name}: ${uncertain.usd} uncertain of at most ${cut} calls that were cut off, each of at most ${mostOfOneCall.usd}`);
    this.#unansweredCalls += billed.billedCalls - spending.callsBought;
    this.#unansweredUsd += billed.usd - spending.usd;
    this.#uncertainUsd += uncertain.usd;
  }

  /** SIGKILL to the teacher worker, at times to the orchestrator's, whenever calls are in flight. */
  async #killWorkers(signal: AbortSignal): Promise<void> {
    const { kills, campaigns } = this.#options;
    for (let done = 0; done < kills && !signal.aborted; ) {
      // Spread over the campaigns: one each time so many have ended.
      if (this.#completed + this.#cancelled < Math.floor((done * campaigns) / (kills + 1)) || this.#server.counts.inFlight === 0) {
        await sleep(2, undefined, { signal }).catch(() => undefined);
        continue;
      }
      await sleep(Math.floor(this.#random() * 200), undefined, { signal }).catch(() => undefined);
      while (this.#server.counts.inFlight === 0 && !signal.aborted) await sleep(1, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      const role = this.#random() < 0.8 ? 'teacher' : 'orchestrator';
      if (this.#killWorker(role)) done += 1;
    }
  }

  #killWorker(role: 'teacher' | 'orchestrator'): boolean {
    const worker = this.#stack.processes().find(({ command }) => command.includes('worker/main.ts') && command.includes(role));
    if (worker === undefined || !killHard(worker.pid)) return false;
    this.#inFlightAtKills.push(this.#server.counts.inFlight);
    return true;
  }
}

export async function soakBudget(options: BudgetSoakOptions): Promise<BudgetSoakResult> {
  const files = budgetFiles(join(options.folder, 'files'), options.seed);
  const plans = Array.from({ length: options.campaigns }, (_, index) => budgetPlan(index, options, files));
  await using server = await startOpenAIServer({
    answer: answerOf, faults: FAULTS, random: createRandom(options.seed, 'faults'), latencyMs: 40, retryAfter: 'milliseconds', forget: true,
    keys: plans.map(({ key }) => key), models: Object.fromEntries(plans.map(({ model, price }) => [model, price])),
  });
  await using stack = new Stack({ home: join(options.folder, 'home'), environment: Object.fromEntries(plans.map(({ key, keyName }) => [keyName, key])) });
  await stack.start();
  return await new BudgetSoak(options, stack, server, plans).run();
}
