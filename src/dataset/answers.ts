/** How the dataset and evaluation stages read what teachers and judges answered. */
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import type { TeacherAnswer, TeacherRequest } from '../contracts/records.ts';
import { findJson, jsonProblem } from './json.ts';
import { splitReasoning } from './reasoning-text.ts';
import { REASONED_SCHEMA_NAME } from './rationale.ts';
import { declines } from './refusals.ts';

/** A recorded answer as it is meant: of a JSON task the document alone, of a reasoned answer the answer alone. */
export interface ReadAnswer extends TeacherAnswer {
  /** The teacher's reasoning, where the request asked for it. */
  readonly rationale?: string;
  /** Why it is not the JSON that was asked for, where it is not. */
  readonly problem?: string;
}

/**
 * The recorded answers, in the order of the requests; never buys one. A request of purpose `judge`
 * is looked up under `spec.evaluation.scorer.judge`, every other under the teacher that it was planned for. Fails with
 * NOT_FOUND, naming the first such request and how many there are, when answers are missing.
 */
export type AnswerReader = (spec: CampaignSpec, requests: readonly TeacherRequest[]) => Promise<readonly ReadAnswer[]>;

/** The same, with nothing where there is no answer yet. */
export type AnswerFinder = (spec: CampaignSpec, requests: readonly TeacherRequest[]) => Promise<readonly (ReadAnswer | undefined)[]>;

const NO_ANSWER: ReadonlySet<TeacherAnswer['finishReason']> = new Set(['refusal', 'content_filter', 'rejected', 'error']);

/** What a second call could mend: JSON that is none, or not of the schema. A refusal is no broken answer. */
export function brokenJson({ task }: TeacherRequest, answer: TeacherAnswer): string | undefined {
  if (task.kind !== 'json' || NO_ANSWER.has(answer.finishReason)) return undefined;
  if (answer.text.trim() === '' || declines(answer.text)) return undefined;
  const problem = jsonProblem(answer.text, task.schema);
  if (problem === undefined || answer.finishReason !== 'length') return problem;
  return `${problem} (cut off after ${answer.usage.completionTokens} tokens)`;
}

/** Reads an answer, or its repair where that is what the answer should have been; pure. */
export function readAnswer(request: TeacherRequest, answer: TeacherAnswer, repair?: TeacherAnswer): ReadAnswer {
  if (request.task.kind !== 'json') return withoutReasoning(answer);
  const broken = brokenJson(request, answer);
  const again = broken === undefined || repair === undefined ? undefined : (brokenJson(request, repair) ?? (declines(repair.text) || repair.text === '' ? 'it was declined' : undefined));
  const mended = broken !== undefined && repair !== undefined && again === undefined;
  const meant = mended ? repair : answer;
  const problem = mended || broken === undefined ? undefined : `${broken}${again === undefined ? '' : `; repaired once, and still: ${again}`}`;
  const found = findJson(meant.text);
  const read: ReadAnswer = { ...meant, ...('problem' in found ? {} : { text: found.text }), ...(problem === undefined ? {} : { problem }) };
  return request.task.schemaName === REASONED_SCHEMA_NAME && !('problem' in found) ? { ...read, ...reasonedAnswer(found.value) } : read;
}

/** Answers that were recorded as they came, a stored completion's among them. */
function withoutReasoning(answer: TeacherAnswer): TeacherAnswer {
  const { text, reasoning } = splitReasoning(answer.text);
  return text === answer.text ? answer : { ...answer, text, ...(reasoning === undefined ? {} : { reasoning }) };
}

function reasonedAnswer(value: unknown): Pick<ReadAnswer, 'text' | 'rationale'> | undefined {
  if (typeof value !== 'object' || value === null || !('answer' in value) || typeof value.answer !== 'string') return undefined;
  const rationale = 'rationale' in value && typeof value.rationale === 'string' ? value.rationale.trim() : '';
  return { text: value.answer, ...(rationale === '' ? {} : { rationale }) };
}
