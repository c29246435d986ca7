/**
 * Everything on one machine under one supervisor: Temporal's development server, the workers, the
 * REST API. Any child may be killed and is started again; the supervisor itself may be killed, and
 * the next one stops what was left and goes on from the same files.
 */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import type { Logger } from 'pino';
import { buildApp } from '../api/app.ts';
import { listen } from '../api/server.ts';
import { createAssets } from '../assets/create-assets.ts';
import type { Assets } from '../assets/assets.ts';
import type { ProcessIdentity } from '../assets/lock.ts';
import { identityOf } from '../assets/lock.ts';
import { openGateway } from '../client/gateway.ts';
import { environmentOf, hasSecret, homePaths } from '../config.ts';
import type { Config } from '../config.ts';
import { createEstimator } from '../estimate/estimator.ts';
import { createFileStore } from '../store/file-store.ts';
import { KeptChild } from './child.ts';
import { apiKeyOf, removeNote, stopLeftovers, takeHome, writeNote } from './home.ts';
import type { RunningStack } from './home.ts';
import { requirePort, splitAddress } from './ports.ts';
import { startTemporalServer, waitForTemporal } from './temporal-server.ts';

export const WORKER_ROLES = ['orchestrator', 'teacher', 'trainer'] as const;
const WORKER_MAIN = fileURLToPath(new URL('../../worker/main.ts', import.meta.url));
/** Workers finish or checkpoint what they do before they go. */
const WORKER_GRACE_MS = 30_000;
const TEMPORAL_GRACE_MS = 10_000;

export interface EmbeddedStack {
  readonly apiUrl: string;
  readonly apiKey: string;
  readonly uiUrl: string;
  /** Stops API, workers and Temporal, in that order, and lets the home go. */
  stop(): Promise<void>;
}

export interface EmbeddedOptions {
  readonly assets?: Assets;
  /** The module that is run as `MODULE ROLE` for each role. Default: worker/main.ts. */
  readonly workerMain?: string;
  /** Lines for a person: what starts, what ended by itself. */
  readonly say?: (line: string) => void;
}

/** Undoes what was done, newest first; every step is tried. */
class Cleanup {
  readonly #steps: (() => Promise<void> | void)[] = [];
  add(step: () => Promise<void> | void): void {
    this.#steps.push(step);
  }
  async run(log: Logger): Promise<void> {
    for (;;) {
      const step = this.#steps.pop();
      if (step === undefined) return;
      try {
        await step();
      } catch (error) {
        log.error({ err: error }, 'a part did not stop cleanly');
      }
    }
  }
}

class Supervisor {
  readonly #config: Config;
  readonly #options: EmbeddedOptions;
  readonly #cleanup = new Cleanup();
  readonly #log: Logger;
  readonly #children = new Map<string, { readonly identity: ProcessIdentity; readonly commandHolds: string }>();
  #note: Omit<RunningStack, 'children'>;

