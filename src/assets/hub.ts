/** Models of the Hugging Face hub (or a mirror of it), through its HTTP routes. */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { StillhouseError } from '../contracts/errors.ts';
import type { ModelFiles } from './assets.ts';
import { download, reasonOf } from './download.ts';
import { isVerified, writeDurably } from './files.ts';
import { withLock } from './lock.ts';

export interface HubOptions {
  /** Base URL of the hub or a mirror. */
  readonly endpoint: string;
  readonly token?: string;
  readonly onProgress?: (doneBytes: number, totalBytes?: number) => void;
  readonly signal?: AbortSignal;
  readonly retryDelayMs?: number;
}

export interface HubName {
  readonly repository: string;
  readonly revision: string;
  /** One file of the repository, where it was named. */
  readonly path?: string;
}

const COMMIT = /^[0-9a-f]{40}$/;

/** `hf:org/name[/path/to/file.gguf][@revision]`; BAD_INPUT for anything else. */
export function parseHubName(name: string): HubName {
  const match = /^hf:([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)(?:\/([^@]+))?(?:@([\w./-]+))?$/.exec(name);
  if (match?.[1] === undefined || name.includes('..')) {
    throw new StillhouseError('BAD_INPUT', `model: expected hf:ORGANISATION/NAME[/FILE.gguf][@REVISION], got ${JSON.stringify(name)}`);
  }
  return { repository: match[1], revision: match[3] ?? 'main', ...(match[2] === undefined ? {} : { path: match[2] }) };
}

/** A relative path of plain names: it is joined to a folder of the cache, and the hub's word for it is not enough. */
const fileName = z.string().max(1_024).regex(/^(?!.*(?:^|\/)\.{1,2}(?:\/|$))[^/\\\0]+(?:\/[^/\\\0]+)*$/, 'expected a relative path without .. or empty parts');

const infoSchema = z.object({
  sha: z.string().regex(COMMIT),
  siblings: z.array(
    z.object({
      rfilename: fileName,
      size: z.number().optional(),
      blobId: z.string().optional(),
      lfs: z.object({ sha256: z.string().optional(), oid: z.string().optional(), size: z.number().optional() }).nullish(),
    }),
  ),
  cardData: z.object({ license: z.union([z.string(), z.array(z.string())]).nullish(), license_name: z.string().nullish() }).nullish(),
});
type RepositoryInfo = z.output<typeof infoSchema>;

const headersOf = (options: HubOptions): Record<string, string> => (options.token === undefined ? {} : { authorization: `Bearer ${options.token}` });
const segments = (path: string): string => path.split('/').map(encodeURIComponent).join('/');

async function readInfo(name: HubName, options: HubOptions): Promise<RepositoryInfo> {
  const shown = `${name.repository}@${name.revision}`;
  const url = `${options.endpoint.replace(/\/+$/, '')}/api/models/${segments(name.repository)}/revision/${encodeURIComponent(name.revision)}?blobs=true`;
  for (let attempt = 0; ; attempt += 1) {
    let reason: string;
    try {
      const timeout = AbortSignal.timeout(30_000);
      const response = await fetch(url, { headers: headersOf(options), signal: options.signal === undefined ? timeout : AbortSignal.any([options.signal, timeout]) });
      if (response.ok) {
        const parsed = infoSchema.safeParse(await response.json());
        if (parsed.success) return parsed.data;
        throw new StillhouseError('CORRUPT', `${shown}: expected the hub's description of the model, got another shape: ${z.prettifyError(parsed.error)}`);
      }
      await response.body?.cancel();
      if (response.status === 401 || response.status === 403) {
        throw new StillhouseError('UNAUTHORIZED', `${shown}: expected access to the model, got HTTP ${response.status}: it is private, gated or does not exist; set HF_TOKEN to a token that may read it`);
      }
      if (response.status === 404) throw new StillhouseError('NOT_FOUND', `${shown}: expected a model of the hub, got HTTP 404: no such model or revision`);
      reason = `HTTP ${response.status}`;
    } catch (error) {
      if (error instanceof StillhouseError) throw error;
      if (options.signal?.aborted === true) throw new StillhouseError('CANCELLED', `${shown}: the look-up was stopped`, { cause: error });
      reason = reasonOf(error);
    }
    if (attempt >= 3) throw new StillhouseError('UNAVAILABLE', `${shown}: expected an answer of the hub, got ${reason}`);
    await sleep((options.retryDelayMs ?? 1_000) * 2 ** attempt);
  }
}

/** Which files make the model: weights as safetensors where there are any, else the one GGUF. */
function chooseFiles(info: RepositoryInfo, name: HubName): readonly RepositoryInfo['siblings'][number][] {
  const shown = `${name.repository}@${name.revision}`;
  if (name.path !== undefined) {
    const file = info.siblings.find(({ rfilename }) => rfilename === name.path);
    if (file === undefined) throw new StillhouseError('NOT_FOUND', `${shown}: expected a file ${name.path}, got none of that name`);
    return [file];
  }
  const top = info.siblings.filter(({ rfilename }) => !rfilename.includes('/'));
  const weights = top.filter(({ rfilename }) => rfilename.endsWith('.safetensors'));
  if (weights.length > 0) return [...top.filter(({ rfilename }) => /\.(json|jinja|txt|model)$/.test(rfilename)), ...weights];
  const gguf = info.siblings.filter(({ rfilename }) => rfilename.endsWith('.gguf'));
  const [only] = gguf;
  if (only !== undefined && gguf.length === 1) return [only];
  const found = gguf.length === 0 ? 'neither' : `several: ${gguf.map(({ rfilename }) => `hf:${name.repository}/${rfilename}`).join(', ')}; name one`;
  throw new StillhouseError('BAD_INPUT', `${shown}: expected safetensors files or one GGUF file, got ${found}`);
}

interface HubFile {
  readonly repository: string;
  readonly revision: string;
  readonly path: string;
  readonly sha256?: string;
  readonly sizeBytes?: number;
  readonly gitBlobSha1?: string;
}

/** What the hub answers a HEAD request with: the SHA-256 of an LFS file, the git object id of any other. Mirrors may leave either out of their lists. */
async function announcedHash(url: string, options: HubOptions): Promise<Pick<HubFile, 'sha256' | 'gitBlobSha1'>> {
  const timeout = AbortSignal.timeout(30_000);
  const signal = options.signal === undefined ? timeout : AbortSignal.any([options.signal, timeout]);
  // Not followed: the hub's own answer carries the hash, the storage behind it another.
  const response = await fetch(url, { method: 'HEAD', redirect: 'manual', headers: headersOf(options), signal }).catch(() => undefined);
  const tag = (response?.headers.get('x-linked-etag') ?? response?.headers.get('etag') ?? '').replace(/^W\//, '').replaceAll('"', '');
  if (/^[0-9a-f]{64}$/.test(tag)) return { sha256: tag };
  return COMMIT.test(tag) ? { gitBlobSha1: tag } : {};
}

/** Fetches one file of a repository at a fixed commit, verified by the hub's own checksum or the caller's. The token stays with the hub: a redirect to another host goes without it. */
export async function fetchHubFile(file: HubFile, target: string, options: HubOptions): Promise<string> {
  const { repository, revision, path, sha256, sizeBytes, gitBlobSha1 } = file;
  const url = `${options.endpoint.replace(/\/+$/, '')}/${segments(repository)}/resolve/${encodeURIComponent(revision)}/${segments(path)}`;
  const known = sha256 !== undefined ? { sha256 } : gitBlobSha1 !== undefined ? { gitBlobSha1 } : await announcedHash(url, options);
  const { onProgress, signal, retryDelayMs } = options;
  return download({
    name: `${repository}/${path}`,
    url,
    target,
    headers: headersOf(options),
    ...known,
    ...(sizeBytes === undefined ? {} : { sizeBytes }),
    ...(onProgress === undefined ? {} : { onProgress }),
    ...(signal === undefined ? {} : { signal }),
    ...(retryDelayMs === undefined ? {} : { retryDelayMs }),
  });
}

const manifestSchema = z.object({ commit: z.string(), license: z.string(), files: z.array(z.object({ path: z.string(), sha256: z.string() })) });
type HubManifest = z.output<typeof manifestSchema>;

async function readManifest(folder: string): Promise<HubManifest | undefined> {
  const text = await readFile(join(folder, 'stillhouse.manifest'), 'utf8').catch(() => undefined);
  try {
    const parsed = text === undefined ? undefined : manifestSchema.safeParse(JSON.parse(text));
    return parsed?.success === true ? parsed.data : undefined;
  } catch {
    // Cut by a crash: as good as none.
    return undefined;
  }
}

function licenseOf(info: RepositoryInfo): string {
  const given = info.cardData?.license_name ?? info.cardData?.license;
  return (Array.isArray(given) ? given.join(', ') : given) ?? 'unknown';
}

/** What the cache already holds of a model, all files verified; undefined where anything is missing. */
async function fromCache(folder: string): Promise<HubManifest | undefined> {
  const manifest = await readManifest(folder);
  if (manifest === undefined) return undefined;
  for (const { path, sha256 } of manifest.files) if (!(await isVerified(join(folder, path), sha256))) return undefined;
  return manifest;
}

/**
 * Resolves `hf:org/name@revision` to a folder of verified files (or one GGUF file) below `cache`.
 * A full commit that the cache holds needs no network; a branch is asked for, and the last known
 * commit serves while the hub cannot be reached.
 */
export async function fetchHubModel(fullName: string, cache: string, options: HubOptions): Promise<Omit<ModelFiles, 'name'>> {
  const name = parseHubName(fullName);
  const root = join(cache, 'hub', name.repository.replace('/', '--'));
  const variant = name.path === undefined ? '' : `-${name.path.replaceAll('/', '--')}`;
  const folderOf = (commit: string): string => join(root, `${commit}${variant}`);
  const refFile = join(root, 'refs', encodeURIComponent(name.revision));
  const finish = (folder: string, manifest: HubManifest) => {
    const [only] = manifest.files;
    return { path: manifest.files.length === 1 && only?.path.endsWith('.gguf') === true ? join(folder, only.path) : folder, license: manifest.license, hub: { repository: name.repository, revision: manifest.commit } };
  };

  if (COMMIT.test(name.revision)) {
    const cached = await fromCache(folderOf(name.revision));
    if (cached !== undefined) return finish(folderOf(name.revision), cached);
  }
  let info: RepositoryInfo;
  try {
    info = await readInfo(name, options);
  } catch (error) {
    const known = await readFile(refFile, 'utf8').catch(() => undefined);
    const cached = known === undefined || !(error instanceof StillhouseError && error.code === 'UNAVAILABLE') ? undefined : await fromCache(folderOf(known));
    if (known === undefined || cached === undefined) throw error;
    return finish(folderOf(known), cached);
  }
  const folder = folderOf(info.sha);
  const chosen = chooseFiles(info, name);
  return withLock(join(cache, 'locks', `hub-${name.repository.replace('/', '--')}${variant}.lock`), async () => {
    const cached = await fromCache(folder);
    if (cached !== undefined) return finish(folder, cached);
    await mkdir(folder, { recursive: true });
    const files: { path: string; sha256: string }[] = [];
    for (const { rfilename, size, blobId, lfs } of chosen) {
      const sha256 = lfs?.sha256 ?? lfs?.oid;
      const target = join(folder, rfilename);
      const known = { repository: name.repository, revision: info.sha, path: rfilename, ...(size === undefined ? {} : { sizeBytes: size }) };
      const checks = sha256 !== undefined ? { sha256 } : blobId !== undefined ? { gitBlobSha1: blobId } : {};
      const have = sha256 !== undefined && (await isVerified(target, sha256));
      files.push({ path: rfilename, sha256: have ? sha256 : await fetchHubFile({ ...known, ...checks }, target, options) });
    }
    const manifest: HubManifest = { commit: info.sha, license: licenseOf(info), files };
    await writeDurably(join(folder, 'stillhouse.manifest'), JSON.stringify(manifest));
    await writeDurably(refFile, info.sha);
    return finish(folder, manifest);
  }, options.signal);
}
