/** How much memory a process may still take: what the machine has left, or what its container's limit leaves. */
import { readFileSync } from 'node:fs';
import { freemem } from 'node:os';
import { join } from 'node:path';

export interface FreeMemory {
  readonly freeBytes: number;
  /** Whose limit it is. */
  readonly of: 'machine' | 'container';
}

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined; // not a Linux machine, or another version of control groups
  }
};

/** What one control group leaves (version 2): its limit less what is in use, file cache that may be dropped not counted. */
function groupFree(folder: string): number {
  const limit = Number(read(join(folder, 'memory.max'))); // "max" where there is none
  const used = Number(read(join(folder, 'memory.current')));
  if (!Number.isFinite(limit) || !Number.isFinite(used)) return Infinity;
  const droppable = Number(/^inactive_file (\d+)$/m.exec(read(join(folder, 'memory.stat')) ?? '')?.[1] ?? 0);
  return Math.max(0, limit - Math.max(0, used - droppable));
}

/** Of the process's own control group and all above it. `root` is where a test keeps its files. */
export function freeMemory(root = '/'): FreeMemory {
  const available = /^MemAvailable:\s+(\d+) kB$/m.exec(read(join(root, 'proc/meminfo')) ?? '')?.[1];
  const machine = available === undefined ? freemem() : Number(available) * 1024;
  const own = /^0::(\/.*)$/m.exec(read(join(root, 'proc/self/cgroup')) ?? '')?.[1] ?? '/';
  const parts = own.split('/').filter((part) => part !== '');
  const container = Math.min(...Array.from({ length: parts.length + 1 }, (_, depth) => groupFree(join(root, 'sys/fs/cgroup', ...parts.slice(0, depth)))));
  return container < machine ? { freeBytes: container, of: 'container' } : { freeBytes: machine, of: 'machine' };
}
