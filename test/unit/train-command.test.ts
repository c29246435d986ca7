/** `still train`: a student from a file of rows, killed and started again, and what is wrong with its input. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readAdapter } from '../../src/lm/adapter.ts';
import { readCheckpointState } from '../../src/training/checkpoint.ts';
import { temporaryFolder, writeRows } from '../support/folder.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const STILL = fileURLToPath(new URL('../../src/cli/still.ts', import.meta.url));
const folder = temporaryFolder();
const environment = { ...process.env, STILLHOUSE_CACHE: join(folder, 'cache'), STILLHOUSE_HOME: join(folder, 'home'), STILLHOUSE_THREADS: '1' };
const file = join(folder, 'train.yaml');

before(() => {
  writeTinyLlama(join(folder, 'model'));
  writeTinyLlama(join(folder, 'teacher'), 8);
  const pairs = Array.from({ length: 40 }, (_, i) => ({ input: `text ${i}`, output: i % 2 === 0 ? 'even' : 'odd' }));
  const chat = { messages: [{ role: 'user', content: 'one?' }, { role: 'assistant', content: 'odd' }, { role: 'user', content: 'two?' }, { role: 'assistant', content: 'even' }] };
  writeRows(join(folder, 'rows.jsonl'), [...pairs, chat]);
  writeFileSync(file, [
    'student: { model: ./model }',
    'dataset: rows.jsonl',
    'instruction: "Text: {input}\\nKind:"',
    'training: { epochs: 2, batchSize: 1, learningRate: 0.01, maxTokens: 128, checkpointEverySteps: 10, development: { share: 0.1, everySteps: 20 } }',
    'out: out',
  ].join('\n'));
});

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}
const still = (...args: readonly string[]): Promise<Ended> =>
  new Promise((resolve) => {
    execFile(process.execPath, [STILL, 'train', ...args], { env: environment, cwd: folder }, (error, stdout, stderr) => resolve({ code: typeof error?.code === 'number' ? error.code : error === null ? 0 : 1, stdout, stderr }));
  });
const hashOf = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');

/** Starts the command and kills it when a line of its output matches. */
function killAt(line: RegExp, ...args: readonly string[]): Promise<void> {
  const child = spawn(process.execPath, [STILL, 'train', ...args], { env: environment, cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.on('data', (text: Buffer) => {
    said += text.toString();
    if (line.test(said)) child.kill('SIGKILL');
  });
  return new Promise((resolve, reject) => child.once('exit', (_code, signal) => (signal === 'SIGKILL' ? resolve() : reject(new Error(`it ended before it was killed: ${said}`)))));
}

describe('still train', () => {
  test('a training of one step learns', async () => {
    writeRows(join(folder, 'two.jsonl'), [{ input: 'text 0', output: 'even' }, { input: 'text 1', output: 'odd' }]);
    const ended = await still('--json', '--student', './model', '--dataset', 'two.jsonl', '--out', 'one-step', '--set', 'training.batchSize=2', '--set', 'training.epochs=1');
    assert.equal(ended.code, 0, ended.stderr);
    const { steps, student } = JSON.parse(ended.stdout) as { readonly steps: number; readonly student: string };
    assert.equal(steps, 1);
    for (const [name, { b }] of readAdapter(student).pairs) assert.ok(b.values.some((value) => value !== 0), name);
  });

  test('trains, and killed twice ends in the same checkpoint and student bitwise', async () => {
    const whole = await still(file, '--json', '--out', 'whole');
    assert.equal(whole.code, 0, whole.stderr);
    const result = JSON.parse(whole.stdout) as { readonly kind: string; readonly student: string; readonly steps: number; readonly best: { readonly developmentNats: number }; readonly resumedAt: number };
    assert.deepEqual([result.kind, result.steps, result.resumedAt], ['adapter', 72, 0]); // 36 of the 41 rows, twice
    assert.ok(readAdapter(result.student).pairs.size > 0);
    assert.match(whole.stderr, /memory: about .* of the .* that/);
    assert.match(whole.stderr, /step 20: development loss/);

    await killAt(/step 20 of 36.*checkpoint/, file);
    const { curve } = readCheckpointState(join(folder, 'out', 'checkpoint.safetensors'));
    assert.ok(curve.length >= 20 && curve.length < 72, `${curve.length} steps at the kill`);
    await killAt(/epoch 2 of 2, step 20 of 36.*checkpoint/, file);
    const ended = await still(file, '--json');
    assert.equal(ended.code, 0, ended.stderr);
    assert.ok((JSON.parse(ended.stdout) as { readonly resumedAt: number }).resumedAt >= 56);
    for (const name of ['checkpoint.safetensors', 'loss-curve.jsonl', 'student/adapter_model.safetensors']) {
      assert.equal(hashOf(join(folder, 'out', name)), hashOf(join(folder, 'whole', name)), name);
    }
    assert.ok(!existsSync(join(folder, 'out', 'unfinished')));
  });

  test('a folder of another run is left alone, and what differs is named', async () => {
    const { code, stderr } = await still(file, '--out', 'whole', '--set', 'training.epochs=3');
    assert.equal(code, 2);
    assert.match(stderr, /whole: expected a new folder or one of the same run, got one whose training was /);
  });

  test('options alone are enough, and a mistake is named by its path', async () => {
    const trained = await still('--student', './model', '--dataset', 'rows.jsonl', '--out', 'flags', '--set', 'training.epochs=1', '--set', 'training.tune=full', '--set', 'training.maxTokens=128', '--set', 'training.batchSize=16', '--set', 'student.keepLayers=1', '--json');
    assert.equal(trained.code, 0, trained.stderr);
    assert.equal((JSON.parse(trained.stdout) as { readonly kind: string }).kind, 'model');
    assert.equal((JSON.parse(readFileSync(join(folder, 'flags', 'student', 'config.json'), 'utf8')) as { readonly num_hidden_layers: number }).num_hidden_layers, 1);
    const wrong = await still(file, '--set', 'training.epoch=1');
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /training\.epoch: expected one of the keys .*epochs/);
  });

  test('a model in a folder beside the file teaches what it stored of itself, and says how much that is', async () => {
    const spec = join(folder, 'learn.yaml');
    const lines = ['student: { model: ./model }', 'dataset: rows.jsonl', 'training:', '  { method: logit, teacher: { model: ./teacher }, logit: { targets: offline, topK: 20, minMass: 0 }, epochs: 2, batchSize: 8, maxTokens: 128 }', 'out: learned'];
    writeFileSync(spec, lines.join('\n'));
    const { code, stdout, stderr } = await still(spec, '--json');
    assert.equal(code, 0, stderr);
    const { stored } = JSON.parse(stdout) as { readonly stored: { readonly tokens: number; readonly sizeBytes: number } };
    assert.ok(stored.tokens > 41 * 3 && stored.sizeBytes / stored.tokens < 120, JSON.stringify(stored));
    assert.equal(stderr.match(new RegExp(`the teacher has read 41 rows: ${stored.tokens} tokens of answers, ${(stored.sizeBytes / stored.tokens).toFixed(1)} bytes a token are stored`, 'g'))?.length, 1, stderr);
    writeFileSync(spec, lines.join('\n').replace('teacher: { model: ./teacher }, ', '').replace('offline, topK: 20, minMass: 0', 'online'));
    assert.match((await still(spec, '--out', 'none')).stderr, /training\.teacher: expected a model to learn from with method: logit, as in teacher: \{ model: … \}, got none/);
  });

  test('a row that is none is named by its file and line', async () => {
    writeFileSync(join(folder, 'bad.jsonl'), '{"input": "a", "output": "b"}\n{"input": "a"}\n');
    const { code, stderr } = await still(file, '--dataset', 'bad.jsonl', '--out', 'bad');
    assert.equal(code, 2);
    assert.match(stderr, /bad\.jsonl:2: expected \{"messages": .*\} or \{"input": "…", "output": "…"\}, got/);
    assert.match((await still(file, '--dataset', 'none.jsonl', '--out', 'bad')).stderr, /expected a readable file, got .*none\.jsonl/);
  });
});
