/**
 * AdamW (Loshchilov & Hutter 2019, algorithm 2) over flat arrays, with the order of operations of
 * torch.optim.AdamW, so that both give the same numbers up to the rounding of float32.
 */

export interface AdamWOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Decoupled: the weights shrink by learningRate × weightDecay before the step. */
  readonly weightDecay: number;
}

export const ADAMW_DEFAULTS: AdamWOptions = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 };

/** One parameter tensor with its two moments, all of one length. */
export interface AdamWSlot {
  readonly values: Float32Array;
  readonly firstMoment: Float32Array;
  readonly secondMoment: Float32Array;
}

/** Updates the slots in place. `step` counts from 1; `gradients` are in the slots' order. */
export function adamwStep(slots: readonly AdamWSlot[], gradients: readonly Float32Array[], step: number, learningRate: number, options: AdamWOptions = ADAMW_DEFAULTS): void {
  const { beta1, beta2, epsilon, weightDecay } = options;
  const stepSize = learningRate / (1 - beta1 ** step);
  const secondScale = Math.sqrt(1 - beta2 ** step);
  const shrink = 1 - learningRate * weightDecay;
  slots.forEach(({ values, firstMoment, secondMoment }, index) => {
    const gradient = gradients[index] as Float32Array;
    for (let i = 0; i < values.length; i++) {
      const g = gradient[i] as number;
      const first = Math.fround((firstMoment[i] as number) + (g - (firstMoment[i] as number)) * (1 - beta1));
      const second = Math.fround((secondMoment[i] as number) * beta2 + g * g * (1 - beta2));
      firstMoment[i] = first;
      secondMoment[i] = second;
      values[i] = (values[i] as number) * shrink - (stepSize * first) / (Math.sqrt(second) / secondScale + epsilon);
    }
  });
}

/** The L2 norm over all gradients; scales them in place so that it is at most `maxNorm` (torch.nn.utils.clip_grad_norm_). */
export function clipGradients(gradients: readonly Float32Array[], maxNorm: number): number {
  let squares = 0;
  for (const gradient of gradients) for (const g of gradient) squares += g * g;
  const norm = Math.sqrt(squares);
  const scale = maxNorm / (norm + 1e-6);
  if (scale < 1) for (const gradient of gradients) for (let i = 0; i < gradient.length; i++) gradient[i] = (gradient[i] as number) * scale;
  return norm;
}
