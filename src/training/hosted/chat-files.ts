/** Rows as the chat JSONL that fine-tuning takes. https://platform.openai.com/docs/api-reference/fine-tuning/chat-input */
import { createHash } from 'node:crypto';
import type { TaskSpec } from '../../contracts/campaign-spec.ts';
import type { ChatMessage, InputRow, Sample } from '../../contracts/records.ts';
import { studentMessages } from '../../dataset/student-prompt.ts';

export interface ChatFile {
  readonly bytes: Buffer;
  readonly sha256: string;
  readonly rows: number;
  /** The most tokens that one pass over it can train: a byte-level vocabulary never makes more of them than there are bytes. */
  readonly tokenUpperBound: number;
}

/** Role, separators and the opening of the answer: at most so many tokens a message in known chat formats. */
const TOKENS_PER_MESSAGE = 8;

function chatFile(chats: readonly (readonly ChatMessage[])[]): ChatFile {
  const bytes = Buffer.from(chats.map((messages) => `${JSON.stringify({ messages: messages.map(({ role, content }) => ({ role, content })) })}\n`).join(''));
  const tokenUpperBound = chats.reduce((sum, messages) => sum + messages.reduce((tokens, { content }) => tokens + Buffer.byteLength(content) + TOKENS_PER_MESSAGE, TOKENS_PER_MESSAGE), 0);
  return { bytes, sha256: createHash('sha256').update(bytes).digest('hex'), rows: chats.length, tokenUpperBound };
}

/** The accepted rows: the last message of each, the assistant's, is what is learned. */
export const trainingFile = (samples: readonly Sample[]): ChatFile => chatFile(samples.map(({ messages }) => messages));

/** Development rows whose gold output is known; undefined when none is. The provider measures its loss on them and learns nothing from them. */
export function validationFile(task: Pick<TaskSpec, 'instruction' | 'system'>, rows: readonly InputRow[]): ChatFile | undefined {
  const chats = rows.flatMap(({ input, gold }) => (gold === undefined ? [] : [[...studentMessages(task, input), { role: 'assistant' as const, content: gold }]]));
  return chats.length === 0 ? undefined : chatFile(chats);
}
