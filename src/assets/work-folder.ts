/**
 * Folders for what is being worked on: a checkpoint on its way to the store, a student on its way out. They hold
 * gigabytes, so that one whose process was killed is removed by the next process that works.
 */
import { readlinkSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { identityOf, isAlive } from './lock.ts';

/** stillhouse-PURPOSE-NAMESPACE-PID-TICKS-RANDOM: whose it is. Numbers of processes mean nothing in another namespace (pid_namespaces(7)). */
const NAME = /^stillhouse-[a-z]+-(\d+)-(\d+)-(\d+)-\w+$/;

function namespace(): string {
  try {
    return /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? '0';
  } catch {
    return '0';
  }
}

/** Off Linux nothing tells a process from a later one of the same number. */
const NO_TICKS = '0';

/** Removes what killed processes left in `parent`. What cannot be removed stays: it is in nobody's way. */
async function sweep(parent: string): Promise<void> {
  const own = namespace();
  for (const name of await readdir(parent).catch(() => [])) {
    const [, space, pid, startTicks = NO_TICKS] = NAME.exec(name) ?? [];
    if (space !== own || isAlive({ pid: Number(pid), ...(startTicks === NO_TICKS ? {} : { startTicks }) })) continue;
    await rm(join(parent, name), { recursive: true, force: true }).catch(() => undefined);
  }
}

let swept: Promise<void> | undefined;

/** Gives `work` a new folder, which is removed when it ends, however it ends. */
export async function withWorkFolder<T>(purpose: 'train' | 'student' | 'export', work: (folder: string) => Promise<T>): Promise<T> {
  const parent = tmpdir();
  await (swept ??= sweep(parent));
  const { pid, startTicks = NO_TICKS } = identityOf(process.pid) ?? { pid: process.pid };
  const folder = await mkdtemp(join(parent, `stillhouse-${purpose}-${namespace()}-${pid}-${startTicks}-`));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
