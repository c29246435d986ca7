/** Can float16 hold a model's weights? What it cannot hold would become infinite, and the model's numbers none. */
import { StillhouseError } from '../contracts/errors.ts';
import { isProjectionWeight } from './architectures/decoder.ts';
import type { WeightFile } from './config.ts';
import { openWeightFile } from './weights/materialize.ts';

const LARGEST_HALF = 65_504;

/** BAD_INPUT names the first weight that is multiplied in half precision and is beyond its range. */
export function requireHalfRange(weights: WeightFile): void {
  using file = openWeightFile(weights);
  for (const [name, tensor] of file.tensors) {
    if (!isProjectionWeight(name)) continue;
    for (const values of tensor.blocks()) {
      for (let i = 0; i < values.length; i += 1) {
        if (Math.abs(values[i] as number) <= LARGEST_HALF) continue;
        throw new StillhouseError('BAD_INPUT', `${weights.path}, tensor ${name}: expected numbers that float16 holds, up to ${LARGEST_HALF}, got ${values[i]}; precision float32 has no such limit`);
      }
    }
  }
}
