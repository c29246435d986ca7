/** The trainable parameters as one flat array, with each tensor's place in it. */
import { loraAName, loraBName } from '../lm/architectures/lora.ts';
import type { LoraTarget } from '../lm/architectures/lora.ts';
import { elementCount } from '../lm/weights/tensor-file.ts';
import { RANDOM_STREAM, randomStream } from './random.ts';

export interface ParameterTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** In elements. */
  readonly offset: number;
  readonly length: number;
}

export interface ParameterLayout {
  readonly tensors: readonly ParameterTensor[];
  readonly length: number;
}

/** Tensors one after another, in their order. */
export function layoutOf(shapes: Iterable<{ readonly name: string; readonly shape: readonly number[] }>): ParameterLayout {
  const tensors: ParameterTensor[] = [];
  let offset = 0;
  for (const { name, shape } of shapes) {
    const length = elementCount(shape);
    tensors.push({ name, shape, offset, length });
    offset += length;
  }
  return { tensors, length: offset };
}

/** A and B of each target. */
export function loraLayout(targets: readonly LoraTarget[], r: number): ParameterLayout {
  return layoutOf(targets.flatMap(({ name, inSize, outSize }) => [{ name: loraAName(name), shape: [r, inSize] }, { name: loraBName(name), shape: [outSize, r] }]));
}

export function tensorView(flat: Float32Array, tensor: ParameterTensor): Float32Array {
  return flat.subarray(tensor.offset, tensor.offset + tensor.length);
}

/** As PEFT begins: A from U(−1/√in, 1/√in), which is Kaiming-uniform with a = √5, and B zero. */
export function initialAdapter(layout: ParameterLayout, seed: number): Float32Array {
  const flat = new Float32Array(layout.length);
  layout.tensors.forEach((tensor, index) => {
    if (!tensor.name.endsWith('.lora_A.weight')) return;
    const random = randomStream(seed, RANDOM_STREAM.initialWeights, index);
    const bound = 1 / Math.sqrt(tensor.length / (tensor.shape[0] ?? 1)); // A: (r, in)
    const view = tensorView(flat, tensor);
    for (let i = 0; i < view.length; i++) view[i] = (2 * random.uniform(i) - 1) * bound;
  });
  return flat;
}
