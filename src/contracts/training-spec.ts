/** How a student is trained here: what of it, by which method, for how long, and when its state is kept. */
import { z } from 'zod';
import { PRECISIONS } from './precision.ts';
import { checkLayerChoice, modelChoiceShape } from './model-choice.ts';

const loraSchema = z.strictObject({
  r: z.int().min(1).max(512).default(16),
  alpha: z.number().gt(0).default(32),
  /** Scale by alpha / √r in place of alpha / r (rsLoRA), so that a larger r does not weaken the adapter. */
  rankStabilised: z.boolean().default(false),
  dropout: z.number().min(0).lt(1).default(0.05),
  targets: z
    .array(z.enum(['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']))
    .min(1)
    .default(['q_proj', 'v_proj']),
});

const stepByStepSchema = z.strictObject({
  /** λ: the loss is that of the outputs plus λ times that of the rationales, each the mean over its own tokens. */
  rationaleWeight: z.number().gt(0).max(100).default(1),
  /** Put before the last user's message where the rationale is asked for; the output is asked for without. */
  rationalePrefix: z.string().min(1).max(200).default('[rationale] '),
});

const DIVERGENCES = ['forward-kl', 'reverse-kl', 'jensen-shannon'] as const;

const logitSchema = z.strictObject({
  /** How far the student's distribution is from the teacher's: KL(teacher ‖ student), KL(student ‖ teacher), or a mixture of both. */
  divergence: z.enum(DIVERGENCES).default('forward-kl'),
  /** Of `divergence: jensen-shannon`: the teacher's share in the mixture. Default: 0.5. */
  beta: z.number().gt(0).lt(1).optional(),
  /** Both distributions are softened by it; the divergence counts T² times. */
  temperature: z.number().gt(0).max(100).default(2),
  /** Share of the divergence in the loss; the rest is cross-entropy with the dataset's text. */
  alpha: z.number().gt(0).max(1).default(0.5),
  /** `online`: the teacher reads each batch beside the student. `offline`: its likeliest tokens are stored before the first step. */
  targets: z.enum(['online', 'offline']).default('online'),
  /** Of `targets: offline`: how many tokens are stored at each position; the others count together. Default: 50. */
  topK: z.int().min(1).max(1_000_000).optional(),
  /** Of `targets: offline`: the share of the teacher's mass that the stored tokens of each row must hold, on average. Default: 0.9. */
  minMass: z.number().min(0).max(1).optional(),
});

const featureSchema = z.strictObject({
  /** Which hidden states are compared: `even`, each layer of the student with the teacher's at the same share of its depth, or pairs. 0 is the embedding, n what layer n gives. */
  layers: z.union([z.literal('even'), z.array(z.strictObject({ student: z.int().min(0), teacher: z.int().min(0) })).min(1)]).default('even'),
  /** Of two hidden states: 1 − cosine; the mean of squared differences; or of those divided by the variance of the teacher's coordinate, which no large coordinate decides. */
  loss: z.enum(['cosine', 'mean-square', 'standardised']).default('cosine'),
  /** Where they are compared: at `all` tokens that the models read, the question's too, or where those of the `answer` are predicted. */
  tokens: z.enum(['all', 'answer']).default('all'),
  /** What the mean over layers and tokens counts beside the loss of the outputs. */
  weight: z.number().gt(0).max(1e6).default(1),
});

/** Tokens that a checkpoint may hold of what the student wrote. */
const MOST_WRITTEN_TOKENS = 4_000_000;

const onPolicySchema = z.strictObject({
  /** λ: the share of rows whose answers the student writes itself; the others keep the dataset's. */
  share: z.number().min(0).max(1).default(0.5),
  /** Of the student's answers. 0: always the likeliest token. */
  temperature: z.number().min(0).max(100).default(1),
  /** Longest answer of the student. */
  maxTokens: z.int().min(1).max(8_192).default(128),
  /** The student writes the answers of so many steps at once, with the weights that it has before the first of them. */
  refreshEverySteps: z.int().min(1).max(100_000).default(20),
  /** How far the student's distribution is from the teacher's, at every token of every answer. */
  divergence: z.enum(DIVERGENCES).default('jensen-shannon'),
  /** Of `divergence: jensen-shannon`: the teacher's share in the mixture. Default: 0.5. */
  beta: z.number().gt(0).lt(1).optional(),
});

