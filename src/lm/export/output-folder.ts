/** A folder that appears whole or not at all: written beside its place, made durable, then renamed. */
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { syncFolder } from '../../assets/files.ts';
import { StillhouseError } from '../../contracts/errors.ts';

export interface WrittenFile {
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

/** One file being written from its beginning to its end. */
export interface OutputFile {
  readonly sizeBytes: number;
  write(bytes: Uint8Array | string): Promise<void>;
  /** Zeros up to the next multiple of `alignmentBytes`. */
  pad(alignmentBytes: number): Promise<void>;
}

export interface OutputFolder {
  /** Each name once; no folders inside. Files are hashed as they are written, and durable when this resolves. */
  file(name: string, write: (file: OutputFile) => Promise<void>): Promise<WrittenFile>;
  text(name: string, content: string | Uint8Array): Promise<WrittenFile>;
}

class HashedFile implements OutputFile {
  readonly #handle: FileHandle;
  readonly #hash = createHash('sha256');
  #sizeBytes = 0;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get sha256(): string {
    return this.#hash.digest('hex');
  }

  async write(bytes: Uint8Array | string): Promise<void> {
    const data = typeof bytes === 'string' ? Buffer.from(bytes, 'utf8') : bytes;
    this.#hash.update(data);
    await this.#handle.writeFile(data);
    this.#sizeBytes += data.byteLength;
  }

  async pad(alignmentBytes: number): Promise<void> {
    const over = this.#sizeBytes % alignmentBytes;
    if (over !== 0) await this.write(new Uint8Array(alignmentBytes - over));
  }
}

const isAbsent = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ENOENT';

/** BAD_INPUT where something lies that would be lost. */
async function refuseOccupied(target: string): Promise<void> {
  const entries = await readdir(target).catch((error: unknown) => {
    if (isAbsent(error)) return [];
    throw new StillhouseError('BAD_INPUT', `${target}: expected a folder to write to, got ${String((error as NodeJS.ErrnoException).code)}`, { cause: error });
  });
  if (entries.length > 0) throw new StillhouseError('BAD_INPUT', `${target}: expected a new or empty folder, got one with ${entries.length === 1 ? entries[0] : `${entries.length} entries`}`);
}

/** EFBIG: the limit on the size of files (setrlimit(2)), which is as final as a full disk. */
function explain(error: unknown, target: string): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') {
    return new StillhouseError('DISK_FULL', `${target}: expected room for the export, got ${code === 'EFBIG' ? 'a limit on the size of files' : 'a full disk'}; nothing of it was kept`, { cause: error });
  }
  if (syscall === 'mkdir' || syscall === 'open' || syscall === 'rename') {
    return new StillhouseError('BAD_INPUT', `${target}: expected a place that can be written, got ${String(code)}`, { cause: error });
  }
  return error;
}

/**
 * Runs `write` on a folder beside `target` and puts it in its place when all of it is durable. When anything fails,
 * nothing is left. BAD_INPUT: the target holds something, or cannot be written. DISK_FULL.
 */
export async function writeFolder(target: string, write: (folder: OutputFolder) => Promise<unknown>): Promise<readonly WrittenFile[]> {
  const place = resolve(target);
  await refuseOccupied(place);
  const temporary = `${place}.${randomUUID()}.tmp`;
  const written: WrittenFile[] = [];
  const file: OutputFolder['file'] = async (name, writeContent) => {
    const handle = await open(join(temporary, name), 'wx');
    try {
      const output = new HashedFile(handle);
      await writeContent(output);
      await handle.sync();
      const one: WrittenFile = { path: name, sizeBytes: output.sizeBytes, sha256: output.sha256 };
      written.push(one);
      return one;
    } finally {
      await handle.close();
    }
  };
  try {
    await mkdir(temporary, { recursive: true });
    await write({ file, text: (name, content) => file(name, (output) => output.write(content)) });
    await syncFolder(temporary);
    await rename(temporary, place);
    await syncFolder(dirname(place));
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw explain(error, target);
  }
  return written.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}
