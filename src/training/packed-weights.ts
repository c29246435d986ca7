/** Which models' weights the runtime copies into the order in which the processor multiplies, while they are trained or teach. */
import { modelTensors } from '../lm/architectures/registry.ts';
import type { ModelConfig } from '../lm/config.ts';
import { elementCount } from '../lm/weights/tensor-file.ts';

/** Where each direction of a step has its packed copies: a few per cent to a tenth of the time for twice the weights' size. */
const PACKED_UP_TO_BYTES = 2 ** 30;

/** By the model alone, never by the machine: packed products are summed in another order, and a run must give the same bits anywhere. */
export function packsWeights(config: ModelConfig): boolean {
  let bytes = 0;
  for (const { shape } of modelTensors(config)) bytes += 4 * elementCount(shape);
  return bytes <= PACKED_UP_TO_BYTES;
}
