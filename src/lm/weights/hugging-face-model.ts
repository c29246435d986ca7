/** config.json of a Hugging Face folder, read strictly: what this engine does not compute is refused, not ignored. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { StillhouseError } from '../../contracts/errors.ts';
import type { ModelConfig } from '../config.ts';

const ropeSchema = z.looseObject({ rope_type: z.string().optional(), type: z.string().optional(), rope_theta: z.number().gt(0).optional() });

const configSchema = z.looseObject({
  model_type: z.literal('llama', { error: (issue) => `expected the architecture llama, got ${JSON.stringify(issue.input) ?? 'nothing'}` }),
  num_hidden_layers: z.int().min(1),
  hidden_size: z.int().min(1),
  num_attention_heads: z.int().min(1),
  num_key_value_heads: z.int().min(1).optional(),
  head_dim: z.int().min(2).nullish(),
  intermediate_size: z.int().min(1),
  vocab_size: z.int().min(1),
  rms_norm_eps: z.number().gt(0).default(1e-6),
  rope_theta: z.number().gt(0).optional(),
  rope_scaling: ropeSchema.nullish(),
  rope_parameters: ropeSchema.nullish(),
  tie_word_embeddings: z.boolean().default(false),
  max_position_embeddings: z.int().min(1).default(2048),
  hidden_act: z.literal('silu').default('silu'),
  attention_bias: z.literal(false).default(false),
  mlp_bias: z.literal(false).default(false),
});

/** Parses a JSON file: NOT_FOUND without it, CORRUPT when it is not JSON. */
export function readJson(path: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new StillhouseError('NOT_FOUND', `${path}: expected a readable file, got ${String((cause as NodeJS.ErrnoException).code)}`, { cause });
  }
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new StillhouseError('CORRUPT', `${path}: expected JSON, got ${JSON.stringify(text.slice(0, 40))}`, { cause });
  }
}

export function huggingFaceConfig(folder: string): ModelConfig {
  const path = join(folder, 'config.json');
  const parsed = configSchema.safeParse(readJson(path));
  if (!parsed.success) {
    throw new StillhouseError('BAD_INPUT', `${path}: ${parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')}`);
  }
  const config = parsed.data;
  const rope = config.rope_parameters ?? config.rope_scaling;
  const ropeType = rope?.rope_type ?? rope?.type ?? 'default';
  if (ropeType !== 'default') throw new StillhouseError('BAD_INPUT', `${path}, rope: expected unscaled rotary positions, got ${ropeType}`);
  return {
    architecture: 'llama',
    layers: config.num_hidden_layers,
    hiddenSize: config.hidden_size,
    attentionHeads: config.num_attention_heads,
    keyValueHeads: config.num_key_value_heads ?? config.num_attention_heads,
    headSize: config.head_dim ?? config.hidden_size / config.num_attention_heads,
    feedForwardSize: config.intermediate_size,
    vocabularySize: config.vocab_size,
    normEpsilon: config.rms_norm_eps,
    rotary: { base: config.rope_theta ?? rope?.rope_theta ?? 10_000 },
    tiedEmbeddings: config.tie_word_embeddings,
    maxPositions: config.max_position_embeddings,
  };
}
