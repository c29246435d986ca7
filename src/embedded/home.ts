/** The home folder of an embedded stack: one supervisor at a time, a key, and a note of what runs. */
import { randomBytes } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { isAlive, tryLock } from '../assets/lock.ts';
import type { ProcessIdentity } from '../assets/lock.ts';
import type { Config } from '../config.ts';
import { homePaths } from '../config.ts';
import { StillhouseError } from '../contracts/errors.ts';

const identitySchema = z.object({ pid: z.int(), startTicks: z.string().optional() });
const runningSchema = z.object({
  supervisor: identitySchema,
  apiUrl: z.string().optional(),
  uiUrl: z.string(),
  temporalAddress: z.string(),
  /** Children with the words that their command lines hold, so that a stranger with the same number is not taken for one. */
  children: z.array(z.object({ name: z.string(), identity: identitySchema, commandHolds: z.string() })),
});
export type RunningStack = z.output<typeof runningSchema>;

const toIdentity = ({ pid, startTicks }: z.output<typeof identitySchema>): ProcessIdentity => (startTicks === undefined ? { pid } : { pid, startTicks });

export function readNote(home: string): RunningStack | undefined {
  try {
    return runningSchema.parse(JSON.parse(readFileSync(homePaths(home).running, 'utf8')));
  } catch {
    return undefined;
  }
}

/** The stack that runs on this home now, or undefined. */
export function findRunning(home: string): RunningStack | undefined {
  const note = readNote(home);
  return note !== undefined && isAlive(toIdentity(note.supervisor)) ? note : undefined;
}

/** Synchronous, so that a child is on record before anything else can happen. */
export function writeNote(home: string, note: RunningStack): void {
  const path = homePaths(home).running;
  writeFileSync(`${path}.tmp`, JSON.stringify(note, undefined, 2));
  renameSync(`${path}.tmp`, path);
}

export function removeNote(home: string): void {
  rmSync(homePaths(home).running, { force: true });
}

function commandLineOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    try {
      return execFileSync('ps', ['-ww', '-o', 'command=', '-p', String(pid)], { encoding: 'utf8' });
    } catch {
      return '';
    }
  }
}

/**
 * Stops the children of a supervisor that was killed. A process counts as such a child when its number,
 * its start time and its command line are all those on record.
 */
export async function stopLeftovers(home: string, log: (message: string) => void, graceMs = 5_000): Promise<void> {
  const note = readNote(home);
  if (note === undefined || isAlive(toIdentity(note.supervisor))) return;
  const left = note.children
    .map(({ name, identity, commandHolds }) => ({ name, identity: toIdentity(identity), commandHolds }))
    .filter(({ identity, commandHolds }) => isAlive(identity) && commandLineOf(identity.pid).includes(commandHolds));
  const signal = (name: 'SIGTERM' | 'SIGKILL'): void => {
    for (const { identity } of left) {
      if (!isAlive(identity)) continue;
      try {
        process.kill(identity.pid, name);
      } catch {
        // It ended between the look and the signal.
      }
    }
  };
  if (left.length > 0) log(`stopping what a killed supervisor left: ${left.map(({ name, identity }) => `${name} (pid ${identity.pid})`).join(', ')}`);
  signal('SIGTERM');
  const deadline = Date.now() + graceMs;
  while (left.some(({ identity }) => isAlive(identity))) {
    if (Date.now() > deadline) signal('SIGKILL');
    await sleep(50);
  }
  removeNote(home);
}

/** Makes the folder and takes it for this process; IN_USE names the process that has it. */
export async function takeHome(home: string): Promise<() => Promise<void>> {
  try {
    await mkdir(homePaths(home).logs, { recursive: true });
  } catch (cause) {
    throw new StillhouseError('BAD_INPUT', `expected a folder that can be written to at ${home} (STILLHOUSE_HOME), got ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  const attempt = await tryLock(homePaths(home).lock);
  if ('release' in attempt) return attempt.release;
  const url = findRunning(home)?.apiUrl;
  throw new StillhouseError(
    'IN_USE',
    `expected no other Stillhouse on ${home}, got one that runs as pid ${attempt.holder.pid}${url === undefined ? '' : ` with its API at ${url}`}: use it, stop it, or set STILLHOUSE_HOME to another folder`,
    { details: { home, pid: attempt.holder.pid } },
  );
}

/** The bearer key: the configured one, else the home's own, made at its first use and readable by its owner alone. */
export async function apiKeyOf(config: Config): Promise<string> {
  if (config.api.key !== undefined) return config.api.key;
  const path = homePaths(config.home).apiKey;
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch {
    const key = randomBytes(24).toString('base64url');
    await writeFile(path, `${key}\n`, { mode: 0o600 });
    return key;
  }
}
