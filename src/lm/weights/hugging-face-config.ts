/** The part of config.json that all architectures share, read strictly: what is not computed is refused, not ignored. */
import { z } from 'zod';
import { StillhouseError } from '../../contracts/errors.ts';
import { MAX_LAYERS } from '../config.ts';
import { rotaryFrequencies } from '../architectures/rotary.ts';
import type { ArchitectureName, ModelConfig, RotaryConfig, RotaryScaling } from '../config.ts';

/** Rotary parameters of one kind of layer, in the spellings of transformers 4 and 5. */
export const rotarySchema = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: z.number().gt(0).optional(),
  factor: z.number().gt(0).optional(),
  low_freq_factor: z.number().gt(0).optional(),
  high_freq_factor: z.number().gt(0).optional(),
  original_max_position_embeddings: z.int().min(1).optional(),
  partial_rotary_factor: z.literal(1).optional(),
});
type RotaryFields = z.infer<typeof rotarySchema>;

export const commonFields = {
  num_hidden_layers: z.int().min(1).max(MAX_LAYERS),
  hidden_size: z.int().min(1),
  num_attention_heads: z.int().min(1),
  num_key_value_heads: z.int().min(1).nullish(),
  head_dim: z.int().min(2).nullish(),
  intermediate_size: z.int().min(1),
  vocab_size: z.int().min(1),
  rms_norm_eps: z.number().gt(0).default(1e-6),
  rope_theta: z.number().gt(0).optional(),
  rope_scaling: rotarySchema.nullish(),
  rope_parameters: rotarySchema.nullish(),
  tie_word_embeddings: z.boolean().optional(),
  max_position_embeddings: z.int().min(1).default(2048),
} as const;

export interface CommonFields extends z.infer<z.ZodObject<typeof commonFields>> {}

/** BAD_INPUT with the path of each key that is not as expected. */
export function parseConfig<T>(schema: z.ZodType<T>, raw: unknown, where: string): T {
  const parsed = schema.safeParse(raw);
  if (parsed.success) return parsed.data;
  throw new StillhouseError('BAD_INPUT', `${where}: ${parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')}`);
}

/** `base` is the rope_theta of those parameters, or the one beside them, or the architecture's default. */
export function rotaryConfig(fields: RotaryFields | null | undefined, base: number, where: string): RotaryConfig {
  const kind = fields?.rope_type ?? fields?.type ?? 'default';
  const required = (key: 'factor' | 'low_freq_factor' | 'high_freq_factor' | 'original_max_position_embeddings'): number => {
    const value = fields?.[key];
    if (value === undefined) throw new StillhouseError('BAD_INPUT', `${where}, ${key}: expected a number for ${kind} rotary scaling, got nothing`);
    return value;
  };
  switch (kind) {
    case 'default':
      return { base };
    case 'linear':
      return { base, scaling: { kind, factor: required('factor') } };
    case 'llama3': {
      const [factor, lowFrequencyFactor, highFrequencyFactor] = [required('factor'), required('low_freq_factor'), required('high_freq_factor')];
      return { base, scaling: { kind, factor, lowFrequencyFactor, highFrequencyFactor, originalPositions: required('original_max_position_embeddings') } };
    }
    default:
      throw new StillhouseError('BAD_INPUT', `${where}, rope_type: expected default, linear or llama3, got ${JSON.stringify(kind)}`);
  }
}

export interface ConfigDefaults {
  readonly rotaryBase: number;
  readonly tiedEmbeddings: boolean;
  readonly headSize?: number;
}

