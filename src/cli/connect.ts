/** Finds the stack that a command talks to: one elsewhere, the one that runs on this home, or one started for the occasion. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { apiKeyOf, findRunning } from '../embedded/home.ts';
import { startEmbedded } from '../embedded/start.ts';
import { ApiClient } from './api-client.ts';

const STARTUP_LIMIT_MS = 90_000;

export interface Connection {
  readonly api: ApiClient;
  readonly apiUrl: string;
  /** Temporal's web pages, where they are known. */
  readonly uiUrl?: string;
  /** Whether this command started the stack, so that it ends with it. */
  readonly own: boolean;
  close(): Promise<void>;
}

const noClose = (): Promise<void> => Promise.resolve();

/** The stack that is there, or undefined. Waits for one that is just starting. */
export async function findStack(config: Config): Promise<Connection | undefined> {
  const { url, key } = config.api;
  if (url !== undefined) {
    if (key === undefined) throw new StillhouseError('BAD_INPUT', 'expected the key of the service at STILLHOUSE_API_URL in STILLHOUSE_API_KEY, got none');
    return { api: new ApiClient({ url, key }), apiUrl: url, own: false, close: noClose };
  }
  const deadline = Date.now() + STARTUP_LIMIT_MS;
  for (;;) {
    const running = findRunning(config.home);
    if (running === undefined) return undefined;
    if (running.apiUrl !== undefined) {
      return { api: new ApiClient({ url: running.apiUrl, key: await apiKeyOf(config) }), apiUrl: running.apiUrl, uiUrl: running.uiUrl, own: false, close: noClose };
    }
    if (Date.now() > deadline) throw new StillhouseError('UNAVAILABLE', `expected the stack on ${config.home} (pid ${running.supervisor.pid}) to finish starting within ${STARTUP_LIMIT_MS / 1_000} s; see its logs folder`);
    await sleep(200);
  }
}

/** The same, for commands that make no sense without one. */
export async function requireStack(config: Config): Promise<Connection> {
  const found = await findStack(config);
  if (found !== undefined) return found;
  throw new StillhouseError('UNAVAILABLE', `expected a Stillhouse that runs on ${config.home}, got none: start one with "still up", or set STILLHOUSE_HOME or STILLHOUSE_API_URL`);
}

/** The stack that is there, else one in this process that lives as long as the command. */
export async function findOrStartStack(config: Config, say: (line: string) => void): Promise<Connection> {
  const found = await findStack(config);
  if (found !== undefined) return found;
  const stack = await startEmbedded(config, { say });
  return { api: new ApiClient({ url: stack.apiUrl, key: stack.apiKey }), apiUrl: stack.apiUrl, uiUrl: stack.uiUrl, own: true, close: () => stack.stop() };
}
