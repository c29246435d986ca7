/** What the pairs that a teacher writes are to differ in: planned by the teacher where the spec gives no values, combined by seed. */
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherRequest } from '../contracts/records.ts';
import type { DescriptionSource } from '../contracts/sampling-spec.ts';
import type { AnswerFinder } from '../dataset/answers.ts';
import { excerpt } from '../dataset/pairs.ts';
import { createRandom, shuffled } from '../dataset/random.ts';
import { attributesTask } from './prompts.ts';

/** One value of each attribute: what a call is to write about. */
export type Attributes = Readonly<Record<string, string>>;
/** The values of each attribute. */
export type AttributeValues = Readonly<Record<string, readonly string[]>>;

/** Up to so many combinations are drawn without replacement. */
const MAX_SHUFFLED_COMBINATIONS = 100_000;
/** A plan that cannot be read is asked for again, so many times in all. */
const MAX_PLANS = 3;

/**
 * The spec's values, or those that the teacher has planned, with the task's labels as one attribute
 * more; or the request whose answer is needed first. The request is the same in every round, so that
 * the ledger answers it after the first.
 */
export async function attributeValues(find: AnswerFinder, spec: CampaignSpec, source: DescriptionSource): Promise<{ readonly values: AttributeValues } | { readonly ask: TeacherRequest }> {
  if (source.attributes !== undefined) return { values: source.attributes };
  let problem = '';
  for (let draw = 0; draw < MAX_PLANS; draw += 1) {
    const ask: TeacherRequest = { id: `plan-attributes-${draw}`, purpose: 'train', sampleIndex: draw, task: attributesTask(spec, source.plan, draw) };
    // A plan stays the campaign's plan when another teacher takes over.
    const asked = (spec.teachers ?? [spec.teacher]).map((_, teacher) => (teacher === 0 ? ask : { ...ask, teacher }));
    const answer = (await find(spec, asked)).find((each) => each !== undefined);
    if (answer === undefined) return { ask };
    const values = answer.problem === undefined ? readAttributes(answer.text) : undefined;
    if (values !== undefined) return { values: spec.task.output.kind === 'label' ? { ...values, label: spec.task.output.labels } : values };
    problem = answer.problem ?? `got ${excerpt(answer.text)}`;
  }
  throw new StillhouseError('BAD_INPUT', `sampling.source.attributes: expected a plan of ${source.plan.attributes.join(', ')} from ${spec.teacher.model}, got none that can be read in ${MAX_PLANS} answers (the last: ${problem}); give the attributes in the spec`);
}

/** Attributes by name, each with its distinct values; undefined when there is not one. */
function readAttributes(text: string): AttributeValues | undefined {
  const { attributes } = JSON.parse(text) as { readonly attributes: readonly { readonly name: string; readonly values: readonly string[] }[] };
  const named = attributes.flatMap(({ name, values }) => {
    const distinct = [...new Set(values.map((value) => value.trim()).filter((value) => value !== ''))];
    return name.trim() === '' || distinct.length === 0 ? [] : [[name.trim(), distinct] as const];
  });
  return named.length === 0 ? undefined : Object.fromEntries(named);
}

export interface Combinations {
  readonly count: number;
  readonly at: (position: number) => Attributes;
}

/** All combinations of the attributes' values in an order drawn by the seed; after the last it begins again. */
export function combinationsOf(seed: number, values: AttributeValues): Combinations {
  const names = Object.keys(values).sort();
  const count = names.reduce((product, name) => product * (values[name]?.length ?? 1), 1);
  const order = count <= MAX_SHUFFLED_COMBINATIONS ? shuffled(Array.from({ length: count }, (_, index) => index), createRandom(seed, 'attributes')) : undefined;
  const numberAt = (position: number): number => order?.[position % count] ?? Math.floor(createRandom(seed, `attributes:${position}`)() * count);
  return {
    count,
    at: (position) => {
      let rest = numberAt(position);
      return Object.fromEntries(
        names.map((name) => {
          const among = values[name] ?? [];
          const value = among[rest % among.length] ?? '';
          rest = Math.floor(rest / among.length);
          return [name, value];
        }),
      );
    },
  };
}
