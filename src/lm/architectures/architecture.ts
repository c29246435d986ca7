/** What an architecture says about itself: its configuration in both kinds of files, its tensors, its layer. */
import type { FloatValue } from '../../graph/ops.ts';
import type { ArchitectureName, ModelConfig } from '../config.ts';
import type { GgufMetadata } from '../weights/gguf-metadata.ts';
import type { Decoder, KeyValue } from './decoder.ts';

/** What conversion to GGUF does to the numbers of a tensor, and the way back. */
export interface Conversion {
  readonly fromGguf: (values: Float32Array, shape: readonly number[]) => Float32Array;
  readonly toGguf: (values: Float32Array, shape: readonly number[]) => Float32Array;
}

/** One key of GGUF metadata, with the type in which llama.cpp reads it. */
export type GgufKey = readonly [key: string, type: 'uint32' | 'float32', value: number];

export interface ModelTensor {
  /** As in Hugging Face checkpoints. */
  readonly name: string;
  /** As in GGUF files. */
  readonly ggufName: string;
  readonly shape: readonly number[];
  readonly conversion?: Conversion;
}

export interface Architecture {
  readonly name: ArchitectureName;
  /** `model_type` of config.json. */
  readonly modelTypes: readonly string[];
  /** config.json, read strictly; BAD_INPUT for what the layer does not compute. */
  readonly fromHuggingFace: (raw: unknown, where: string) => ModelConfig;
  readonly fromGguf: (metadata: GgufMetadata) => ModelConfig;
  /** The class of transformers that computes it. */
  readonly huggingFaceClass: string;
  /** What config.json says beyond the fields that all share, so that `fromHuggingFace` and transformers read the same model back. */
  readonly huggingFaceFields: (config: ModelConfig) => Readonly<Record<string, unknown>>;
  /** GGUF metadata beyond the keys that all share, below the architecture's name. */
  readonly ggufKeys?: (config: ModelConfig) => readonly GgufKey[];
  /** Tensors of one layer. Embedding, last normalisation and head are the same for all. */
  readonly layerTensors: (config: ModelConfig, layer: number) => readonly ModelTensor[];
  /** What is added to the weights of normalisations. */
  readonly normOffset: number;
  /** Factor of the embedded tokens. */
  readonly embeddingScale?: (config: ModelConfig) => number;
  /** hidden: (B, T, H) → the same after one layer. */
  readonly layer: (decoder: Decoder, hidden: FloatValue, layer: number, past: KeyValue | undefined) => { readonly hidden: FloatValue; readonly present: KeyValue };
}

/** Weights that Hugging Face stores as w for a factor of 1 + w; GGUF stores 1 + w. */
export const onePlus: Conversion = { fromGguf: (values) => values.map((value) => value - 1), toGguf: (values) => values.map((value) => value + 1) };

/**
 * ggml's llama rotates neighbouring pairs of a head, Hugging Face rotates its two halves. Conversion to GGUF
 * reorders the rows of queries and keys so (convert_hf_to_gguf.py, LlamaModel.permute): row (head, half, i) of
 * Hugging Face is row (head, i, half) of GGUF.
 */
export function rotaryPairs(heads: number): Conversion {
  const reorder = (values: Float32Array, rows: number, back: boolean): Float32Array => {
    const out = new Float32Array(values.length);
    const columns = values.length / rows;
    const headSize = rows / heads;
    const halfSize = headSize / 2;
    for (let row = 0; row < rows; row += 1) {
      const within = row % headSize;
      const paired = row - within + (within % halfSize) * 2 + Math.floor(within / halfSize);
      const [from, to] = back ? [paired, row] : [row, paired];
      out.set(values.subarray(from * columns, (from + 1) * columns), to * columns);
    }
    return out;
  };
  return { fromGguf: (values, shape) => reorder(values, shape[0] ?? 1, true), toGguf: (values, shape) => reorder(values, shape[0] ?? 1, false) };
}

/** Tensors of one layer by the last parts of their names. */
type Parts = readonly (readonly [name: string, ggufName: string, shape: readonly number[], conversion?: Conversion])[];

export function layerTensors(layer: number, parts: Parts): readonly ModelTensor[] {
  return parts.map(([name, ggufName, shape, conversion]) => ({
    name: `model.layers.${layer}.${name}`,
    ggufName: `blk.${layer}.${ggufName}`,
    shape,
    ...(conversion === undefined ? {} : { conversion }),
  }));
}

/** The matrices of attention and feed-forward, which all have. `rotaryPairs`: GGUF stores queries and keys in rotary pairs. */
export function projectionParts(config: ModelConfig, options: { readonly rotaryPairs?: boolean } = {}): Parts {
  const { hiddenSize: H, headSize: D, feedForwardSize: F, attentionHeads: A, keyValueHeads: K } = config;
  const pairs = (heads: number): readonly [Conversion?] => (options.rotaryPairs === true ? [rotaryPairs(heads)] : []);
  return [
    ['self_attn.q_proj.weight', 'attn_q.weight', [A * D, H], ...pairs(A)],
    ['self_attn.k_proj.weight', 'attn_k.weight', [K * D, H], ...pairs(K)],
    ['self_attn.v_proj.weight', 'attn_v.weight', [K * D, H]],
    ['self_attn.o_proj.weight', 'attn_output.weight', [H, A * D]],
    ['mlp.gate_proj.weight', 'ffn_gate.weight', [F, H]],
    ['mlp.up_proj.weight', 'ffn_up.weight', [F, H]],
    ['mlp.down_proj.weight', 'ffn_down.weight', [H, F]],
  ];
}

/** The two normalisations of a layer that normalises before attention and before feed-forward. */
export function preNormParts({ hiddenSize: H }: ModelConfig): Parts {
  return [
    ['input_layernorm.weight', 'attn_norm.weight', [H]],
    ['post_attention_layernorm.weight', 'ffn_norm.weight', [H]],
  ];
}
