/** Opens models, each in a process of its own, and speaks for them. */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { modelEnvironment } from '../config.ts';
import type { ExecutionProvider } from '../contracts/execution-providers.ts';
import type { Precision } from '../contracts/precision.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { Assets } from '../assets/assets.ts';
import type { LanguageModel, ModelHost, ModelIdentity, OnText, OpenModelOptions } from './model.ts';
import { fromWireError, type AnswerMessage, type CallMessage, type CallName, type Calls, type PieceMessage } from './protocol.ts';

const PROCESS_ENTRY = new URL('./process.ts', import.meta.url);
/** What is kept of a process's standard error, to explain its death. */
const STDERR_TAIL_CHARACTERS = 2_000;
/** How long a process may take to leave by itself when it is closed. */
const CLOSE_GRACE_MS = 2_000;
/** How long to wait for the standard error of a process that has ended. */
const LAST_WORDS_MS = 200;

interface Pending {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: StillhouseError) => void;
  readonly onText?: OnText | undefined;
}

/** One child process and the calls that wait for it. */
class ModelProcess {
  readonly #child: ChildProcess;
  readonly #name: string;
  readonly #pending = new Map<number, Pending>();
  #nextId = 0;
  #stderr = '';
  /** Why no call can be answered any more. */
  #ended: StillhouseError | undefined;

  constructor(name: string) {
    this.#name = name;
    this.#child = fork(PROCESS_ENTRY, { env: modelEnvironment(), serialization: 'advanced', stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_TAIL_CHARACTERS);
    });
    this.#child.on('message', (message: AnswerMessage | PieceMessage) => this.#receive(message));
    this.#child.on('error', (cause) => this.#end(new StillhouseError('UNAVAILABLE', `model ${name}: expected a process to start, got: ${String(cause)}`, { cause })));
    // Not `close`: after a disconnect it never comes.
    this.#child.on('exit', (code, signal) => void this.#afterExit(code, signal));
  }

  get processId(): number | undefined {
    return this.#child.pid;
  }

  call<Name extends CallName>(call: Name, input: Calls[Name]['takes'], onText?: OnText): Promise<Calls[Name]['gives']> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (result: unknown) => void, reject, onText });
      // A failed send means a process that is going; its exit rejects the call with the reason.
      this.#child.send({ id, call, input } as CallMessage, () => undefined);
    });
  }

  /** Ends the process at once; calls that wait are rejected with `reason`. */
  kill(reason: StillhouseError): void {
    this.#end(reason);
    this.#child.kill('SIGKILL');
  }

  async close(): Promise<void> {
    this.#end(new StillhouseError('CANCELLED', `model ${this.#name}: expected an open model, got one that was closed`));
    if (this.#child.exitCode !== null || this.#child.signalCode !== null || this.#child.pid === undefined) return;
    const exited = once(this.#child, 'exit');
    if (this.#child.connected) this.#child.disconnect();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), CLOSE_GRACE_MS);
    await exited;
    clearTimeout(timer);
  }

  #receive(message: AnswerMessage | PieceMessage): void {
    const pending = this.#pending.get(message.id);
    if ('piece' in message) {
      pending?.onText?.(message.index, message.piece);
      return;
    }
    this.#pending.delete(message.id);
    if ('error' in message) pending?.reject(fromWireError(message.error));
    else pending?.resolve(message.result);
  }

  #end(reason: StillhouseError): void {
    this.#ended ??= reason;
    for (const pending of this.#pending.values()) pending.reject(this.#ended);
    this.#pending.clear();
  }

  async #afterExit(code: number | null, signal: NodeJS.Signals | null): Promise<void> {
    const { stderr } = this.#child;
    // Last words may still be in the pipe.
    if (stderr !== null && !stderr.readableEnded) await Promise.race([once(stderr, 'end'), sleep(LAST_WORDS_MS)]);
    this.#end(this.#died(code, signal));
  }

  #died(code: number | null, signal: NodeJS.Signals | null): StillhouseError {
    const how = signal === null ? `exit code ${code}` : `signal ${signal}`;
    const hint = signal === 'SIGKILL' ? ' (the system kills so when memory runs out)' : '';
    const said = this.#stderr.trim() === '' ? '' : `: ${this.#stderr.trim()}`;
    return new StillhouseError('PROCESS_DIED', `model ${this.#name}: expected its process to answer, got ${how}${hint}${said}`, { details: { code, signal } });
  }
}

/** A model in a process; `processId` is for supervision and for tests that end it. */
export interface HostedModel extends LanguageModel {
  readonly processId: number | undefined;
}

export interface ModelHostDeps {
  readonly assets: Pick<Assets, 'model'>;
  /** Folder below which float32 weights are kept. */
  readonly cache: string;
  /** Threads of one model. Default: every core. */
  readonly threads?: number;
  readonly executionProviders?: readonly ExecutionProvider[];
  /** Default: float32. */
  readonly precision?: Precision;
  readonly log?: (message: string, facts: Readonly<Record<string, unknown>>) => void;
}

const cancelled = (name: string): StillhouseError => new StillhouseError('CANCELLED', `model ${name}: stopped because its caller asked for it`);

export interface ProcessModelHost extends ModelHost {
  open(options: OpenModelOptions): Promise<HostedModel>;
}

export function createModelHost(deps: ModelHostDeps): ProcessModelHost {
  const open = async (options: OpenModelOptions): Promise<HostedModel> => {
    const { signal, model: name } = options;
    if (signal?.aborted === true) throw cancelled(name);
    const files = await deps.assets.model(name, signal === undefined ? {} : { signal });
    if (signal?.aborted) throw cancelled(name);
    const child = new ModelProcess(name);
    const onAbort = (): void => child.kill(cancelled(name));
    signal?.addEventListener('abort', onAbort, { once: true });
    let identity: ModelIdentity;
    const startedMs = performance.now();
    try {
      identity = await child.call('open', {
        path: files.path,
        name: files.name,
        license: files.license,
        cache: deps.cache,
        threads: options.threads ?? deps.threads ?? availableParallelism(),
        ...(deps.executionProviders === undefined ? {} : { executionProviders: deps.executionProviders }),
        ...(deps.precision === undefined ? {} : { precision: deps.precision }),
        ...(options.adapterPath === undefined ? {} : { adapterPath: options.adapterPath }),
        ...(options.weights === undefined ? {} : { weights: options.weights }),
        layers: options.layers,
        keepLayers: options.keepLayers,
      });
    } catch (error) {
      signal?.removeEventListener('abort', onAbort);
      await child.close();
      throw error;
    }
    deps.log?.('model opened', { model: name, sha256: identity.sha256, processId: child.processId, ms: Math.round(performance.now() - startedMs) });
    return {
      identity,
      processId: child.processId,
      scoreLabels: (request) => child.call('scoreLabels', request),
      scoreTexts: (request) => child.call('scoreTexts', request),
      generate: (request, onText) => child.call('generate', { ...request, stream: onText !== undefined }, onText),
      countTokens: (texts) => child.call('countTokens', texts),
      tokenTexts: (ids) => child.call('tokenTexts', ids),
      [Symbol.asyncDispose]: async () => {
        signal?.removeEventListener('abort', onAbort);
        await child.close();
      },
    };
  };
  return { open };
}
