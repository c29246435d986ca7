/** Learning rates by step, after transformers' get_linear_/get_cosine_schedule_with_warmup. */
import type { TrainingSpec } from '../contracts/campaign-spec.ts';

export interface ScheduleOptions {
  readonly schedule: TrainingSpec['schedule'];
  readonly peak: number;
  readonly totalSteps: number;
  /** Share of totalSteps over which the rate rises from 0. */
  readonly warmupRatio: number;
}

/** The rate of one optimizer step; `step` counts from 0 over all epochs. */
export function learningRateAt(step: number, { schedule, peak, totalSteps, warmupRatio }: ScheduleOptions): number {
  const warmupSteps = Math.ceil(totalSteps * warmupRatio);
  if (step < warmupSteps) return (peak * step) / Math.max(1, warmupSteps);
  const done = (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps);
  switch (schedule) {
    case 'constant':
      return peak;
    case 'linear':
      return peak * Math.max(0, 1 - done);
    case 'cosine':
      return peak * Math.max(0, 0.5 * (1 + Math.cos(Math.PI * done)));
  }
}
