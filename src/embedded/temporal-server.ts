/** Temporal's development server on a SQLite file: durable on one machine, its UI included. */
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { StillhouseError } from '../contracts/errors.ts';
import { SEARCH_ATTRIBUTES } from '../contracts/names.ts';

const run = promisify(execFile);

export interface TemporalServerOptions {
  readonly cli: string;
  readonly host: string;
  readonly port: number;
  readonly uiPort: number;
  readonly namespace: string;
  readonly database: string;
  /** File descriptor for its output. */
  readonly logFile: number;
}

export function startTemporalServer(options: TemporalServerOptions): ChildProcess {
  return spawn(
    options.cli,
    [
      'server', 'start-dev',
      '--ip', options.host, '--port', String(options.port), '--ui-port', String(options.uiPort),
      '--namespace', options.namespace, '--db-filename', options.database, '--log-level', 'error', '--log-format', 'json',
      ...Object.entries(SEARCH_ATTRIBUTES).flatMap(([name, type]) => ['--search-attribute', `${name}=${type}`]),
    ],
    // A group of its own: Ctrl-C on the terminal is for the supervisor, which stops the parts in their order.
    { stdio: ['ignore', options.logFile, options.logFile], detached: true },
  );
}

/** Waits until the server answers; UNAVAILABLE with the place of its log after the limit. */
export async function waitForTemporal(cli: string, address: string, logPath: string, limitMs = 60_000): Promise<void> {
  const deadline = Date.now() + limitMs;
  for (;;) {
    try {
      const { stdout } = await run(cli, ['operator', 'cluster', 'health', '--address', address], { timeout: 5_000 });
      if (stdout.includes('SERVING')) return;
    } catch {
      // Not yet.
    }
    if (Date.now() > deadline) throw new StillhouseError('UNAVAILABLE', `expected the Temporal server to answer at ${address} within ${limitMs / 1_000} s, got nothing; its log is ${logPath}`);
    await sleep(100);
  }
}
