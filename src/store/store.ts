/** Content-addressed storage: what is put once is never changed, and a put is durable when it returns. */
import type { ArtifactKind, ArtifactRef, FolderManifest } from '../contracts/artifacts.ts';

export interface ArtifactStore {
  /** Idempotent: the same bytes give the same ref and are written once. Durable when it resolves. */
  put(kind: ArtifactKind, bytes: Uint8Array | string): Promise<ArtifactRef>;
  /** The same for a file on disk, streamed. */
  putFile(kind: ArtifactKind, path: string): Promise<ArtifactRef>;
  /** Stores each file below `path` and then the list; the ref is the list's. */
  putFolder(kind: ArtifactKind, path: string): Promise<ArtifactRef>;
  /** The bytes, verified against the hash; CORRUPT when they differ, NOT_FOUND when absent. */
  get(ref: ArtifactRef): Promise<Buffer>;
  /** A local path of verified bytes, for readers that need a file. Never write to it. */
  localPath(ref: ArtifactRef): Promise<string>;
  /** Writes a stored folder out below `target`, which must not exist or be empty. */
  extractFolder(ref: ArtifactRef, target: string): Promise<FolderManifest>;
  has(ref: ArtifactRef): Promise<boolean>;
  /** Takes back what nobody will ask for again; nothing happens where it is not there. */
  remove(ref: ArtifactRef): Promise<void>;
}
