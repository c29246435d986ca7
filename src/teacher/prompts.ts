/** How a teacher is asked. The wording is part of every ledger key: a changed word buys anew. */
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import type { DescriptionSource } from '../contracts/sampling-spec.ts';
import type { ChatMessage, GenerationParameters, TeacherTask } from '../contracts/records.ts';
import { PAIRS_SCHEMA_NAME, pairsSchema } from '../dataset/pairs.ts';
import { REASONED_SCHEMA_NAME, reasonedSchema } from '../dataset/rationale.ts';
import { studentMessages } from '../dataset/student-prompt.ts';
import type { Attributes } from './attributes.ts';

/** The instruction with the input in its place, as the student gets it. */
function instructionFor(spec: CampaignSpec, input: string): string {
  return studentMessages({ instruction: spec.task.instruction }, input).at(-1)?.content ?? input;
}

/** Each draw has a seed of its own: a provider that honours seeds would else give the same answer each time. */
function parametersOf(spec: CampaignSpec, sampleIndex: number, maxTokens: number = spec.teacher.maxTokens): GenerationParameters {
  const { temperature, reasoning } = spec.teacher;
  return { maxTokens, ...(reasoning === undefined ? {} : { reasoning }), temperature, ...(temperature > 0 ? { seed: spec.seed + sampleIndex } : {}) };
}

const quoted = (labels: readonly string[]): string => labels.map((label) => JSON.stringify(label)).join(', ');

function systemMessage(spec: CampaignSpec, ...more: readonly string[]): ChatMessage {
  const { description, system } = spec.task;
  return { role: 'system', content: [description, ...(system === undefined ? [] : [system]), ...more].join('\n\n') };
}

const onlyLabels = ({ task }: CampaignSpec): readonly string[] => (task.output.kind === 'label' ? [`Answer with exactly one of ${quoted(task.output.labels)} and nothing else.`] : []);

function chat(spec: CampaignSpec, input: string): readonly ChatMessage[] {
  const shots = spec.teacher.shots.flatMap((shot): ChatMessage[] => [
    { role: 'user', content: instructionFor(spec, shot.input) },
    { role: 'assistant', content: shot.output },
  ]);
  return [systemMessage(spec, ...onlyLabels(spec)), ...shots, { role: 'user', content: instructionFor(spec, input) }];
}

/** What follows each output in a few-shot prompt: the empty line that ends it, and a label that is chosen. */
export const SHOT_END = '\n\n';

/**
 * The few-shot prompt of a model that continues text: each worked example is the filled-in instruction,
 * a space, its output and an empty line; then the row's own instruction, which the label continues.
 */
export function completionPrompt(spec: CampaignSpec, input: string): { readonly prefix: string; readonly suffix: string } | undefined {
  const { shots } = spec.teacher;
  if (shots.length === 0) return undefined;
  const prefix = shots.map((shot) => `${instructionFor(spec, shot.input)} ${shot.output}${SHOT_END}`).join('');
  return { prefix, suffix: instructionFor(spec, input) };
}

/** The question about one input row; `sampleIndex` says which of several draws it is. Nobody learns from a held-out row: it is asked without soft targets. */
export function rowTask(spec: CampaignSpec, input: string, sampleIndex = 0, heldOut = false): TeacherTask {
  const { output } = spec.task;
  if (spec.sampling.rationale === true) return reasonedTask(spec, input, sampleIndex);
  const messages = chat(spec, input);
  const { softTargets } = spec.sampling;
  const extra = softTargets === undefined || heldOut ? {} : { topLogProbs: softTargets.topK };
  if (output.kind !== 'label') return { kind: 'text', messages, parameters: { ...parametersOf(spec, sampleIndex), ...extra } };
  const prompt = completionPrompt(spec, input);
  // A token is at least one byte: enough for the longest label, quotes and a full stop.
  const labelTokens = Math.max(...output.labels.map((label) => Buffer.byteLength(label))) + 8;
  return {
    kind: 'label',
    messages,
    ...(prompt === undefined ? {} : { completionPrompt: prompt }),
    labels: output.labels,
    parameters: { ...parametersOf(spec, sampleIndex, Math.min(spec.teacher.maxTokens, labelTokens)), ...extra },
  };
}

