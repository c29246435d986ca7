/** AdamW, gradient clipping and the learning rate's schedule over flat arrays. */
import type { TrainingSpec } from '../contracts/training-spec.ts';
import type { ParameterTensor } from './parameters.ts';

const BETA_1 = 0.9;
const BETA_2 = 0.999;
const EPSILON = 1e-8;

export interface AdamState {
  /** Running mean of the gradient, and of its square. */
  readonly mean: Float32Array;
  readonly square: Float32Array;
}

/**
 * One step of AdamW (Loshchilov and Hutter 2019) over one tensor, in place, in PyTorch's order: decay, moments, update.
 * Matrices decay; biases and normalisations do not, as in transformers' Trainer. `step` counts from 1.
 */
export function adamWStep(
  parameters: Float32Array,
  gradients: Float32Array,
  { mean, square }: AdamState,
  { offset, length, shape }: ParameterTensor,
  options: { readonly step: number; readonly learningRate: number; readonly weightDecay: number },
): void {
  const stepSize = options.learningRate / (1 - BETA_1 ** options.step);
  const correction = Math.sqrt(1 - BETA_2 ** options.step);
  const kept = shape.length < 2 ? 1 : 1 - options.learningRate * options.weightDecay;
  for (let i = offset; i < offset + length; i++) {
    const gradient = gradients[i] as number;
    const m = Math.fround((mean[i] as number) + (gradient - (mean[i] as number)) * (1 - BETA_1));
    const v = Math.fround((square[i] as number) * BETA_2 + gradient * gradient * (1 - BETA_2));
    mean[i] = m;
    square[i] = v;
    parameters[i] = (parameters[i] as number) * kept - (stepSize * m) / (Math.sqrt(v) / correction + EPSILON);
  }
}

/** Scales gradients in place so that their norm is at most `maxNorm`; returns the norm before. */
export function clipGradients(gradients: Float32Array, maxNorm: number): number {
  let squares = 0;
  for (let i = 0; i < gradients.length; i++) squares += (gradients[i] as number) ** 2;
  const norm = Math.sqrt(squares);
  const factor = maxNorm / (norm + 1e-6);
  if (factor < 1) for (let i = 0; i < gradients.length; i++) gradients[i] = (gradients[i] as number) * factor;
  return norm;
}

/**
 * The rate of step `step` (from 0) of `steps`: a linear warm-up, whose last step has the whole rate, then transformers'
 * schedule down to zero, which would come after the last step, or constant. No step has a rate of 0: it would learn nothing.
 */
export function learningRateAt(training: Pick<TrainingSpec, 'learningRate' | 'warmupRatio' | 'schedule'>, step: number, steps: number): number {
  const warmup = Math.ceil(training.warmupRatio * steps);
  if (step < warmup) return (training.learningRate * (step + 1)) / warmup;
  const progress = (step - warmup) / Math.max(1, steps - warmup);
  switch (training.schedule) {
    case 'constant':
      return training.learningRate;
    case 'linear':
      return training.learningRate * Math.max(0, 1 - progress);
    case 'cosine':
      return training.learningRate * Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
  }
}