const crossTokenizerSchema = z.strictObject({
  /** λ: the loss is the cross-entropy plus λ times the distance of the sorted probabilities, where both models have read the same text. */
  weight: z.number().gt(0).max(1e6).default(1.5),
  /** Both distributions are softened by it. */
  temperature: z.number().gt(0).max(100).default(1),
  /** So many of the likeliest tokens are compared rank by rank, and what is left of both together. Omitted: all. */
  ranks: z.int().min(1).max(1_000_000).optional(),
});

const teacherModelSchema = z.strictObject(modelChoiceShape).superRefine(checkLayerChoice);

const METHODS = ['sft', 'step-by-step', 'logit', 'feature', 'cross-tokenizer', 'on-policy'] as const;
/** Whose settings a method may have. */
const SETTINGS: { readonly [Key in 'stepByStep' | 'logit' | 'feature' | 'crossTokenizer' | 'onPolicy' | 'teacher']: readonly (typeof METHODS)[number][] } = {
  stepByStep: ['step-by-step'],
  logit: ['logit', 'feature'],
  feature: ['feature'],
  crossTokenizer: ['cross-tokenizer'],
  onPolicy: ['on-policy'],
  teacher: ['logit', 'feature', 'cross-tokenizer', 'on-policy'],
};

/** Can the method learn from a model that runs here? */
const learnsFromModel = (method: (typeof METHODS)[number]): boolean => SETTINGS.teacher.includes(method);

const trainingShape = {
  /**
   * How the student learns. `sft`: cross-entropy on the teacher's text. `step-by-step`: the output and the rationale that led
   * to it as two tasks of one student (Hsieh et al. 2023); the output alone is asked for afterwards. `logit`: the teacher's
   * distribution of each next token (Hinton et al. 2015). `feature`: its hidden states too (Romero et al. 2015; Jiao et al. 2020).
   * `cross-tokenizer`: the distributions of a teacher with another vocabulary, by rank (Boizard et al. 2024).
   * `on-policy`: its distributions of answers that the student wrote itself (Agarwal et al. 2023).
   */
  method: z.enum(METHODS).default('sft'),
  /** Of `method: step-by-step`; absent from a validated spec with another. */
  stepByStep: stepByStepSchema.optional(),
  /** Of `method: logit`, and where `method: feature` learns distributions as well. */
  logit: logitSchema.optional(),
  /** Of `method: feature`; absent from a validated spec with another. */
  feature: featureSchema.optional(),
  /** Of `method: cross-tokenizer`; absent from a validated spec with another. */
  crossTokenizer: crossTokenizerSchema.optional(),
  /** Of `method: on-policy`; absent from a validated spec with another. */
  onPolicy: onPolicySchema.optional(),
  /** The model that `logit`, `feature`, `cross-tokenizer` and `on-policy` learn from, run here beside the student. In a campaign: the teacher, where that is a local model. */
  teacher: teacherModelSchema.optional(),
  /** What is trained: `lora` adapters beside frozen weights, or the `full` model, every weight of it. */
  tune: z.enum(['lora', 'full']).default('lora'),
  /** Of `tune: lora`; absent from a validated spec with `tune: full`. */
  lora: loraSchema.optional(),
  /**
   * Of the products with the weights of attention and feed-forward layers, the teacher's too where there is one, and of their
   * gradients: `float16` where an accelerator is faster at it. What is trained, its gradients as they are summed, and everything else stay float32.
   */
  precision: z.enum(PRECISIONS).default('float32'),
  epochs: z.int().min(1).max(1_000).default(3),
  /** Samples in one optimizer step. */
  batchSize: z.int().min(1).max(4_096).default(4),
  learningRate: z.number().gt(0).lt(1).default(2e-4),
  warmupRatio: z.number().min(0).lt(1).default(0.03),
  schedule: z.enum(['linear', 'cosine', 'constant']).default('linear'),
  weightDecay: z.number().min(0).default(0),
  maxGradientNorm: z.number().gt(0).default(1),
  /** Longest sample in tokens; longer ones are turned away, never cut. */
  maxTokens: z.int().min(8).max(131_072).default(512),
  /** Rows whose loss is measured and that are never learned from. The weights with the lowest such loss become the student. */
  development: z
    .strictObject({
      /** Share of the dataset that is held out. */
      share: z.number().gt(0).max(0.5).default(0.1),
      /** Steps between measurements, besides the one at the end of each epoch. */
      everySteps: z.int().min(1).optional(),
      /** Training stops after so many measurements in a row without a lower loss. Omitted: all epochs are trained. */
      patience: z.int().min(1).optional(),
    })
    .optional(),
  /** Tokens that go through the model at once. A batch of more is accumulated over several runs before its one optimizer step. */
  rowTokens: z.int().min(8).max(131_072).default(512),
  /** Steps, and minutes, between checkpoints inside an epoch: whichever comes first. */
  checkpointEverySteps: z.int().min(1).default(20),
  checkpointEveryMinutes: z.number().gt(0).default(5),
};
export const trainingSchema = z
  .strictObject(trainingShape)
  .superRefine((training, context) => {
    const { tune, lora, method, logit, onPolicy, batchSize } = training;
    const reject = (key: string, message: string): void => context.addIssue({ code: 'custom', path: [key], message });
    if (tune === 'full' && lora !== undefined) reject('lora', 'expected nothing with tune: full, which trains every weight, got settings of adapters');
    for (const key of ['stepByStep', 'logit', 'feature', 'crossTokenizer', 'onPolicy', 'teacher'] as const) {
      if (training[key] !== undefined && !SETTINGS[key].includes(method)) reject(key, `expected nothing with method: ${method}, got settings of another method`);
    }
    for (const key of ['topK', 'minMass'] as const) {
      if (logit?.targets === 'online' && logit[key] !== undefined) reject('logit', `expected ${key} with targets: offline, got it with online, which needs none`);
    }
    for (const [key, settings] of [['logit', logit], ['onPolicy', onPolicy]] as const) {
      if (settings?.beta !== undefined && settings.divergence !== 'jensen-shannon') reject(key, `expected beta with divergence: jensen-shannon, got it with ${settings.divergence}`);
    }
    const written = (onPolicy?.refreshEverySteps ?? 0) * batchSize * (onPolicy?.maxTokens ?? 0);
    if (written > MOST_WRITTEN_TOKENS) reject('onPolicy', `expected refreshEverySteps × batchSize × maxTokens of at most ${MOST_WRITTEN_TOKENS}, which a checkpoint holds, got ${written}`);
  })
  // What is chosen is there with its defaults, what is not chosen is absent.
  .overwrite((training) => ({
    ...training,
    ...(training.tune === 'lora' ? { lora: training.lora ?? loraSchema.parse({}) } : {}),
    ...(training.method === 'step-by-step' ? { stepByStep: training.stepByStep ?? stepByStepSchema.parse({}) } : {}),
    ...(training.method === 'logit' ? { logit: training.logit ?? logitSchema.parse({}) } : {}),
    ...(training.method === 'feature' ? { feature: training.feature ?? featureSchema.parse({}) } : {}),
    ...(training.method === 'cross-tokenizer' ? { crossTokenizer: training.crossTokenizer ?? crossTokenizerSchema.parse({}) } : {}),
    ...(training.method === 'on-policy' ? { onPolicy: training.onPolicy ?? onPolicySchema.parse({}) } : {}),
  }));

