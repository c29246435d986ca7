/** Rows that a user has ready for training: chats, or inputs with the outputs to be learned. */
import { extname } from 'node:path';
import { z } from 'zod';
import { StillhouseError } from '../contracts/errors.ts';
import type { TaskSpec } from '../contracts/campaign-spec.ts';
import type { ChatMessage, Sample } from '../contracts/records.ts';
import { linesOf, readRows } from './import.ts';
import { excerpt } from './pairs.ts';
import { studentMessages } from './student-prompt.ts';

/** What the trainer reads of a sample. */
export type TrainingRow = Pick<Sample, 'id' | 'messages' | 'rationale' | 'softTargets'>;
type Asking = Pick<TaskSpec, 'instruction' | 'system'>;

const extraFields = { rationale: z.string().optional(), softTargets: z.base64().optional() };
const chatSchema = z.looseObject({
  ...extraFields,
  messages: z
    .array(z.looseObject({ role: z.enum(['system', 'user', 'assistant']), content: z.string() }))
    .min(2)
    .refine((messages) => messages.at(-1)?.role === 'assistant'),
});
const pairSchema = z.looseObject({ ...extraFields, input: z.string().min(1), output: z.string().min(1) });
const EXPECTED = '{"messages": […, {"role": "assistant", …}]} or {"input": "…", "output": "…"}';

/** Every row of the file, in its order, named by its line. BAD_INPUT with file and line where a row is not one. */
export async function* readTrainingRows(path: string, asking: Asking): AsyncGenerator<TrainingRow> {
  const answered = (input: string, output: string): readonly ChatMessage[] => [...studentMessages(asking, input), { role: 'assistant', content: output }];
  if (extname(path).toLowerCase() !== '.jsonl') {
    for await (const { input, gold, origin } of readRows(path)) {
      if (gold === undefined) throw new StillhouseError('BAD_INPUT', `${path}, ${origin}: expected an input with an output, got an input alone`);
      yield { id: origin, messages: answered(input, gold) };
    }
    return;
  }
  for await (const { text, line } of linesOf(path)) {
    const value = parseJson(text, `${path}:${line}`);
    const chat = chatSchema.safeParse(value);
    const pair = pairSchema.safeParse(value);
    if (chat.success) yield { id: `line ${line}`, messages: chat.data.messages.map(({ role, content }) => ({ role, content })), ...extrasOf(chat.data) };
    else if (pair.success) yield { id: `line ${line}`, messages: answered(pair.data.input, pair.data.output), ...extrasOf(pair.data) };
    else throw new StillhouseError('BAD_INPUT', `${path}:${line}: expected ${EXPECTED}, got ${excerpt(text)}`);
  }
}

interface Extras {
  readonly rationale?: string | undefined;
  readonly softTargets?: string | undefined;
}
const extrasOf = ({ rationale, softTargets }: Extras): Pick<TrainingRow, 'rationale' | 'softTargets'> => ({ ...(rationale === undefined ? {} : { rationale }), ...(softTargets === undefined ? {} : { softTargets }) });

function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new StillhouseError('BAD_INPUT', `${where}: expected one JSON object a line, got ${excerpt(text)}`, { cause });
  }
}
