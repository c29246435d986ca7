/** The Evaluation artifact: how teacher, untuned student and student did on the same held-out rows. */
import type { Calibration } from '../contracts/records.ts';
import type { Interval } from '../contracts/state.ts';

export const CONTESTANTS = ['teacher', 'untuned', 'student'] as const;
export type Contestant = (typeof CONTESTANTS)[number];

export interface ClassScore {
  readonly label: string;
  /** Rows whose gold label it is. */
  readonly support: number;
  readonly precision: number;
  readonly recall: number;
  readonly f1: number;
}

export interface ContestantResult {
  /** Mean score with its 95 % interval. */
  readonly score: Interval;
  /** Label tasks only: over the labels that occur among gold or answers. */
  readonly macroF1?: number;
  readonly classes?: readonly ClassScore[];
  /** Rows gold, columns answered, in the order of `labels`; the last column counts answers that name no label. */
  readonly confusion?: readonly (readonly number[])[];
}

export interface EvaluationRow {
  readonly id: string;
  readonly gold?: string;
  /** Label tasks: the answer as a label, or null where it names none. Others: absent. */
  readonly answers?: Readonly<Partial<Record<Contestant, string | null>>>;
  /** 0…1. */
  readonly scores: Readonly<Partial<Record<Contestant, number>>>;
}

export interface Evaluation {
  readonly scorer: 'label' | 'judge';
  readonly labels?: readonly string[];
  /** Subtracted from the teacher's log-probabilities; never from a student's. */
  readonly calibration?: Calibration;
  readonly contestants: Readonly<Partial<Record<Contestant, ContestantResult>>>;
  /** Student ÷ teacher, with a 95 % interval. */
  readonly retention: Interval;
  readonly bootstrap: { readonly resamples: number; readonly seed: number };
  readonly rows: readonly EvaluationRow[];
  /** Rows left out for all because a judgement of one answer was not readable. */
  readonly unscored: readonly { readonly id: string; readonly problem: string }[];
}
