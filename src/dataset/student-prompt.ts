/** The one place that decides how a student is asked, so that training, evaluation and speed see the same prompt. */
import type { TaskSpec } from '../contracts/campaign-spec.ts';
import type { ChatMessage } from '../contracts/records.ts';

/**
 * The chat before the student's answer: the task's system message, if any, and the instruction with
 * every `{input}` replaced. An instruction without `{input}` is followed by the input on a new line.
 */
export function studentMessages(task: Pick<TaskSpec, 'instruction' | 'system'>, input: string): readonly ChatMessage[] {
  const content = task.instruction.includes('{input}') ? task.instruction.replaceAll('{input}', () => input) : `${task.instruction}\n${input}`;
  const user: ChatMessage = { role: 'user', content };
  return task.system === undefined ? [user] : [{ role: 'system', content: task.system }, user];
}
