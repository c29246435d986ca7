/** Rotary positions (Su et al. 2021) as tables of cosines and sines, with the scalings that models use. */
import type { Graph } from '../../graph/graph.ts';
import type { FloatValue } from '../../graph/ops.ts';
import type { RotaryConfig } from '../config.ts';

/** Llama 3.1's mixture (Meta's reference `apply_scaling`): by how a frequency's wavelength compares with the original context. */
function llama3Frequency(frequency: number, scaling: Extract<RotaryConfig['scaling'], { kind: 'llama3' }>): number {
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalPositions } = scaling;
  const turns = originalPositions / ((2 * Math.PI) / frequency);
  if (turns < low) return frequency / factor;
  if (turns > high) return frequency;
  const smooth = (turns - low) / (high - low);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}

/** The angle by which one position turns each pair of a head: (D/2), rounded to float32 where Hugging Face's implementation rounds. */
export function rotaryFrequencies(rotary: RotaryConfig, headSize: number): Float32Array {
  const { base, scaling } = rotary;
  return Float32Array.from({ length: headSize / 2 }, (_, i) => {
    const frequency = Math.fround(1 / Math.fround(base ** Math.fround((2 * i) / headSize)));
    switch (scaling?.kind) {
      case undefined:
        return frequency;
      case 'linear':
        return frequency / scaling.factor;
      case 'llama3':
        return llama3Frequency(frequency, scaling);
      case 'divisors':
        return frequency / (scaling.divisors[i] ?? 1);
    }
  });
}

/** What scaling divides each frequency by: (D/2), 1 where nothing is scaled. */
export function rotaryDivisors(rotary: RotaryConfig, headSize: number): Float32Array {
  if (rotary.scaling?.kind === 'divisors') return Float32Array.from(rotary.scaling.divisors);
  const scaled = rotaryFrequencies(rotary, headSize);
  return rotaryFrequencies({ base: rotary.base }, headSize).map((frequency, i) => frequency / (scaled[i] ?? 1));
}

export interface RotaryTables {
  /** (contextTokens, D/2) */
  readonly cos: FloatValue;
  readonly sin: FloatValue;
}

export function rotaryTables(g: Graph, rotary: RotaryConfig, headSize: number, contextTokens: number): RotaryTables {
  const half = headSize / 2;
  const cos = new Float32Array(contextTokens * half);
  const sin = new Float32Array(contextTokens * half);
  rotaryFrequencies(rotary, headSize).forEach((frequency, i) => {
    for (let position = 0; position < contextTokens; position++) {
      const angle = Math.fround(position * frequency);
      cos[position * half + i] = Math.cos(angle);
      sin[position * half + i] = Math.sin(angle);
    }
  });
  return { cos: g.floats(cos, [contextTokens, half]), sin: g.floats(sin, [contextTokens, half]) };
}
