/** What a step minimises: a loss of each learned token's row of logits, and of hidden states at every token. */
import type { Graph } from '../graph/graph.ts';
import type { ModelConfig } from '../lm/config.ts';
import type { HiddenStateKind } from './distillation-loss.ts';
import { crossEntropy } from './row-loss.ts';
import type { RowLoss } from './row-loss.ts';

export interface Objective {
  /** Of each learned token; written for the graph that the step is. What it is given comes with the packed row, by name. */
  readonly rowLoss: (g: Graph) => RowLoss;
  readonly hidden?: HiddenObjective;
  /** Tokens of a teacher with a vocabulary of its own, whose rows of logits are there beside the student's. */
  readonly teacherVocabulary?: number;
}

/** Hidden states of the student's layers beside the teacher's, numbered as in TextScoringRequest: 0 is the embedding. */
export interface HiddenObjective {
  readonly kind: HiddenStateKind;
  readonly pairs: readonly LayerPair[];
  /** Of the teacher: Ht. */
  readonly width: number;
  /** Is the student's width another, so that a trained matrix (Ht, H) for each pair leads from one to the other? */
  readonly projected: boolean;
  readonly tokens: HiddenTokens;
  /** What the mean over pairs and tokens counts in the loss of a batch. */
  readonly weight: number;
}

/** Where hidden states are compared: at every token that is read, or where the answer's tokens are predicted. */
export type HiddenTokens = 'all' | 'answer';

export interface LayerPair {
  readonly student: number;
  readonly teacher: number;
}

/** The labels alone. */
export const CROSS_ENTROPY: Objective = { rowLoss: () => crossEntropy };

/** Of the widest row of logits that a chunk holds. */
export const widestVocabulary = ({ vocabularySize }: Pick<ModelConfig, 'vocabularySize'>, { teacherVocabulary = 0 }: Objective): number => Math.max(vocabularySize, teacherVocabulary);

const PROJECTION = 'projection.';
/** The trained matrix of a pair; it is part of checkpoints, and of no student. */
export const projectionName = ({ student, teacher }: LayerPair): string => `${PROJECTION}${student}.${teacher}`;
export const isProjection = (name: string): boolean => name.startsWith(PROJECTION);
/** What the teacher's head would see at each learned token: (N, C, Ht). */
export const TEACHER_ROWS = 'teacherRows';
/** The teacher's hidden states of a layer: (B, T, Ht). */
export const teacherHiddenName = ({ teacher }: Pick<LayerPair, 'teacher'>): string => `teacherHidden.${teacher}`;
