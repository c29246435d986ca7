/**
 * The campaign spec: everything a user says about one distillation, validated at the boundary.
 * Unknown keys are errors with their path; numbers are never coerced from strings.
 */
import { z } from 'zod';
import { indistinctLabels } from './label-form.ts';
import { checkLayerChoice, modelChoiceShape } from './model-choice.ts';
import { patchOf } from './patch.ts';
import { MAX_TOURNAMENT_EPOCHS, contestantStudent, contestantTraining, tournamentSchema } from './tournament-spec.ts';
import { lacksTeacher, trainingSchema } from './training-spec.ts';
import type { TrainingSpec } from './training-spec.ts';
import { StillhouseError } from './errors.ts';
import { datasetSchema, samplingSchema, sourcesOf } from './sampling-spec.ts';
import type { SamplingSpec } from './sampling-spec.ts';

/** A campaign's name is its identity: it names the workflow, the folders and the REST resource. */
export const campaignNameSchema = z
  .string()
  .regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, 'lower-case letters, digits and inner hyphens, 1 to 63 of them');

const outputSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('label'), labels: z.array(z.string().min(1)).min(2).max(64) }),
  z.strictObject({ kind: z.literal('text') }),
  /** Free text whose code blocks must parse. */
  z.strictObject({ kind: z.literal('code'), language: z.enum(['javascript', 'typescript', 'python', 'json']) }),
]);

const taskSchema = z.strictObject({
  /** What the task is, for the teacher and for readers. */
  description: z.string().min(1).max(20_000),
  /** What the student is told with every input. `{input}` is replaced by the row; without it the input follows on a new line. */
  instruction: z.string().min(1).max(4_000).default('{input}'),
  /** The system message that the student is trained and asked with. */
  system: z.string().max(4_000).optional(),
  output: outputSchema,
});

/** Names of headers that carry credentials. */
const CREDENTIAL = /auth|key|token|secret|cookie/;
const headersSchema = z.record(z.string().regex(/^[a-z][a-z0-9-]*$/, 'the name of a header, in lower case'), z.string().min(1)).superRefine((headers, context) => {
  for (const [name, value] of Object.entries(headers)) {
    if (!CREDENTIAL.test(name) || /\$\{[A-Z][A-Z0-9_]*\}/.test(value)) continue;
    // The value may be a key: it is not repeated.
    context.addIssue({ code: 'custom', path: [name], message: 'expected the name of an environment variable in the form ${NAME}, got a text without one' });
  }
});

/** Room for reasoning where a spec says nothing: most answers to narrow questions take a few hundred tokens. */
export const DEFAULT_REASONING_TOKENS = 4_096;

const endpointShape = {
  /** `local` runs a model of the catalogue, or a path, on this machine; `openai` is any OpenAI-compatible endpoint. */
  provider: z.enum(['local', 'openai']),
  /** A catalogue name, `hf:org/name@revision`, a local path, or the endpoint's model name. */
  model: z.string().min(1),
  /** Base URL of an OpenAI-compatible endpoint. Default: the provider's own. */
  baseUrl: z.url({ protocol: /^https?$/ }).optional(),
  /** The NAME of the environment variable that holds the key; the key itself never enters a spec. */
  apiKeyEnv: z.string().regex(/^[A-Z][A-Z0-9_]*$/, 'the name of an environment variable').default('OPENAI_API_KEY'),
  /** The header that carries the key, in place of `Authorization: Bearer`: `api-key` at Azure. */
  keyHeader: z.string().regex(/^[a-z][a-z0-9-]*$/, 'the name of a header, in lower case').optional(),
  /** Further headers. A secret is named, never written: `${NAME}` stands for the environment variable's value. */
  headers: headersSchema.optional(),
  /** Parameters of every call's query: `api-version` at Azure. They stand in addresses, so no secret belongs here. */
  query: z.record(z.string().min(1), z.string()).optional(),
  temperature: z.number().min(0).max(2).default(0),
  /** Longest answer, what a model reasons before it not included. */
  maxTokens: z.int().min(1).max(32_768).default(512),
  /**
   * Of a model that reasons before it answers: how hard (`reasoning_effort`, in the provider's words; omitted: the
   * provider's default) and the room for it in tokens, beside `maxTokens`. Omitted as a whole: a model that is seen to
   * reason gets room for it, and none is told how hard.
   */
  reasoning: z
    .strictObject({
      effort: z.string().regex(/^[a-z]{2,16}$/, 'a word such as none, minimal, low, medium or high').optional(),
      maxTokens: z.int().min(0).max(131_072).default(DEFAULT_REASONING_TOKENS),
    })
    .optional(),
  /** Calls in flight at once. */
  concurrency: z.int().min(1).max(512).default(16),
  /** Seconds for one attempt at a call, from sending to the last byte. Default: 180. */
  timeoutSeconds: z.number().gt(0).max(3_600).optional(),
  /** Ask the provider to keep every call, with campaign, round and sample as its metadata. Default: no. */
  store: z.boolean().optional(),
  /** The most that this campaign lets its provider key be used, by all campaigns on it; the provider's own limits are learned. */
  limits: z.strictObject({ requestsPerMinute: z.number().gt(0).optional(), tokensPerMinute: z.number().gt(0).optional() }).optional(),
  /** Dollars per million tokens, overriding the price table. Cached input costs as much as other input unless said; a batch call costs `batchShare` of it, all of it unless said. */
  price: z
    .strictObject({
      inputUsdPerMillion: z.number().min(0), outputUsdPerMillion: z.number().min(0),
      cachedInputUsdPerMillion: z.number().min(0).optional(), batchShare: z.number().gt(0).max(1).optional(),
    })
    .optional(),
};

