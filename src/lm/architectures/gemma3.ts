/**
 * Gemma 3's text model (Gemma Team 2025): normalisation before and after attention and feed-forward, queries and
 * keys normalised, five layers with a sliding window for each that sees everything, embeddings scaled by √H.
 */
import { z } from 'zod';
import { StillhouseError } from '../../contracts/errors.ts';
import type { ModelConfig } from '../config.ts';
import { commonGgufConfig } from '../weights/gguf-metadata.ts';
import { commonConfig, commonFields, parseConfig, rotaryConfig, rotarySchema } from '../weights/hugging-face-config.ts';
import { layerTensors, onePlus, projectionParts } from './architecture.ts';
import type { Architecture } from './architecture.ts';
import { attention, feedForward, geluTanh, norm } from './decoder.ts';

/** Every sixth layer sees everything. */
const WINDOW_PATTERN = 6;
const ROTARY_BASE = 1_000_000;
const LOCAL_ROTARY_BASE = 10_000;
/** Of the 27B model alone: its scores are divided by the square root of H / A instead of D (llama.cpp, llama-model.cpp). */
const LAYERS_OF_27B = 62;

/** The norm weights are factors of 1 + w. */
const OFFSET = 1;

const schema = z.looseObject({
  ...commonFields,
  num_attention_heads: z.int().min(1).default(8),
  num_key_value_heads: z.int().min(1).default(4),
  head_dim: z.int().min(2).default(256),
  vocab_size: z.int().min(1).default(262_208),
  max_position_embeddings: z.int().min(1).default(131_072),
  hidden_activation: z.literal('gelu_pytorch_tanh').default('gelu_pytorch_tanh'),
  attention_bias: z.literal(false).default(false),
  query_pre_attn_scalar: z.number().gt(0).default(256),
  sliding_window: z.int().min(1).default(4096),
  sliding_window_pattern: z.int().min(1).default(WINDOW_PATTERN),
  layer_types: z.array(z.enum(['sliding_attention', 'full_attention'])).nullish(),
  rope_local_base_freq: z.number().gt(0).default(LOCAL_ROTARY_BASE),
  rope_parameters: z.looseObject({ full_attention: rotarySchema.nullish(), sliding_attention: rotarySchema.nullish() }).nullish(),
  final_logit_softcapping: z.null().optional(),
  attn_logit_softcapping: z.null().optional(),
  use_bidirectional_attention: z.literal(false).nullish(),
});

function fromHuggingFace(raw: unknown, where: string): ModelConfig {
  const { rope_parameters: rotary, ...fields } = parseConfig(schema, raw, where);
  const common = commonConfig(fields, 'gemma3', { rotaryBase: ROTARY_BASE, tiedEmbeddings: true }, where);
  const { full_attention: whole, sliding_attention: local } = rotary ?? {};
  const types = fields.layer_types ?? Array.from({ length: common.layers }, (_, i) => ((i + 1) % fields.sliding_window_pattern === 0 ? 'full_attention' : 'sliding_attention'));
  if (types.length !== common.layers) throw new StillhouseError('BAD_INPUT', `${where}, layer_types: expected one of each of ${common.layers} layers, got ${types.length}`);
  return {
    ...common,
    ...(whole == null ? {} : { rotary: rotaryConfig(whole, whole.rope_theta ?? common.rotary.base, where) }),
    slidingWindow: {
      tokens: fields.sliding_window,
      layers: types.map((type) => type === 'sliding_attention'),
      rotary: rotaryConfig(local, local?.rope_theta ?? fields.rope_local_base_freq, where),
    },
    attentionScale: fields.query_pre_attn_scalar ** -0.5,
  };
}

/** GGUF does not say it: its readers go by the number of layers. */
const ggufScale = ({ layers, hiddenSize, attentionHeads, headSize }: ModelConfig): number => (layers === LAYERS_OF_27B ? hiddenSize / attentionHeads : headSize) ** -0.5;

const fromGguf: Architecture['fromGguf'] = (metadata) => {
  const common = commonGgufConfig(metadata, 'gemma3', { rotaryBase: ROTARY_BASE });
  const { layers } = common;
  const pattern = metadata.value('attention.sliding_window_pattern') ?? WINDOW_PATTERN;
  if (typeof pattern !== 'number' && !Array.isArray(pattern)) throw metadata.fail('attention.sliding_window_pattern', 'a number or a list of truth values', pattern);
  return {
    ...common,
    slidingWindow: {
      tokens: metadata.integer('attention.sliding_window'),
      layers: Array.from({ length: layers }, (_, i) => (typeof pattern === 'number' ? (i + 1) % pattern !== 0 : pattern[i] === true)),
      rotary: { base: metadata.number('rope.freq_base_swa', LOCAL_ROTARY_BASE) },
    },
    attentionScale: ggufScale(common),
  };
};

