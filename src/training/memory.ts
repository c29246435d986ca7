/** How much memory a training step takes, before anything is allocated: its graph is written, and counted instead of run. */
import type { TrainingSpec } from '../contracts/training-spec.ts';
import { graphMemory } from '../graph/liveness.ts';
import type { ModelConfig } from '../lm/config.ts';
import { elementCount } from '../lm/weights/tensor-file.ts';
import { CROSS_ENTROPY } from './objective.ts';
import { chunkRows } from './row-loss.ts';
import { trainingStepGraph } from './step-graph.ts';
import { trainableOf } from './trainable.ts';

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

/**
 * Resident memory at its highest, the mapped weights included; without the trained tensors themselves, their
 * gradients and moments, which the caller holds. Within 20 per cent of what was measured (test/unit/training-memory.test.ts).
 */
export function estimateStepBytes(config: ModelConfig, training: Pick<TrainingSpec, 'lora'>, { batch, width, labels }: StepShape): number {
  const trainable = trainableOf(config, training);
  const graph = trainingStepGraph({
    config,
    trainable,
    objective: CROSS_ENTROPY,
    backward: true,
    maxRowTokens: width,
    weights: (g) => (name, shape) => g.external(name, shape, { location: '', offsetBytes: 0, lengthBytes: 4 * elementCount(shape.map(Number)) }),
  });
  const { chunks, size } = chunkRows(labels, config.vocabularySize);
  const { constantBytes, inputBytes, resultBytes } = graphMemory(graph, { B: batch, T: width, N: chunks, C: size });
  const trainedBytes = 4 * trainable.layout.length;
  return PROCESS_BYTES + constantBytes + (inputBytes - trainedBytes) + ARENA_FACTOR * resultBytes + GRADIENT_COPIES * trainedBytes;
}
