/** JSON documents and JSON Lines in the store: one encoding, so that the same values give the same hash. */
import type { ArtifactKind, ArtifactRef } from '../contracts/artifacts.ts';
import type { ArtifactStore } from './store.ts';

/** JSON with keys sorted at every level and non-ASCII text left as it is (after RFC 8785 §3.2.3). */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    inner !== null && typeof inner === 'object' && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
      : inner,
  );
}

export function putJson(store: ArtifactStore, kind: ArtifactKind, value: unknown): Promise<ArtifactRef> {
  return store.put(kind, canonicalJson(value));
}

export async function getJson<T>(store: ArtifactStore, ref: ArtifactRef): Promise<T> {
  return JSON.parse((await store.get(ref)).toString('utf8')) as T;
}

export function putRows(store: ArtifactStore, kind: ArtifactKind, rows: readonly unknown[]): Promise<ArtifactRef> {
  return store.put(kind, rows.map((row) => `${canonicalJson(row)}\n`).join(''));
}

export async function getRows<T>(store: ArtifactStore, ref: ArtifactRef): Promise<T[]> {
  const text = (await store.get(ref)).toString('utf8');
  return text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as T);
}
