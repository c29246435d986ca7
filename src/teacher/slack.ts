/** What calls have left of the bounds that were set aside for them: so much may others cost beyond theirs. */
import type { Cost } from '../contracts/state.ts';

export class Slack {
  #usd = 0;
  #tokens = 0;

  /** A call for which `bound` was set aside is over and has cost `spent`. */
  add(bound: Cost, spent: Cost = { usd: 0, tokens: 0 }): void {
    this.#usd += bound.usd - spent.usd;
    this.#tokens += bound.tokens - spent.tokens;
  }

  /** False, and nothing taken, where there is not so much. */
  take({ usd, tokens }: Cost): boolean {
    if (usd > this.#usd || tokens > this.#tokens) return false;
    this.#usd -= usd;
    this.#tokens -= tokens;
    return true;
  }
}
