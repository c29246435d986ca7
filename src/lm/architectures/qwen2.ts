/** Qwen2 and Qwen2.5 (Yang et al. 2024): Llama's layer with biases on queries, keys and values. */
import { z } from 'zod';
import { commonGgufConfig } from '../weights/gguf-metadata.ts';
import { commonConfig, commonFields, parseConfig } from '../weights/hugging-face-config.ts';
import { layerTensors, preNormParts, projectionParts } from './architecture.ts';
import type { Architecture } from './architecture.ts';
import { preNormLayer } from './llama.ts';

const schema = z.looseObject({
  ...commonFields,
  hidden_act: z.literal('silu').default('silu'),
  use_sliding_window: z.literal(false).default(false),
});

export const qwen2: Architecture = {
  name: 'qwen2',
  modelTypes: ['qwen2'],
  fromHuggingFace: (raw, where) => commonConfig(parseConfig(schema, raw, where), 'qwen2', { rotaryBase: 10_000, tiedEmbeddings: false }, where),
  fromGguf: (metadata) => commonGgufConfig(metadata, 'qwen2', { rotaryBase: 10_000 }),
  huggingFaceClass: 'Qwen2ForCausalLM',
  huggingFaceFields: () => ({ hidden_act: 'silu', use_sliding_window: false }),
  layerTensors: (config, layer) => {
    const { attentionHeads: A, keyValueHeads: K, headSize: D } = config;
    return layerTensors(layer, [
      ...preNormParts(config),
      ...projectionParts(config),
      ['self_attn.q_proj.bias', 'attn_q.bias', [A * D]],
      ['self_attn.k_proj.bias', 'attn_k.bias', [K * D]],
      ['self_attn.v_proj.bias', 'attn_v.bias', [K * D]],
    ]);
  },
  normOffset: 0,
  layer: preNormLayer({ bias: true }),
};
