/** The second call about an answer that is not the JSON that was asked for. There is no third. */
import type { TeacherAnswer, TeacherRequest } from '../contracts/records.ts';
import { brokenJson } from '../dataset/answers.ts';

/** The request that shows the teacher its broken text and what is wrong with it; undefined where nothing is. Pure. */
export function repairOf(request: TeacherRequest, answer: TeacherAnswer): TeacherRequest | undefined {
  const problem = brokenJson(request, answer);
  return problem === undefined ? undefined : repairRequest(request, answer.text, problem);
}

function repairRequest(request: TeacherRequest, text: string, problem: string): TeacherRequest {
  const { task } = request;
  const wish = `This is not the JSON document that was asked for: ${problem}. Write the whole document again, corrected, as JSON and nothing else. Where it was cut off, end it after the last entry that was complete.`;
  return {
    ...request,
    id: `${request.id}-repair`,
    task: { ...task, messages: [...task.messages, { role: 'assistant', content: text }, { role: 'user', content: wish }] },
  };
}

/** Bytes of the longest description of a problem: three of the schema's own paths, with what was expected there. */
const PROBLEM_BYTES = 1_500;
const fillers = new Map<number, string>();

/**
 * The dearest repair that a request can need, to be bounded like any other request; undefined where it
 * needs none. The broken text counts one byte a token: it was `maxTokens` tokens when it was written
 * and is no more when it is read.
 */
export function dearestRepair(request: TeacherRequest): TeacherRequest | undefined {
  if (request.task.kind !== 'json') return undefined;
  const { maxTokens } = request.task.parameters;
  const filler = fillers.get(maxTokens) ?? 'x'.repeat(maxTokens);
  fillers.set(maxTokens, filler);
  return repairRequest(request, filler, 'x'.repeat(PROBLEM_BYTES));
}
