/** Qwen3 (Yang et al. 2025): Llama's layer with queries and keys normalised head by head, and heads of a size of their own. */
import { z } from 'zod';
import { commonGgufConfig } from '../weights/gguf-metadata.ts';
import { commonConfig, commonFields, parseConfig } from '../weights/hugging-face-config.ts';
import { layerTensors, preNormParts, projectionParts } from './architecture.ts';
import type { Architecture } from './architecture.ts';
import { preNormLayer } from './llama.ts';

const schema = z.looseObject({
  ...commonFields,
  hidden_act: z.literal('silu').default('silu'),
  attention_bias: z.literal(false).default(false),
  use_sliding_window: z.literal(false).default(false),
});

export const qwen3: Architecture = {
  name: 'qwen3',
  modelTypes: ['qwen3'],
  fromHuggingFace: (raw, where) => commonConfig(parseConfig(schema, raw, where), 'qwen3', { rotaryBase: 10_000, tiedEmbeddings: false, headSize: 128 }, where),
  fromGguf: (metadata) => commonGgufConfig(metadata, 'qwen3', { rotaryBase: 10_000 }),
  huggingFaceClass: 'Qwen3ForCausalLM',
  huggingFaceFields: () => ({ hidden_act: 'silu', attention_bias: false, use_sliding_window: false }),
  layerTensors: (config, layer) =>
    layerTensors(layer, [
      ...preNormParts(config),
      ...projectionParts(config),
      ['self_attn.q_norm.weight', 'attn_q_norm.weight', [config.headSize]],
      ['self_attn.k_norm.weight', 'attn_k_norm.weight', [config.headSize]],
    ]),
  normOffset: 0,
  layer: preNormLayer({ headNorm: { offset: 0 } }),
};
