/**
 * Whole campaigns with random prices and limits on one stack, while workers are killed and the provider
 * fails: each must stay within its limit, say what it needs, and go on when it gets that.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { addUsd } from '../../src/contracts/money.ts';
import type { Budget, CampaignState } from '../../src/contracts/state.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { writeRows } from './folder.ts';
import { startOpenAIServer } from './openai-server.ts';
import type { ChatCall, OpenAIServer } from './openai-server.ts';
import { killHard } from './processes.ts';
import { Stack } from './stack.ts';
import { writeTinyLlama } from './tiny-llama.ts';

const LABELS = ['negative', 'positive'] as const;
/** Batches of one campaign in flight, see specToPlan, and calls of a batch. */
const LANES = 4;
const CONCURRENCY = 2;
const POLL_MS = 500;
const CAMPAIGN_LIMIT_MS = 20 * 60_000;
/** Calls that fail before the work, after it, and on the way back. */
const FAULTS = { 429: 0.01, 500: 0.01, 503: 0.01, reset: 0.01, 'reset-after-work': 0.005, 'truncated-body': 0.005 } as const;

export interface BudgetSoakOptions {
  readonly folder: string;
  readonly campaigns: number;
  /** Campaigns under way at once. */
  readonly atOnce: number;
  readonly kills: number;
  readonly seed: number;
  readonly say?: (line: string) => void;
}

export interface BudgetSoakResult {
  readonly campaigns: number;
  readonly completed: number;
  /** Campaigns that were paused by their limit at least once and completed after a raise. */
  readonly continuedAfterRaise: number;
  readonly raises: number;
  readonly kills: number;
  readonly calls: number;
  /** In flight at the provider at each kill. */
  readonly inFlightAtKills: readonly number[];
  /** Calls that the provider billed and no ledger knows: cut by kills or lost by faults. */
  readonly unrecordedCalls: number;
  readonly lostByFaults: number;
  readonly unrecordedUsd: number;
  /** The most by which a campaign's own books passed its limit at any look: nothing. */
  readonly largestOvershootUsd: number;
  /** The most by which the provider's bill passed a limit at any look, through calls that no ledger knows. */
  readonly largestBillOvershootUsd: number;
  readonly providerPauses: number;
  readonly seconds: number;
  readonly problems: readonly string[];
}

interface Plan {
  readonly name: string;
  readonly key: string;
  readonly keyName: string;
  readonly model: string;
  readonly price: { readonly input: number; readonly output: number };
  readonly spec: (baseUrl: string) => CampaignSpecInput;
}

interface Progress {
  readonly plan: Plan;
  readonly startedMs: number;
  raises: number;
  paused: boolean;
  providerPaused: boolean;
}

function planOf(index: number, options: BudgetSoakOptions, files: { readonly pool: string; readonly gold: string; readonly student: string }): Plan {
  const random = createRandom(options.seed, `campaign ${index}`);
  const between = (low: number, high: number): number => low + Math.floor(random() * (high - low + 1));
  const name = `budget-${index}`;
  const price = { input: between(1, 50_000) / 1_000, output: between(1, 150_000) / 1_000 };
  const rows = between(8, 24);
  const rounds = random() < 0.25 ? 2 : 1;
  // About what a question and its answer cost; the limit is a share of the whole.
  const expectedUsd = ((rows * (1 + (rounds - 1) / 2) + 8) * (70 * price.input + 2 * price.output)) / 1e6;
  const budget: Budget = { usd: addUsd(expectedUsd * (0.1 + 0.6 * random())), ...(random() < 0.3 ? { tokens: between(1_000, 3_000) } : {}) };
  const model = `m-${index}`;
  const keyName = `SOAK_KEY_${index}`;
  const spec = (baseUrl: string): CampaignSpecInput => ({
    name,
    task: { description: `Tell good from bad, number ${index}.`, instruction: `Review ${index}: {input}\nSentiment:`, output: { kind: 'label', labels: [...LABELS] } },
    teacher: {
      provider: 'openai', model, baseUrl, apiKeyEnv: keyName, concurrency: CONCURRENCY, maxTokens: between(2, 12),
      price: { inputUsdPerMillion: price.input, outputUsdPerMillion: price.output },
    },
    sampling: { source: { kind: 'inputs', dataset: files.pool }, rows, batchSize: between(2, 8) },
    filter: { nearDuplicateSimilarity: 1 },
    student: { model: files.student },
    training: { epochs: 1, batchSize: 8, maxTokens: 256 },
    evaluation: { source: { kind: 'dataset', dataset: files.gold }, developmentRows: 4, testRows: 4, scorer: { kind: 'label' }, bootstrapResamples: 100 },
    iterate: { maxRounds: rounds, minGain: 0, candidates: 40 },
    budget,
    seed: options.seed + index,
  });
  return { name, key: `sk-soak-${index}-0123456789`, keyName, model, price, spec };
}

const word = (random: () => number): string => Array.from({ length: 8 }, () => String.fromCharCode(97 + Math.floor(random() * 26))).join('');

function writeFiles(folder: string, seed: number): { readonly pool: string; readonly gold: string; readonly student: string } {
  mkdirSync(folder, { recursive: true });
  const random = createRandom(seed, 'rows');
  const pool = writeRows(join(folder, 'pool.jsonl'), Array.from({ length: 80 }, () => ({ input: `${word(random)} ${word(random)} ${word(random)}` })));
  const gold = writeRows(join(folder, 'gold.jsonl'), Array.from({ length: 12 }, (_, index) => ({ input: `${word(random)} ${word(random)}`, gold: LABELS[index % 2] })));
  return { pool, gold, student: writeTinyLlama(join(folder, 'student')) };
}

