/**
 * Money under an adversary: the reducer and its arithmetic drive campaigns whose calls cost random amounts,
 * fail, get lost with killed workers and finish in any order, while a provider keeps its own bill.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { TeacherRequest } from '../../src/contracts/records.ts';
import { addUsd, formatUsd, roundUsdUp } from '../../src/contracts/money.ts';
import type { Cost, Spending } from '../../src/contracts/state.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { callUpperBound } from '../../src/teacher/call-bound.ts';
import { hopefulTraits } from '../../src/teacher/endpoint-traits.ts';
import { costUsd } from '../../src/teacher/prices.ts';
import type { Price } from '../../src/teacher/prices.ts';
import { NO_COST, NO_SPENDING, addCost, covers, needsOf, timesCost } from '../../workflows/money.ts';
import type { CampaignEvent, Memory } from '../../workflows/state.ts';
import { initialMemory, initialState, reduce } from '../../workflows/state.ts';
import { PLAN } from '../support/scripted-activities.ts';

const CAMPAIGNS = 200;
/** A batch's bill is a sum of fractions of a billionth, rounded once. */
const ROUNDING_USD = 1e-8;
const PROBES = { firstMs: 1, longestMs: 8 };

interface Call {
  readonly bound: Cost;
  readonly cost: Cost;
}

/** A batch as its activity and the ledger see it. */
interface Batch {
  readonly name: string;
  readonly calls: readonly Call[];
  readonly bound: Cost;
  next: number;
  /** Answers that are durable: what the ledger would say. */
  recorded: Cost;
  recordedCalls: number;
  repeated: number;
}

class Simulation {
  memory: Memory;
  /** What the provider would bill, lost answers included. */
  billed = NO_COST;
  /** Cost of the calls that were in flight when a worker was killed. */
  lost = NO_COST;
  kills = 0;
  raises = 0;
  readonly #random: () => number;
  readonly #waiting: Batch[];
  readonly #running = new Set<Batch>();
  readonly #lanes: number;
  #nowMs = 0;

  readonly #careless: boolean;

  /** A careless owner begins whatever there is to begin. */
  constructor(seed: number, careless = false) {
    this.#careless = careless;
    const random = createRandom(seed, 'budget');
    this.#random = random;
    this.#lanes = 1 + Math.floor(random() * 4);
    // Prices with many digits: what sums of floating-point dollars would drift on.
    const price: Price = { inputUsdPerMillion: Math.round(random() * 1e5) / 1e4, cachedInputUsdPerMillion: 0.0375, outputUsdPerMillion: Math.round(random() * 3e5) / 1e4 };
    this.#waiting = Array.from({ length: 2 + Math.floor(random() * 10) }, (_, index) => this.#batch(String(index), price));
    const total = this.#waiting.flatMap(({ calls }) => calls).reduce((sum, { cost }) => ({ usd: sum.usd + cost.usd, tokens: sum.tokens + cost.tokens }), NO_COST);
    const share = random() * 0.9;
    this.memory = initialMemory(initialState('simulated', PLAN, { usd: roundUsdUp(total.usd * share), tokens: Math.max(1, Math.floor(total.tokens * share)) }, 0));
  }

