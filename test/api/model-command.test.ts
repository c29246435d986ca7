/** `still model …` as its user runs it, on a tiny random model. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { temporaryFolder } from '../support/folder.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const STILL = fileURLToPath(new URL('../../src/cli/still.ts', import.meta.url));
const folder = temporaryFolder();
const tiny = writeTinyLlama(join(folder, 'tiny'));

function still(args: readonly string[], environment: Record<string, string> = {}): Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }> {
  const env = { ...process.env, STILLHOUSE_CACHE: join(folder, 'cache'), STILLHOUSE_HOME: join(folder, 'home'), STILLHOUSE_THREADS: '1', ...environment };
  const child = spawn(process.execPath, [STILL, 'model', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr })));
}
async function document<T>(args: readonly string[]): Promise<T> {
  const { code, stdout, stderr } = await still([...args, '--json']);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as T;
}

test('inspect tells what a model is, file by file', async () => {
  const told = await document<{ architecture: string; layers: number; parameters: number; vocabularySize: number; chatTemplate: boolean; files: { name: string; sha256: string }[]; memory: { cacheBytesPerToken: number } }>(['inspect', tiny]);
  assert.deepEqual([told.architecture, told.layers, told.vocabularySize, told.chatTemplate], ['llama', 2, 259, true]);
  const weights = told.files.find(({ name }) => name === 'model.safetensors');
  assert.equal(weights?.sha256, createHash('sha256').update(readFileSync(join(tiny, 'model.safetensors'))).digest('hex'));
  assert.ok(told.files.some(({ name }) => name === 'tokenizer.json'));
  assert.equal(told.memory.cacheBytesPerToken, 4 * 2 * 2 * 2 * 8);
  assert.match((await still(['inspect', tiny])).stdout, /architecture +llama\n/);
});

interface Logits {
  readonly results: readonly { readonly tokens: number; readonly positions: readonly { readonly id: number; readonly logProb: number | null; readonly next: readonly { readonly id: number; readonly logProb: number }[] }[] }[];
}
interface TextScore {
  readonly results: readonly { readonly tokens: number; readonly logProb: number; readonly perplexity: number | null }[];
}

test('logits and score agree on the probability of a text', async () => {
  const { results } = await document<Logits>(['logits', tiny, '--prompt', 'hello', '--all', '--top', '259']);
  const positions = results[0]?.positions ?? [];
  assert.equal(positions.length, 5);
  positions.slice(1).forEach(({ id, logProb }, i) => {
    const listed = positions[i]?.next.find((candidate) => candidate.id === id);
    assert.ok(Math.abs((listed?.logProb ?? NaN) - (logProb ?? NaN)) < 1e-5);
  });
  for (const { next } of positions) {
    assert.ok(Math.abs(next.reduce((sum, { logProb }) => sum + Math.exp(logProb), 0) - 1) < 1e-4);
    assert.ok(next.every(({ logProb }, i) => i === 0 || logProb <= (next[i - 1]?.logProb ?? NaN)));
  }
  const scores = await document<TextScore>(['score', tiny, '--prompt', 'hello']);
  const sum = positions.slice(1).reduce((total, { logProb }) => total + (logProb ?? NaN), 0);
  assert.ok(Math.abs((scores.results[0]?.logProb ?? NaN) - sum) < 1e-4);
  assert.ok(Math.abs((scores.results[0]?.perplexity ?? NaN) - Math.exp(-sum / 4)) < 0.1);
});

test('score compares labels', async () => {
  const { results } = await document<{ results: { labels: { label: string; share: number }[] }[] }>(['score', tiny, '--chat', 'Good?', '--label', 'yes', '--label', 'no']);
  assert.deepEqual(results[0]?.labels.map(({ label }) => label), ['yes', 'no']);
  assert.ok(Math.abs((results[0]?.labels.reduce((sum, { share }) => sum + share, 0) ?? 0) - 1) < 1e-9);
});

test('generate answers prompts of the command line and of a file, reproducibly by seed', async () => {
  const input = join(folder, 'prompts.jsonl');
  writeFileSync(input, '{"text": "one"}\n\n{"messages": [{"role": "user", "content": "two"}]}\n');
  const args = ['generate', tiny, '--prompt', 'zero', '--input', input, '--max-tokens', '6', '--temperature', '1', '--seed', '4', '--top-k', '50', '--min-p', '0.001'];
  const first = await document<{ results: { tokens: number[] }[] }>(args);
  assert.equal(first.results.length, 3);
  assert.deepEqual((await document<typeof first>(args)).results, first.results);
  const { stdout, code } = await still(['generate', tiny, '--prompt', 'zero', '--max-tokens', '3']);
  assert.equal(code, 0);
  assert.ok(stdout.endsWith('\n'));
});

test('wrong use is told apart from failure, each in one message', async () => {
  const bad = join(folder, 'bad.jsonl');
  writeFileSync(bad, '{"text": "fine"}\n{"prompt": "x"}\n');
  const cases: [string[], RegExp][] = [
    [['generate', tiny], /expected a prompt/],
    [['generate', tiny, '--prompt', 'a', '--top-p', '2'], /expected a number above 0 and up to 1, got "2"/],
    [['generate', tiny, '--prompt', 'a', '--system', 'b'], /--system: expected --chat/],
    [['score', tiny, '--input', bad], /bad\.jsonl:2: expected \{"text"/],
    [['inspect'], /missing required argument 'model'/],
  ];
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await still(args);
    assert.deepEqual([code, stdout], [2, ''], `${args.join(' ')}: ${stderr}`);
    assert.match(stderr, message);
  }
  const cuda = await still(['generate', tiny, '--prompt', 'a'], { STILLHOUSE_EXECUTION_PROVIDERS: 'cuda,cpu' });
  // A host that has it runs the model.
  if (cuda.code !== 0) assert.match(cuda.stderr, /execution providers \[cuda, cpu\]: expected this machine to have cuda/);
  const unknown = await still(['inspect', join(folder, 'nothing')]);
  assert.equal(unknown.code, 1);
  assert.equal(unknown.stderr.trim().split('\n').length, 1);
});
