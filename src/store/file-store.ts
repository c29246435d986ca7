/**
 * Artifacts on the file system: `<root>/sha256/ab/cdef…`, each written to `<root>/tmp` first, synced,
 * renamed into place, and its directory synced. A crash leaves at most a file in tmp, which nobody reads.
 */
import { createHash, randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { access, copyFile, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { syncFolder } from '../assets/files.ts';
import type { ArtifactKind, ArtifactRef, FolderManifest } from '../contracts/artifacts.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { canonicalJson } from './jsonl.ts';
import type { ArtifactStore } from './store.ts';

/** Out of space, over a quota, or over the largest file that is allowed: in each case no more bytes fit. */
const FULL_CODES = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);

export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** Runs a write; DISK_FULL with the path when the file system takes no more bytes. */
async function asDiskFull<T>(path: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== undefined && FULL_CODES.has(errno)) {
      throw new StillhouseError('DISK_FULL', `expected free space to write ${path}, got ${errno}: free some space and resume`, { cause: error });
    }
    throw error;
  }
}

async function hashFile(path: string): Promise<{ readonly sha256: string; readonly sizeBytes: number }> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    hash.update(chunk);
    sizeBytes += chunk.byteLength;
  }
  return { sha256: hash.digest('hex'), sizeBytes };
}

async function listFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .sort();
}

class FileStore implements ArtifactStore {
  readonly #root: string;
  /** Files that this process has verified: path → `size:mtime` at that moment. */
  readonly #verified = new Map<string, string>();

  constructor(root: string) {
    this.#root = resolve(root);
  }

