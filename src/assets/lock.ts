/** A lock between processes of one machine, as a file that names its holder. A dead holder's lock is taken over. */
import { readFileSync } from 'node:fs';
import { link, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** A process told apart from a later one that was given the same number. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks after boot at which it started (proc(5), field 22 of stat); absent off Linux. */
  readonly startTicks?: string;
}

export function identityOf(pid: number): ProcessIdentity | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command, in parentheses, may hold spaces: fields are counted after its end.
    const fields = status.slice(status.lastIndexOf(')') + 2).split(' ');
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    return fields[19] === undefined ? { pid } : { pid, startTicks: fields[19] };
  } catch {
    if (process.platform === 'linux') return undefined;
  }
  try {
    process.kill(pid, 0);
    return { pid };
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? { pid } : undefined;
  }
}

export function isAlive(identity: ProcessIdentity): boolean {
  const current = identityOf(identity.pid);
  return current !== undefined && current.startTicks === identity.startTicks;
}

async function readHolder(path: string): Promise<ProcessIdentity | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as ProcessIdentity;
  } catch {
    return undefined;
  }
}

let counter = 0;

/** Takes the lock, or returns its living holder. */
export async function tryLock(path: string): Promise<{ readonly release: () => Promise<void> } | { readonly holder: ProcessIdentity }> {
  await mkdir(dirname(path), { recursive: true });
  counter += 1;
  const mine = `${path}.${process.pid}.${counter}`;
  await writeFile(mine, JSON.stringify(identityOf(process.pid) ?? { pid: process.pid }));
  try {
    for (;;) {
      try {
        // link(2) fails when the name exists, and the file is whole from its first moment.
        await link(mine, path);
        return { release: () => rm(path, { force: true }) };
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
      const holder = await readHolder(path);
      if (holder !== undefined && isAlive(holder)) return { holder };
      // Moved aside under a name of ours, so that of two finders of a dead lock one alone removes it.
      const aside = `${mine}.dead`;
      await rename(path, aside).catch(() => undefined);
      const moved = await readHolder(aside);
      if (moved !== undefined && isAlive(moved)) await link(aside, path).catch(() => undefined);
      await rm(aside, { force: true });
    }
  } finally {
    await rm(mine, { force: true });
  }
}

/** Runs `work` while holding the lock; waits for a living holder. */
export async function withLock<T>(path: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (;;) {
    const attempt = await tryLock(path);
    if ('release' in attempt) {
      try {
        return await work();
      } finally {
        await attempt.release();
      }
    }
    await sleep(150, undefined, signal === undefined ? {} : { signal });
  }
}