/** Local and whole layers, and what the rotary positions of the local ones are; their scaling never differs from none in released models. */
function windowOf({ slidingWindow }: ModelConfig): NonNullable<ModelConfig['slidingWindow']> {
  if (slidingWindow === undefined) throw new StillhouseError('INTERNAL', 'gemma3: expected a sliding window, got none');
  if (slidingWindow.rotary.scaling !== undefined) throw new StillhouseError('BAD_INPUT', `gemma3: expected unscaled rotary positions in layers with a sliding window, got ${slidingWindow.rotary.scaling.kind} scaling`);
  return slidingWindow;
}

const huggingFaceFields: Architecture['huggingFaceFields'] = (config) => {
  const { tokens, layers, rotary } = windowOf(config);
  return {
    hidden_activation: 'gelu_pytorch_tanh',
    attention_bias: false,
    query_pre_attn_scalar: Math.round((config.attentionScale ?? config.headSize ** -0.5) ** -2),
    sliding_window: tokens,
    layer_types: layers.map((local) => (local ? 'sliding_attention' : 'full_attention')),
    rope_local_base_freq: rotary.base,
    final_logit_softcapping: null,
    attn_logit_softcapping: null,
  };
};

/** llama.cpp knows patterns in which every n-th layer sees everything. */
const ggufKeys: Architecture['ggufKeys'] = (config) => {
  const { tokens, layers, rotary } = windowOf(config);
  const [scale, read] = [config.attentionScale ?? config.headSize ** -0.5, ggufScale(config)];
  if (Math.abs(scale / read - 1) > 1e-6) throw new StillhouseError('BAD_INPUT', `gemma3: expected attention scores times ${read.toPrecision(6)}, which readers of GGUF assume for ${config.layers} layers, got ${scale.toPrecision(6)}; its other formats are safetensors and onnx`);
  const first = layers.indexOf(false) + 1;
  const period = first === 0 ? layers.length + 1 : first;
  if (layers.some((local, i) => local !== ((i + 1) % period !== 0))) throw new StillhouseError('BAD_INPUT', `gemma3: expected every n-th layer to see everything, which GGUF can say, got layers ${layers.flatMap((local, i) => (local ? [] : [i])).join(', ')}`);
  return [
    ['attention.sliding_window', 'uint32', tokens],
    ['attention.sliding_window_pattern', 'uint32', period],
    ['rope.freq_base_swa', 'float32', rotary.base],
  ];
};

export const gemma3: Architecture = {
  name: 'gemma3',
  modelTypes: ['gemma3_text'],
  fromHuggingFace,
  fromGguf,
  huggingFaceClass: 'Gemma3ForCausalLM',
  huggingFaceFields,
  ggufKeys,
  layerTensors: (config, layer) => {
    const { hiddenSize: H, headSize: D } = config;
    return layerTensors(layer, [
      ['input_layernorm.weight', 'attn_norm.weight', [H], onePlus],
      ...projectionParts(config),
      ['self_attn.q_norm.weight', 'attn_q_norm.weight', [D], onePlus],
      ['self_attn.k_norm.weight', 'attn_k_norm.weight', [D], onePlus],
      ['post_attention_layernorm.weight', 'post_attention_norm.weight', [H], onePlus],
      ['pre_feedforward_layernorm.weight', 'ffn_norm.weight', [H], onePlus],
      ['post_feedforward_layernorm.weight', 'post_ffw_norm.weight', [H], onePlus],
    ]);
  },
  normOffset: OFFSET,
  embeddingScale: ({ hiddenSize }) => Math.fround(Math.sqrt(hiddenSize)),
  layer: (d, x, layer, past) => {
    const { hiddenSize: H } = d.config;
    const at = `model.layers.${layer}`;
    const { output, present } = attention(d, norm(d, x, `${at}.input_layernorm`, H, OFFSET), layer, past, { headNorm: { offset: OFFSET } });
    const attended = d.g.add(x, norm(d, output, `${at}.post_attention_layernorm`, H, OFFSET));
    const fed = feedForward(d, norm(d, attended, `${at}.pre_feedforward_layernorm`, H, OFFSET), layer, geluTanh);
    return { hidden: d.g.add(attended, norm(d, fed, `${at}.post_feedforward_layernorm`, H, OFFSET)), present };
  },
};
