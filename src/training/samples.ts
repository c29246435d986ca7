/** From the rows of a dataset to the tokens that a student learns, by the method of the training spec. */
import { StillhouseError } from '../contracts/errors.ts';
import type { ChatMessage, Sample } from '../contracts/records.ts';
import type { StepByStepSpec, TrainingSpec } from '../contracts/training-spec.ts';
import type { ChatTokenizer } from '../lm/tokenizer.ts';
import type { PackingSample, TrainingSample } from './packing.ts';
import type { StoredTargets } from './soft-targets/stored.ts';

/** Chats as the student will see them, the answer alone to be learned; step by step with the rationale as a second task. */
export function tokenizeSamples(text: string, tokenizer: ChatTokenizer, { stepByStep }: Pick<TrainingSpec, 'stepByStep'>): TrainingSample[] {
  const lines = text.split('\n').filter((line) => line !== '');
  const samples = lines.map((line): TrainingSample => {
    const sample = JSON.parse(line) as Sample;
    try {
      const rationale = stepByStep === undefined ? undefined : rationaleChat(sample, stepByStep);
      return { id: sample.id, ...tokenizer.encodeForTraining(sample.messages), ...(rationale === undefined ? {} : { rationale: tokenizer.encodeForTraining(rationale) }) };
    } catch (cause) {
      throw new StillhouseError('BAD_INPUT', `dataset, row ${sample.id}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
  });
  if (stepByStep !== undefined && !samples.some(({ rationale }) => rationale !== undefined)) {
    throw new StillhouseError('BAD_INPUT', `dataset: expected rows with a rationale for method step-by-step, got ${samples.length} without`);
  }
  return samples;
}

/** The same chat, its last question with the task's prefix, answered by the rationale; undefined without one. */
function rationaleChat({ messages, rationale }: Sample, settings: StepByStepSpec): readonly ChatMessage[] | undefined {
  if (rationale === undefined || rationale.trim() === '') return undefined;
  return [...rationalePrompt(messages.slice(0, -1), settings), { role: 'assistant', content: rationale }];
}

/** The chat up to its answer, with the prefix of the rationale's task before its last question. */
export function rationalePrompt(asked: readonly ChatMessage[], { rationalePrefix }: StepByStepSpec): readonly ChatMessage[] {
  const last = asked.findLastIndex(({ role }) => role === 'user');
  if (last < 0) throw new StillhouseError('BAD_INPUT', "expected a user's message to put the rationale's prefix before, got none");
  return asked.map((message, i) => (i === last ? { ...message, content: `${rationalePrefix}${message.content}` } : message));
}

const learnedTokens = (samples: readonly { readonly ids: readonly number[]; readonly responseStart: number }[]): number => samples.reduce((sum, { ids, responseStart }) => sum + ids.length - responseStart, 0);

/** What one step learns, and what its sum of losses is multiplied by. */
export interface StepParts {
  readonly samples: readonly PackingSample[];
  readonly scale: number;
  /** The same for the losses of hidden states: the mean is over all tokens that are read. */
  readonly hiddenScale: number;
}

/**
 * The loss of a batch is the mean over the tokens of its outputs, and step by step plus λ times the mean over the tokens
 * of its rationales (Hsieh et al. 2023, equation 3). Stored distributions go with the outputs.
 */
export function stepParts(batch: readonly TrainingSample[], { stepByStep }: Pick<TrainingSpec, 'stepByStep'>, targets?: StoredTargets): StepParts {
  const outputTokens = learnedTokens(batch);
  const rationales = batch.flatMap(({ id, rationale }) => (rationale === undefined ? [] : [{ id, ...rationale }]));
  const weight = stepByStep === undefined || rationales.length === 0 ? 0 : (stepByStep.rationaleWeight * outputTokens) / learnedTokens(rationales);
  const samples = batch.map((whole): PackingSample => {
    const { rationale: _rationale, reading, ...sample } = whole;
    if (targets !== undefined) return { ...sample, values: targets.valuesOf(whole) };
    return reading === undefined ? sample : { ...sample, reading };
  });
  const read = batch.reduce((sum, { ids }) => sum + ids.length - 1, 0);
  return { samples: weight === 0 ? samples : [...samples, ...rationales.map((rationale) => ({ ...rationale, weight }))], scale: 1 / outputTokens, hiddenScale: 1 / read };
}
