/** How much memory a training step takes, before anything is allocated: its graph is written, and counted instead of run. */
import type { Graph } from '../graph/graph.ts';
import { graphMemory } from '../graph/liveness.ts';
import { blockSizes } from '../lm/architectures/decoder.ts';
import type { WeightLookup } from '../lm/architectures/decoder.ts';
import { elementCount } from '../lm/weights/tensor-file.ts';
import { methodOf } from './method.ts';
import type { MethodInput } from './method.ts';
import { widestVocabulary } from './objective.ts';
import { packsWeights } from './packed-weights.ts';
import { chunkRows } from './row-loss.ts';
import { trainingStepGraph } from './step-graph.ts';
import { teacherGraph } from './white-box-teacher.ts';
import type { Observed, TeacherModel } from './white-box-teacher.ts';

/** Samples as they are packed (packing.ts): B rows of T tokens, R of which are learned. */
export interface StepShape {
  readonly batch: number;
  readonly width: number;
  readonly labels: number;
}

/** Node.js, the runtime's library, a tokenizer, and what is left of reading a model. */
const PROCESS_BYTES = 260 * 2 ** 20;
/** The runtime's arena keeps pieces that no value fits into, and its operators take working memory. */
const ARENA_FACTOR = 1.2;
/** The runtime's binding hands gradients out as copies, and the collector may be one step late. */
const GRADIENT_COPIES = 2;

/** The place stands for the tensor: one for each name, whatever the graph calls it. */
const onDisk = (g: Graph): WeightLookup => (name, shape, as = name) => g.external(as, shape, { location: name, offsetBytes: 0, lengthBytes: 4 * elementCount(shape.map(Number)) });

/**
 * Resident memory at its highest, the mapped weights included; without the trained tensors themselves, their
 * gradients and moments, which the caller holds. Within 20 per cent of what was measured (test/unit/training-memory.test.ts).
 */
export function estimateStepBytes(run: MethodInput, { batch, width, labels }: StepShape): number {
  const { config, teacher } = run;
  const { trainable, objective, observed } = methodOf(run);
  const graph = trainingStepGraph({
    config,
    trainable,
    objective,
    backward: true,
    maxRowTokens: width,
    precision: run.training.precision,
    weights: onDisk,
  });
  const { chunks, size } = chunkRows(labels, widestVocabulary(config, objective));
  const sizes = { B: batch, ...blockSizes(width), N: chunks, C: size };
  const { constantBytes, inputBytes, resultBytes } = graphMemory(graph, sizes, { packed: packsWeights(config) });
  const trainedBytes = 4 * trainable.layout.length;
  const step = constantBytes + (inputBytes - trainedBytes) + ARENA_FACTOR * resultBytes + GRADIENT_COPIES * trainedBytes;
  // The teacher's session is one of its own, whose arena stays. Its head is mapped by both, and resident memory counts both.
  return PROCESS_BYTES + step + (teacher === undefined || observed === undefined ? 0 : teacherBytes(teacher, observed, width, sizes));
}

type ReadingModel = Pick<TeacherModel, 'config' | 'precision'>;

/** Of a process in which the teacher reads rows of this shape and nothing is trained. */
export function estimateReadingBytes(teacher: ReadingModel, { batch, width, labels }: StepShape): number {
  const { chunks, size } = chunkRows(labels, teacher.config.vocabularySize);
  return PROCESS_BYTES + teacherBytes(teacher, { rows: true, layers: [] }, width, { B: batch, ...blockSizes(width), N: chunks, C: size });
}

function teacherBytes(teacher: ReadingModel, observed: Observed, width: number, sizes: Readonly<Record<string, number>>): number {
  const { constantBytes, resultBytes } = graphMemory(teacherGraph({ ...teacher, observed, maxRowTokens: width, weights: onDisk }), sizes, { packed: packsWeights(teacher.config) });
  return constantBytes + ARENA_FACTOR * resultBytes;
}
