import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { homePaths, readConfig } from '../../src/config.ts';
import type { Config } from '../../src/config.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { findRunning, readNote } from '../../src/embedded/home.ts';
import { startEmbedded } from '../../src/embedded/start.ts';
import { temporaryFolder } from '../support/folder.ts';
import { freePort } from '../support/free-port.ts';
import { isAlive, killHard, processesWith } from '../support/processes.ts';
import { until } from '../support/until.ts';

const MAIN = fileURLToPath(new URL('../support/embedded-main.ts', import.meta.url));
const PATIENCE = { limitMs: 30_000 };
const started: ChildProcess[] = [];
const home = temporaryFolder();
let config: Config;
let environment: NodeJS.ProcessEnv;

before(async () => {
  const [api, temporal, ui] = [await freePort(), await freePort(), await freePort()];
  environment = { ...process.env, STILLHOUSE_HOME: home, STILLHOUSE_API_PORT: String(api), TEMPORAL_ADDRESS: `127.0.0.1:${temporal}`, TEMPORAL_UI_PORT: String(ui), STILLHOUSE_API_KEY: 'a-key-of-the-tests' };
  config = readConfig(environment);
});
after(() => {
  for (const child of started) child.kill('SIGKILL');
  for (const { pid } of processesWith('STILLHOUSE_HOME', home)) killHard(pid);
});

/** Starts the stack in another process and returns once its API listens. */
async function start(): Promise<ChildProcess> {
  const child = spawn(process.execPath, [MAIN], { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
  started.push(child);
  let output = '';
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      if (output.includes('READY')) resolve();
    });
    child.on('exit', (code) => reject(new Error(`ended with ${code}: ${output}`)));
  });
  return child;
}

/** Starts a stack that is expected not to start: one that does is stopped, so that a failed test ends. */
async function refused(settings: Config): Promise<void> {
  const stack = await startEmbedded(settings);
  await stack.stop();
}

const pidOf = (name: string): number => readNote(home)?.children.find((child) => child.name === name)?.identity.pid ?? -1;

const isHealthy = async (): Promise<boolean> => {
  const response = await fetch(`http://127.0.0.1:${config.api.port}/v1/health`).catch(() => undefined);
  return response?.status === 200;
};

test('a child that is killed comes back: a worker, the Temporal server', async () => {
  await start();
  await until(isHealthy, (healthy) => healthy, PATIENCE);
  for (const name of ['worker-teacher', 'temporal']) {
    const pid = pidOf(name);
    assert.ok(killHard(pid), `${name} runs`);
    await until(() => pidOf(name), (now) => now !== pid && isAlive(now), PATIENCE);
  }
  await until(isHealthy, (healthy) => healthy, PATIENCE);
});

test('a second stack on the same home is refused and the first goes on', async () => {
  await assert.rejects(refused(config), (error: unknown) => {
    assert.ok(error instanceof StillhouseError && error.code === 'IN_USE');
    assert.ok(error.message.includes(home) && error.message.includes(`pid ${started[0]?.pid}`), error.message);
    return true;
  });
  assert.ok(await isHealthy());
  assert.equal(findRunning(home)?.apiUrl, `http://127.0.0.1:${config.api.port}`);
});

test('another home with the same port is told the port and its setting', async () => {
  const other = temporaryFolder();
  await assert.rejects(refused({ ...config, home: other }), (error: unknown) => {
    assert.ok(error instanceof StillhouseError && error.code === 'IN_USE');
    assert.match(error.message, /port \d+ of 127\.0\.0\.1 to be free for the Temporal server.*TEMPORAL_ADDRESS/);
    return true;
  });
  assert.ok(!existsSync(homePaths(other).lock), 'the home is free again');
});

test('after kill -9 of the supervisor the next one stops the Temporal server that was left, and goes on from its file', async () => {
  const temporal = pidOf('temporal');
  const [supervisor] = started;
  assert.ok(supervisor !== undefined && supervisor.kill('SIGKILL'));
  await once(supervisor, 'exit');
  assert.ok(isAlive(temporal), 'the server outlives its supervisor');
  assert.equal(findRunning(home), undefined);

  const next = await start();
  assert.ok(!isAlive(temporal));
  assert.notEqual(pidOf('temporal'), temporal);
  await until(isHealthy, (healthy) => healthy, PATIENCE);
  assert.ok((await stat(homePaths(home).temporalDatabase)).size > 0);

  const pids = readNote(home)?.children.map(({ identity }) => identity.pid) ?? [];
  assert.equal(pids.length, 4);
  next.kill('SIGTERM');
  const [code] = (await once(next, 'exit')) as [number];
  assert.equal(code, 0);
  assert.deepEqual(pids.filter(isAlive), [], 'a stop leaves nothing running');
  assert.ok(!existsSync(homePaths(home).lock) && !existsSync(homePaths(home).running));
});
