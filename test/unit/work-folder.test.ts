/** Folders of work that processes leave behind when they are killed, and those that are still in use. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { temporaryFolder } from '../support/folder.ts';

const MAIN = fileURLToPath(new URL('../support/work-in-folder.ts', import.meta.url));

interface Worker {
  readonly folder: string;
  readonly process: ChildProcessByStdio<Writable, Readable, null>;
}

async function start(parent: string): Promise<Worker> {
  const child = spawn(process.execPath, [MAIN], { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, TMPDIR: parent } });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  return { folder: line.toString().trim(), process: child };
}

async function end({ process: child }: Worker, how: 'killed' | 'by itself'): Promise<void> {
  const ended = once(child, 'exit');
  if (how === 'killed') child.kill('SIGKILL');
  else child.stdin.end();
  await ended;
}

test('the next process removes what a killed one left, and nothing else', async () => {
  const parent = temporaryFolder();
  const [alive, killed] = [await start(parent), await start(parent)];
  for (const { folder } of [alive, killed]) {
    assert.equal(dirname(folder), parent);
    mkdirSync(join(folder, 'checkpoint'));
    writeFileSync(join(folder, 'checkpoint', 'step-3'), 'gigabytes');
  }
  const strangers = ['stillhouse-notes', 'stillhouse-train-1-1-AbCdEf', `stillhouse-train-1-${killed.process.pid}-1-AbCdEf`];
  for (const name of strangers) mkdirSync(join(parent, name));
  await end(killed, 'killed');
  assert.ok(existsSync(killed.folder), 'a killed process removes nothing');

  const next = await start(parent);
  assert.ok(!existsSync(killed.folder));
  assert.ok(existsSync(join(alive.folder, 'checkpoint', 'step-3')), 'of a process that works');
  for (const name of strangers) assert.ok(existsSync(join(parent, name)), `${name}: not of this namespace, or not a name of ours`);

  await end(next, 'by itself');
  await end(alive, 'by itself');
  assert.deepEqual(readdirSync(parent).toSorted(), strangers.toSorted(), 'work that ends leaves nothing');
});