const teacherSchema = z.strictObject({
  ...endpointShape,
  /**
   * Ask through the provider's batch service, at the price's `batchShare`: half with OpenAI. What has no answer when nine tenths of the
   * deadline, counted from the first asking, are over is asked one by one; the activity's own limit is three days.
   */
  batch: z.strictObject({ deadlineHours: z.number().gt(0).max(48).default(24) }).optional(),
  /** Worked examples, in the order in which they are shown. */
  shots: z.array(z.strictObject({ input: z.string().min(1), output: z.string().min(1) })).max(64).default([]),
  /** `prior` subtracts each label's median log-probability over the pool before choosing; needs label log-probabilities. */
  calibration: z.enum(['none', 'prior']).default('none'),
});

const { shots: _shots, calibration: _calibration, ...changeableShape } = teacherSchema.shape;
/** What a running campaign's teacher may be changed to. Worked examples stay: the questions that are planned contain them. */
export const teacherPatchSchema = z
  .strictObject(patchOf(changeableShape))
  .refine((patch) => Object.keys(patch).length > 0, 'expected at least one key of a teacher, got none');

const filterSchema = z.strictObject({
  minConfidence: z.number().min(0).max(1).default(0),
  minInputCharacters: z.int().min(0).default(1),
  /** Omitted: what the student's training can take, `training.maxTokens`, is the limit. */
  maxInputCharacters: z.int().min(1).optional(),
  maxOutputCharacters: z.int().min(1).default(16_000),
  /** Jaccard similarity of character shingles from which two inputs count as near duplicates. */
  nearDuplicateSimilarity: z.number().gt(0).max(1).default(0.8),
  /** The most that the largest class may outweigh the smallest. Omitted: no balancing. */
  maxClassRatio: z.number().min(1).optional(),
});

/** A student on this machine: a catalogue name, `hf:org/name@revision` or a local path, trained by our own engine. */
export const localStudentSchema = z.strictObject({ provider: z.literal('local').default('local'), ...modelChoiceShape }).superRefine(checkLayerChoice);

/** A student that its provider trains and serves: the model's weights never leave the provider. */
const hostedStudentSchema = z.strictObject({
  provider: z.literal('openai'),
  /** The model to fine-tune, as the provider names it. */
  model: endpointShape.model,
  baseUrl: endpointShape.baseUrl,
  apiKeyEnv: endpointShape.apiKeyEnv,
  keyHeader: endpointShape.keyHeader,
  headers: endpointShape.headers,
  query: endpointShape.query,
  concurrency: endpointShape.concurrency,
  /** The longest answer of the student. */
  maxTokens: endpointShape.maxTokens,
  /** Of the provider's training; what is omitted the provider chooses. Epochs are `training.epochs`. */
  fineTuning: z
    .strictObject({
      /** Samples in one optimizer step. */
      batchSize: z.int().min(1).max(256).optional(),
      /** Times the provider's own learning rate. */
      learningRateMultiplier: z.number().gt(0).max(100).optional(),
    })
    .prefault({}),
  /** Dollars per million tokens, overriding the price table: of training, and of answers before and after it. */
  price: z.strictObject({ trainingUsdPerMillion: z.number().min(0), inputUsdPerMillion: z.number().min(0), outputUsdPerMillion: z.number().min(0) }).optional(),
});

export const studentSchema = z.discriminatedUnion('provider', [localStudentSchema, hostedStudentSchema]);

