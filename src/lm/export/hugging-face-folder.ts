/** A model's float32 weights as a Hugging Face folder that transformers loads: config.json, generation_config.json, model.safetensors. */
import { closeSync, fsyncSync, mkdirSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { StillhouseError } from '../../contracts/errors.ts';
import type { ModelConfig, WeightFile } from '../config.ts';

const COPY_BYTES = 1 << 24;

/** config.json as `huggingFaceConfig` reads it back. */
export function toHuggingFaceConfig(config: ModelConfig, endIds: readonly number[]): object {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: config.architecture,
    num_hidden_layers: config.layers,
    hidden_size: config.hiddenSize,
    num_attention_heads: config.attentionHeads,
    num_key_value_heads: config.keyValueHeads,
    head_dim: config.headSize,
    intermediate_size: config.feedForwardSize,
    vocab_size: config.vocabularySize,
    rms_norm_eps: config.normEpsilon,
    rope_theta: config.rotary.base,
    tie_word_embeddings: config.tiedEmbeddings,
    max_position_embeddings: config.maxPositions,
    hidden_act: 'silu',
    attention_bias: false,
    mlp_bias: false,
    eos_token_id: [...endIds],
    torch_dtype: 'float32',
  };
}

/** Copies tensor by tensor, a few megabytes in memory at a time. */
function writeWeights(weights: WeightFile, path: string): void {
  const tensors = [...weights.tensors].toSorted(([a], [b]) => (a < b ? -1 : 1));
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let offset = 0;
  for (const [name, { shape, lengthBytes }] of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + lengthBytes] };
    offset += lengthBytes;
  }
  const text = Buffer.from(JSON.stringify(header), 'utf8');
  const start = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, ' ');
  start.writeBigUInt64LE(BigInt(start.length - 8), 0);
  text.copy(start, 8);
  const from = openSync(weights.path, 'r');
  const to = openSync(path, 'w');
  try {
    writeSync(to, start);
    const chunk = Buffer.allocUnsafe(COPY_BYTES);
    for (const [name, { offsetBytes, lengthBytes }] of tensors) {
      for (let done = 0; done < lengthBytes; ) {
        const count = readSync(from, chunk, 0, Math.min(COPY_BYTES, lengthBytes - done), offsetBytes + done);
        if (count === 0) throw new StillhouseError('CORRUPT', `${weights.path}, tensor ${name}: expected ${lengthBytes} bytes at ${offsetBytes}, got ${done}`);
        for (let at = 0; at < count; ) at += writeSync(to, chunk, at, count - at);
        done += count;
      }
    }
    fsyncSync(to);
  } finally {
    closeSync(to);
    closeSync(from);
  }
}

/** `endIds`: tokens that end an answer, the chat's own first. */
export function writeHuggingFaceFolder(model: { readonly config: ModelConfig; readonly weights: WeightFile }, endIds: readonly number[], folder: string): void {
  mkdirSync(folder, { recursive: true });
  writeWeights(model.weights, join(folder, 'model.safetensors'));
  const json = (name: string, value: object): void => writeFileSync(join(folder, name), `${JSON.stringify(value, null, 2)}\n`);
  json('generation_config.json', { eos_token_id: [...endIds] });
  json('config.json', toHuggingFaceConfig(model.config, endIds));
}
