/**
 * `npm run bench -- train [--json] [--pairs N] [--case NAME]`: our LoRA training beside PyTorch + PEFT on the same
 * weights, initial adapter, rows, order and threads. Both programs are up at once and take turns; tokens a second count
 * the rows' own tokens, not padding, and not less where a shared prefix is computed once. Memory is the highest
 * resident memory of each process from its first step on, pages of mapped weight files included.
 */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createAssets } from '../src/assets/create-assets.ts';
import { readConfig } from '../src/config.ts';
import { campaignSpecSchema } from '../src/contracts/campaign-spec.ts';
import type { ModelConfig, WeightFile } from '../src/lm/config.ts';
import { loadModel } from '../src/lm/load.ts';
import { encodeSafetensors } from '../src/lm/weights/safetensors.ts';
import type { TrainingSample } from '../src/training/packing.ts';
import { tensorView } from '../src/training/parameters.ts';
import { permutation, RANDOM_STREAM, randomStream } from '../src/training/random.ts';
import { trainableOf } from '../src/training/trainable.ts';
import { peerEnvironment, pythonOf } from './peers/python.ts';
import type { Peer } from './peers/python.ts';
import { openRandomModel, writeRandomModel } from './peers/random-model.ts';
import type { ShapeName } from './peers/random-model.ts';
import { startProgram } from './peers/turns.ts';
import type { Program, TrainingTask, Turn } from './peers/turns.ts';

const THREADS = 2;
const SEED = 17;
const MODEL = 'smollm2-135m-instruct';
const PEER: Peer = { name: 'torch', requirement: 'peft==0.21.2', also: ['torch==2.15.0', 'transformers==5.23.0', 'gguf==0.19.0'], script: 'train.py' };

interface Case {
  readonly name: string;
  readonly model: typeof MODEL | ShapeName;
  /** Is the peer measured too? Models that need most of the machine are shown alone. */
  readonly beside: boolean;
  readonly batchSize: number;
  readonly padTo: number;
  readonly warmUpSteps: number;
  readonly stepsPerTurn: number;
  readonly samples: (count: number) => Promise<readonly TrainingSample[]>;
}

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false }, pairs: { type: 'string', default: '5' }, case: { type: 'string' } } });
const pairs = Number(values.pairs);
const say = (line: string): void => void process.stderr.write(`${line}\n`);
const { cache, hub } = readConfig();
const assets = createAssets({ cache, hub });

async function chats(count: number): Promise<readonly TrainingSample[]> {
  const reviews = readFileSync(await assets.dataset('catalogue:hutto-reviews-gold'), 'utf8').split('\n').filter((line) => line !== '').slice(0, count).map((line) => JSON.parse(line) as { input: string; gold: string });
  const { tokenizer } = await loadModel({ path: (await assets.model(MODEL)).path, cache });
  return reviews.map(({ input, gold }, i) => ({ id: `row-${i}`, ...tokenizer.encodeForTraining([{ role: 'user', content: `Review: ${input}\nSentiment:` }, { role: 'assistant', content: gold }]) }));
}
/** Text cut every `length` tokens, all of it to be learned. */
async function blocks(count: number, length: number): Promise<readonly TrainingSample[]> {
  const ids = (await chats(Infinity)).flatMap((sample) => sample.ids);
  return Array.from({ length: count }, (_, i) => ({ id: `block-${i}`, ids: ids.slice(i * length, (i + 1) * length), responseStart: 1 }));
}
const FIXED = { batchSize: 4, padTo: 0, samples: (count: number) => blocks(count, 128) } as const;
const CASES: readonly Case[] = [
  { name: 'fixed-4x128', model: MODEL, beside: true, warmUpSteps: 2, stepsPerTurn: 3, ...FIXED },
  { name: 'chats-padded-to-longest', model: MODEL, beside: true, batchSize: 8, padTo: 0, warmUpSteps: 3, stepsPerTurn: 4, samples: chats },
  { name: 'chats-padded-to-512', model: MODEL, beside: true, batchSize: 8, padTo: 512, warmUpSteps: 1, stepsPerTurn: 1, samples: chats },
  { name: 'vocabulary-152k-4x128', model: 'qwen2.5-0.5b', beside: true, warmUpSteps: 1, stepsPerTurn: 1, ...FIXED },
  { name: '1.5b-4x128', model: 'qwen2.5-1.5b', beside: false, warmUpSteps: 1, stepsPerTurn: 1, ...FIXED },
];

async function modelOf({ model, name }: Case, folder: string): Promise<{ readonly path: string; readonly config: ModelConfig; readonly weights: WeightFile }> {
  if (model === MODEL) {
    const { path } = await assets.model(MODEL);
    return { path, ...(await loadModel({ path, cache })) };
  }
  const path = join(folder, name);
  say(`${name}: writing random weights of ${model}`);
  writeRandomModel(path, model, SEED);
  return { path, ...openRandomModel(path) };
}

async function taskOf(measured: Case, folder: string): Promise<TrainingTask> {
  const { batchSize, padTo } = measured;
  const { path: modelPath, config, weights } = await modelOf(measured, folder);
  // One step more than is taken: the epoch does not end while turns remain.
  const samples = await measured.samples((measured.warmUpSteps + pairs * measured.stepsPerTurn + 1) * batchSize);
  const training = campaignSpecSchema.shape.training.parse({ epochs: 1, batchSize, learningRate: 1e-3, schedule: 'constant', warmupRatio: 0, weightDecay: 0.01, lora: { r: 16, alpha: 32, dropout: 0, targets: ['q_proj', 'v_proj'] } });
  const { layout, initial } = trainableOf(config, training);
  const adapter = initial(weights, SEED);
  const adapterPath = join(folder, `${measured.name}.safetensors`);
  await writeFile(adapterPath, encodeSafetensors(layout.tensors.map((tensor) => ({ name: tensor.name, shape: tensor.shape, values: tensorView(adapter, tensor) }))));
  const order = permutation(samples.length, randomStream(SEED, RANDOM_STREAM.dataOrder, 0));
  return { modelPath, adapterPath, threads: THREADS, seed: SEED, training, samples, order: [...order], padTo };
}

