/** Models of a published shape with random weights, as Hugging Face folders: what a step costs does not depend on the numbers. */
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { modelTensors } from '../../src/lm/architectures/registry.ts';
import type { ModelConfig, WeightFile } from '../../src/lm/config.ts';
import { huggingFaceConfig } from '../../src/lm/weights/hugging-face-model.ts';
import { elementCount } from '../../src/lm/weights/tensor-file.ts';
import { randomStream } from '../../src/training/random.ts';

const qwen2 = { model_type: 'qwen2', architectures: ['Qwen2ForCausalLM'], vocab_size: 151_936, rms_norm_eps: 1e-6, rope_theta: 1e6, tie_word_embeddings: true, hidden_act: 'silu', max_position_embeddings: 32_768, torch_dtype: 'float32' };
/** As in the `config.json` of each. */
export const SHAPES = {
  'qwen2.5-0.5b': { ...qwen2, num_hidden_layers: 24, hidden_size: 896, num_attention_heads: 14, num_key_value_heads: 2, intermediate_size: 4_864 },
  'qwen2.5-1.5b': { ...qwen2, num_hidden_layers: 28, hidden_size: 1_536, num_attention_heads: 12, num_key_value_heads: 2, intermediate_size: 8_960 },
} as const;
export type ShapeName = keyof typeof SHAPES;

/** Numbers drawn once and repeated: a billion draws would take longer than the bench. Odd, so that rows differ. */
const DRAWN = 1_000_003;
const DEVIATION = 0.02;
const WEIGHTS_FILE = 'model.safetensors';
const PLACES_FILE = 'places.json';

/** Writes `config.json` and one float32 safetensors file. */
export function writeRandomModel(folder: string, shape: ShapeName, seed: number): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify(SHAPES[shape]));
  const tensors = [...modelTensors(huggingFaceConfig(folder))];
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let end = 0;
  for (const { name, shape: sizes } of tensors) {
    const lengthBytes = 4 * elementCount(sizes);
    header[name] = { dtype: 'F32', shape: sizes, data_offsets: [end, end + lengthBytes] };
    end += lengthBytes;
  }
  const text = Buffer.from(JSON.stringify(header));
  const start = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, ' ');
  start.writeBigUInt64LE(BigInt(start.length - 8));
  text.copy(start, 8);
  const random = randomStream(seed, 0);
  const normal = Float32Array.from({ length: DRAWN }, (_, i) => DEVIATION * Math.sqrt(3) * (2 * random.uniform(i) - 1));
  const file = openSync(join(folder, WEIGHTS_FILE), 'w');
  try {
    writeSync(file, start);
    for (const { name, shape: sizes } of tensors) {
      const values = name.endsWith('norm.weight') ? new Float32Array(elementCount(sizes)).fill(1) : normal;
      for (let left = elementCount(sizes); left > 0; left -= values.length) writeSync(file, new Uint8Array(values.buffer, 0, 4 * Math.min(left, values.length)));
    }
  } finally {
    closeSync(file);
  }
  const places = tensors.map(({ name, shape: sizes }) => {
    const [from, to] = (header[name] as { data_offsets: [number, number] }).data_offsets;
    return [name, { shape: sizes, offsetBytes: start.length + from, lengthBytes: to - from }];
  });
  writeFileSync(join(folder, PLACES_FILE), JSON.stringify(places));
}

/** The folder's weights where they lie. There is no tokenizer: the bench gives token ids. */
export function openRandomModel(folder: string): { readonly config: ModelConfig; readonly weights: WeightFile } {
  const places = JSON.parse(readFileSync(join(folder, PLACES_FILE), 'utf8')) as [string, { shape: number[]; offsetBytes: number; lengthBytes: number }][];
  return { config: huggingFaceConfig(folder), weights: { path: join(folder, WEIGHTS_FILE), tensors: new Map(places) } };
}