/** The settings of training that a provider's fine-tuning has as well. */
const HOSTED_TRAINING: readonly string[] = ['epochs'];

/** Which settings of training say something that a provider's fine-tuning cannot do. */
function localTrainingKeys(training: z.output<typeof trainingSchema>): readonly string[] {
  const defaults: Readonly<Record<string, unknown>> = trainingSchema.parse({});
  return Object.entries(training).flatMap(([key, value]) => (HOSTED_TRAINING.includes(key) || JSON.stringify(value) === JSON.stringify(defaults[key]) ? [] : [key]));
}

const evaluationSchema = z.strictObject({
  /** Rows with known or judged outputs that no other stage sees: a dataset, or a share of the source held out. */
  source: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('dataset'), dataset: datasetSchema }),
    z.strictObject({ kind: z.literal('held-out'), rows: z.int().min(2) }),
  ]),
  developmentRows: z.int().min(1),
  testRows: z.int().min(1),
  scorer: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('label') }),
    z.strictObject({
      kind: z.literal('judge'),
      judge: z.strictObject(endpointShape),
      rubric: z.string().min(1).max(8_000),
      /** Also compare the student's answers with the teacher's and the untuned student's, each pair in both orders. */
      compare: z.boolean().default(false),
    }),
  ]),
  bootstrapResamples: z.int().min(100).max(100_000).default(2_000),
});

const iterateSchema = z.strictObject({
  maxRounds: z.int().min(1).max(100).default(1),
  /** Stop when the lower bound of retention on the development rows reaches this. */
  targetRetention: z.number().gt(0).max(2).default(1),
  /** Stop when a round improves the development score by less. */
  minGain: z.number().min(0).max(1).default(0.002),
  /** Inputs scored by the student when choosing the next round's requests. */
  candidates: z.int().min(1).default(1_000),
});

const budgetSchema = z.strictObject({
  usd: z.number().min(0).optional(),
  tokens: z.int().min(1).optional(),
  hours: z.number().gt(0).optional(),
});

type Reject = (path: readonly (string | number)[], message: string) => void;

/** What a source needs of the teacher, and what excludes each other. */
function checkSampling({ sampling, task, teacher }: { readonly sampling: SamplingSpec; readonly task: z.output<typeof taskSchema>; readonly teacher: z.output<typeof teacherSchema> }, reject: Reject): void {
  const sources = sourcesOf(sampling.source);
  const local = teacher.provider === 'local';
  const writes = sources.some(({ source }) => source.kind === 'description');
  for (const { source, path } of sources) {
    const at = ['sampling', 'source', ...path, 'kind'];
    if (local && source.kind === 'description') reject(at, 'expected inputs or tasks with a local teacher, got description (it needs a teacher that writes JSON)');
    if (local && source.kind === 'stored-completions') reject(at, 'expected inputs or tasks with a local teacher, got stored-completions (an endpoint stores them)');
  }
  for (const kind of ['description', 'stored-completions'] as const) {
    const second = sources.filter(({ source }) => source.kind === kind)[1];
    if (second !== undefined) reject(['sampling', 'source', ...second.path, 'kind'], `expected at most one source of kind ${kind}, got another`);
  }
  const k = sampling.answersPerInput;
  if (k > 1 && teacher.temperature === 0) reject(['sampling', 'answersPerInput'], `expected 1 at teacher.temperature 0, where every answer is the same, got ${k}`);
  if (k > 1 && local && task.output.kind === 'label') {
    reject(['sampling', 'answersPerInput'], `expected 1 with a local teacher and labels, which it scores by their log-probabilities and does not draw, got ${k}`);
  }
  if (k > 1 && teacher.calibration === 'prior') {
    reject(['teacher', 'calibration'], `expected none with sampling.answersPerInput ${k}, whose answers are counted as they were drawn, got prior`);
  }
  if (k > 1 && sources.every(({ source }) => source.kind === 'description')) {
    reject(['sampling', 'answersPerInput'], `expected 1 where the teacher writes the inputs itself, each with its output, got ${k}`);
  }
  if (sampling.rationale === true && local) reject(['sampling', 'rationale'], 'expected false with a local teacher, got true (a rationale comes as JSON, which a local model does not write)');
  if (sampling.rationale === 'reasoning' && (local || sources.every(({ source }) => source.kind === 'description'))) {
    reject(['sampling', 'rationale'], `expected true or false ${local ? 'with a local teacher' : 'where the teacher writes the inputs itself'}, got reasoning (it stands beside an endpoint's answer to one input)`);
  }
  if (sampling.rationale === true && teacher.calibration === 'prior') {
    reject(['teacher', 'calibration'], 'expected none with sampling.rationale, whose answers carry no log-probabilities of labels, got prior');
  }
  if (sampling.softTargets === undefined) return;
  if (local) reject(['sampling', 'softTargets'], 'expected none with a local teacher, got some (an endpoint gives them with its text)');
  if (sampling.rationale === true || writes) {
    reject(['sampling', 'softTargets'], `expected none with ${sampling.rationale === true ? 'sampling.rationale' : 'a source of kind description'}, got some: they would be of the JSON around an output, not of the output`);
  }
}

