/** What a run trains, and what its steps minimise, by the method of its spec. */
import { StillhouseError } from '../contracts/errors.ts';
import type { FeatureSpec, LogitSpec, TrainingSpec } from '../contracts/training-spec.ts';
import type { Graph } from '../graph/graph.ts';
import type { ModelConfig } from '../lm/config.ts';
import { crossTokenizerLoss } from './cross-tokenizer-loss.ts';
import { distillation, teacherRows, teacherTopK } from './distillation-loss.ts';
import type { Divergence, TeacherSource } from './distillation-loss.ts';
import { CROSS_ENTROPY, projectionName } from './objective.ts';
import type { HiddenObjective, LayerPair, Objective } from './objective.ts';
import { layoutOf, tensorView } from './parameters.ts';
import { RANDOM_STREAM, randomStream } from './random.ts';
import { crossEntropy } from './row-loss.ts';
import type { RowLoss } from './row-loss.ts';
import type { StoredTargets } from './soft-targets/stored.ts';
import { trainableOf } from './trainable.ts';
import type { Trainable } from './trainable.ts';
import { teacherHead } from './white-box-teacher.ts';
import type { Observed, TeacherModel } from './white-box-teacher.ts';

export interface Method {
  readonly trainable: Trainable;
  readonly objective: Objective;
  /** What the teacher is asked for at each packed row; absent where nothing is. */
  readonly observed?: Observed;
}

export interface MethodInput {
  /** Of the student. */
  readonly config: ModelConfig;
  readonly training: Pick<TrainingSpec, 'precision' | 'lora' | 'logit' | 'feature' | 'crossTokenizer' | 'onPolicy'>;
  readonly teacher?: TeacherModel;
  /** What of the teacher is stored. */
  readonly targets?: Pick<StoredTargets, 'source'>;
}

export function methodOf({ config, training, teacher, targets }: MethodInput): Method {
  const base = trainableOf(config, training);
  const { feature, crossTokenizer, onPolicy } = training;
  // Distributions are compared as they are, and labels that the student wrote itself teach nothing.
  const logit = onPolicy === undefined ? training.logit : { ...onPolicy, temperature: 1, alpha: 1 };
  if (logit === undefined && feature === undefined && crossTokenizer === undefined) return { trainable: base, objective: CROSS_ENTROPY };
  const needed = (): TeacherModel => {
    if (teacher === undefined) throw new StillhouseError('INTERNAL', "training: expected the method's teacher, got none");
    return teacher;
  };
  if (crossTokenizer !== undefined) {
    const { vocabularySize } = needed().config;
    return { trainable: base, objective: { rowLoss: (g) => crossTokenizerLoss(crossTokenizer, teacherHead(g, needed(), vocabularySize)), teacherVocabulary: vocabularySize }, ...(targets === undefined ? { observed: { rows: true, layers: [] } } : {}) };
  }
  const hidden = feature === undefined ? undefined : hiddenObjective(feature, config, needed().config);
  const online = logit !== undefined && targets === undefined ? needed() : undefined;
  const observed = { rows: online !== undefined, layers: [...new Set(hidden?.pairs.map((pair) => pair.teacher))] };
  const source = (g: Graph): TeacherSource => (targets?.source.kind === 'top-k' ? teacherTopK(targets.source.k) : fromHead(g, config, needed()));
  return {
    trainable: hidden === undefined ? base : withProjections(base, hidden, config.hiddenSize),
    objective: { rowLoss: (g) => (logit === undefined ? crossEntropy : logitLoss(logit, source(g))), ...(hidden === undefined ? {} : { hidden }) },
    ...(observed.rows || observed.layers.length > 0 ? { observed } : {}),
  };
}

const logitLoss = ({ divergence, beta, temperature, alpha }: Pick<LogitSpec, 'divergence' | 'beta' | 'temperature' | 'alpha'>, teacher: TeacherSource): RowLoss => distillation({ divergence: divergenceOf(divergence, beta), temperature, alpha, teacher });

const fromHead = (g: Graph, student: ModelConfig, teacher: TeacherModel): TeacherSource => teacherRows(teacherHead(g, teacher, commonTokens(student, teacher.config)));

/** Both vocabularies have the first ids in common; what one has beyond is padding. */
export const commonTokens = (student: Pick<ModelConfig, 'vocabularySize'>, teacher: Pick<ModelConfig, 'vocabularySize'>): number => Math.min(student.vocabularySize, teacher.vocabularySize);

const divergenceOf = (kind: LogitSpec['divergence'], beta = 0.5): Divergence => (kind === 'jensen-shannon' ? { kind, beta } : { kind });

/** BAD_INPUT for layers that one of the models does not have. */
function hiddenObjective({ layers, loss, tokens, weight }: FeatureSpec, student: ModelConfig, teacher: ModelConfig): HiddenObjective {
  const pairs = layers === 'even' ? evenPairs(student.layers, teacher.layers) : layers;
  for (const [of, { layers: count }] of Object.entries({ student, teacher })) {
    const beyond = pairs.find((pair) => pair[of as keyof LayerPair] > count);
    if (beyond !== undefined) throw new StillhouseError('BAD_INPUT', `training.feature.layers: expected layers of the ${of} from 0, its embedding, to ${count}, got ${beyond[of as keyof LayerPair]}`);
  }
  if (new Set(pairs.map(projectionName)).size < pairs.length) throw new StillhouseError('BAD_INPUT', `training.feature.layers: expected each pair once, got ${JSON.stringify(pairs)}`);
  return { kind: loss, tokens, pairs, width: teacher.hiddenSize, projected: student.hiddenSize !== teacher.hiddenSize, weight };
}

/** Each layer of the student with that of the teacher at the same share of its depth: the last with the last (Jiao et al. 2020, TinyBERT, section 3.1). */
export function evenPairs(student: number, teacher: number): readonly LayerPair[] {
  return Array.from({ length: student }, (_, i) => ({ student: i + 1, teacher: Math.max(1, Math.round(((i + 1) * teacher) / student)) }));
}

/** The matrices of the pairs after everything else that is trained. They begin as a linear layer of PyTorch does: U(−1/√H, 1/√H). */
function withProjections(base: Trainable, { pairs, width, projected }: HiddenObjective, hiddenSize: number): Trainable {
  if (!projected) return base;
  const layout = layoutOf([...base.layout.tensors, ...pairs.map((pair) => ({ name: projectionName(pair), shape: [width, hiddenSize] }))]);
  const projections = layout.tensors.slice(base.layout.tensors.length);
  return {
    ...base,
    layout,
    initial: (weights, seed) => {
      const flat = new Float32Array(layout.length);
      flat.set(base.initial(weights, seed));
      projections.forEach((tensor, index) => {
        const random = randomStream(seed, RANDOM_STREAM.projections, index);
        const view = tensorView(flat, tensor);
        for (let i = 0; i < view.length; i++) view[i] = (2 * random.uniform(i) - 1) / Math.sqrt(hiddenSize);
      });
      return flat;
    },
  };
}