export function commonConfig(raw: CommonFields, architecture: ArchitectureName, defaults: ConfigDefaults, where: string): ModelConfig {
  const headSize = raw.head_dim ?? defaults.headSize ?? raw.hidden_size / raw.num_attention_heads;
  if (!Number.isInteger(headSize) || headSize % 2 !== 0) throw new StillhouseError('BAD_INPUT', `${where}, head_dim: expected an even integer, got ${headSize}`);
  const rotary = raw.rope_parameters ?? raw.rope_scaling;
  return {
    architecture,
    layers: raw.num_hidden_layers,
    hiddenSize: raw.hidden_size,
    attentionHeads: raw.num_attention_heads,
    keyValueHeads: raw.num_key_value_heads ?? raw.num_attention_heads,
    headSize,
    feedForwardSize: raw.intermediate_size,
    vocabularySize: raw.vocab_size,
    normEpsilon: raw.rms_norm_eps,
    rotary: rotaryConfig(rotary, rotary?.rope_theta ?? raw.rope_theta ?? defaults.rotaryBase, where),
    tiedEmbeddings: raw.tie_word_embeddings ?? defaults.tiedEmbeddings,
    maxPositions: raw.max_position_embeddings,
  };
}

/** Llama 3.1's mixture as released. With both factors multiplied, and the positions too, it is the same mixture. */
const LLAMA3 = { kind: 'llama3', lowFrequencyFactor: 1, highFrequencyFactor: 4 } as const;
/** Contexts that models were trained with before theirs was extended: powers of two. */
const ORIGINAL_POSITIONS = Array.from({ length: 16 }, (_, i) => 2 ** (i + 5));
/** The divisors went through float32 on their way. */
const DIVISOR_TOLERANCE = 1e-4;

/** The settings that give these divisors: GGUF files keep the divisors alone. BAD_INPUT when Llama 3.1's mixture does not explain them. */
function scalingOfDivisors(divisors: readonly number[], base: number, where: string): Exclude<RotaryScaling, { kind: 'divisors' }> {
  const plain = rotaryFrequencies({ base }, divisors.length * 2);
  const factor = Math.round(Math.max(...divisors));
  const found = ORIGINAL_POSITIONS.map((originalPositions) => ({ ...LLAMA3, factor, originalPositions })).find((scaling) => {
    const scaled = rotaryFrequencies({ base, scaling }, divisors.length * 2);
    return divisors.every((divisor, i) => Math.abs((plain[i] ?? 0) / (scaled[i] ?? 0) / divisor - 1) <= DIVISOR_TOLERANCE);
  });
  if (found === undefined) throw new StillhouseError('BAD_INPUT', `${where}, rotary divisors: expected those of Llama 3.1's scaling, which config.json can say, got ${divisors.join(', ').slice(0, 80)}`);
  return found;
}

function rotaryFields({ base, scaling }: RotaryConfig, where: string): { readonly rope_theta: number; readonly rope_scaling: object | null } {
  if (scaling === undefined) return { rope_theta: base, rope_scaling: null };
  const known = scaling.kind === 'divisors' ? scalingOfDivisors(scaling.divisors, base, where) : scaling;
  if (known.kind === 'linear') return { rope_theta: base, rope_scaling: { rope_type: 'linear', factor: known.factor } };
  return {
    rope_theta: base,
    rope_scaling: {
      rope_type: 'llama3',
      factor: known.factor,
      low_freq_factor: known.lowFrequencyFactor,
      high_freq_factor: known.highFrequencyFactor,
      original_max_position_embeddings: known.originalPositions,
    },
  };
}

/** The part of config.json that all architectures share, as `commonConfig` reads it back, in spellings that transformers 4 and 5 know. */
export function commonHuggingFaceFields(config: ModelConfig, where: string): Readonly<Record<string, unknown>> {
  return {
    num_hidden_layers: config.layers,
    hidden_size: config.hiddenSize,
    num_attention_heads: config.attentionHeads,
    num_key_value_heads: config.keyValueHeads,
    head_dim: config.headSize,
    intermediate_size: config.feedForwardSize,
    vocab_size: config.vocabularySize,
    rms_norm_eps: config.normEpsilon,
    ...rotaryFields(config.rotary, where),
    tie_word_embeddings: config.tiedEmbeddings,
    max_position_embeddings: config.maxPositions,
  };
}
