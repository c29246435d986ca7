/** A Llama of a few thousand random weights in a Hugging Face folder, with a tokenizer of single bytes and a ChatML template. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeSafetensors } from '../../src/lm/weights/safetensors.ts';
import type { NamedTensor } from '../../src/lm/weights/safetensors.ts';
import { randomStream } from '../../src/training/random.ts';

export const TINY = { layers: 2, hiddenSize: 32, heads: 4, keyValueHeads: 2, feedForwardSize: 48 } as const;
export type TinyShape = Readonly<Record<keyof typeof TINY, number>>;

/** GPT-2's printable stand-in for each byte. */
function byteCharacters(): string[] {
  let extra = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCodePoint(printable ? byte : 256 + extra++);
  });
}

const SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'];
const CHAT_TEMPLATE =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/** `merges`: pairs of tokens that are one token more. */
export interface TinyTokens {
  readonly merges?: readonly (readonly [string, string])[];
  /** Of the chat template, between a role and its message. Default: the line feed of ChatML. */
  readonly afterRole?: string;
}

function tokensOf({ merges = [] }: TinyTokens): readonly string[] {
  return [...SPECIAL, ...byteCharacters(), ...merges.map((pair) => pair.join(''))];
}

function tokenizerJson(own: TinyTokens): object {
  const tokens = tokensOf(own);
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: SPECIAL.map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: own.merges ?? [],
    },
  };
}

function weights(vocabularySize: number, seed: number, shape: TinyShape): NamedTensor[] {
  const { layers, hiddenSize: H, feedForwardSize: F, heads, keyValueHeads } = shape;
  const kv = (H / heads) * keyValueHeads;
  let index = 0;
  const normal = (name: string, shape: readonly number[], deviation: number, mean = 0): NamedTensor => {
    const random = randomStream(seed, 99, index++);
    const length = shape.reduce((product, size) => product * size, 1);
    // The sum of twelve uniforms is close enough to a normal.
    const draw = (i: number): number => Array.from({ length: 12 }, (_, j) => random.uniform(i * 12 + j)).reduce((sum, u) => sum + u, -6);
    return { name, shape, values: Float32Array.from({ length }, (_, i) => mean + deviation * draw(i)) };
  };
  const blocks = Array.from({ length: layers }, (_, layer) => {
    const at = `model.layers.${layer}`;
    return [
      normal(`${at}.input_layernorm.weight`, [H], 0.1, 1),
      normal(`${at}.self_attn.q_proj.weight`, [H, H], 0.15),
      normal(`${at}.self_attn.k_proj.weight`, [kv, H], 0.15),
      normal(`${at}.self_attn.v_proj.weight`, [kv, H], 0.15),
      normal(`${at}.self_attn.o_proj.weight`, [H, H], 0.15),
      normal(`${at}.post_attention_layernorm.weight`, [H], 0.1, 1),
      normal(`${at}.mlp.gate_proj.weight`, [F, H], 0.15),
      normal(`${at}.mlp.up_proj.weight`, [F, H], 0.15),
      normal(`${at}.mlp.down_proj.weight`, [H, F], 0.15),
    ];
  });
  return [normal('model.embed_tokens.weight', [vocabularySize, H], 0.3), ...blocks.flat(), normal('model.norm.weight', [H], 0.1, 1)];
}

/** Writes the model below `folder` and returns `folder`. */
export function writeTinyLlama(folder: string, seed = 7, shape: TinyShape = TINY, tokens: TinyTokens = {}): string {
  mkdirSync(folder, { recursive: true });
  const vocabularySize = tokensOf(tokens).length;
  const write = (name: string, content: string | Uint8Array): void => writeFileSync(join(folder, name), content);
  write(
    'config.json',
    JSON.stringify({
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      hidden_act: 'silu',
      hidden_size: shape.hiddenSize,
      intermediate_size: shape.feedForwardSize,
      num_hidden_layers: shape.layers,
      num_attention_heads: shape.heads,
      num_key_value_heads: shape.keyValueHeads,
      max_position_embeddings: 512,
      rms_norm_eps: 1e-5,
      rope_theta: 10_000,
      tie_word_embeddings: true,
      vocab_size: vocabularySize,
      bos_token_id: 1,
      eos_token_id: 2,
    }),
  );
  write('tokenizer.json', JSON.stringify(tokenizerJson(tokens)));
  write('tokenizer_config.json', JSON.stringify({ bos_token: '<|im_start|>', eos_token: '<|im_end|>', chat_template: CHAT_TEMPLATE.replaceAll("'\\n' + message", `'${tokens.afterRole ?? '\\n'}' + message`), tokenizer_class: 'PreTrainedTokenizerFast' }));
  write('model.safetensors', encodeSafetensors(weights(vocabularySize, seed, shape)));
  return folder;
}
