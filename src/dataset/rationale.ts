/** An answer with the reasoning that led to it, as a teacher is asked for both. */
import type { TaskSpec } from '../contracts/campaign-spec.ts';

export const REASONED_SCHEMA_NAME = 'reasoned_answer';

/** JSON schema of `{ "rationale", "answer" }`: the reasoning first, so that it is written before the answer it leads to. */
export function reasonedSchema(task: TaskSpec): Readonly<Record<string, unknown>> {
  return {
    type: 'object',
    properties: { rationale: { type: 'string' }, answer: task.output.kind === 'label' ? { type: 'string', enum: task.output.labels } : { type: 'string' } },
    required: ['rationale', 'answer'],
    additionalProperties: false,
  };
}
