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

/** Of one pair in both orders; `inconsistent` counts as a tie. */
export type Verdict = 'win' | 'tie' | 'loss' | 'inconsistent';

/** Answers of one contestant held against another's by a judge, each pair in both orders. */
export interface Comparison {
  readonly contestant: Contestant;
  readonly against: Contestant;
  /** Pairs with an outcome: wins + ties + losses. */
  readonly rows: number;
  readonly wins: number;
  /** Those of the same answers and the inconsistent ones among them. */
  readonly ties: number;
  readonly losses: number;
  /** Pairs of the same answer, which nobody was asked about. */
  readonly identical: number;
  /** Pairs whose verdict changed with the order. */
  readonly inconsistent: number;
  /** Of them, those won by whichever answer stood first, or second, in both orders: the judge's position bias. */
  readonly favouredFirst: number;
  readonly favouredSecond: number;
  /** Pairs left out because a judgement could not be read. */
  readonly unread: number;
  /** (wins + ties ÷ 2) ÷ rows, with a 95 % interval; absent without rows. */
  readonly winRate?: Interval;
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
  /** With a judge that compares: the student against the teacher, and against the untuned student where it was asked. */
  readonly comparisons?: readonly Comparison[];
  /** Rows left out for all because a judgement of one answer was not readable. */
  readonly unscored: readonly { readonly id: string; readonly problem: string }[];
}