const answerOf = (call: ChatCall): string => ((call.messages.at(-1)?.content.length ?? 0) % 2 === 0 ? 'negative' : 'positive');

class BudgetSoak {
  readonly #options: BudgetSoakOptions;
  readonly #stack: Stack;
  readonly #server: OpenAIServer;
  readonly #waiting: Plan[];
  readonly #running = new Map<string, Progress>();
  readonly #problems: string[] = [];
  readonly #inFlightAtKills: number[] = [];
  readonly #random: () => number;
  #completed = 0;
  #continued = 0;
  #raises = 0;
  #providerPauses = 0;
  #unrecordedCalls = 0;
  #unrecordedUsd = 0;
  #overshootUsd = 0;
  #billOvershootUsd = 0;

  constructor(options: BudgetSoakOptions, stack: Stack, server: OpenAIServer, plans: readonly Plan[]) {
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
    if (this.#inFlightAtKills.length < kills) this.#problems.push(`expected ${kills} kills, there was time for ${this.#inFlightAtKills.length}`);
    return {
      campaigns, completed: this.#completed, continuedAfterRaise: this.#continued, raises: this.#raises, kills: this.#inFlightAtKills.length,
      calls: this.#server.counts.billedCalls, inFlightAtKills: this.#inFlightAtKills,
      unrecordedCalls: this.#unrecordedCalls, lostByFaults: this.#server.counts.lostAnswers, unrecordedUsd: this.#unrecordedUsd,
      largestOvershootUsd: this.#overshootUsd, largestBillOvershootUsd: this.#billOvershootUsd, providerPauses: this.#providerPauses,
      seconds: Math.round((performance.now() - startedMs) / 1_000), problems: this.#problems,
    };
  }

  async #begin(): Promise<void> {
    while (this.#running.size < this.#options.atOnce) {
      const plan = this.#waiting.shift();
      if (plan === undefined) return;
      await this.#patiently(() => this.#stack.submit(plan.spec(this.#server.baseUrl)));
      this.#running.set(plan.name, { plan, startedMs: performance.now(), raises: 0, paused: false, providerPaused: false });
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

  async #see(progress: Progress, state: CampaignState, status: string): Promise<void> {
    const { plan } = progress;
    const limit = state.budget.usd ?? Infinity;
    const billed = this.#server.counts.byKey.get(plan.key);
    this.#overshootUsd = Math.max(this.#overshootUsd, addUsd(state.spending.usd, -limit));
    this.#billOvershootUsd = Math.max(this.#billOvershootUsd, (billed?.usd ?? 0) - limit);
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
    await this.#patiently(() => this.#stack.raiseBudget(progress.plan.name, raised));
  }

  #close({ plan, raises }: Progress, state: CampaignState, status: string): void {
    this.#running.delete(plan.name);
    if (status === 'completed') this.#completed += 1;
    else this.#problems.push(`${plan.name}: ended ${status}`);
    if (status === 'completed' && raises > 0) this.#continued += 1;
    const billed = this.#server.counts.byKey.get(plan.key);
    const unrecorded = (billed?.billedCalls ?? 0) - state.spending.callsBought;
    const allowed = (billed?.lostAnswers ?? 0) + this.#inFlightAtKills.length * LANES * CONCURRENCY;
    if (unrecorded < 0 || unrecorded > allowed) this.#problems.push(`${plan.name}: ${unrecorded} billed calls are in no ledger, expected 0 to ${allowed}`);
    this.#unrecordedCalls += unrecorded;
    this.#unrecordedUsd += (billed?.usd ?? 0) - state.spending.usd;
    this.#options.say?.(`${plan.name} ${status}: ${raises} raises, spent ${state.spending.usd} of ${state.budget.usd}, ${unrecorded} unrecorded; ${this.#completed} done, ${this.#inFlightAtKills.length} kills`);
  }

  /** SIGKILL to the teacher worker, at times to the orchestrator's, whenever calls are in flight. */
  async #killWorkers(signal: AbortSignal): Promise<void> {
    const { kills, campaigns } = this.#options;
    for (let done = 0; done < kills && !signal.aborted; ) {
      // Spread over the campaigns: one each time so many have ended.
      if (this.#completed < Math.floor((done * campaigns) / (kills + 1)) || this.#server.counts.inFlight === 0) {
        await sleep(2, undefined, { signal }).catch(() => undefined);
        continue;
      }
      await sleep(Math.floor(this.#random() * 200), undefined, { signal }).catch(() => undefined);
      while (this.#server.counts.inFlight === 0 && !signal.aborted) await sleep(1, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      const role = this.#random() < 0.8 ? 'teacher' : 'orchestrator';
      const worker = this.#stack.processes().find(({ command }) => command.includes('worker/main.ts') && command.includes(role));
      if (worker === undefined || !killHard(worker.pid)) continue;
      this.#inFlightAtKills.push(this.#server.counts.inFlight);
      done += 1;
    }
  }
}

export async function soakBudget(options: BudgetSoakOptions): Promise<BudgetSoakResult> {
  const files = writeFiles(join(options.folder, 'files'), options.seed);
  const plans = Array.from({ length: options.campaigns }, (_, index) => planOf(index, options, files));
  await using server = await startOpenAIServer({
    answer: answerOf, faults: FAULTS, random: createRandom(options.seed, 'faults'), latencyMs: 40, retryAfter: 'milliseconds', forget: true,
    keys: plans.map(({ key }) => key), models: Object.fromEntries(plans.map(({ model, price }) => [model, price])),
  });
  await using stack = new Stack({ home: join(options.folder, 'home'), environment: Object.fromEntries(plans.map(({ key, keyName }) => [keyName, key])) });
  await stack.start();
  return await new BudgetSoak(options, stack, server, plans).run();
}