  constructor(config: Config, options: EmbeddedOptions) {
    this.#config = config;
    this.#options = options;
    this.#note = {
      supervisor: identityOf(process.pid) ?? { pid: process.pid },
      uiUrl: '',
      temporalAddress: config.temporal.address,
    };
    this.#log = pino({ level: config.logLevel }, pino.destination({ dest: join(homePaths(config.home).logs, 'supervisor.log'), mkdir: true, sync: true }));
  }

  async start(): Promise<EmbeddedStack> {
    try {
      return await this.#startParts();
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  async #startParts(): Promise<EmbeddedStack> {
    const config = this.#config;
    const temporal = splitAddress(config.temporal.address, 'TEMPORAL_ADDRESS');
    const { uiPort } = config.temporal;
    await stopLeftovers(config.home, (line) => this.#say(line));
    await requirePort({ ...temporal, what: 'the Temporal server', setting: 'TEMPORAL_ADDRESS' });
    await requirePort({ host: temporal.host, port: uiPort, what: "Temporal's web pages", setting: 'TEMPORAL_UI_PORT' });
    if (config.api.port !== 0) await requirePort({ host: config.api.host, port: config.api.port, what: 'the REST API', setting: 'STILLHOUSE_API_PORT' });

    const assets = this.#options.assets ?? createAssets(config);
    const cli = await assets.temporalCli();
    this.#note = { ...this.#note, uiUrl: `http://${temporal.host}:${uiPort}` };
    await this.#startTemporal(cli, temporal, uiPort);
    const apiKey = await apiKeyOf(config);
    const workers = WORKER_ROLES.map((role) => this.#startWorker(role));
    this.#cleanup.add(async () => void (await Promise.all(workers.map((worker) => worker.stop()))));

    const store = createFileStore(homePaths(config.home).artifacts);
    const campaigns = openGateway(config.temporal);
    this.#cleanup.add(() => campaigns.close());
    const app = await buildApp({ campaigns, store, apiKey, hasSecret, estimate: createEstimator(config), logger: this.#log.child({ part: 'api' }) });
    const server = await listen(app, config.api);
    this.#cleanup.add(() => server.close());
    this.#note = { ...this.#note, apiUrl: server.url };
    this.#writeNote();
    return { apiUrl: server.url, apiKey, uiUrl: this.#note.uiUrl, stop: () => this.stop() };
  }

  stop(): Promise<void> {
    return this.#cleanup.run(this.#log);
  }

  /** What must be undone last, whatever happens: the note and the lock of the home. */
  owns(release: () => Promise<void>): void {
    this.#cleanup.add(release);
    this.#cleanup.add(() => removeNote(this.#config.home));
  }

  #say(line: string): void {
    this.#log.info(line);
    this.#options.say?.(line);
  }

  #writeNote(): void {
    const children = [...this.#children].map(([name, child]) => ({ name, ...child }));
    writeNote(this.#config.home, { ...this.#note, children });
  }

  #logFile(name: string): { readonly path: string; readonly descriptor: number } {
    const path = join(homePaths(this.#config.home).logs, `${name}.log`);
    const descriptor = openSync(path, 'a');
    this.#cleanup.add(() => closeSync(descriptor));
    return { path, descriptor };
  }

  #keep(name: string, logPath: string, commandHolds: string, graceMs: number, start: () => ChildProcess): KeptChild {
    return new KeptChild({
      name, start, graceMs, logPath,
      onStart: (identity) => {
        this.#children.set(name, { identity, commandHolds });
        this.#writeNote();
      },
      log: (line) => {
        this.#say(line);
      },
    });
  }

  async #startTemporal(cli: string, { host, port }: { readonly host: string; readonly port: number }, uiPort: number): Promise<void> {
    const { temporalDatabase } = homePaths(this.#config.home);
    const log = this.#logFile('temporal');
    const options = { cli, host, port, uiPort, namespace: this.#config.temporal.namespace, database: temporalDatabase, logFile: log.descriptor };
    const child = this.#keep('temporal', log.path, temporalDatabase, TEMPORAL_GRACE_MS, () => startTemporalServer(options));
    this.#cleanup.add(() => child.stop());
    await waitForTemporal(cli, `${host}:${port}`, log.path);
  }

  #startWorker(role: (typeof WORKER_ROLES)[number]): KeptChild {
    const log = this.#logFile(`worker-${role}`);
    const main = this.#options.workerMain ?? WORKER_MAIN;
    return this.#keep(`worker-${role}`, log.path, main, WORKER_GRACE_MS, () =>
      fork(main, [role], {
        env: environmentOf(this.#config),
        // The channel tells a worker that its supervisor is gone.
        stdio: ['ignore', log.descriptor, log.descriptor, 'ipc'],
        detached: true,
      }),
    );
  }
}

/**
 * Starts the embedded stack on `config.home`. IN_USE when the home or a port is taken (with the
 * setting that changes it); UNAVAILABLE when Temporal does not come up.
 */
export async function startEmbedded(config: Config, options: EmbeddedOptions = {}): Promise<EmbeddedStack> {
  const release = await takeHome(config.home);
  const supervisor = new Supervisor(config, options);
  supervisor.owns(release);
  return supervisor.start();
}
