/** The shape of a decoder-only language model, as the architectures in src/lm/architectures read it. */

export interface RotaryConfig {
  readonly base: number;
}

export interface ModelConfig {
  readonly architecture: 'llama';
  readonly layers: number;
  readonly hiddenSize: number; // H
  readonly attentionHeads: number; // A
  readonly keyValueHeads: number; // K
  readonly headSize: number; // D
  readonly feedForwardSize: number; // F
  readonly vocabularySize: number; // V
  readonly normEpsilon: number;
  readonly rotary: RotaryConfig;
  readonly tiedEmbeddings: boolean;
  readonly maxPositions: number;
}

/**
 * Float32 weights in one file that ONNX graphs point into as external data. Tensor names are those of
 * Hugging Face checkpoints (`model.layers.0.self_attn.q_proj.weight`, shape (out, in), row-major).
 */
export interface WeightFile {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly offsetBytes: number; readonly lengthBytes: number }>;
}
