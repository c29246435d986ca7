/**
 * A teacher's prior over labels, measured without any gold label: what it leans to whatever the input.
 * Subtracting it is contextual calibration (Zhao et al. 2021, "Calibrate Before Use") with the
 * content-free input replaced by the pool itself: per label the median, which outliers do not move.
 */
import { StillhouseError } from '../contracts/errors.ts';
import type { Calibration, TeacherAnswer } from '../contracts/records.ts';

/** Per-label median of the normalised log-probabilities. BAD_INPUT when an answer carries none. */
export function measurePrior(labels: readonly string[], answers: readonly TeacherAnswer[]): Calibration {
  const columns: number[][] = labels.map(() => []);
  answers.forEach((answer, row) => {
    const { labelLogProbs } = answer;
    if (labelLogProbs === undefined || labelLogProbs.length !== labels.length) {
      throw new StillhouseError('BAD_INPUT', `teacher.calibration: prior needs the log-probabilities of ${labels.length} labels, got ${labelLogProbs?.length ?? 'none'} in answer ${row} of ${answer.model}; set calibration: none for this teacher`);
    }
    const normaliser = logSumExp(labelLogProbs);
    labelLogProbs.forEach((value, index) => (columns[index] as number[]).push(value - normaliser));
  });
  if (answers.length === 0) throw new StillhouseError('BAD_INPUT', 'teacher.calibration: expected answers over the pool to measure the prior, got none');
  return { labels, priorLogProbs: columns.map(median), rows: answers.length };
}

/** Of an even number of values the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] as number) : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

function logSumExp(values: readonly number[]): number {
  const largest = Math.max(...values);
  return largest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - largest), 0));
}