type TrainingParts = { readonly sampling: SamplingSpec; readonly teacher: z.output<typeof teacherSchema>; readonly training: TrainingSpec };

/** What a method needs of the rest of the spec. */
function checkTraining({ training, sampling, teacher }: TrainingParts, reject: Reject): void {
  if (training.method === 'step-by-step' && sampling.rationale === false) {
    reject(['training', 'method'], 'expected sft without sampling.rationale: true, which asks the teacher for what step-by-step learns, or reasoning, which takes what it shows by itself, got step-by-step');
  }
  if (teacher.provider !== 'local' && lacksTeacher(training, sampling.softTargets?.onMissing === 'refuse')) {
    reject(['training', 'teacher'], `expected a model to learn from with method: ${training.method}, which needs more of a teacher than its answers, got none and a teacher at an endpoint; logit with targets: offline can do with sampling.softTargets: { onMissing: refuse }`);
  }
}

/** Every contestant must be one that could be a campaign of its own. */
function checkTournament({ tournament, student, ...spec }: TrainingParts & { readonly tournament?: z.output<typeof tournamentSchema> | undefined; readonly student: z.output<typeof studentSchema> }, reject: Reject): void {
  if (tournament === undefined) return;
  if (student.provider !== 'local') {
    reject(['tournament'], 'expected none with a student that its provider trains, whose training cannot be compared from epoch to epoch, got one');
    return;
  }
  let epochs = 0;
  tournament.contestants.forEach((contestant, index) => {
    const at = ['tournament', 'contestants', index];
    const made = contestantTraining(spec.training, contestant);
    if ('issues' in made) {
      for (const { path, message } of made.issues) reject([...at, 'training', ...(path as (string | number)[])], message);
      return;
    }
    epochs += made.training.epochs;
    checkTraining({ ...spec, training: made.training }, (path, message) => reject([...at, ...path], message));
    const chosen = localStudentSchema.safeParse(contestantStudent(student, contestant));
    for (const { path, message } of chosen.error?.issues ?? []) reject([...at, 'student', ...(path as (string | number)[])], message);
  });
  if (epochs > MAX_TOURNAMENT_EPOCHS) reject(['tournament', 'contestants'], `expected at most ${MAX_TOURNAMENT_EPOCHS} epochs, all contestants together, got ${epochs}`);
}

export const campaignSpecSchema = z
  .strictObject({
    name: campaignNameSchema,
    task: taskSchema,
    teacher: teacherSchema,
    sampling: samplingSchema,
    filter: filterSchema.prefault({}),
    student: studentSchema,
    training: trainingSchema.prefault({}),
    /** Several ways to train compete, on `student` and `training` as their common settings; the winner's student is the campaign's. */
    tournament: tournamentSchema.optional(),
    evaluation: evaluationSchema,
    iterate: iterateSchema.prefault({}),
    budget: budgetSchema.prefault({}),
    seed: z.int().min(0).max(0xffff_ffff).default(17),
  })
  .superRefine((spec, context) => {
    const reject: Reject = (path, message) => {
      context.addIssue({ code: 'custom', path: [...path], message });
    };
    if (spec.task.output.kind === 'label') {
      const { labels } = spec.task.output;
      const twins = indistinctLabels(labels);
      if (twins !== undefined) reject(['task', 'output', 'labels'], `expected labels that are not blank and differ in more than letter case, width and white space, got ${twins.map((label) => JSON.stringify(label)).join(' and ')}`);
      spec.teacher.shots.forEach((shot, index) => {
        if (!labels.includes(shot.output)) {
          reject(['teacher', 'shots', index, 'output'], `expected one of ${labels.join(', ')}, got ${JSON.stringify(shot.output)}`);
        }
      });
    }
    if (spec.teacher.calibration === 'prior' && spec.task.output.kind !== 'label') {
      reject(['teacher', 'calibration'], `expected none for a task whose output is ${spec.task.output.kind}, got prior`);
    }
    checkSampling(spec, reject);
    checkTraining(spec, reject);
    checkTournament(spec, reject);
    if (spec.evaluation.scorer.kind === 'label' && spec.task.output.kind !== 'label') {
      reject(['evaluation', 'scorer', 'kind'], `expected judge for a task whose output is ${spec.task.output.kind}, got label`);
    }
    if (spec.evaluation.scorer.kind === 'label' && spec.evaluation.source.kind === 'held-out') {
      reject(['evaluation', 'source', 'kind'], 'expected dataset with gold labels for the label scorer, got held-out');
    }
    const { source, developmentRows, testRows } = spec.evaluation;
    if (source.kind === 'held-out' && sourcesOf(spec.sampling.source).every((each) => each.source.kind === 'description')) {
      reject(['evaluation', 'source', 'kind'], 'expected dataset where the teacher writes the inputs itself (sampling.source.kind: description), got held-out: there is nothing to hold out from');
    }
    if (source.kind === 'held-out' && source.rows < developmentRows + testRows) {
      reject(['evaluation', 'source', 'rows'], `expected at least developmentRows + testRows = ${developmentRows + testRows}, got ${source.rows}`);
    }
    const unhosted = spec.student.provider === 'openai' ? localTrainingKeys(spec.training) : [];
    if (unhosted.length > 0) {
      reject(['training'], `expected epochs alone with student.provider openai, which trains by supervised fine-tuning with student.fineTuning.batchSize and learningRateMultiplier, got ${unhosted.join(', ')}`);
    }
    if (spec.filter.minInputCharacters > (spec.filter.maxInputCharacters ?? Infinity)) {
      reject(['filter', 'minInputCharacters'], `expected at most maxInputCharacters = ${spec.filter.maxInputCharacters}, got ${spec.filter.minInputCharacters}`);
    }
  });

