/**
 * Room for the answers that are on their way when the disk fills up: they are paid for already. A
 * file beside the ledger holds it; it is given up when a write fails for want of space, and nothing
 * more is bought until it is there again.
 */
import { existsSync, openSync, closeSync, fsyncSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { StillhouseError } from '../contracts/errors.ts';

/** Hundreds of long answers. */
const SPARE_BYTES = 8 << 20;
/** Made only where that much is left besides: a spare that fills the disk itself would help nobody. */
const MIN_FREE_BYTES = 2 * SPARE_BYTES;

export interface SpareSpace {
  /** Makes sure that the space is set aside; DISK_FULL when there is not enough. */
  require(): void;
  /** Gives it up; false when there was none. */
  release(): boolean;
}

/** Of what is on no disk. */
export const NO_SPARE: SpareSpace = { require: () => undefined, release: () => false };

export function createSpareSpace(path: string, sizeBytes: number = SPARE_BYTES, minFreeBytes: number = MIN_FREE_BYTES): SpareSpace {
  let present = existsSync(path);
  return {
    require() {
      // Another process may have given it up; looking costs a microsecond, and a batch of calls looks once.
      present = existsSync(path);
      if (present) return;
      const { bavail, bsize } = statfsSync(dirname(path));
      const freeBytes = bavail * bsize;
      if (freeBytes < minFreeBytes) {
        throw new StillhouseError('DISK_FULL', `expected at least ${minFreeBytes >> 20} MiB free on the disk of ${dirname(path)}, so that answers that are paid for can be written down, got ${freeBytes >> 20} MiB: free some space and resume`);
      }
      makeFile(path, sizeBytes);
      present = true;
    },
    release() {
      if (!present && !existsSync(path)) return false;
      rmSync(path, { force: true });
      present = false;
      return true;
    },
  };
}

/** Written, not truncated to its size: a sparse file holds no space. */
function makeFile(path: string, sizeBytes: number): void {
  const file = openSync(path, 'w');
  try {
    const chunk = Buffer.alloc(1 << 20, 0x5a);
    for (let written = 0; written < sizeBytes; written += chunk.length) writeSync(file, chunk, 0, Math.min(chunk.length, sizeBytes - written));
    fsyncSync(file);
  } catch (error) {
    rmSync(path, { force: true });
    throw new StillhouseError('DISK_FULL', `expected room for ${path}, got "${error instanceof Error ? error.message : String(error)}": free some space and resume`, { cause: error });
  } finally {
    closeSync(file);
  }
}
