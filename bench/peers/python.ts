/** Peers written in Python: an environment each, in the cache. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { readConfig } from '../../src/config.ts';

const run = promisify(execFile);

export interface Peer {
  readonly name: string;
  readonly requirement: string;
  /** Imported by it without being among its requirements, or to be of one version. */
  readonly also: readonly string[];
  readonly script: string;
}

/** The Python of a peer's own environment, made when absent. `say` hears of an installation. */
export async function pythonOf(peer: Peer, say: (line: string) => void): Promise<string> {
  const folder = join(readConfig().cache, 'peers', peer.name);
  const python = join(folder, 'bin', 'python');
  if (!existsSync(python)) await run('python3.11', ['-m', 'venv', folder]);
  const installed = await run(python, ['-m', 'pip', 'list', '--format=freeze']);
  if (!installed.stdout.includes(`${peer.requirement.replace(/\[.*?\]/, '')}\n`)) {
    say(`installing ${peer.requirement}`);
    await run(python, ['-m', 'pip', 'install', '-q', peer.requirement, ...peer.also], { maxBuffer: 1 << 24 });
  }
  return python;
}

/** What a Python program needs to start; nothing else of this process's environment. */
export const peerEnvironment = (): Record<string, string> => ({ PATH: '/usr/local/bin:/usr/bin:/bin', HOME: tmpdir(), HF_HUB_OFFLINE: '1' });