  #batch(name: string, price: Price): Batch {
    const calls = Array.from({ length: 1 + Math.floor(this.#random() * 16) }, (): Call => {
      const request: Pick<TeacherRequest, 'task'> = { task: { kind: 'text', messages: [{ role: 'user', content: 'x'.repeat(1 + Math.floor(this.#random() * 400)) }], parameters: { maxTokens: 1 + Math.floor(this.#random() * 64), temperature: 0 } } };
      const bound = callUpperBound(price, request as TeacherRequest, hopefulTraits('', false));
      const promptTokens = Math.floor(this.#random() * 60);
      const completionTokens = request.task.parameters.maxTokens - (this.#random() < 0.5 ? 0 : 1);
      const usage = { promptTokens, cachedPromptTokens: Math.floor(this.#random() * promptTokens), completionTokens };
      return { bound, cost: { usd: costUsd(price, usage), tokens: promptTokens + completionTokens } };
    });
    const bound = calls.reduce((sum, call) => ({ usd: sum.usd + call.bound.usd, tokens: sum.tokens + call.bound.tokens }), NO_COST);
    return { name, calls, bound: timesCost(bound, 1), next: 0, recorded: NO_COST, recordedCalls: 0, repeated: 0 };
  }

  get over(): boolean {
    return this.#waiting.length === 0 && this.#running.size === 0;
  }

  apply(event: CampaignEvent): void {
    this.memory = reduce(this.memory, event);
    const { state } = this.memory;
    const limit = state.budget.usd ?? Infinity;
    assert.ok(state.spending.usd <= limit, `spent ${formatUsd(state.spending.usd)} of ${formatUsd(limit)}`);
    assert.ok(addUsd(state.spending.usd, state.inFlight?.usd ?? 0) <= limit, 'spent and in flight stay within the limit');
    assert.ok(state.spending.tokens + (state.inFlight?.tokens ?? 0) <= (state.budget.tokens ?? Infinity));
    assert.ok(this.billed.usd <= limit + this.lost.usd + ROUNDING_USD, `billed ${this.billed.usd}, limit ${limit}, in flight at kills ${this.lost.usd}`);
  }

  step(): void {
    this.#nowMs += 1;
    const { state } = this.memory;
    if (state.status === 'paused') return this.#command();
    const begin = this.#waiting.length > 0 && this.#running.size < this.#lanes && this.#random() < 0.5;
    const [batch] = [...this.#running].sort(() => this.#random() - 0.5);
    if (begin || batch === undefined) return this.#begin();
    return this.#work(batch);
  }

  /** What a person does, and the timer of an outage. */
  #command(): void {
    const { state } = this.memory;
    if (state.pauseKind === 'provider') return this.apply({ type: 'probe-due' });
    if (state.pauseKind !== 'budget') return this.apply({ type: 'resumed' });
    const { usd, tokens } = state.needs ?? assert.fail('expected the limits that it needs');
    const less = { ...(usd === undefined ? {} : { usd: addUsd(usd, -1e-9) }), ...(usd !== undefined || tokens === undefined ? {} : { tokens: tokens - 1 }) };
    assert.equal(reduce(this.memory, { type: 'budget-raised', budget: less, nowMs: this.#nowMs }).state.status, 'paused', 'a billionth less does not do');
    this.raises += 1;
    this.apply({ type: 'budget-raised', budget: { ...(usd === undefined ? {} : { usd }), ...(tokens === undefined ? {} : { tokens }) }, nowMs: this.#nowMs });
    assert.equal(this.memory.state.status, 'running', 'what it asks for is enough');
    return undefined;
  }

  #begin(): void {
    const batch = this.#waiting[0];
    if (batch === undefined) return;
    if (!this.#careless && !covers(this.memory, batch.bound, this.#nowMs)) {
      if (this.#running.size > 0) return;
      const stage = this.#waiting.reduce((sum, { bound }) => addCost(sum, bound), NO_COST);
      assert.ok(Object.keys(needsOf(this.memory, batch.bound, this.#nowMs)).length > 0);
      this.apply({ type: 'budget-short', wanted: { next: batch.bound, stage }, nowMs: this.#nowMs });
      return;
    }
    this.#waiting.shift();
    this.#running.add(batch);
    this.apply({ type: 'reserved', name: batch.name, bound: batch.bound });
  }

  #work(batch: Batch): void {
    const draw = this.#random();
    if (batch.next >= batch.calls.length) {
      this.#bill(batch);
      this.#running.delete(batch);
      this.apply({ type: 'released', name: batch.name });
    } else if (draw < 0.05) this.#kill(batch);
    else if (draw < 0.1) {
      this.#bill(batch);
      this.apply(this.#random() < 0.5 ? { type: 'failed', reason: 'quota' } : { type: 'provider-away', reason: 'down', probes: PROBES, retryAfterMs: 0, nowMs: this.#nowMs });
    } else this.#answer(batch);
  }

  #answer(batch: Batch): void {
    const { cost } = batch.calls[batch.next] as Call;
    this.billed = { usd: this.billed.usd + cost.usd, tokens: this.billed.tokens + cost.tokens };
    batch.recorded = { usd: batch.recorded.usd + cost.usd, tokens: batch.recorded.tokens + cost.tokens };
    batch.recordedCalls += 1;
    batch.next += 1;
  }

  /** The provider has done the work of some calls, whose answers are lost; they are asked again. */
  #kill(batch: Batch): void {
    this.kills += 1;
    const inFlight = batch.calls.slice(batch.next, batch.next + 1 + Math.floor(this.#random() * 4));
    for (const { cost } of inFlight) {
      this.billed = { usd: this.billed.usd + cost.usd, tokens: this.billed.tokens + cost.tokens };
      this.lost = { usd: this.lost.usd + cost.usd, tokens: this.lost.tokens + cost.tokens };
    }
    batch.repeated = Math.min(batch.calls.length, batch.repeated + inFlight.length);
  }

  #bill(batch: Batch): void {
    const spending: Spending = { ...NO_SPENDING, usd: batch.recorded.usd, tokens: batch.recorded.tokens, callsBought: batch.recordedCalls, callsRepeated: batch.repeated };
    this.apply({ type: 'billed', name: batch.name, spending, uncertain: timesCost(batch.bound, batch.repeated / batch.calls.length) });
  }
}

describe('the budget under an adversary', () => {
  it(`holds in ${CAMPAIGNS} campaigns with random prices, faults, kills and orders, and each goes on when raised to what it asks for`, (t) => {
    let kills = 0;
    let raises = 0;
    let largestOvershootUsd = 0;
    for (let seed = 1; seed <= CAMPAIGNS; seed += 1) {
      const simulation = new Simulation(seed);
      for (let steps = 0; !simulation.over; steps += 1) {
        assert.ok(steps < 10_000, `campaign ${seed}: expected an end`);
        simulation.step();
        const { budget } = simulation.memory.state;
        largestOvershootUsd = Math.max(largestOvershootUsd, simulation.billed.usd - (budget.usd ?? Infinity));
      }
      assert.ok(simulation.raises > 0, `campaign ${seed} had a limit below its cost`);
      assert.equal(simulation.memory.state.inFlight, undefined);
      kills += simulation.kills;
      raises += simulation.raises;
    }
    const careless = new Simulation(1, true);
    assert.throws(() => {
      while (!careless.over) careless.step();
    }, /of \$|within the limit/, 'the check can fail');
    t.diagnostic(`${CAMPAIGNS} campaigns, ${kills} kills, ${raises} raises, largest overshoot of the provider's bill ${formatUsd(largestOvershootUsd)}`);
  });
});
