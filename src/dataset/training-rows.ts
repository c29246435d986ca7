/** Rows that a user has ready for training: chats, or inputs with the outputs to be learned. */
import { StillhouseError } from '../contracts/errors.ts';
import type { TaskSpec } from '../contracts/campaign-spec.ts';
import type { ChatMessage, Sample } from '../contracts/records.ts';
import { excerpt } from './pairs.ts';
import { readRecords } from './record-file.ts';
import type { FileRecord } from './record-file.ts';
import { chatOf, extrasOf, pairOf } from './row-formats.ts';
import { studentMessages } from './student-prompt.ts';

/** What the trainer reads of a sample. */
export type TrainingRow = Pick<Sample, 'id' | 'messages' | 'rationale' | 'softTargets'>;
type Asking = Pick<TaskSpec, 'instruction' | 'system'>;

const EXPECTED = '{"messages": […, {"role": "assistant", …}]} or {"input": "…", "output": "…"}';

/** Every row of the file, in its order, named by its line. BAD_INPUT with file and line where a row is not one, and for a file without rows. */
export async function* readTrainingRows(path: string, asking: Asking): AsyncGenerator<TrainingRow> {
  let rows = 0;
  for await (const record of readRecords(path)) {
    const where = `${path}:${record.line}`;
    rows += 1;
    yield { id: `line ${record.line}`, messages: learnedChat(record, where, asking), ...extrasOf(record, where) };
  }
  if (rows === 0) throw new StillhouseError('BAD_INPUT', `${path}: expected rows, got none`);
}

/** A chat is learned as it is; its last message is the answer. */
function learnedChat(record: FileRecord, where: string, asking: Asking): readonly ChatMessage[] {
  const chat = chatOf(record, where);
  if (chat !== undefined) {
    const last = chat.at(-1);
    if (chat.length < 2 || last?.role !== 'assistant' || last.content.trim() === '') throw notOne(record, where);
    return chat;
  }
  const pair = pairOf(record, where);
  if (pair?.output === undefined) throw notOne(record, where);
  return [...studentMessages(asking, pair.input), { role: 'assistant', content: pair.output }];
}

const notOne = ({ text }: FileRecord, where: string): StillhouseError => new StillhouseError('BAD_INPUT', `${where}: expected ${EXPECTED}, got ${excerpt(text)}`);
