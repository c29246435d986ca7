/** Which label an answer means, and how sure it is. */
import type { Calibration, TeacherAnswer } from '../contracts/records.ts';

/**
 * The label that a text names, or undefined. Letter case, quotes, white space and closing punctuation
 * do not count; of `Sentiment: positive` the part after the last colon is read. A text that merely
 * mentions a label (`not positive`) names none.
 */
export function labelOf(text: string, labels: readonly string[]): string | undefined {
  const byForm = new Map(labels.map((label) => [bareForm(label), label]));
  return byForm.get(bareForm(text)) ?? byForm.get(bareForm(text.split(/[:：]/).at(-1) as string));
}

function bareForm(text: string): string {
  return text.normalize('NFKC').toLowerCase().replace(/^[\s"'“”‘’「」『』《》`*#.-]+|[\s"'“”‘’「」『』《》`*.,;!。，；！]+$/gu, '');
}

export interface LabelChoice {
  readonly label: string;
  /** 0…1: the chosen label's calibrated probability. Absent where the answer carries no log-probabilities. */
  readonly confidence?: number;
}

/** The label of a teacher's answer: by its log-probabilities where it has them, else by its text; undefined when that names no label. */
export function chooseLabel(answer: Pick<TeacherAnswer, 'text' | 'labelLogProbs'>, labels: readonly string[], calibration?: Calibration): LabelChoice | undefined {
  const { labelLogProbs } = answer;
  if (labelLogProbs === undefined || labelLogProbs.length !== labels.length) {
    const label = labelOf(answer.text, labels);
    return label === undefined ? undefined : { label };
  }
  const probabilities = calibratedProbabilities(labelLogProbs, calibration);
  let best = 0;
  probabilities.forEach((probability, index) => {
    if (probability > (probabilities[best] as number)) best = index;
  });
  return { label: labels[best] as string, confidence: probabilities[best] as number };
}

/** softmax(log p − log prior), which sums to 1 over the labels; without a calibration softmax(log p). */
export function calibratedProbabilities(logProbs: readonly number[], calibration?: Calibration): readonly number[] {
  const scores = logProbs.map((value, index) => value - (calibration?.priorLogProbs[index] ?? 0));
  const largest = Math.max(...scores);
  const weights = scores.map((score) => Math.exp(score - largest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
