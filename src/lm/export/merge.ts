/** An adapter added to the weights that it changes, W + scale · B·A, a few rows at a time. */
import { StillhouseError } from '../../contracts/errors.ts';
import type { LoraAdapter, LoraPair } from '../adapter.ts';
import { rowLength, type StoredTensor } from '../weights/tensor-file.ts';

/** Row `row` of scale · B·A, summed in double precision and rounded once, as the sum with the weight is. */
function addProductRow(values: Float32Array, at: number, { a, b }: LoraPair, row: number, scale: number, sums: Float64Array): void {
  const [rank = 0, columns = 0] = a.shape;
  sums.fill(0);
  for (let k = 0; k < rank; k += 1) {
    const factor = (b.values[row * rank + k] ?? 0) * scale;
    const from = k * columns;
    for (let i = 0; i < columns; i += 1) sums[i] = (sums[i] ?? 0) + factor * (a.values[from + i] ?? 0);
  }
  for (let i = 0; i < columns; i += 1) values[at + i] = (values[at + i] ?? 0) + (sums[i] ?? 0);
}

function merged(tensor: StoredTensor, pair: LoraPair, scale: number): StoredTensor {
  const columns = rowLength(tensor.shape);
  const sums = new Float64Array(columns);
  const add = (values: Float32Array, firstRow: number): Float32Array => {
    for (let row = 0; row * columns < values.length; row += 1) addProductRow(values, row * columns, pair, firstRow + row, scale, sums);
    return values;
  };
  return {
    ...tensor,
    read: () => add(tensor.read(), 0),
    *blocks() {
      let row = 0;
      for (const values of tensor.blocks()) {
        yield add(values, row);
        row += values.length / columns;
      }
    },
  };
}

/** BAD_INPUT when the adapter changes a weight that the model does not have, or that has another shape. */
export function mergeAdapter(tensors: ReadonlyMap<string, StoredTensor>, adapter: LoraAdapter): ReadonlyMap<string, StoredTensor> {
  for (const [name, { a, b }] of adapter.pairs) {
    const shape = tensors.get(name)?.shape;
    if (shape?.length !== 2 || shape[0] !== b.shape[0] || shape[1] !== a.shape[1]) {
      throw new StillhouseError('BAD_INPUT', `adapter, ${name}: expected ${shape === undefined ? 'a weight of the model' : `matrices for [${shape.join(', ')}]`}, got [${String(b.shape[0])}, ${String(a.shape[1])}]`);
    }
  }
  return new Map([...tensors].map(([name, tensor]) => {
    const pair = adapter.pairs.get(name);
    return [name, pair === undefined ? tensor : merged(tensor, pair, adapter.scale)];
  }));
}
