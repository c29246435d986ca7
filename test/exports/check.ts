/**
 * Every export in its own ecosystem: a LoRA student of the real SmolLM2-135M-Instruct is trained, exported in all formats
 * and asked the same twenty questions there as here. Greedy answers are compared token by token; of F16 and Q8_0 files
 * with those of our engine over the same file. Small random models of every architecture are asked one question each.
 *
 *   npm run check:exports [-- --keep FOLDER] [--json]
 *
 * Exits 1 when an export does not load, or gives fewer equal answers than REQUIRED says. The peers install themselves into
 * the cache: PyTorch with PEFT, onnxruntime (Python 3.11 with pip), llama.cpp (npm package node-llama-cpp).
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { peerEnvironment, pythonOf, type Peer } from '../../bench/peers/python.ts';
import { createAssets } from '../../src/assets/create-assets.ts';
import { readConfig } from '../../src/config.ts';
import { baseFacts } from '../../src/lm/export/base-model.ts';
import { exportModel, type ExportRequest } from '../../src/lm/export/export-model.ts';
import { openModel } from '../../src/lm/load.ts';
import { writeStudentFolder } from '../../src/training/export.ts';
import { exportArchitectures } from './architectures.ts';
import { greedyAnswers, MAX_NEW_TOKENS, MODEL, readPrompts, trainAdapter } from './answers.ts';

const run = promisify(execFile);
const HERE = fileURLToPath(new URL('.', import.meta.url));
const TORCH: Peer = { name: 'torch', requirement: 'peft==0.21.2', also: ['torch==2.15.0', 'transformers==5.23.0', 'gguf==0.19.0'], script: 'check_transformers.py' };
const ONNX: Peer = { name: 'onnxruntime', requirement: 'onnxruntime==1.32.0', also: ['numpy'], script: 'check_onnx.py' };
const LLAMA_VERSION = '3.22.1';

/**
 * Of twenty. llama.cpp rounds what it multiplies with F16 and Q8_0 weights to the same type, where we compute in float32: of
 * Q8_0 files the bytes are compared, with those that the package gguf writes, and the answers are only to be of the same kind.
 */
const REQUIRED: Readonly<Record<string, number>> = { 'gguf f16': 18, 'gguf q8_0': 10 };

export interface CheckResult {
  readonly name: string;
  readonly prompts: number;
  readonly same: number;
  readonly samePromptTokens?: number;
  readonly versions?: Readonly<Record<string, string>>;
}

const { values: options } = parseArgs({ options: { keep: { type: 'string' }, json: { type: 'boolean', default: false } } });
const say = (line: string): void => void process.stderr.write(`${line}\n`);
const lines = (stdout: string): CheckResult[] => stdout.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as CheckResult);

async function python(peer: Peer, folder: string): Promise<CheckResult[]> {
  const executable = await pythonOf(peer, say);
  const { stdout, stderr } = await run(executable, [join(HERE, peer.script), folder], { env: { ...peerEnvironment(), PYTHONDONTWRITEBYTECODE: '1' }, maxBuffer: 1 << 26 });
  if (stderr.includes(', prompt ')) say(stderr.split('\n').filter((line) => line.includes(', prompt ')).join('\n'));
  return lines(stdout);
}

/** The package without the builds for graphics cards, which are hundreds of megabytes. */
async function llamaPackage(cache: string): Promise<string> {
  const folder = join(cache, 'peers', `llama-${LLAMA_VERSION}`);
  const path = join(folder, 'node_modules', 'node-llama-cpp');
  if (!existsSync(path)) {
    say(`installing node-llama-cpp ${LLAMA_VERSION}`);
    mkdirSync(folder, { recursive: true });
    const packages = [`node-llama-cpp@${LLAMA_VERSION}`, ...(process.platform === 'linux' ? [`@node-llama-cpp/linux-${process.arch}@${LLAMA_VERSION}`] : [])];
    await run('npm', ['install', '--prefix', folder, '--ignore-scripts', '--no-save', ...(process.platform === 'linux' ? ['--omit=optional'] : []), ...packages]);
  }
  return path;
}

async function llama(folder: string, cache: string): Promise<CheckResult[]> {
  const { stdout, stderr } = await run(process.execPath, [join(HERE, 'check-llama.ts'), folder, await llamaPackage(cache)], { maxBuffer: 1 << 26 });
  if (stderr !== '') say(stderr.trim());
  return lines(stdout);
}

