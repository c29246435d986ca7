/** What is put before a judge: instructions and rubric, then the task, its reference and the answers, each between tags. */
import type { CampaignSpec, EndpointSpec } from '../contracts/campaign-spec.ts';
import type { InputRow, TeacherRequest } from '../contracts/records.ts';

export interface JudgeTask {
  readonly id: string;
  readonly judge: EndpointSpec;
  readonly rubric: string;
  readonly row: InputRow;
  /** How it is to judge, and what it is to give. */
  readonly instructions: readonly string[];
  /** What the task's description says: `What the answer is for`. */
  readonly heading: string;
  /** Answers by the names of their tags, in their order. */
  readonly answers: Readonly<Record<string, string>>;
  readonly schemaName: string;
  readonly schema: Readonly<Record<string, unknown>>;
}

export function judgeTask(spec: CampaignSpec, { id, judge, rubric, row, instructions, heading, answers, schemaName, schema }: JudgeTask): TeacherRequest {
  const tagged = (tag: string, text: string): string => `<${tag}>\n${text}\n</${tag}>`;
  const parts = [
    `${heading}:\n${spec.task.description}`,
    tagged('task', row.input),
    ...(row.gold === undefined ? [] : [tagged('reference', row.gold)]),
    ...Object.entries(answers).map(([tag, answer]) => tagged(tag, answer)),
  ];
  return {
    id,
    purpose: 'judge',
    sampleIndex: 0,
    row,
    task: {
      kind: 'json',
      messages: [{ role: 'system', content: [...instructions, `Rubric:\n${rubric}`].join('\n\n') }, { role: 'user', content: parts.join('\n\n') }],
      schemaName,
      schema,
      parameters: { maxTokens: judge.maxTokens, ...(judge.reasoning === undefined ? {} : { reasoning: judge.reasoning }), temperature: judge.temperature },
    },
  };
}
