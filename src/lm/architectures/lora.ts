/**
 * Low-rank adapters (Hu et al. 2021) with the meaning that PEFT gives them:
 * h = W·x + scale · B(A(dropout(x))), A: (r, in), B: (out, r), scale = alpha / r, or alpha / √r for adapters
 * that are rank-stabilised (Kalajdzievski 2023).
 */
import type { Graph } from '../../graph/graph.ts';
import type { FloatValue } from '../../graph/ops.ts';
import type { Shape } from '../../graph/shape.ts';
import type { ModelConfig } from '../config.ts';
import type { LinearHook } from './decoder.ts';

export interface LoraShape {
  readonly r: number;
  readonly alpha: number;
  /** alpha / √r in place of alpha / r. */
  readonly rankStabilised: boolean;
  /** Last parts of the projections' names: q_proj, v_proj … */
  readonly targets: readonly string[];
}

/** The factor of the adapter's branch. */
export const loraScale = ({ r, alpha, rankStabilised }: Pick<LoraShape, 'r' | 'alpha' | 'rankStabilised'>): number => alpha / (rankStabilised ? Math.sqrt(r) : r);

/** One adapted projection. */
export interface LoraTarget {
  /** As in checkpoints: `model.layers.0.self_attn.q_proj`. */
  readonly name: string;
  readonly inSize: number;
  readonly outSize: number;
}

/** The adapted projections of a model, layer by layer, in the order of the forward pass. */
export function loraTargets(config: ModelConfig, targets: readonly string[]): readonly LoraTarget[] {
  const { hiddenSize: H, feedForwardSize: F, headSize: D } = config;
  const queries = config.attentionHeads * D;
  const keys = config.keyValueHeads * D;
  const projections = [
    ['self_attn.q_proj', H, queries],
    ['self_attn.k_proj', H, keys],
    ['self_attn.v_proj', H, keys],
    ['self_attn.o_proj', queries, H],
    ['mlp.gate_proj', H, F],
    ['mlp.up_proj', H, F],
    ['mlp.down_proj', F, H],
  ] as const;
  const wanted = projections.filter(([name]) => targets.includes(name.split('.')[1] ?? ''));
  return Array.from({ length: config.layers }, (_, layer) => wanted.map(([name, inSize, outSize]) => ({ name: `model.layers.${layer}.${name}`, inSize, outSize }))).flat();
}

export const loraAName = (target: string): string => `${target}.lora_A.weight`;
export const loraBName = (target: string): string => `${target}.lora_B.weight`;

export interface LoraBranch {
  /** The value of lora_A or lora_B by its full name. */
  readonly parameter: (name: string, shape: Shape) => FloatValue;
  /** Factors for the branch's input: 0 where dropped, 1 / (1 − p) elsewhere. Absent: no dropout. */
  readonly dropout?: (target: string, like: FloatValue) => FloatValue;
}

/** x where it is kept; cheap enough to be made again rather than kept beside x. */
const dropped = (g: Graph, x: FloatValue, factors: FloatValue): FloatValue => g.recomputed(() => g.mul(x, factors));

/** Projections of one input. */
const SIBLINGS = [['q_proj', 'k_proj', 'v_proj'], ['gate_proj', 'up_proj']];

/**
 * A hook for `decoder` that adds the branch to each target. Where nothing is dropped out, targets that read the same
 * input share one product with all their A: it is narrow, and costs more by its number than by its size.
 */
export function loraLinear(g: Graph, lora: LoraShape, branch: LoraBranch): LinearHook {
  const { r, targets } = lora;
  const parts = new Map<string, FloatValue>();
  const a = (name: string, inSize: number): FloatValue => branch.parameter(loraAName(name), [r, inSize]);
  /** A·x: (…, r). */
  const lowOf = (name: string, x: FloatValue, inSize: number): FloatValue => {
    if (branch.dropout !== undefined) return g.matMul(dropped(g, x, branch.dropout(name, x)), a(name, inSize), { transB: true });
    if (!parts.has(name)) {
      const [parent, own] = [name.slice(0, name.lastIndexOf('.') + 1), lastPart(name)];
      const together = (SIBLINGS.find((names) => names.includes(own)) ?? [own]).filter((sibling) => targets.includes(sibling)).map((sibling) => parent + sibling);
      const product = g.matMul(x, g.concat(together.map((sibling) => a(sibling, inSize)), 0), { transB: true });
      const split = g.split(product, -1, together.map(() => r), g.ints(together.map(() => r), [together.length]));
      together.forEach((sibling, i) => parts.set(sibling, split[i] as FloatValue));
    }
    return parts.get(name) as FloatValue;
  };
  return ({ name, x, base, inSize, outSize }) => {
    if (!targets.includes(lastPart(name))) return base();
    const b = branch.parameter(loraBName(name), [outSize, r]);
    return g.add(base(), g.matMul(lowOf(name, x, inSize), b, { transB: true, alpha: loraScale(lora) }));
  };
}

const lastPart = (name: string): string => name.slice(name.lastIndexOf('.') + 1);
