/** Accuracy, F1 and the paired bootstrap. */
import { StillhouseError } from '../contracts/errors.ts';
import type { Interval } from '../contracts/state.ts';
import { createRandom } from '../dataset/random.ts';
import type { ClassScore } from './evaluation.ts';

export interface LabelPair {
  readonly gold: string;
  /** Null: the answer names no label, which is wrong whatever the gold. */
  readonly answer: string | null;
}

/** Counts [gold][answer]; one more column than labels, for answers that name none. */
export function confusionMatrix(labels: readonly string[], pairs: readonly LabelPair[]): number[][] {
  const matrix = labels.map(() => new Array<number>(labels.length + 1).fill(0));
  for (const { gold, answer } of pairs) {
    const row = matrix[labels.indexOf(gold)] as number[];
    const column = answer === null ? labels.length : labels.indexOf(answer);
    row[column] = (row[column] as number) + 1;
  }
  return matrix;
}

/** Precision, recall and F1 of each label; what is 0 ÷ 0 counts as 0, as in scikit-learn. */
export function classScores(labels: readonly string[], confusion: readonly (readonly number[])[]): ClassScore[] {
  return labels.map((label, index) => {
    const hits = confusion[index]?.[index] ?? 0;
    const support = sum(confusion[index] ?? []);
    const answered = sum(confusion.map((row) => row[index] ?? 0));
    return { label, support, precision: ratio(hits, answered), recall: ratio(hits, support), f1: ratio(2 * hits, support + answered) };
  });
}

/** Mean F1 over the labels that occur among gold or answers, unweighted. */
export function macroF1(classes: readonly ClassScore[], confusion: readonly (readonly number[])[]): number {
  const occurring = classes.filter((entry, index) => entry.support > 0 || confusion.some((row) => (row[index] ?? 0) > 0));
  return ratio(sum(occurring.map((entry) => entry.f1)), occurring.length);
}

export interface BootstrapOptions {
  readonly resamples: number;
  readonly seed: number;
}

/** The mean with the 2.5th and 97.5th percentile of its bootstrap distribution (Efron 1979). */
export function meanInterval(scores: readonly number[], options: BootstrapOptions): Interval {
  const means = resample(scores.length, options, (rows) => {
    let total = 0;
    for (const row of rows) total += scores[row] as number;
    return total / rows.length;
  });
  return { mean: sum(scores) / scores.length, ...percentiles(means) };
}

/**
 * sum(student) ÷ sum(teacher) over the same rows. Rows are resampled together, so that what is hard
 * for both does not widen the interval; resamples in which the teacher scores nothing are passed
 * over. Throws BAD_INPUT when the teacher scores nothing at all: there is nothing to retain.
 */
export function retentionInterval(teacher: readonly number[], student: readonly number[], options: BootstrapOptions): Interval {
  if (teacher.length !== student.length || teacher.length === 0) {
    throw new StillhouseError('INTERNAL', `expected as many scores of the student as of the teacher and at least one, got ${student.length} and ${teacher.length}`);
  }
  const teacherTotal = sum(teacher);
  if (teacherTotal === 0) throw new StillhouseError('BAD_INPUT', `expected a teacher that scores above 0, got 0 on all ${teacher.length} rows: check task.description, the shots and the gold labels`);
  const ratios = resample(teacher.length, options, (rows) => {
    let above = 0;
    let below = 0;
    for (const row of rows) {
      above += student[row] as number;
      below += teacher[row] as number;
    }
    return below === 0 ? Number.NaN : above / below;
  });
  return { mean: sum(student) / teacherTotal, ...percentiles(ratios.filter((value) => !Number.isNaN(value))) };
}

/** The same seed gives the same rows whatever is computed from them: intervals are comparable. */
function resample(rows: number, { resamples, seed }: BootstrapOptions, statistic: (rows: Uint32Array) => number): Float64Array {
  const random = createRandom(seed, 'bootstrap');
  const drawn = new Uint32Array(rows);
  return Float64Array.from({ length: resamples }, () => {
    for (let index = 0; index < rows; index += 1) drawn[index] = Math.floor(random() * rows);
    return statistic(drawn);
  });
}

function percentiles(values: Float64Array): { readonly low: number; readonly high: number } {
  const sorted = values.toSorted();
  return { low: quantile(sorted, 0.025), high: quantile(sorted, 0.975) };
}

/** Linear interpolation between order statistics, as NumPy's default. */
export function quantile(sorted: ArrayLike<number>, fraction: number): number {
  const position = fraction * (sorted.length - 1);
  const low = Math.floor(position);
  const below = sorted[low] as number;
  const above = sorted[Math.min(low + 1, sorted.length - 1)] as number;
  return below + (above - below) * (position - low);
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const ratio = (above: number, below: number): number => (below === 0 ? 0 : above / below);
