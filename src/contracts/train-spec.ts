/** What a user says about one training run without a campaign: `still train`. */
import { z } from 'zod';
import { localStudentSchema } from './campaign-spec.ts';
import { lacksTeacher, trainingSchema } from './training-spec.ts';

const shape = z.strictObject({
  student: localStudentSchema,
  /**
   * Rows to learn from, in the forms of docs/data.md: a chat, `{ "messages": [ … ] }` whose last message is the
   * assistant's, or `{ "input": …, "output": … }`; a table has these two as columns. A "rationale" beside them is what step-by-step learns
   * too, "softTargets" (src/dataset/soft-targets.ts) what logit does with targets: offline and no teacher.
   */
  dataset: z.string().min(1),
  /** Rows whose loss is measured and that are never learned from, in place of a share of the dataset. */
  development: z.string().min(1).optional(),
  /** How an input is put to the student: `{input}` is replaced by it; without it the input follows on a new line. */
  instruction: z.string().min(1).max(4_000).default('{input}'),
  /** The system message before each input. */
  system: z.string().max(4_000).optional(),
  training: trainingSchema.prefault({}),
  /** A run that a few steps show to take longer is refused. */
  hours: z.number().gt(0).optional(),
  seed: z.int().min(0).max(0xffff_ffff).default(17),
  /** The folder of the student, its checkpoint and its loss curve. The same run goes on there where it was stopped. */
  out: z.string().min(1),
});
export const trainSpecSchema = shape.superRefine(({ training }, context) => {
  // Whether the rows have soft targets is seen when they are read.
  if (lacksTeacher(training, true)) context.addIssue({ code: 'custom', path: ['training', 'teacher'], message: `expected a model to learn from with method: ${training.method}, as in teacher: { model: … }, got none` });
});
export type TrainSpec = z.output<typeof trainSpecSchema>;
