/** PEFT LoRA adapters (Hu et al. 2021), merged into the weights they change: W + scale · B·A. */
import { join } from 'node:path';
import { z } from 'zod';
import { StillhouseError } from '../contracts/errors.ts';
import type { Graph } from '../graph/graph.ts';
import type { WeightLookup } from './architectures/decoder.ts';
import { readJson } from './weights/json.ts';
import { openSafetensors } from './weights/safetensors.ts';

export interface LoraPair {
  readonly a: { readonly shape: readonly number[]; readonly values: Float32Array }; // (r, in)
  readonly b: { readonly shape: readonly number[]; readonly values: Float32Array }; // (out, r)
}
export interface LoraAdapter {
  /** alpha / r, or alpha / √r for rank-stabilised adapters. */
  readonly scale: number;
  /** By the name of the weight that is changed. */
  readonly pairs: ReadonlyMap<string, LoraPair>;
}

/** What this engine applies; settings that would change the sum are refused. */
const adapterConfigSchema = z.looseObject({
  peft_type: z.literal('LORA'),
  r: z.int().min(1),
  lora_alpha: z.number().gt(0),
  bias: z.literal('none').default('none'),
  use_dora: z.literal(false).default(false),
  use_rslora: z.boolean().default(false),
  fan_in_fan_out: z.literal(false).default(false),
  rank_pattern: z.record(z.string(), z.never()).default({}),
  alpha_pattern: z.record(z.string(), z.never()).default({}),
  modules_to_save: z.null().optional(),
});

const TENSOR_NAME = /^base_model\.model\.(.+)\.lora_([AB])\.(?:default\.)?weight$/;

export function readAdapter(folder: string): LoraAdapter {
  const configPath = join(folder, 'adapter_config.json');
  const parsed = adapterConfigSchema.safeParse(readJson(configPath));
  if (!parsed.success) {
    throw new StillhouseError('BAD_INPUT', `${configPath}: ${parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')}`);
  }
  const path = join(folder, 'adapter_model.safetensors');
  const halves = new Map<string, { A?: LoraPair['a']; B?: LoraPair['b'] }>();
  using file = openSafetensors(path);
  for (const tensor of file.tensors.values()) {
    const [, module, side] = TENSOR_NAME.exec(tensor.name) ?? [];
    if (module === undefined || (side !== 'A' && side !== 'B')) throw new StillhouseError('BAD_INPUT', `${path}: expected LoRA matrices alone, got ${tensor.name}`);
    const name = `${module}.weight`;
    halves.set(name, { ...halves.get(name), [side]: { shape: tensor.shape, values: tensor.read() } });
  }
  const pairs = new Map<string, LoraPair>();
  for (const [name, { A, B }] of halves) {
    if (A === undefined || B === undefined || A.shape[0] !== B.shape[1] || A.shape[0] !== parsed.data.r) {
      throw new StillhouseError('CORRUPT', `${path}, ${name}: expected A (${parsed.data.r}, in) and B (out, ${parsed.data.r}), got A [${String(A?.shape)}] and B [${String(B?.shape)}]`);
    }
    pairs.set(name, { a: A, b: B });
  }
  const { lora_alpha: alpha, r, use_rslora: rankStabilised } = parsed.data;
  return { scale: alpha / (rankStabilised ? Math.sqrt(r) : r), pairs };
}

/**
 * Weights with the adapter added. The sum is written as nodes over constants, which the runtime folds
 * when a session is made: the file of base weights stays shared and no merged copy goes to disk.
 */
export function withAdapter(g: Graph, weight: WeightLookup, adapter: LoraAdapter): WeightLookup {
  return (name, shape, as) => {
    const base = weight(name, shape, as);
    const pair = adapter.pairs.get(name);
    if (pair === undefined) return base;
    const [outSize, inSize] = shape;
    if (pair.b.shape[0] !== outSize || pair.a.shape[1] !== inSize) {
      throw new StillhouseError('BAD_INPUT', `adapter, ${name}: expected matrices for [${shape.join(', ')}], got [${pair.b.shape[0]}, ${pair.a.shape[1]}]`);
    }
    const product = g.matMul(g.floats(pair.b.values, pair.b.shape), g.floats(pair.a.values, pair.a.shape), { alpha: adapter.scale });
    return g.add(base, product);
  };
}
