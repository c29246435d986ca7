/**
 * What a run trains: which tensors, how they begin, and how they enter the model's graph. The step asks for
 * nothing more than parameters by name, so that adapters and whole models are trained by the same code.
 */
import { closeSync, openSync } from 'node:fs';
import type { LoraSpec, TrainingSpec } from '../contracts/training-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { Graph } from '../graph/graph.ts';
import type { FloatValue } from '../graph/ops.ts';
import { formatShape, sameShape } from '../graph/shape.ts';
import type { LinearHook, WeightLookup } from '../lm/architectures/decoder.ts';
import { loraLinear, loraTargets } from '../lm/architectures/lora.ts';
import type { LoraTarget } from '../lm/architectures/lora.ts';
import { modelTensors } from '../lm/architectures/registry.ts';
import type { ModelConfig, WeightFile } from '../lm/config.ts';
import { readFully } from '../lm/weights/tensor-file.ts';
import { initialAdapter, layoutOf, loraLayout, tensorView } from './parameters.ts';
import type { ParameterLayout } from './parameters.ts';

/** The graph that a step is written into, and how it gets at its inputs. */
export interface StepInputs {
  /** The frozen weights. */
  readonly weight: WeightLookup;
  /** A trained tensor by its name in the layout. */
  readonly parameter: (name: string) => FloatValue;
  /** Factors for an adapter's input: 0 where dropped, 1 / (1 − p) elsewhere. Absent: no dropout. */
  readonly dropout?: (target: string, like: FloatValue) => FloatValue;
}

/** How the decoder sees the model while it is trained. */
export interface TrainedModel {
  readonly weight: WeightLookup;
  readonly linear?: LinearHook;
}

export interface Trainable {
  readonly layout: ParameterLayout;
  /** The values that training begins with, in the layout's order. */
  readonly initial: (weights: WeightFile, seed: number) => Float32Array;
  /** Inputs that are dropped out, and the share of their elements that is; none where nothing is. */
  readonly dropout: { readonly targets: readonly LoraTarget[]; readonly probability: number };
  readonly bind: (g: Graph, inputs: StepInputs) => TrainedModel;
}

export function trainableOf(config: ModelConfig, training: Pick<TrainingSpec, 'lora'>): Trainable {
  return training.lora === undefined ? wholeModel(config) : adapters(config, training.lora);
}

/** LoRA matrices beside frozen weights. */
function adapters(config: ModelConfig, lora: LoraSpec): Trainable {
  const targets = loraTargets(config, lora.targets);
  const layout = loraLayout(targets, lora.r);
  return {
    layout,
    initial: (_weights, seed) => initialAdapter(layout, seed),
    dropout: { targets: lora.dropout > 0 ? targets : [], probability: lora.dropout },
    bind: (g, { weight, ...branch }) => ({ weight, linear: loraLinear(g, lora, branch) }),
  };
}

/** Every tensor of the model: embedding, projections with their biases, normalisations, and the head where it is not tied. */
function wholeModel(config: ModelConfig): Trainable {
  const layout = layoutOf(modelTensors(config));
  const shapes = new Map(layout.tensors.map(({ name, shape }) => [name, shape]));
  return {
    layout,
    initial: (weights) => readWeights(weights, layout),
    dropout: { targets: [], probability: 0 },
    bind: (_g, { parameter }) => ({
      weight: (name, shape) => {
        const own = shapes.get(name);
        if (own === undefined || !sameShape(own, shape)) throw new StillhouseError('INTERNAL', `trained model: expected a tensor ${name} ${formatShape(shape)}, got ${own === undefined ? 'none' : formatShape(own)}`);
        return parameter(name);
      },
    }),
  };
}

function readWeights(weights: WeightFile, layout: ParameterLayout): Float32Array {
  const flat = new Float32Array(layout.length);
  const descriptor = openSync(weights.path, 'r');
  try {
    for (const tensor of layout.tensors) {
      const stored = weights.tensors.get(tensor.name);
      const view = tensorView(flat, tensor);
      if (stored?.lengthBytes !== view.byteLength) throw new StillhouseError('CORRUPT', `${weights.path}, tensor ${tensor.name}: expected ${view.byteLength} bytes, got ${stored?.lengthBytes ?? 'no such tensor'}`);
      readFully(descriptor, new Uint8Array(view.buffer, view.byteOffset, view.byteLength), stored.offsetBytes, `${weights.path}, tensor ${tensor.name}`);
    }
  } finally {
    closeSync(descriptor);
  }
  return flat;
}
