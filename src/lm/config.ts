/** The shape of a decoder-only language model, as the architectures in src/lm/architectures read it. */

export type ArchitectureName = 'llama' | 'qwen2' | 'qwen3' | 'gemma3';

/** How the frequencies of rotary positions are slowed down beyond the context that a model began with. */
export type RotaryScaling =
  | { readonly kind: 'linear'; readonly factor: number }
  /** Llama 3.1: slow frequencies by `factor`, fast ones not at all, those between by a mixture of both. */
  | { readonly kind: 'llama3'; readonly factor: number; readonly lowFrequencyFactor: number; readonly highFrequencyFactor: number; readonly originalPositions: number }
  /** What each frequency is divided by, as GGUF files store it: (D/2). */
  | { readonly kind: 'divisors'; readonly divisors: readonly number[] };

export interface RotaryConfig {
  readonly base: number;
  readonly scaling?: RotaryScaling;
}

/** Layers that look back at the nearest tokens alone, by rotary positions of their own. */
export interface SlidingWindow {
  /** A token attends to itself and to the `tokens` − 1 before it. */
  readonly tokens: number;
  /** For each layer: is it one of them? */
  readonly layers: readonly boolean[];
  readonly rotary: RotaryConfig;
}

/** More than any model has: what is beyond is a damaged or hostile file. */
export const MAX_LAYERS = 1_024;

export interface ModelConfig {
  readonly architecture: ArchitectureName;
  readonly layers: number;
  readonly hiddenSize: number; // H
  readonly attentionHeads: number; // A
  readonly keyValueHeads: number; // K
  readonly headSize: number; // D
  readonly feedForwardSize: number; // F
  readonly vocabularySize: number; // V
  readonly normEpsilon: number;
  readonly rotary: RotaryConfig;
  readonly slidingWindow?: SlidingWindow;
  /** Factor of the attention scores. Default: 1 / √D. */
  readonly attentionScale?: number;
  readonly tiedEmbeddings: boolean;
  readonly maxPositions: number;
}

/**
 * Float32 weights in one file that ONNX graphs point into as external data. Tensor names and values are
 * those of Hugging Face checkpoints (`model.layers.0.self_attn.q_proj.weight`, shape (out, in), row-major).
 */
export interface WeightFile {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly offsetBytes: number; readonly lengthBytes: number }>;
}