/** With `lora`, adapters are trained; without, every weight. */
export type TrainingSpec = z.output<typeof trainingSchema>;
export type LoraSpec = NonNullable<TrainingSpec['lora']>;
export type StepByStepSpec = NonNullable<TrainingSpec['stepByStep']>;
export type LogitSpec = NonNullable<TrainingSpec['logit']>;
export type OnPolicySpec = NonNullable<TrainingSpec['onPolicy']>;
export type CrossTokenizerSpec = NonNullable<TrainingSpec['crossTokenizer']>;
export type FeatureSpec = NonNullable<TrainingSpec['feature']>;

/** Does training need a model to learn from that the spec does not name? Distributions that came with the answers are an alternative where no hidden states are asked for. */
export const lacksTeacher = ({ method, logit, teacher }: Pick<TrainingSpec, 'method' | 'logit' | 'teacher'>, answersHaveTargets: boolean): boolean =>
  learnsFromModel(method) && teacher === undefined && !(method === 'logit' && logit?.targets === 'offline' && answersHaveTargets);

/** What of a training spec decides the numbers. When checkpoints are written does not; the precision that a run has by itself is not named. */
export function decisiveTraining({ checkpointEverySteps: _steps, checkpointEveryMinutes: _minutes, precision, ...decisive }: TrainingSpec): object {
  return precision === 'float16' ? { ...decisive, precision } : decisive;
}
