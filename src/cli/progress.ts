/** How far a stage is, how fast it goes and when it will be done, from what its activities last reported. */
import type { RunningActivity } from '../client/campaigns.ts';
import type { CampaignState } from '../contracts/state.ts';
import { duration } from './format.ts';

/** Before this the first steps, which are slow, would speak for all. */
const MEASURED_FOR_MS = 3_000;
const LEAST_SHARE = 0.01;
/** Activities whose `done` counts rows. */
const COUNTS_ROWS: ReadonlySet<string> = new Set(['sampleBatch', 'runStudent', 'measureSpeed']);

const innerShare = ({ done, total }: RunningActivity): number => (done === undefined || total === undefined || total <= 0 ? 0 : Math.min(1, done / total));

/** Of the whole stage: the parts that are done, and of those that run what they have done. */
export function stageShare({ progress, stageParts }: Pick<CampaignState, 'progress' | 'stageParts'>, activities: readonly RunningActivity[] = []): number {
  const inner = activities.map((activity) => innerShare(activity) / (stageParts ?? activity.epochs ?? Math.max(1, activities.length)));
  return Math.min(1, progress + inner.reduce((sum, share) => sum + share, 0));
}

/** Follows one stage: from where this process saw it first. */
export class StageClock {
  #since: number;
  #from: number | undefined;
  #rows = 0;
  #rowsBefore: number | undefined;

  constructor(now: number) {
    this.#since = now;
  }

  /** Rows or tokens a second, and the time left, as far as they are known. */
  measure(share: number, activities: readonly RunningActivity[], now: number): readonly string[] {
    if (this.#from === undefined || share < this.#from) [this.#from, this.#since, this.#rows, this.#rowsBefore] = [share, now, 0, undefined];
    const rows = activities.reduce((sum, { name, done }) => sum + (COUNTS_ROWS.has(name) ? (done ?? 0) : 0), 0);
    // Fewer than before: an activity has ended and another began.
    if (this.#rowsBefore !== undefined) this.#rows += rows >= this.#rowsBefore ? rows - this.#rowsBefore : rows;
    this.#rowsBefore = rows;
    const ms = now - this.#since;
    const gained = share - this.#from;
    const tokens = activities.reduce((sum, { tokensPerSecond }) => sum + (tokensPerSecond ?? 0), 0);
    if (ms < MEASURED_FOR_MS) return tokens > 0 ? [`${Math.round(tokens)} tokens/s`] : [];
    return [
      ...(tokens > 0 ? [`${Math.round(tokens)} tokens/s`] : this.#rows > 0 ? [`${((this.#rows / ms) * 1_000).toFixed(1)} rows/s`] : []),
      ...(gained >= LEAST_SHARE && share < 1 ? [`about ${duration((ms / gained) * (1 - share))} left`] : []),
    ];
  }
}