  async put(kind: ArtifactKind, bytes: Uint8Array | string): Promise<ArtifactRef> {
    const buffer = typeof bytes === 'string' ? Buffer.from(bytes, 'utf8') : bytes;
    const ref: ArtifactRef = { kind, sha256: createHash('sha256').update(buffer).digest('hex'), sizeBytes: buffer.byteLength };
    if (await this.#isIntact(ref)) return ref;
    await this.#publish(ref, (handle) => handle.writeFile(buffer));
    return ref;
  }

  async putFile(kind: ArtifactKind, path: string): Promise<ArtifactRef> {
    const ref: ArtifactRef = { kind, ...(await hashFile(path)) };
    if (await this.#isIntact(ref)) return ref;
    // Hashed again while it is copied: a file that changes meanwhile must not be stored under its old name.
    const hash = createHash('sha256');
    await this.#publish(ref, async (handle) => {
      for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
        hash.update(chunk);
        await handle.writeFile(chunk);
      }
      if (hash.digest('hex') !== ref.sha256) throw new StillhouseError('CONFLICT', `expected ${path} to stay unchanged while it is stored, but it was written to`);
    });
    return ref;
  }

  async putFolder(kind: ArtifactKind, path: string): Promise<ArtifactRef> {
    const files: FolderManifest['files'][number][] = [];
    for (const name of await listFiles(path)) {
      const { sha256, sizeBytes } = await this.putFile('file', join(path, name));
      files.push({ path: name, sha256, sizeBytes });
    }
    return this.put(kind, canonicalJson({ files } satisfies FolderManifest));
  }

  async get(ref: ArtifactRef): Promise<Buffer> {
    const path = this.#pathOf(ref.sha256);
    const bytes = await readFile(path).catch((error: unknown) => this.#missing(ref, error));
    const actual = createHash('sha256').update(bytes).digest('hex');
    if (actual !== ref.sha256) throw this.#corrupt(ref, path, actual);
    return bytes;
  }

  async localPath(ref: ArtifactRef): Promise<string> {
    const path = this.#pathOf(ref.sha256);
    const info = await stat(path).catch((error: unknown) => this.#missing(ref, error));
    const stamp = `${info.size}:${info.mtimeMs}`;
    if (this.#verified.get(path) !== stamp) {
      const { sha256 } = await hashFile(path);
      if (sha256 !== ref.sha256) throw this.#corrupt(ref, path, sha256);
      this.#verified.set(path, stamp);
    }
    return path;
  }

  async extractFolder(ref: ArtifactRef, target: string): Promise<FolderManifest> {
    const manifest = JSON.parse((await this.get(ref)).toString('utf8')) as FolderManifest;
    await mkdir(target, { recursive: true });
    const present = await readdir(target);
    if (present.length > 0) throw new StillhouseError('CONFLICT', `expected an empty folder at ${target}, got one with ${present.length} entries`);
    const base = resolve(target);
    for (const file of manifest.files) {
      const destination = resolve(base, file.path);
      if (!destination.startsWith(base + sep)) throw new StillhouseError('CORRUPT', `expected paths inside the folder, got ${JSON.stringify(file.path)} in the list ${ref.sha256}`);
      const source = await this.localPath({ kind: 'file', sha256: file.sha256, sizeBytes: file.sizeBytes });
      await mkdir(dirname(destination), { recursive: true });
      await asDiskFull(destination, () => copyFile(source, destination));
    }
    return manifest;
  }

  async has(ref: ArtifactRef): Promise<boolean> {
    return access(this.#pathOf(ref.sha256)).then(() => true, () => false);
  }

  async remove(ref: ArtifactRef): Promise<void> {
    const path = this.#pathOf(ref.sha256);
    this.#verified.delete(path);
    await rm(path, { force: true });
  }

  #pathOf(sha256: string): string {
    if (!/^[0-9a-f]{64}$/.test(sha256)) throw new StillhouseError('BAD_INPUT', `expected 64 hex digits as an artifact's hash, got ${JSON.stringify(sha256)}`);
    return join(this.#root, 'sha256', sha256.slice(0, 2), sha256.slice(2));
  }

  /** Whether the bytes are there and right; a damaged file is written anew by the next put. */
  async #isIntact(ref: ArtifactRef): Promise<boolean> {
    const path = this.#pathOf(ref.sha256);
    const info = await stat(path).catch(() => undefined);
    if (info?.size !== ref.sizeBytes) return false;
    if ((await hashFile(path)).sha256 !== ref.sha256) return false;
    // Another process may have renamed it without having synced the folder yet.
    await syncFolder(dirname(path));
    return true;
  }

  async #publish(ref: ArtifactRef, write: (handle: FileHandle) => Promise<void>): Promise<void> {
    const path = this.#pathOf(ref.sha256);
    const temporary = join(this.#root, 'tmp', `${ref.sha256.slice(0, 16)}-${process.pid}-${randomUUID()}`);
    await asDiskFull(path, async () => {
      await mkdir(dirname(temporary), { recursive: true });
      const created = await mkdir(dirname(path), { recursive: true });
      try {
        const handle = await open(temporary, 'wx', 0o644);
        try {
          await write(handle);
          await handle.sync();
        } finally {
          await handle.close();
        }
        await rename(temporary, path);
      } catch (error) {
        await rm(temporary, { force: true });
        throw error;
      }
      await syncFolder(dirname(path));
      if (created !== undefined) await this.#syncUpwards(dirname(dirname(path)), dirname(created));
    });
  }

  /** Makes new folders durable: each lives in its parent's entries. */
  async #syncUpwards(from: string, to: string): Promise<void> {
    for (let folder = from; ; folder = dirname(folder)) {
      await syncFolder(folder);
      if (folder === to || folder === dirname(folder)) return;
    }
  }

  #missing(ref: ArtifactRef, error: unknown): never {
    if (errnoOf(error) !== 'ENOENT') throw error;
    throw new StillhouseError('NOT_FOUND', `expected the ${ref.kind} ${ref.sha256} in ${this.#root}, but it is not there`);
  }

  #corrupt(ref: ArtifactRef, path: string, actual: string): StillhouseError {
    return new StillhouseError('CORRUPT', `expected ${path} to have the SHA-256 ${ref.sha256} (${ref.kind}), got ${actual}`);
  }
}

/** A store below `root`; its folders are made when something is put. Several processes may share it. */
export function createFileStore(root: string): ArtifactStore {
  return new FileStore(root);
}
