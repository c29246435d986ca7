/** What will not fit is refused before it is tried, with the numbers. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { ModelConfig } from '../../src/lm/config.ts';
import { freeMemory } from '../../src/training/free-memory.ts';
import { checkMemory, checkTime, duration, estimateMemory, secondsPerStep } from '../../src/training/preflight.ts';
import { temporaryFolder } from '../support/folder.ts';
import { trainingSpec } from '../support/training-runs.ts';

const config: ModelConfig = {
  architecture: 'llama', layers: 30, hiddenSize: 576, attentionHeads: 9, keyValueHeads: 3, headSize: 64, feedForwardSize: 1536, vocabularySize: 49_152,
  normEpsilon: 1e-5, rotary: { base: 1e5 }, tiedEmbeddings: true, maxPositions: 8192,
};
const samples = [{ id: 'a', ids: Array.from({ length: 400 }, () => 1), responseStart: 300 }];

function machine(files: Readonly<Record<string, string>>): string {
  const root = temporaryFolder();
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  }
  return root;
}
const MEMINFO = { 'proc/meminfo': 'MemTotal:       16000000 kB\nMemFree:  1000000 kB\nMemAvailable:    8000000 kB\n' };
const REFUSED = (message: RegExp) => (error: unknown) => error instanceof StillhouseError && error.code === 'TOO_LARGE' && message.test(error.message);

test('without a container the machine’s available memory counts', () => {
  assert.deepEqual(freeMemory(machine(MEMINFO)), { freeBytes: 8_000_000 * 1024, of: 'machine' });
  const unlimited = machine({ ...MEMINFO, 'proc/self/cgroup': '0::/a\n', 'sys/fs/cgroup/a/memory.max': 'max\n', 'sys/fs/cgroup/a/memory.current': '1000\n' });
  assert.equal(freeMemory(unlimited).of, 'machine');
  assert.ok(freeMemory().freeBytes > 0);
});

test('in a container the tightest limit above it counts, file cache that may be dropped as free', () => {
  const root = machine({
    ...MEMINFO,
    'proc/self/cgroup': '0::/pod/app\n',
    'sys/fs/cgroup/pod/memory.max': '4000000000\n',
    'sys/fs/cgroup/pod/memory.current': '3000000000\n',
    'sys/fs/cgroup/pod/memory.stat': 'anon 1\ninactive_file 1500000000\n',
    'sys/fs/cgroup/pod/app/memory.max': 'max\n',
    'sys/fs/cgroup/pod/app/memory.current': '3000000000\n',
  });
  assert.deepEqual(freeMemory(root), { freeBytes: 2_500_000_000, of: 'container' });
});

test('a run that does not fit is refused with what it needs and what is free', () => {
  const training = trainingSpec({ batchSize: 8, maxTokens: 512 });
  const estimate = estimateMemory({ config, training }, samples);
  assert.equal(estimate.rowTokens, 512);
  assert.equal(estimateMemory({ config, training: trainingSpec({ batchSize: 1, maxTokens: 512 }) }, samples).rowTokens, 400);
  assert.doesNotThrow(() => checkMemory(estimate, { freeBytes: 100e9, of: 'machine' }));
  assert.throws(() => checkMemory(estimate, { freeBytes: 1e8, of: 'machine' }), REFUSED(/fits the 0\.1 GB of memory that are free on this machine, got one of about \d+\.\d GB \(\d+\.\d for a step of 512 tokens, 0\.0 for what is trained/));
  assert.throws(() => checkMemory(estimate, { freeBytes: 1e8, of: 'container' }), REFUSED(/that the container's limit leaves/));
});

test('training all weights needs their gradients and moments too, and a copy of the best', () => {
  const all = 134_515_008;
  const { trainedBytes } = estimateMemory({ config, training: trainingSpec({ tune: 'full' }) }, samples);
  assert.equal(trainedBytes, 4 * all * 4);
  assert.equal(estimateMemory({ config, training: trainingSpec({ tune: 'full', development: {} }) }, samples).trainedBytes, 4 * all * 5);
});

test('a run that would outlast what is left is refused after a few measured steps', () => {
  assert.equal(secondsPerStep([9, 2, 4], { writingSeconds: 0, forSteps: 1 }), 3);
  assert.equal(secondsPerStep([9, 2, 4], { writingSeconds: 20, forSteps: 10 }), 5, 'what a student writes is shared by the steps that learn from it');
  assert.doesNotThrow(() => checkTime({ secondsPerStep: 2, steps: 1_800 }, 3_600));
  assert.throws(() => checkTime({ secondsPerStep: 2.5, steps: 7_200 }, 3_600), REFUSED(/expected 7200 steps in the 60 min that are left, got about 5\.0 h \(2\.5 s a step, measured\)/));
  assert.deepEqual([12, 90, 3_600, 7_200].map(duration), ['12 s', '2 min', '60 min', '2.0 h']);
});
