/** Finds teachers and judges by their spec; local models are shared and stay warm for a while. */
import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { sha256OfFile } from '../assets/files.ts';
import type { Assets } from '../assets/assets.ts';
import type { EndpointSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { LanguageModel, ModelHost } from '../lm/model.ts';
import { createLocalTeacher } from './local.ts';
import { createOpenAITeacher } from './openai.ts';
import { baseUrlOf } from './openai-client.ts';
import type { CallTimings } from './openai.ts';
import type { SharedLimits } from './shared-limits.ts';
import type { TraitBook } from './trait-book.ts';
import type { Teacher, TeacherDirectory, TeacherIdentity } from './teacher.ts';

/** Between the batches of one campaign there are seconds; loading a model takes as long. */
const KEEP_WARM_MS = 60_000;

export interface TeacherDirectoryDeps {
  readonly host: ModelHost;
  readonly assets: Pick<Assets, 'model'>;
  /** The value of a named secret; UNAUTHORIZED when it is not set. */
  readonly readSecret: (name: string) => string;
  readonly keepWarmMs?: number;
  readonly timings?: Partial<CallTimings>;
  /** The accounts of provider keys, shared by the processes of a home. Default: this process's own. */
  readonly limits?: SharedLimits;
  /** What endpoints turned out to take, kept for the processes of a home. Default: this process's own. */
  readonly traits?: TraitBook;
}

interface WarmModel {
  model: Promise<LanguageModel>;
  users: number;
  timer: NodeJS.Timeout | undefined;
}

class Directory implements TeacherDirectory, AsyncDisposable {
  readonly #deps: TeacherDirectoryDeps;
  readonly #warm = new Map<string, WarmModel>();
  /** Hashes by path, size and time of change: a model of gigabytes is read once. */
  readonly #hashes = new Map<string, Promise<string>>();

  constructor(deps: TeacherDirectoryDeps) {
    this.#deps = deps;
  }

  async identify(endpoint: EndpointSpec): Promise<TeacherIdentity> {
    if (endpoint.provider === 'openai') return { provider: baseUrlOf(endpoint), model: endpoint.model };
    const { path } = await this.#deps.assets.model(endpoint.model);
    return { provider: 'local', model: `${endpoint.model}@sha256:${await this.#hashOf(path)}` };
  }

  async open(endpoint: EndpointSpec): Promise<Teacher> {
    if (endpoint.provider === 'openai') {
      const { readSecret, timings, limits, traits } = this.#deps;
      return createOpenAITeacher({ endpoint, readKey: readSecret, ...(timings === undefined ? {} : { timings }), ...(limits === undefined ? {} : { limits }), ...(traits === undefined ? {} : { traits }) });
    }
    const identity = await this.identify(endpoint);
    let held: WarmModel | undefined;
    return createLocalTeacher({
      identity,
      load: async () => {
        // A process that has died makes room for a new one.
        if (held !== undefined && this.#warm.get(identity.model) !== held) held = undefined;
        held ??= this.#hold(identity.model, endpoint.model);
        return held.model;
      },
      release: async () => {
        if (held !== undefined) this.#letGo(identity.model, held);
      },
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const models = [...this.#warm.values()];
    this.#warm.clear();
    await Promise.all(models.map((warm) => this.#close(warm)));
  }

  #hold(key: string, model: string): WarmModel {
    const existing = this.#warm.get(key);
    if (existing !== undefined) {
      clearTimeout(existing.timer);
      existing.timer = undefined;
      existing.users += 1;
      return existing;
    }
    const warm: WarmModel = { model: this.#openModel(key, model), users: 1, timer: undefined };
    this.#warm.set(key, warm);
    // Whoever asked gets the failure; the next one tries anew.
    warm.model.catch(() => this.#forget(key, warm));
    return warm;
  }

  async #openModel(key: string, name: string): Promise<LanguageModel> {
    const model = await this.#deps.host.open({ model: name });
    const watch = async <T>(answer: Promise<T>): Promise<T> => {
      try {
        return await answer;
      } catch (error) {
        const warm = this.#warm.get(key);
        if (error instanceof StillhouseError && error.code === 'PROCESS_DIED' && warm !== undefined) this.#forget(key, warm);
        throw error;
      }
    };
    return {
      identity: model.identity,
      scoreLabels: (request) => watch(model.scoreLabels(request)),
      scoreTexts: (request) => watch(model.scoreTexts(request)),
      generate: (request, onText) => watch(model.generate(request, onText)),
      tokenTexts: (ids) => watch(model.tokenTexts(ids)),
      countTokens: (texts) => watch(model.countTokens(texts)),
      [Symbol.asyncDispose]: () => model[Symbol.asyncDispose](),
    };
  }

  #forget(key: string, warm: WarmModel): void {
    if (this.#warm.get(key) === warm) this.#warm.delete(key);
  }

  #letGo(key: string, warm: WarmModel): void {
    warm.users -= 1;
    if (warm.users > 0 || this.#warm.get(key) !== warm) return;
    warm.timer = setTimeout(() => {
      this.#forget(key, warm);
      void this.#close(warm);
    }, this.#deps.keepWarmMs ?? KEEP_WARM_MS).unref();
  }

  async #close(warm: WarmModel): Promise<void> {
    clearTimeout(warm.timer);
    const model = await warm.model.catch(() => undefined);
    await model?.[Symbol.asyncDispose]();
  }

  async #hashOf(path: string): Promise<string> {
    const info = await stat(path);
    if (!info.isDirectory()) return this.#hashOfFile(path, info);
    const names = (await readdir(path)).filter((name) => /\.(safetensors|json|gguf)$/.test(name)).sort();
    const hash = createHash('sha256');
    for (const name of names) {
      const file = join(path, name);
      hash.update(`${await this.#hashOfFile(file, await stat(file))}  ${name}\n`);
    }
    return hash.digest('hex');
  }

  #hashOfFile(path: string, info: { readonly size: number; readonly mtimeMs: number }): Promise<string> {
    const stamp = `${path}\n${info.size}\n${info.mtimeMs}`;
    const known = this.#hashes.get(stamp);
    if (known !== undefined) return known;
    const hash = sha256OfFile(path);
    this.#hashes.set(stamp, hash);
    return hash;
  }
}

/** Dispose it to close the local models it keeps. */
export function createTeacherDirectory(deps: TeacherDirectoryDeps): TeacherDirectory & AsyncDisposable {
  return new Directory(deps);
}
