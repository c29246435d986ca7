/**
 * A teacher's prior over labels, measured without any gold label: what it leans to whatever the input.
 * Subtracting it is contextual calibration (Zhao et al. 2021, "Calibrate Before Use") with the
 * content-free input replaced by the pool itself: per label the median, which outliers do not move.
 */
import { StillhouseError } from '../contracts/errors.ts';
import type { Calibration, TeacherAnswer } from '../contracts/records.ts';

/** Per-label median of the normalised log-probabilities, over the answers that carry them. BAD_INPUT when none does. */
export function measurePrior(labels: readonly string[], answers: readonly TeacherAnswer[]): Calibration {
  const measured = answers.flatMap(({ labelLogProbs }) => (labelLogProbs?.length === labels.length ? [labelLogProbs] : []));
  if (measured.length === 0) {
    throw new StillhouseError('BAD_INPUT', `teacher.calibration: prior needs answers with the log-probabilities of ${labels.length} labels, got none in ${answers.length} answers of ${answers[0]?.model ?? 'the teacher'}; set calibration: none for this teacher`);
  }
  const normalised = measured.map((logProbs) => {
    const normaliser = logSumExp(logProbs);
    return logProbs.map((value) => value - normaliser);
  });
  return { labels, priorLogProbs: labels.map((_, index) => median(normalised.map((row) => row[index] as number))), rows: measured.length };
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
