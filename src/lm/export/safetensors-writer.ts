/** Tensors streamed into safetensors files: one, or shards with an index where one would grow too large. */
import { StillhouseError } from '../../contracts/errors.ts';
import type { NumberEncoder } from '../weights/encode.ts';
import { safetensorsHeader } from '../weights/safetensors.ts';
import { elementCount, type StoredTensor } from '../weights/tensor-file.ts';
import type { OutputFolder } from './output-folder.ts';

/** As transformers shards (save_pretrained's max_shard_size). */
const SHARD_BYTES = 5_000_000_000;

/** Consecutive tensors, each list within the limit unless a single tensor exceeds it. */
function shardsOf(tensors: readonly StoredTensor[], sizeOf: (tensor: StoredTensor) => number, limitBytes: number): StoredTensor[][] {
  const shards: StoredTensor[][] = [[]];
  let filledBytes = 0;
  for (const tensor of tensors) {
    if (filledBytes > 0 && filledBytes + sizeOf(tensor) > limitBytes) {
      shards.push([]);
      filledBytes = 0;
    }
    shards.at(-1)?.push(tensor);
    filledBytes += sizeOf(tensor);
  }
  return shards;
}

export interface SafetensorsOptions {
  readonly encoder: NumberEncoder;
  readonly metadata: Readonly<Record<string, string>>;
  readonly shardBytes?: number;
  /** What the files' names begin with. Default: model. */
  readonly stem?: string;
}

/** Writes STEM.safetensors, or STEM-0000N-of-0000M.safetensors and STEM.safetensors.index.json. */
export async function writeSafetensors(folder: OutputFolder, tensors: Iterable<StoredTensor>, options: SafetensorsOptions): Promise<void> {
  const { encoder: { format, encode }, stem = 'model' } = options;
  const sizeOf = ({ shape }: StoredTensor): number => (elementCount(shape) / format.blockValues) * format.blockBytes;
  const shards = shardsOf([...tensors], sizeOf, options.shardBytes ?? SHARD_BYTES);
  const number = (n: number): string => String(n).padStart(5, '0');
  const weightMap: Record<string, string> = {};
  let totalBytes = 0;
  for (const [index, shard] of shards.entries()) {
    const name = shards.length === 1 ? `${stem}.safetensors` : `${stem}-${number(index + 1)}-of-${number(shards.length)}.safetensors`;
    const { bytes, sorted } = safetensorsHeader(shard.map((tensor) => ({ ...tensor, type: format.name, lengthBytes: sizeOf(tensor) })), options.metadata);
    await folder.file(name, async (file) => {
      await file.write(bytes);
      for (const tensor of sorted) {
        const end = file.sizeBytes + tensor.lengthBytes;
        for (const values of tensor.blocks()) await file.write(encode(values));
        if (file.sizeBytes !== end) throw new StillhouseError('INTERNAL', `${name}, tensor ${tensor.name}: expected ${tensor.lengthBytes} bytes, got ${tensor.lengthBytes + file.sizeBytes - end}`);
      }
    });
    for (const tensor of shard) weightMap[tensor.name] = name;
    totalBytes += sorted.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  }
  if (shards.length > 1) await folder.text(`${stem}.safetensors.index.json`, `${JSON.stringify({ metadata: { total_size: totalBytes }, weight_map: weightMap }, null, 2)}\n`);
}
