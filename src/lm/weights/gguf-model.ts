/** A GGUF file read as a Hugging Face checkpoint: names, row order and configuration. */
import { StillhouseError } from '../../contracts/errors.ts';
import type { ModelConfig } from '../config.ts';
import type { GgufFile, GgufValue } from './gguf.ts';
import type { StoredTensor } from './tensor-file.ts';

const LAYER_NAMES: ReadonlyMap<string, string> = new Map([
  ['attn_norm', 'input_layernorm'],
  ['attn_q', 'self_attn.q_proj'],
  ['attn_k', 'self_attn.k_proj'],
  ['attn_v', 'self_attn.v_proj'],
  ['attn_output', 'self_attn.o_proj'],
  ['ffn_norm', 'post_attention_layernorm'],
  ['ffn_gate', 'mlp.gate_proj'],
  ['ffn_up', 'mlp.up_proj'],
  ['ffn_down', 'mlp.down_proj'],
]);
const TOP_NAMES: ReadonlyMap<string, string> = new Map([
  ['token_embd.weight', 'model.embed_tokens.weight'],
  ['output_norm.weight', 'model.norm.weight'],
  ['output.weight', 'lm_head.weight'],
]);

function huggingFaceName(file: GgufFile, name: string): string {
  const top = TOP_NAMES.get(name);
  if (top !== undefined) return top;
  const [, layer, part] = /^blk\.(\d+)\.([a-z_]+)\.weight$/.exec(name) ?? [];
  const mapped = part === undefined ? undefined : LAYER_NAMES.get(part);
  if (layer === undefined || mapped === undefined) {
    throw new StillhouseError('BAD_INPUT', `${file.path}: expected the tensors of a plain llama model, got ${name}`);
  }
  return `model.layers.${layer}.${mapped}.weight`;
}

/**
 * ggml's llama rotates neighbouring pairs of a head, Hugging Face rotates its two halves. Conversion
 * to GGUF reordered the rows of q and k so (convert_hf_to_gguf.py, LlamaModel.permute); this is the way back:
 * row (head, half, i) of the result is row (head, i, half) of the file.
 */
export function unpermuteRotaryRows(values: Float32Array, rows: number, columns: number, heads: number): Float32Array {
  const out = new Float32Array(values.length);
  const headSize = rows / heads;
  const halfSize = headSize / 2;
  for (let row = 0; row < rows; row += 1) {
    const within = row % headSize;
    const from = row - within + (within % halfSize) * 2 + Math.floor(within / halfSize);
    out.set(values.subarray(from * columns, (from + 1) * columns), row * columns);
  }
  return out;
}

export function ggufTensors(file: GgufFile, config: ModelConfig): ReadonlyMap<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  for (const tensor of file.tensors.values()) {
    const name = huggingFaceName(file, tensor.name);
    const heads = name.endsWith('q_proj.weight') ? config.attentionHeads : name.endsWith('k_proj.weight') ? config.keyValueHeads : undefined;
    const [rows = 0, columns = 0] = tensor.shape;
    const read = heads === undefined ? tensor.read : (): Float32Array => unpermuteRotaryRows(tensor.read(), rows, columns, heads);
    tensors.set(name, { ...tensor, name, read });
  }
  return tensors;
}

function metadataNumber(file: GgufFile, key: string, fallback?: number): number {
  const value: GgufValue | undefined = file.metadata.get(key) ?? fallback;
  if (typeof value !== 'number' || !(value > 0)) {
    throw new StillhouseError('BAD_INPUT', `${file.path}, metadata ${key}: expected a positive number, got ${JSON.stringify(value) ?? 'nothing'}`);
  }
  return value;
}

export function ggufConfig(file: GgufFile): ModelConfig {
  const architecture = file.metadata.get('general.architecture');
  if (architecture !== 'llama') {
    throw new StillhouseError('BAD_INPUT', `${file.path}, general.architecture: expected llama, got ${JSON.stringify(architecture) ?? 'nothing'}`);
  }
  const scaling = file.metadata.get('llama.rope.scaling.type');
  if ((scaling !== undefined && scaling !== 'none') || file.tensors.has('rope_freqs.weight')) {
    throw new StillhouseError('BAD_INPUT', `${file.path}: expected unscaled rotary positions, got ${JSON.stringify(scaling ?? 'rope_freqs.weight')}`);
  }
  const hiddenSize = metadataNumber(file, 'llama.embedding_length');
  const attentionHeads = metadataNumber(file, 'llama.attention.head_count');
  const headSize = metadataNumber(file, 'llama.attention.key_length', hiddenSize / attentionHeads);
  const rotated = metadataNumber(file, 'llama.rope.dimension_count', headSize);
  if (rotated !== headSize) throw new StillhouseError('BAD_INPUT', `${file.path}, llama.rope.dimension_count: expected the head size ${headSize}, got ${rotated}`);
  const vocabularySize = file.tensors.get('token_embd.weight')?.shape[0];
  if (vocabularySize === undefined) throw new StillhouseError('CORRUPT', `${file.path}: expected a tensor token_embd.weight, got none`);
  return {
    architecture: 'llama',
    layers: metadataNumber(file, 'llama.block_count'),
    hiddenSize,
    attentionHeads,
    keyValueHeads: metadataNumber(file, 'llama.attention.head_count_kv', attentionHeads),
    headSize,
    feedForwardSize: metadataNumber(file, 'llama.feed_forward_length'),
    vocabularySize,
    normEpsilon: metadataNumber(file, 'llama.attention.layer_norm_rms_epsilon'),
    rotary: { base: metadataNumber(file, 'llama.rope.freq_base', 10_000) },
    tiedEmbeddings: !file.tensors.has('output.weight'),
    maxPositions: metadataNumber(file, 'llama.context_length'),
  };
}
