/** Llama (Touvron et al. 2023), with the rotary scaling of Llama 3.1: also SmolLM2 and many others. */
import { z } from 'zod';
import { commonGgufConfig } from '../weights/gguf-metadata.ts';
import { commonConfig, commonFields, parseConfig } from '../weights/hugging-face-config.ts';
import { layerTensors, preNormParts, projectionParts } from './architecture.ts';
import type { Architecture } from './architecture.ts';
import { attention, feedForward, norm } from './decoder.ts';
import type { AttentionOptions } from './decoder.ts';

const schema = z.looseObject({
  ...commonFields,
  hidden_act: z.literal('silu').default('silu'),
  attention_bias: z.literal(false).default(false),
  mlp_bias: z.literal(false).default(false),
});

/** x + attention(norm(x)), then x + feed-forward(norm(x)). */
export function preNormLayer(options: AttentionOptions): Architecture['layer'] {
  return (d, x, layer, past) => {
    const { hiddenSize: H } = d.config;
    const at = `model.layers.${layer}`;
    const { output, present } = attention(d, norm(d, x, `${at}.input_layernorm`, H), layer, past, options);
    const attended = d.g.add(x, output);
    const fed = feedForward(d, norm(d, attended, `${at}.post_attention_layernorm`, H), layer, (inner, x) => inner.silu(x));
    return { hidden: d.g.add(attended, fed), present };
  };
}

export const llama: Architecture = {
  name: 'llama',
  modelTypes: ['llama'],
  fromHuggingFace: (raw, where) => commonConfig(parseConfig(schema, raw, where), 'llama', { rotaryBase: 10_000, tiedEmbeddings: false }, where),
  fromGguf: (metadata) => commonGgufConfig(metadata, 'llama', { rotaryBase: 10_000 }),
  huggingFaceClass: 'LlamaForCausalLM',
  huggingFaceFields: () => ({ hidden_act: 'silu', attention_bias: false, mlp_bias: false }),
  layerTensors: (config, layer) => layerTensors(layer, [...preNormParts(config), ...projectionParts(config, { rotaryPairs: true })]),
  normOffset: 0,
  layer: preNormLayer({}),
};
