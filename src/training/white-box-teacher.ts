/**
 * A frozen teacher beside a training student: for a packed row what its head would see, and its hidden states. It reads
 * the same tokens in the same places. Ht is its hidden size; other letters as in src/lm/model.ts, N chunks of C learned rows.
 */
import { basename } from 'node:path';
import type { Precision } from '../contracts/precision.ts';
import { Graph } from '../graph/graph.ts';
import type { FloatValue } from '../graph/ops.ts';
import { toOnnx } from '../graph/serialize.ts';
import { decoderInputs, weightConstants } from '../lm/architectures/decoder.ts';
import type { WeightLookup } from '../lm/architectures/decoder.ts';
import { decoder, headRows, headWeight } from '../lm/architectures/registry.ts';
import type { ModelConfig, WeightFile } from '../lm/config.ts';
import { createSession } from '../lm/session.ts';
import type { SessionOptions } from '../lm/session.ts';
import { requireHalfRange } from '../lm/half-range.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { TEACHER_ROWS, teacherHiddenName } from './objective.ts';
import type { Feeds } from './row-feeds.ts';

/** A model whose distributions or hidden states are learned. */
export interface TeacherModel {
  readonly config: ModelConfig;
  /** In the same folder as the student's. */
  readonly weights: WeightFile;
  readonly sha256: string;
  /** Of the products with its projections' weights. Default: float32. */
  readonly precision?: Precision;
}

/** What decides the numbers that a teacher gives. */
export const teacherIdentity = ({ sha256, precision = 'float32' }: TeacherModel): string => (precision === 'float32' ? sha256 : `${sha256} ${precision}`);

/** What is asked of the teacher. */
export interface Observed {
  /** The learned rows after the final normalisation. */
  readonly rows: boolean;
  /** Hidden states of these layers; 0 is the embedding. */
  readonly layers: readonly number[];
}

/** Inputs: `ids`, `positions`, `mask`, `blocks`, `rows` as the student's. Outputs: `teacherRows` (N, C, Ht), `teacherHidden.LAYER` (B, T, Ht). */
export function teacherGraph(options: Pick<TeacherModel, 'config' | 'precision'> & { readonly observed: Observed; readonly maxRowTokens: number; readonly weights: (g: Graph) => WeightLookup }): Graph {
  const { config, precision = 'float32', observed } = options;
  const g = new Graph();
  const weight = options.weights(g);
  const { hidden, layerHidden } = decoder(g, config, weight, decoderInputs(g, config, { blocks: true }), { precision, contextTokens: options.maxRowTokens });
  if (observed.rows) g.output(TEACHER_ROWS, headRows(g, config, weight, hidden, g.input('rows', 'int64', ['N', 'C'])));
  for (const layer of observed.layers) g.output(teacherHiddenName({ teacher: layer }), layerHidden[layer] as FloatValue);
  return g;
}

/** The head of the first `tokens` of the vocabulary, (tokens, Ht), as a constant of another graph. */
export function teacherHead(g: Graph, { config, weights }: Pick<TeacherModel, 'config' | 'weights'>, tokens: number): FloatValue {
  return headWeight(config, (name) => {
    const stored = weights.tensors.get(name);
    if (stored === undefined) throw new StillhouseError('NOT_FOUND', `${weights.path}: expected a tensor ${name}, got none`);
    return g.external(`teacher.${name}`, [tokens, config.hiddenSize], { location: basename(weights.path), offsetBytes: stored.offsetBytes, lengthBytes: 4 * tokens * config.hiddenSize });
  });
}

export interface WhiteBoxTeacher extends AsyncDisposable {
  /** By the names of the graph's outputs. BAD_INPUT, with the ids of the row's samples, where a number is none. */
  observe(row: Feeds, samples: readonly string[]): Promise<Feeds>;
}

export async function openTeacher(teacher: TeacherModel, observed: Observed, maxRowTokens: number, options: SessionOptions): Promise<WhiteBoxTeacher> {
  const { weights } = teacher;
  if (teacher.precision === 'float16') requireHalfRange(weights);
  const graph = teacherGraph({ ...teacher, observed, maxRowTokens, weights: (g) => weightConstants(g, weights) });
  const session = await createSession(toOnnx(graph, 'teacher'), weights, options);
  return {
    async observe(row, samples) {
      const results = await session.run(Object.fromEntries(session.inputNames.map((name) => [name, row[name]])) as Feeds);
      for (const [name, { data, dims }] of Object.entries(results)) {
        const wrong = (data as Float32Array).findIndex((value) => !Number.isFinite(value));
        if (wrong >= 0) throw new StillhouseError('BAD_INPUT', `teacher, rows ${samples.slice(0, 10).join(', ')}: expected finite numbers in ${name} [${dims.join(', ')}], got ${(data as Float32Array)[wrong]}`);
      }
      return results as Feeds;
    },
    [Symbol.asyncDispose]: () => session.release(),
  };
}
