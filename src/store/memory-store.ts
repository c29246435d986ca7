/** A store that ends with its process, for work whose results nobody keeps. */
import { createHash } from 'node:crypto';
import type { ArtifactKind, ArtifactRef } from '../contracts/artifacts.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { ArtifactStore } from './store.ts';

const noFiles = (): never => {
  throw new StillhouseError('INTERNAL', 'expected no files and folders in a store in memory');
};

export function createMemoryStore(): ArtifactStore {
  const kept = new Map<string, Buffer>();
  return {
    put: (kind: ArtifactKind, content: Uint8Array | string): Promise<ArtifactRef> => {
      const bytes = Buffer.from(content);
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      kept.set(sha256, bytes);
      return Promise.resolve({ kind, sha256, sizeBytes: bytes.length });
    },
    get: ({ kind, sha256 }: ArtifactRef): Promise<Buffer> => {
      const bytes = kept.get(sha256);
      return bytes === undefined ? Promise.reject(new StillhouseError('NOT_FOUND', `expected the ${kind} ${sha256}, got nothing`)) : Promise.resolve(bytes);
    },
    has: ({ sha256 }: ArtifactRef): Promise<boolean> => Promise.resolve(kept.has(sha256)),
    remove: ({ sha256 }: ArtifactRef): Promise<void> => {
      kept.delete(sha256);
      return Promise.resolve();
    },
    putFile: noFiles,
    putFolder: noFiles,
    localPath: noFiles,
    extractFolder: noFiles,
  };
}
