/** The sampling section of a spec: where the training rows come from, and how the teacher is asked for them. */
import { z } from 'zod';

/** `catalogue:NAME` or the path of a .jsonl, .ndjson, .json, .csv, .tsv or .txt file: docs/data.md (absolute, or relative to the spec file). */
export const datasetSchema = z.string().min(1);

/** The teacher answers inputs that the user already has. */
const inputsSource = z.strictObject({ kind: z.literal('inputs'), dataset: datasetSchema });

/** The teacher answers a list of tasks; each becomes a chat. */
const tasksSource = z.strictObject({ kind: z.literal('tasks'), dataset: datasetSchema });

/** The teacher writes input/output pairs from the task's description. */
const descriptionSource = z.strictObject({
  kind: z.literal('description'),
  pairsPerCall: z.int().min(1).max(50).default(5),
  /** Values to combine, so that the pairs differ: topic, style, length. Omitted: the teacher plans them first. `{}`: none. */
  attributes: z.record(z.string().min(1), z.array(z.string().min(1)).min(1)).optional(),
  /** What the teacher plans values for where `attributes` is omitted. */
  plan: z
    .strictObject({
      attributes: z.array(z.string().min(1)).min(1).max(12).default(['topic', 'style', 'length', 'difficulty', 'language']),
      /** Values for each of them. */
      values: z.int().min(2).max(50).default(8),
    })
    .prefault({}),
});

/** Chat completions that the provider has stored (`store: true`), found by their metadata: bought already. */
const storedSource = z.strictObject({
  kind: z.literal('stored-completions'),
  /** Completions must carry each of these. At most 16, as the provider keeps. */
  metadata: z
    .record(z.string().min(1).max(64), z.string().max(512))
    .refine((metadata) => Object.keys(metadata).length >= 1 && Object.keys(metadata).length <= 16, '1 to 16 entries'),
  /** Only completions of this model. Default: those of any model. */
  model: z.string().min(1).optional(),
  /** The most that are read. */
  limit: z.int().min(1).max(1_000_000).default(10_000),
});

/** Of the rows of a round, how many come from this source: its share of the sum of all shares. */
const share = { share: z.number().gt(0).default(1) };

const mixedSource = z.strictObject({
  kind: z.literal('mixed'),
  sources: z
    .array(z.discriminatedUnion('kind', [inputsSource.extend(share), tasksSource.extend(share), descriptionSource.extend(share), storedSource.extend(share)]))
    .min(2)
    .max(16),
});

export const samplingSchema = z.strictObject({
  source: z.discriminatedUnion('kind', [inputsSource, descriptionSource, tasksSource, storedSource, mixedSource]),
  /** Inputs (with a description: calls) in the first round. */
  rows: z.int().min(1).max(1_000_000),
  /** The same in each later round. Default: half of `rows`. */
  rowsPerLaterRound: z.int().min(1).max(1_000_000).optional(),
  /** Requests in one activity. Raised where more than 40 batches would be needed. */
  batchSize: z.int().min(1).max(10_000).default(64),
  /** Each training input is asked so many times; the answers are put to a vote and their agreement is the row's confidence. */
  answersPerInput: z.int().min(1).max(64).default(1),
  /**
   * The reasoning that leads to each answer, for `training.method: step-by-step`. `true`: the teacher is asked for it, with its
   * answer as JSON. `reasoning`: what a reasoning model shows of its own, in its text or beside it; a row without any has none.
   */
  rationale: z.union([z.boolean(), z.literal('reasoning')]).default(false),
  /** Keep the teacher's most probable tokens at each position of its answers. */
  softTargets: z
    .strictObject({
      topK: z.int().min(1).max(20).default(20),
      /** When the endpoint gives none: keep the text alone and say so in the report, or pause the campaign. */
      onMissing: z.enum(['continue', 'refuse']).default('continue'),
    })
    .optional(),
});

export type SamplingSpec = z.output<typeof samplingSchema>;
/** One place that rows come from. */
export type RowSource = Exclude<SamplingSpec['source'], { readonly kind: 'mixed' }>;
export type DescriptionSource = Extract<RowSource, { readonly kind: 'description' }>;
export type StoredCompletionsSource = Extract<RowSource, { readonly kind: 'stored-completions' }>;

/** The sources behind a spec's source, each with its path below `sampling.source` and its share. */
export function sourcesOf(source: SamplingSpec['source']): readonly { readonly source: RowSource; readonly share: number; readonly path: readonly (string | number)[] }[] {
  if (source.kind !== 'mixed') return [{ source, share: 1, path: [] }];
  return source.sources.map(({ share: part, ...each }, index) => ({ source: each, share: part, path: ['sources', index] }));
}