/** Reasoning and answer as JSON. The worked examples have no reasoning, so that they are shown as a list and not as answers. */
function reasonedTask(spec: CampaignSpec, input: string, sampleIndex: number): TeacherTask {
  const { task, teacher } = spec;
  const parts = [
    'Answer with JSON of the form {"rationale": …, "answer": …}. The rationale is the reasoning that leads to the answer, in one to four sentences, in the language of the input.',
    task.output.kind === 'label' ? `The answer is exactly one of ${quoted(task.output.labels)}.` : 'The answer is the whole answer, complete without the rationale.',
  ];
  if (teacher.shots.length > 0) parts.push(`Inputs with their right answers:\n${teacher.shots.map((shot) => JSON.stringify({ input: shot.input, answer: shot.output })).join('\n')}`);
  return {
    kind: 'json',
    messages: [systemMessage(spec, ...parts), { role: 'user', content: instructionFor(spec, input) }],
    schemaName: REASONED_SCHEMA_NAME,
    schema: reasonedSchema(task),
    parameters: parametersOf(spec, sampleIndex),
  };
}

const ATTRIBUTES_SCHEMA = {
  type: 'object',
  properties: {
    attributes: {
      type: 'array',
      items: {
        type: 'object',
        properties: { name: { type: 'string' }, values: { type: 'array', items: { type: 'string' } } },
        required: ['name', 'values'],
        additionalProperties: false,
      },
    },
  },
  required: ['attributes'],
  additionalProperties: false,
} as const;

/** The call that plans what training examples are to differ in. */
export function attributesTask(spec: CampaignSpec, plan: DescriptionSource['plan'], sampleIndex: number): TeacherTask {
  const lines = [
    'Training examples for the task above are to be written, a few at a time. Plan what they differ in, so that together they cover everything that real users would bring.',
    `For each of these attributes give up to ${plan.values} values, as JSON of the form {"attributes": [{"name": …, "values": […]}]}: ${plan.attributes.join(', ')}.`,
    'A value is a few words that tell a writer what to do. Any values may be combined, so none may contradict another attribute. Leave out an attribute in which the task allows no difference, and give languages only in which the task is asked.',
  ];
  return {
    kind: 'json',
    messages: [systemMessage(spec), { role: 'user', content: lines.join('\n\n') }],
    schemaName: 'attributes',
    schema: ATTRIBUTES_SCHEMA,
    parameters: parametersOf(spec, sampleIndex),
  };
}

const attributeLine = (attributes: Attributes): string => Object.entries(attributes).map(([name, value]) => `${name}: ${value}`).join('; ');

/** What was written before: attributes of earlier calls, and inputs of earlier rounds. */
export interface Written {
  readonly attributes: readonly Attributes[];
  readonly inputs: readonly string[];
}

const MAX_SHOWN_INPUT = 200;
const shortened = (text: string): string => ([...text].length > MAX_SHOWN_INPUT ? `${[...text].slice(0, MAX_SHOWN_INPUT).join('')}…` : text);

/** A call that writes `pairs` input/output pairs, different from what was written before. */
export function pairsTask(spec: CampaignSpec, pairs: number, attributes: Attributes, written: Written, sampleIndex: number): TeacherTask {
  const { task, teacher, sampling } = spec;
  const form = sampling.rationale === true ? '{"input": …, "rationale": …, "output": …}' : '{"input": …, "output": …}';
  const lines = [
    `Write ${pairs} different training examples for the task above, as JSON of the form {"pairs": [${form}]}.`,
    `An input is what takes the place of {input} in this instruction, and nothing more:\n${task.instruction.includes('{input}') ? task.instruction : `${task.instruction}\n{input}`}`,
    task.output.kind === 'label'
      ? `An output is exactly one of ${quoted(task.output.labels)}.${'label' in attributes ? '' : ' Use each of them about equally often.'}`
      : 'An output is the best possible answer to its input.',
    'Write in the language of the task, as real users would: varied in wording, length and detail, without numbering, names of the attributes or comments.',
  ];
  if (sampling.rationale === true) lines.push('A rationale is the reasoning that leads from the input to the output, in one to four sentences.');
  if (Object.keys(attributes).length > 0) lines.push(`All examples have these attributes: ${attributeLine(attributes)}.`);
  if (teacher.shots.length > 0) lines.push(`Examples of the form, not to be repeated:\n${teacher.shots.map((shot) => JSON.stringify({ input: shot.input, output: shot.output })).join('\n')}`);
  const before = [...written.attributes.map((other) => `- ${attributeLine(other)}`), ...written.inputs.map((input) => `- ${JSON.stringify(shortened(input))}`)];
  if (before.length > 0) lines.push(`Already written, so avoid their situations and phrases:\n${before.join('\n')}`);
  const { description } = task;
  return {
    kind: 'json',
    messages: [{ role: 'system', content: description }, { role: 'user', content: lines.join('\n\n') }],
    schemaName: PAIRS_SCHEMA_NAME,
    schema: pairsSchema(task, sampling.rationale === true),
    parameters: parametersOf(spec, sampleIndex),
  };
}