/** Trains, exports and answers; returns what the checks compare with. */
async function prepare(folder: string, cache: string): Promise<void> {
  const assets = createAssets(readConfig());
  const files = await assets.model(MODEL);
  const { path, license } = files;
  const adapter = join(folder, 'trained');
  const datasetSha256 = await trainAdapter(assets, cache, join(folder, 'work'), adapter);
  const provenance = { baseModel: MODEL, license, campaign: 'export-check', datasetSha256, ...(await baseFacts(files)) };
  const write = async (name: string, request: Pick<ExportRequest, 'format' | 'type'>, withAdapter = true): Promise<void> => {
    const from = performance.now();
    await exportModel({ ...request, path, provenance, ...(withAdapter ? { adapterPath: adapter } : {}) }, join(folder, name));
    say(`${name} written in ${((performance.now() - from) / 1_000).toFixed(1)} s`);
  };
  await write('base', { format: 'safetensors' }, false);
  await write('gguf-base', { format: 'gguf', type: 'f32' }, false);
  await write('peft', { format: 'peft' });
  await write('safetensors', { format: 'safetensors' });
  for (const type of ['f32', 'f16', 'q8_0']) await write(`gguf-${type}`, { format: 'gguf', type });
  await write('gguf-lora', { format: 'gguf-lora' });
  await write('onnx', { format: 'onnx' });
  const kept = { model: MODEL, keepLayers: 24 };
  const adapterOfKept = join(folder, 'trained-kept');
  await trainAdapter(assets, cache, join(folder, 'work'), adapterOfKept, kept);
  await writeStudentFolder({ model: files, student: kept, trained: { kind: 'adapter', adapterPath: adapterOfKept, sizeBytes: 0 }, provenance: { baseModel: MODEL, license } }, join(folder, 'kept'));
  const messages = await readPrompts(assets);
  using model = openModel(path);
  const work = join(folder, 'work');
  const gguf = (type: string): string => join(folder, `gguf-${type}`, `export-check.${type.toUpperCase()}.gguf`);
  const answers = {
    base: await greedyAnswers(path, cache, messages),
    tuned: await greedyAnswers(path, cache, messages, adapter),
    kept: await greedyAnswers(path, cache, messages, adapterOfKept, kept),
    f16: await greedyAnswers(gguf('f16'), work, messages),
    q8_0: await greedyAnswers(gguf('q8_0'), work, messages),
  };
  const changed = answers.base.filter((answer, i) => JSON.stringify(answer) !== JSON.stringify(answers.tuned[i])).length;
  say(`the adapter changes ${changed} of ${messages.length} answers`);
  if (changed === 0) throw new Error('expected an adapter that changes an answer, got one that changes none: nothing would be tested');
  const prompts = messages.map((chat) => model.tokenizer.renderChat(chat, { openAssistantTurn: true }));
  const promptIds = messages.map((chat) => model.tokenizer.encodeChat(chat, { openAssistantTurn: true }));
  writeFileSync(join(folder, 'answers.json'), JSON.stringify({ maxNewTokens: MAX_NEW_TOKENS, endIds: model.tokenizer.endIds, messages, prompts, promptIds, answers, architectures: await exportArchitectures(join(folder, 'architectures')) }));
}

const { cache } = readConfig();
const folder = options.keep ?? mkdtempSync(join(tmpdir(), 'stillhouse-exports-'));
try {
  const from = performance.now();
  if (!existsSync(join(folder, 'answers.json'))) await prepare(folder, cache);
  const results = [...(await python(TORCH, folder)), ...(await python(ONNX, folder)), ...(await llama(folder, cache))];
  const failed = results.filter(({ name, same, prompts, samePromptTokens }) => same < (REQUIRED[name] ?? prompts) || (samePromptTokens ?? prompts) < prompts);
  if (options.json) process.stdout.write(`${JSON.stringify({ results, failed: failed.map(({ name }) => name), seconds: (performance.now() - from) / 1_000 }, undefined, 2)}\n`);
  else {
    for (const { name, same, prompts, samePromptTokens } of results) process.stdout.write(`${String(same).padStart(4)} of ${prompts}  ${name}${samePromptTokens === undefined ? '' : `; prompts encoded alike: ${samePromptTokens}`}\n`);
    process.stdout.write(`${failed.length === 0 ? 'all as they should be' : `not as it should be: ${failed.map(({ name }) => name).join(', ')}`}, ${((performance.now() - from) / 1_000).toFixed(0)} s\n`);
  }
  process.exitCode = failed.length === 0 ? 0 : 1;
} finally {
  if (options.keep === undefined) rmSync(folder, { recursive: true, force: true });
}