export type TeacherSpec = z.output<typeof teacherSchema>;
/**
 * A spec as validated, every default filled in. `teachers` is no key that a user writes: once a running
 * campaign's teacher was changed it lists all it has had, the oldest first, and `teacher` is the last.
 */
export type CampaignSpec = z.output<typeof campaignSpecSchema> & { readonly teachers?: readonly TeacherSpec[] };
/** A spec as a user writes it. */
export type CampaignSpecInput = z.input<typeof campaignSpecSchema>;
export type StudentSpec = CampaignSpec['student'];
/** What our own engine needs to know of a student. */
export type LocalStudentSpec = Omit<Extract<StudentSpec, { readonly provider: 'local' }>, 'provider'>;
export type HostedStudentSpec = Extract<StudentSpec, { readonly provider: 'openai' }>;

/** A contestant as a campaign of its own: what it trains, evaluates and exports by. */
export interface Contestant {
  readonly name: string;
  readonly spec: CampaignSpec;
}

/** All contestants of a campaign's tournament, in the spec's order; none where it has no tournament. */
export function contestantsOf({ tournament, ...spec }: CampaignSpec): readonly Contestant[] {
  return (tournament?.contestants ?? []).map((contestant) => {
    const made = contestantTraining(spec.training, contestant);
    if ('issues' in made) throw new StillhouseError('BAD_INPUT', `tournament, ${contestant.name}: ${made.issues.map(({ message }) => message).join('; ')}`);
    return { name: contestant.name, spec: { ...spec, student: contestantStudent(spec.student, contestant), training: made.training } };
  });
}

/** How the campaign trains: where it learns from a model and names none, from its own teacher. */
export function trainingOf({ training, teacher }: Pick<CampaignSpec, 'training' | 'teacher'>): TrainingSpec {
  return lacksTeacher(training, false) && teacher.provider === 'local' ? { ...training, teacher: { model: teacher.model } } : training;
}

/** How to reach a hosted student: the model as it was, or the fine-tuned one. */
export function hostedEndpoint({ fineTuning: _fineTuning, price, ...endpoint }: HostedStudentSpec, model: string = endpoint.model): EndpointSpec {
  return { ...endpoint, model, temperature: 0, ...(price === undefined ? {} : { price }) };
}

/** BAD_INPUT for a student that its provider keeps: there are no weights to train, ask or export here. */
export function localStudentOf({ student }: Pick<CampaignSpec, 'student'>): LocalStudentSpec {
  // Specs that were stored before providers were have none: their students are local.
  if (student.provider !== 'openai') return student;
  throw new StillhouseError('BAD_INPUT', `student.provider: expected local for work on this machine's device, got ${student.provider}`);
}
export type TaskSpec = CampaignSpec['task'];
/** What teacher and judge have in common: how to reach a model. */
export type EndpointSpec = Omit<TeacherSpec, 'shots' | 'calibration'>;
