/** Small file operations that every fetched thing needs: hashing, durable placement, clear storage errors. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { StillhouseError } from '../contracts/errors.ts';

export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** The object id that git gives the file's bytes: the hub's checksum of files that are not in LFS. */
export async function gitBlobSha1OfFile(path: string): Promise<string> {
  const hash = createHash('sha1').update(`blob ${(await stat(path)).size}\0`);
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

export async function sizeOf(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.size;
}

/** A full disk gets its own code; anything else is passed through. */
export function storageError(error: unknown, path: string): unknown {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new StillhouseError('DISK_FULL', `${path}: expected free space for the file, got a full disk`, { cause: error, details: { path } });
  }
  return error;
}

/** Makes renames in a folder durable. */
export async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes a finished temporary file the real one: fsync, rename, fsync of the folder. */
export async function placeFile(temporary: string, target: string, mode?: number): Promise<void> {
  try {
    const handle = await open(temporary, 'r+');
    try {
      if (mode !== undefined) await handle.chmod(mode);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, target);
    await syncFolder(dirname(target));
  } catch (error) {
    throw storageError(error, target);
  }
}

export async function writeDurably(target: string, content: string | Uint8Array): Promise<void> {
  const temporary = `${target}.${process.pid}.tmp`;
  try {
    await mkdir(dirname(target), { recursive: true });
    await writeFile(temporary, content);
  } catch (error) {
    await rm(temporary, { force: true });
    throw storageError(error, target);
  }
  await placeFile(temporary, target);
}

interface Stamp {
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

/** Notes that `path` was hashed, so that the next start need not read all of it again. */
export async function stampVerified(path: string, sha256: string): Promise<void> {
  const { size, mtimeMs } = await stat(path);
  await writeDurably(`${path}.verified`, JSON.stringify({ sha256, sizeBytes: size, modifiedMs: mtimeMs } satisfies Stamp));
}

/**
 * Whether `path` holds the bytes of `sha256` (absent: the bytes that were stamped). A file that is
 * unchanged since its stamp is believed; any other is hashed again.
 */
export async function isVerified(path: string, sha256?: string): Promise<boolean> {
  const status = await stat(path).catch(() => undefined);
  if (status === undefined) return false;
  const stamp = await readFile(`${path}.verified`, 'utf8').then((text) => JSON.parse(text) as Stamp, () => undefined);
  const expected = sha256 ?? stamp?.sha256;
  if (expected === undefined) return false;
  if (stamp?.sha256 === expected && stamp.sizeBytes === status.size && stamp.modifiedMs === status.mtimeMs) return true;
  if ((await sha256OfFile(path)) !== expected) return false;
  await stampVerified(path, expected);
  return true;
}