const median = (numbers: readonly number[]): number => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? NaN;
const rounded = (value: number): number => Math.round(value * 1_000) / 1_000;
const spread = (numbers: readonly number[]) => ({ median: rounded(median(numbers)), lowest: rounded(Math.min(...numbers)), highest: rounded(Math.max(...numbers)) });
const mebibytes = (bytes: readonly number[]): number => Math.round(Math.max(...bytes) / 2 ** 20);

/** Turns of one program, with the rows' own tokens of each, and the rate of each. */
function summary(turns: readonly Turn[], rowTokens: readonly number[]) {
  const rates = turns.map((turn, pair) => (rowTokens[pair] ?? NaN) / turn.seconds);
  const costs = turns.map((turn, pair) => turn.processorSeconds / (rowTokens[pair] ?? NaN));
  return {
    rates,
    costs,
    tokensPerSecond: spread(rates),
    processorMsPerToken: spread(costs.map((seconds) => 1_000 * seconds)),
    computedTokens: turns.reduce((sum, turn) => sum + turn.computedTokens, 0),
    peakRssMiB: mebibytes(turns.map((turn) => turn.peakRssBytes)),
    loadingPeakRssMiB: mebibytes(turns.map((turn) => turn.loadingPeakRssBytes)),
    lossNats: turns.flatMap((turn) => turn.lossNats.map(rounded)),
  };
}

/** What each of `programs` took for its turns, in alternation after a warm-up. */
async function takeTurns(programs: readonly Program[], { warmUpSteps, stepsPerTurn }: Case): Promise<readonly (readonly Turn[])[]> {
  const turns = programs.map((): Turn[] => []);
  for (const program of programs) await program.take(warmUpSteps);
  for (let pair = 0; pair < pairs; pair += 1) {
    const order = programs.map((_, i) => i);
    for (const i of pair % 2 === 0 ? order : order.toReversed()) turns[i]?.push(await (programs[i] as Program).take(stepsPerTurn));
  }
  return turns;
}

async function measure(measured: Case, python: string, folder: string) {
  const { name, batchSize, padTo, stepsPerTurn, warmUpSteps } = measured;
  const task = await taskOf(measured, folder);
  const file = join(folder, `${name}.json`);
  await writeFile(file, JSON.stringify(task));
  const peers = join(import.meta.dirname, 'peers');
  await using programs = new AsyncDisposableStack();
  const started = [programs.use(startProgram('stillhouse', process.execPath, [join(peers, 'train.ts'), file], process.env))];
  if (measured.beside) started.push(programs.use(startProgram('peft', python, [join(peers, PEER.script), file], peerEnvironment())));
  const [mine = [], theirs] = await takeTurns(started, measured);
  const rowsPerTurn = stepsPerTurn * batchSize;
  const rowTokens = Array.from({ length: pairs }, (_, pair) => {
    const start = warmUpSteps * batchSize + pair * rowsPerTurn;
    return task.order.slice(start, start + rowsPerTurn).reduce((sum, i) => sum + (task.samples[i]?.ids.length ?? 0), 0);
  });
  const { rates, costs, ...stillhouse } = summary(mine, rowTokens);
  const common = { case: name, model: measured.model, batchSize, padTo, stepsPerTurn, pairs, rowTokens: rowTokens.reduce((sum, count) => sum + count, 0), stillhouse };
  if (theirs === undefined) {
    say(`${name}: ${stillhouse.tokensPerSecond.median} tokens/s, ${stillhouse.peakRssMiB} MiB`);
    return common;
  }
  const { rates: peerRates, costs: peerCosts, ...peft } = summary(theirs, rowTokens);
  const ratio = spread(rates.map((rate, pair) => rate / (peerRates[pair] ?? NaN)));
  const processorRatio = spread(costs.map((cost, pair) => (peerCosts[pair] ?? NaN) / cost));
  const memoryRatio = rounded(stillhouse.peakRssMiB / peft.peakRssMiB);
  const largestLossDifferenceNats = Math.max(...mine.flatMap((turn, pair) => turn.lossNats.map((loss, i) => Math.abs(loss - (theirs[pair]?.lossNats[i] ?? NaN)))));
  say(`${name}: ${stillhouse.tokensPerSecond.median} against ${peft.tokensPerSecond.median} tokens/s, ratio ${ratio.median} (${ratio.lowest} to ${ratio.highest}), of processor time ${processorRatio.median}, memory ${stillhouse.peakRssMiB} against ${peft.peakRssMiB} MiB, ratio ${memoryRatio}`);
  return { ...common, peft, ratio, processorRatio, memoryRatio, largestLossDifferenceNats };
}

const chosen = CASES.filter(({ name }) => values.case === undefined || values.case === name);
if (chosen.length === 0) {
  say(`train: expected one of ${CASES.map(({ name }) => name).join(', ')}, got ${values.case}`);
  process.exit(2);
}
const python = await pythonOf(PEER, say);
const folder = await mkdtemp(join(tmpdir(), 'stillhouse-bench-'));
try {
  const results = [];
  for (const measured of chosen) results.push(await measure(measured, python, folder));
  process.stdout.write(`${JSON.stringify({ bench: 'train', threads: THREADS, results }, undefined, values.json ? 2 : 0)}\n`);
} finally {
  await rm(folder, { recursive: true, force: true });
}
