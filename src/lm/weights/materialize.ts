/**
 * Float32 weights of a model in one file, written once and then shared: ONNX sessions map it, so that
 * several processes of one machine hold one copy in the page cache.
 */
import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { StillhouseError } from '../../contracts/errors.ts';
import type { WeightFile } from '../config.ts';
import { readJson } from './json.ts';
import { F32 } from './dequantize.ts';
import { BoundedFile, fileTensor } from './tensor-file.ts';
import type { StoredTensor } from './tensor-file.ts';

/** Tensors start on page boundaries: a mapping of one needs no neighbour's page. */
const ALIGNMENT_BYTES = 4096;

const manifestSchema = z.strictObject({
  sizeBytes: z.int().min(0),
  tensors: z.record(z.string(), z.strictObject({ shape: z.array(z.int().min(0)), offsetBytes: z.int().min(0), lengthBytes: z.int().min(0) })),
});

function writeDurably(path: string, write: (descriptor: number) => void): void {
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    const descriptor = openSync(temporary, 'wx');
    try {
      write(descriptor);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporary, path);
  } catch (cause) {
    rmSync(temporary, { force: true });
    if ((cause as NodeJS.ErrnoException).code === 'ENOSPC') {
      throw new StillhouseError('DISK_FULL', `${dirname(path)}: expected room for float32 weights, got a full disk`, { cause });
    }
    throw cause;
  }
  const folder = openSync(dirname(path), 'r');
  fsyncSync(folder);
  closeSync(folder);
}

function readManifest(manifestPath: string, path: string): WeightFile | undefined {
  if (!existsSync(manifestPath) || !existsSync(path)) return undefined;
  const parsed = manifestSchema.safeParse(readJson(manifestPath));
  if (!parsed.success || statSync(path).size !== parsed.data.sizeBytes) return undefined;
  return { path, tensors: new Map(Object.entries(parsed.data.tensors)) };
}

/** Writes tensors one after another as little-endian float32; the manifest comes last, so that without it there is no file. */
function writeWeightFile(path: string, manifestPath: string, tensors: Iterable<StoredTensor>): WeightFile {
  const placed: Record<string, { shape: readonly number[]; offsetBytes: number; lengthBytes: number }> = {};
  let end = 0;
  writeDurably(path, (descriptor) => {
    for (const { name, shape, blocks } of tensors) {
      const offsetBytes = Math.ceil(end / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
      end = offsetBytes;
      for (const values of blocks()) {
        for (let done = 0; done < values.byteLength; ) {
          done += writeSync(descriptor, new Uint8Array(values.buffer, values.byteOffset + done, values.byteLength - done), 0, undefined, end + done);
        }
        end += values.byteLength;
      }
      placed[name] = { shape, offsetBytes, lengthBytes: end - offsetBytes };
    }
  });
  writeDurably(manifestPath, (descriptor) => writeFileSync(descriptor, JSON.stringify({ sizeBytes: end, tensors: placed })));
  return { path, tensors: new Map(Object.entries(placed)) };
}

/** The tensors of a file of float32 weights. */
export function openWeightFile(weights: WeightFile): { readonly tensors: ReadonlyMap<string, StoredTensor> } & Disposable {
  const file = new BoundedFile(weights.path);
  return {
    tensors: new Map([...weights.tensors].map(([name, { shape, offsetBytes }]) => [name, fileTensor(file, { name, shape, format: F32, offsetBytes })])),
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}

/**
 * The weight file of the model with this hash below `cache`/weights, written if it is not there yet.
 * Processes that arrive together each write their own copy and rename it over the other's equal one.
 */
export function materializeWeights(input: { readonly cache: string; readonly sha256: string; readonly tensors: ReadonlyMap<string, StoredTensor> }): WeightFile {
  const folder = join(input.cache, 'weights');
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${input.sha256}.f32`);
  const manifestPath = `${path}.json`;
  return readManifest(manifestPath, path) ?? writeWeightFile(path, manifestPath, input.tensors.values());
}
