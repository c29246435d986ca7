/** A PEFT adapter folder of small random matrices. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeSafetensors } from '../../src/lm/weights/safetensors.ts';
import { randomStream } from '../../src/training/random.ts';

export interface AdaptedWeight {
  /** `model.layers.0.self_attn.q_proj` */
  readonly module: string;
  readonly inSize: number;
  readonly outSize: number;
}

export function writeAdapterFolder(folder: string, weights: readonly AdaptedWeight[], settings: { readonly r?: number; readonly alpha?: number; readonly deviation?: number; readonly seed?: number } = {}): string {
  const { r = 4, alpha = 8, deviation = 0.1, seed = 3 } = settings;
  let index = 0;
  const random = (shape: readonly number[]): Float32Array => {
    const stream = randomStream(seed, 42, index++);
    return Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => (2 * stream.uniform(i) - 1) * deviation);
  };
  const tensors = weights.flatMap(({ module, inSize, outSize }) =>
    ([['lora_A', [r, inSize]], ['lora_B', [outSize, r]]] as const).map(([side, shape]) => ({ name: `base_model.model.${module}.${side}.weight`, shape, values: random(shape) })),
  );
  mkdirSync(folder, { recursive: true });
  const targets = [...new Set(weights.map(({ module }) => module.split('.').at(-1)))];
  writeFileSync(join(folder, 'adapter_config.json'), JSON.stringify({ peft_type: 'LORA', task_type: 'CAUSAL_LM', base_model_name_or_path: 'tiny', r, lora_alpha: alpha, lora_dropout: 0, target_modules: targets, bias: 'none' }));
  writeFileSync(join(folder, 'adapter_model.safetensors'), encodeSafetensors(tensors));
  return folder;
}
