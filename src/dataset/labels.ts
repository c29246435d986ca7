/** Which label an answer means, and how sure it is. */
import type { Calibration, TeacherAnswer } from '../contracts/records.ts';
import { labelOf } from './label-reading.ts';

export { labelOf };

export interface LabelChoice {
  readonly label: string;
  /** 0…1: the chosen label's calibrated probability. Absent where the answer carries no log-probabilities. */
  readonly confidence?: number;
}

/**
 * The label of a teacher's answer, undefined when its text names none. The text says which label it is, and its
 * log-probabilities how sure that is: they may belong to a less likely draw, or stand in the ledger from a time when
 * they were read otherwise. A calibration is asked for in order to choose anew: with one, the label is the likeliest
 * after it.
 */
export function chooseLabel(answer: Pick<TeacherAnswer, 'text' | 'labelLogProbs'>, labels: readonly string[], calibration?: Calibration): LabelChoice | undefined {
  const { text, labelLogProbs } = answer;
  const probabilities = labelLogProbs?.length === labels.length ? calibratedProbabilities(labelLogProbs, calibration) : undefined;
  const label = probabilities === undefined || calibration === undefined ? labelOf(text, labels) : labels[probabilities.indexOf(Math.max(...probabilities))];
  if (label === undefined) return undefined;
  const confidence = probabilities?.[labels.indexOf(label)];
  return confidence === undefined ? { label } : { label, confidence };
}

/** softmax(log p − log prior), which sums to 1 over the labels; without a calibration softmax(log p). */
export function calibratedProbabilities(logProbs: readonly number[], calibration?: Calibration): readonly number[] {
  const scores = logProbs.map((value, index) => value - (calibration?.priorLogProbs[index] ?? 0));
  const largest = Math.max(...scores);
  const weights = scores.map((score) => Math.exp(score - largest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
