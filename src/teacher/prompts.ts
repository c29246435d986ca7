/** How a teacher is asked. The wording is part of every ledger key: a changed word buys anew. */
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import type { ChatMessage, GenerationParameters, TeacherTask } from '../contracts/records.ts';
import { PAIRS_SCHEMA_NAME, pairsSchema } from '../dataset/pairs.ts';
import { studentMessages } from '../dataset/student-prompt.ts';

/** The instruction with the input in its place, as the student gets it. */
function instructionFor(spec: CampaignSpec, input: string): string {
  return studentMessages({ instruction: spec.task.instruction }, input).at(-1)?.content ?? input;
}

function parametersOf(spec: CampaignSpec, maxTokens: number = spec.teacher.maxTokens): GenerationParameters {
  const { temperature } = spec.teacher;
  return { maxTokens, temperature, ...(temperature > 0 ? { seed: spec.seed } : {}) };
}

const quoted = (labels: readonly string[]): string => labels.map((label) => JSON.stringify(label)).join(', ');

function systemMessage(spec: CampaignSpec): ChatMessage {
  const { description, system, output } = spec.task;
  const parts = [description, system, output.kind === 'label' ? `Answer with exactly one of ${quoted(output.labels)} and nothing else.` : undefined];
  return { role: 'system', content: parts.filter((part) => part !== undefined).join('\n\n') };
}

function chat(spec: CampaignSpec, input: string): readonly ChatMessage[] {
  const shots = spec.teacher.shots.flatMap((shot): ChatMessage[] => [
    { role: 'user', content: instructionFor(spec, shot.input) },
    { role: 'assistant', content: shot.output },
  ]);
  return [systemMessage(spec), ...shots, { role: 'user', content: instructionFor(spec, input) }];
}

/**
 * The few-shot prompt of a model that continues text: each worked example is the filled-in instruction,
 * a space, its output and an empty line; then the row's own instruction, which the label continues.
 */
export function completionPrompt(spec: CampaignSpec, input: string): { readonly prefix: string; readonly suffix: string } | undefined {
  const { shots } = spec.teacher;
  if (shots.length === 0) return undefined;
  const prefix = shots.map((shot) => `${instructionFor(spec, shot.input)} ${shot.output}\n\n`).join('');
  return { prefix, suffix: instructionFor(spec, input) };
}

/** The question about one input row. */
export function rowTask(spec: CampaignSpec, input: string): TeacherTask {
  const { output } = spec.task;
  const messages = chat(spec, input);
  if (output.kind !== 'label') return { kind: 'text', messages, parameters: parametersOf(spec) };
  const prompt = completionPrompt(spec, input);
  // A token is at least one byte: enough for the longest label, quotes and a full stop.
  const labelTokens = Math.max(...output.labels.map((label) => Buffer.byteLength(label))) + 8;
  return {
    kind: 'label',
    messages,
    ...(prompt === undefined ? {} : { completionPrompt: prompt }),
    labels: output.labels,
    parameters: parametersOf(spec, Math.min(spec.teacher.maxTokens, labelTokens)),
  };
}

/** Values of the spec's attributes that one call is to combine. */
export type Attributes = Readonly<Record<string, string>>;

const attributeLine = (attributes: Attributes): string => Object.entries(attributes).map(([name, value]) => `${name}: ${value}`).join('; ');

/** A call that writes `pairs` input/output pairs; `others` are attributes of earlier calls, to be different from. */
export function pairsTask(spec: CampaignSpec, pairs: number, attributes: Attributes, others: readonly Attributes[]): TeacherTask {
  const { task, teacher } = spec;
  const lines = [
    `Write ${pairs} different training examples for the task above, as JSON of the form {"pairs": [{"input": …, "output": …}]}.`,
    `An input is what takes the place of {input} in this instruction, and nothing more:\n${task.instruction.includes('{input}') ? task.instruction : `${task.instruction}\n{input}`}`,
    task.output.kind === 'label'
      ? `An output is exactly one of ${quoted(task.output.labels)}. Use each of them about equally often.`
      : 'An output is the best possible answer to its input.',
    'Write in the language of the task, as real users would: varied in wording, length and detail, without numbering, names of the attributes or comments.',
  ];
  if (Object.keys(attributes).length > 0) lines.push(`All examples have these attributes: ${attributeLine(attributes)}.`);
  if (teacher.shots.length > 0) lines.push(`Examples of the form, not to be repeated:\n${teacher.shots.map((shot) => JSON.stringify({ input: shot.input, output: shot.output })).join('\n')}`);
  if (others.length > 0) lines.push(`Already written, so avoid their situations and phrases:\n${others.map((other) => `- ${attributeLine(other)}`).join('\n')}`);
  const { description } = task;
  return {
    kind: 'json',
    messages: [{ role: 'system', content: description }, { role: 'user', content: lines.join('\n\n') }],
    schemaName: PAIRS_SCHEMA_NAME,
    schema: pairsSchema(task),
    parameters: parametersOf(spec),
  };
}
