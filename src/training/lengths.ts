/** The length of a campaign's rows in the tokens of its students, before anything is trained or bought. */
import type { Assets } from '../assets/assets.ts';
import { contestantsOf, localStudentOf, trainingOf } from '../contracts/campaign-spec.ts';
import type { TaskSpec } from '../contracts/campaign-spec.ts';
import type { ChatMessage } from '../contracts/records.ts';
import type { TrainingSpec } from '../contracts/training-spec.ts';
import type { Lengths, OpenLengths } from '../dataset/lengths.ts';
import { studentMessages } from '../dataset/student-prompt.ts';
import { openTokenizer } from '../lm/load.ts';
import type { ChatTokenizer } from '../lm/tokenizer.ts';
import { rationalePrompt } from './samples.ts';

/** Tokens of an answer whose length is not known yet: fewer leave nothing to learn. */
const LEAST_ANSWER_TOKENS = 8;

/** One way to train, and whoever reads its rows. */
interface Training {
  readonly training: TrainingSpec;
  readonly student: ChatTokenizer;
  /** Of another vocabulary, which reads every row as well. */
  readonly teacher?: ChatTokenizer;
}

/**
 * A campaign's trainings: of a tournament all contestants, because they learn the same dataset, so that a row is too long
 * where it is so for one of them.
 */
export function lengthsBy(assets: Pick<Assets, 'model'>): OpenLengths {
  return async (spec, options = {}) => {
    if (spec.student.provider === 'openai') return undefined;
    const specs = spec.tournament === undefined ? [spec] : contestantsOf(spec).map((contestant) => contestant.spec);
    const opened = new Map<string, ChatTokenizer>();
    const open = async (model: string): Promise<ChatTokenizer> => {
      const known = opened.get(model) ?? openTokenizer((await assets.model(model, options)).path);
      opened.set(model, known);
      return known;
    };
    const trainings: Training[] = [];
    for (const each of specs) {
      const training = trainingOf(each);
      const reads = training.crossTokenizer === undefined ? undefined : training.teacher?.model;
      trainings.push({ training, student: await open(localStudentOf(each).model), ...(reads === undefined ? {} : { teacher: await open(reads) }) });
    }
    return lengthsOf(spec.task, trainings);
  };
}

function lengthsOf(task: TaskSpec, trainings: readonly Training[]): Lengths {
  const firstProblem = (tokensOf: (training: Training) => number): string | undefined => {
    for (const each of trainings) {
      const tokens = tokensOf(each);
      if (tokens > each.training.maxTokens) return `${tokens} tokens, training.maxTokens ${each.training.maxTokens}`;
    }
    return undefined;
  };
  const answers = new Map(trainings.flatMap(({ student, teacher }) => [student, ...(teacher === undefined ? [] : [teacher])]).map((reader) => [reader, leastAnswer(task, reader)]));
  return {
    ofInput: (input) => {
      const chat = studentMessages(task, input);
      return firstProblem(({ training: { stepByStep }, student, teacher }) => {
        const asked = (reader: ChatTokenizer): number => promptTokens(reader, chat) + (answers.get(reader) ?? 0);
        const reasoned = stepByStep === undefined ? 0 : promptTokens(student, rationalePrompt(chat, stepByStep)) + LEAST_ANSWER_TOKENS;
        return Math.max(asked(student), reasoned, teacher === undefined ? 0 : asked(teacher));
      });
    },
    ofSample: ({ messages, rationale = '' }) => {
      const answered = (reader: ChatTokenizer, chat: readonly ChatMessage[]): number => reader.encodeForTraining(chat).ids.length;
      return firstProblem(({ training: { stepByStep }, student, teacher }) => {
        const reasoned = stepByStep === undefined || rationale.trim() === '' ? 0 : answered(student, [...rationalePrompt(messages.slice(0, -1), stepByStep), { role: 'assistant', content: rationale }]);
        return Math.max(answered(student, messages), reasoned, teacher === undefined ? 0 : answered(teacher, messages));
      });
    },
  };
}

const promptTokens = (reader: ChatTokenizer, chat: readonly ChatMessage[]): number => reader.encodeChat(chat, { openAssistantTurn: true }).length;

/** Of labels the longest: any of them may be the answer. */
function leastAnswer({ output }: TaskSpec, reader: ChatTokenizer): number {
  return output.kind === 'label' ? Math.max(...output.labels.map((label) => reader.encodeAssistantTurn(label).length)) : LEAST_ANSWER_TOKENS;
}
