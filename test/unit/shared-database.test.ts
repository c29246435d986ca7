/** A SQLite file that several processes open for the first time at once, as workers do that start together. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { temporaryFolder } from '../support/folder.ts';

const OPENERS = 6;
const FILES = 40;

/** Opens each file when all others are about to; says what went wrong. */
const OPENER = `
  const { parentPort, workerData: { module, folder, turns, openers, files } } = require('node:worker_threads');
  (async () => {
    const { openShared } = await import(module);
    const arrived = new Int32Array(turns);
    const problems = [];
    for (let file = 0; file < files; file += 1) {
      Atomics.add(arrived, file, 1);
      while (Atomics.load(arrived, file) < openers);
      try {
        openShared(folder + '/' + file + '.sqlite').close();
      } catch (error) {
        problems.push(String(error));
      }
    }
    parentPort.postMessage(problems);
  })();
`;

test('is opened by all of them', async () => {
  const folder = temporaryFolder();
  const turns = new SharedArrayBuffer(4 * FILES);
  const workerData = { module: new URL('../../src/ledger/schema.ts', import.meta.url).href, folder, turns, openers: OPENERS, files: FILES };
  const problems = await Promise.all(Array.from({ length: OPENERS }, () => new Promise<readonly string[]>((resolve, reject) => {
    new Worker(OPENER, { eval: true, workerData }).once('message', resolve).once('error', reject);
  })));
  assert.deepEqual(problems.flat(), []);
});
