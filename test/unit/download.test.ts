import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { download, reasonOf } from '../../src/assets/download.ts';
import type { DownloadRequest } from '../../src/assets/download.ts';
import { isVerified, storageError } from '../../src/assets/files.ts';
import { isAlive, identityOf, tryLock, withLock } from '../../src/assets/lock.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { startFileServer } from '../support/file-server.ts';
import type { FileServer } from '../support/file-server.ts';
import { temporaryFolder } from '../support/folder.ts';
import { freePort } from '../support/free-port.ts';

const body = randomBytes(400_000);
const sha256 = createHash('sha256').update(body).digest('hex');
let server: FileServer;
let folder: string;

before(async () => {
  server = await startFileServer();
});
after(() => server[Symbol.asyncDispose]());
beforeEach(async () => {
  folder = temporaryFolder();
  server.files.clear();
  server.requests.length = 0;
});

const request = (extra: Partial<DownloadRequest> = {}): DownloadRequest => ({
  name: 'weights', url: `${server.url}/w`, target: join(folder, 'w'), sha256, sizeBytes: body.length, retryDelayMs: 1, ...extra,
});
const failsWith = (code: string, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof StillhouseError);
  assert.equal(error.code, code);
  assert.match(error.message, message);
  return true;
};

test('a cut connection is continued where it broke, by ranges', async () => {
  server.files.set('/w', { body, faults: ['cut', 'cut', 503] });
  const seen: number[] = [];
  assert.equal(await download(request({ onProgress: (done) => seen.push(done) })), sha256);
  assert.deepEqual(await readFile(join(folder, 'w')), body);
  assert.equal(server.requests.length, 4);
  assert.deepEqual(server.requests.slice(1), ['GET /w bytes=200000-', 'GET /w bytes=300000-', 'GET /w bytes=300000-']);
  assert.equal(seen.at(-1), body.length);
});

test('a part that an earlier process left is continued', async () => {
  server.files.set('/w', { body });
  await writeFile(join(folder, 'w.part'), body.subarray(0, 123_456));
  await download(request());
  assert.deepEqual(server.requests, ['GET /w bytes=123456-']);
});

test('a server without ranges is read from the start', async () => {
  server.files.set('/w', { body, faults: ['cut', 'ignore-range'] });
  await download(request());
  assert.deepEqual(await readFile(join(folder, 'w')), body);
});

test('a wrong byte is CORRUPT, and nothing of it stays', async () => {
  server.files.set('/w', { body, faults: ['wrong-byte'] });
  await assert.rejects(download(request()), failsWith('CORRUPT', /expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}/));
  assert.ok(!existsSync(join(folder, 'w')) && !existsSync(join(folder, 'w.part')));
});

test('a leftover that belongs to another file is dropped and everything fetched anew', async () => {
  server.files.set('/w', { body });
  await writeFile(join(folder, 'w.part'), randomBytes(1_000));
  await download(request());
  assert.deepEqual(server.requests, ['GET /w bytes=1000-', 'GET /w']);
  assert.deepEqual(await readFile(join(folder, 'w')), body);
});

test('a leftover that is complete already is accepted', async () => {
  server.files.set('/w', { body });
  await writeFile(join(folder, 'w.part'), body);
  await download(request());
  assert.deepEqual(server.requests, [`GET /w bytes=${body.length}-`]);
});

test('refusals are told apart: missing, no right, away', async () => {
  await assert.rejects(download(request()), failsWith('NOT_FOUND', /HTTP 404/));
  server.files.set('/w', { body, authorization: 'Bearer x' });
  await assert.rejects(download(request()), failsWith('UNAUTHORIZED', /HTTP 401/));
  server.files.set('/w', { body, faults: [500, 500, 500] });
  await assert.rejects(download(request({ maxFruitlessAttempts: 3 })), failsWith('UNAVAILABLE', /HTTP 500/));
  await assert.rejects(download(request({ url: 'http://127.0.0.1:1/w', maxFruitlessAttempts: 1 })), failsWith('UNAVAILABLE', /weights/));
});

test('an abort ends it as CANCELLED', async () => {
  const controller = new AbortController();
  server.files.set('/w', { body, faults: ['cut'] });
  await assert.rejects(download(request({ signal: controller.signal, onProgress: () => controller.abort() })), failsWith('CANCELLED', /stopped/));
});

test('a full disk is DISK_FULL with the path', () => {
  const error = storageError(Object.assign(new Error('write'), { code: 'ENOSPC' }), '/x/y');
  assert.ok(error instanceof StillhouseError && error.code === 'DISK_FULL' && error.message.includes('/x/y'));
  const other = new Error('other');
  assert.equal(storageError(other, '/x'), other);
});

test('a verified file that was changed afterwards is no longer believed', async () => {
  server.files.set('/w', { body });
  await download(request());
  assert.ok(await isVerified(join(folder, 'w'), sha256));
  await writeFile(join(folder, 'w'), 'other');
  assert.ok(!(await isVerified(join(folder, 'w'), sha256)));
});

test('the lock lets one in at a time, and a dead holder does not keep it', async () => {
  const path = join(folder, 'locks', 'x.lock');
  let inside = 0;
  let most = 0;
  await Promise.all(
    Array.from({ length: 6 }, () =>
      withLock(path, async () => {
        inside += 1;
        most = Math.max(most, inside);
        await new Promise((resolve) => setTimeout(resolve, 5));
        inside -= 1;
      }),
    ),
  );
  assert.equal(most, 1);

  const held = await tryLock(path);
  assert.ok('release' in held);
  const refused = await tryLock(path);
  assert.ok('holder' in refused && refused.holder.pid === process.pid);
  await held.release();

  await mkdir(join(folder, 'locks'), { recursive: true });
  // The right number, another start: the process that wrote it is gone.
  await writeFile(path, JSON.stringify({ pid: process.pid, startTicks: '1' }));
  const taken = await tryLock(path);
  assert.ok('release' in taken);
  await taken.release();
  assert.ok(isAlive(identityOf(process.pid) ?? { pid: -1 }));
});

test('a request that got no answer says why', async () => {
  const port = await freePort();
  const reason = await fetch(`http://127.0.0.1:${port}/`).catch(reasonOf);
  assert.equal(reason, `fetch failed: connect ECONNREFUSED 127.0.0.1:${port}`);
  assert.equal(reasonOf('odd'), 'odd');
});
