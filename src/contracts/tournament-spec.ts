/** A tournament: several ways to train compete on one dataset, one budget and one evaluation. */
import { z } from 'zod';
import { modelChoiceShape } from './model-choice.ts';
import { applyPatch, patchOf } from './patch.ts';
import { trainingSchema } from './training-spec.ts';
import type { TrainingSpec } from './training-spec.ts';

/** What each contestant's standing takes in every payload that names all of them stays below a kilobyte. */
const MAX_CONTESTANTS = 8;
/** Of all contestants together, were none stopped: at some 17 events an epoch and as many a comparison no history comes near its limit of 51,200. */
export const MAX_TOURNAMENT_EPOCHS = 500;

const contestantSchema = z.strictObject({
  /** Names the child workflow and the row in the report. */
  name: z.string().regex(/^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/, 'lower-case letters, digits and inner hyphens, 1 to 32 of them'),
  /** Where it differs from the campaign's `training`; null takes a setting away. */
  training: z.strictObject(patchOf(trainingSchema.shape)).optional(),
  /** Where it differs from the campaign's `student`. */
  student: z.strictObject(patchOf(modelChoiceShape)).optional(),
});

export const tournamentSchema = z
  .strictObject({
    /** In the order of preference: the earlier one goes on where two have the same score. */
    contestants: z.array(contestantSchema).min(2).max(MAX_CONTESTANTS),
    /** Epochs after which contestants are compared for the first time (r of successive halving). */
    firstRung: z.int().min(1).default(1),
    /** The share 1/η of them goes on from each comparison, and the next one comes after η times as many epochs. */
    reductionFactor: z.int().min(2).max(8).default(2),
    /** Contestants that train at once: more than one only where several trainer workers poll the queue. */
    concurrent: z.int().min(1).max(MAX_CONTESTANTS).default(1),
  })
  .superRefine(({ contestants }, context) => {
    contestants.forEach(({ name }, index) => {
      if (contestants.findIndex((other) => other.name === name) < index) context.addIssue({ code: 'custom', path: ['contestants', index, 'name'], message: `expected a name of its own, got ${JSON.stringify(name)} again` });
    });
  });

export type TournamentSpec = z.output<typeof tournamentSchema>;
export type ContestantSpec = TournamentSpec['contestants'][number];

export type ContestantTraining = { readonly training: TrainingSpec } | { readonly issues: readonly z.core.$ZodIssue[] };

/**
 * The contestant's training: the campaign's with its own changes. Settings of the campaign's method, or of its
 * adapters, say nothing to a contestant that has chosen another: those that are refused are left out.
 */
export function contestantTraining(campaign: TrainingSpec, { training = {} }: ContestantSpec): ContestantTraining {
  const merged = applyPatch(campaign, training);
  const first = trainingSchema.safeParse(merged);
  if (first.success) return { training: first.data };
  const foreign = new Set(first.error.issues.filter(({ path }) => path.length === 1 && !((path[0] as string) in training)).map(({ path }) => path[0]));
  const second = trainingSchema.safeParse(Object.fromEntries(Object.entries(merged).filter(([key]) => !foreign.has(key))));
  return second.success ? { training: second.data } : { issues: second.error.issues };
}

/** The contestant's student: another model is taken whole unless layers are named with it, and either choice of layers replaces the other. */
export function contestantStudent<Student extends { readonly model: string }>(campaign: Student, { student = {} }: ContestantSpec): Student {
  const chooses = ['model', 'layers', 'keepLayers'].some((key) => key in student);
  const { layers: _layers, keepLayers: _kept, ...base } = campaign as Student & { readonly layers?: unknown; readonly keepLayers?: unknown };
  return applyPatch(chooses ? base : campaign, student) as Student;
}
