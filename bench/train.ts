/**
 * `npm run bench -- train [--json] [--pairs N] [--case NAME]`: our LoRA training beside PyTorch + PEFT on the same
 * weights, rows, order and threads. Both programs are up at once and take turns; tokens a second count the
 * rows' own tokens, not padding, and not less where a shared prefix is computed once.
 */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createAssets } from '../src/assets/create-assets.ts';
import { readConfig } from '../src/config.ts';
import { campaignSpecSchema } from '../src/contracts/campaign-spec.ts';
import { loadModel } from '../src/lm/load.ts';
import type { TrainingSample } from '../src/training/packing.ts';
import { permutation, RANDOM_STREAM, randomStream } from '../src/training/random.ts';
import { peerEnvironment, pythonOf } from './peers/python.ts';
import type { Peer } from './peers/python.ts';
import { startProgram } from './peers/turns.ts';
import type { Program, TrainingTask, Turn } from './peers/turns.ts';

const THREADS = 2;
const SEED = 17;
const MODEL = 'smollm2-135m-instruct';
const PEER: Peer = { name: 'torch', requirement: 'peft==0.21.2', also: ['torch==2.15.0', 'transformers==5.23.0', 'gguf==0.19.0'], script: 'train.py' };

interface Case {
  readonly name: string;
  readonly batchSize: number;
  readonly padTo: number;
  readonly warmUpSteps: number;
  readonly stepsPerTurn: number;
  readonly samples: (count: number) => readonly TrainingSample[];
}

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false }, pairs: { type: 'string', default: '5' }, case: { type: 'string' } } });
const pairs = Number(values.pairs);
const say = (line: string): void => void process.stderr.write(`${line}\n`);
const { cache, hub } = readConfig();
const assets = createAssets({ cache, hub });
const { path: modelPath } = await assets.model(MODEL);
const { tokenizer } = await loadModel({ path: modelPath, cache });
const reviews = readFileSync(await assets.dataset('catalogue:hutto-reviews-gold'), 'utf8').split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as { input: string; gold: string });

const chats = (count: number): readonly TrainingSample[] =>
  reviews.slice(0, count).map(({ input, gold }, i) => ({ id: `row-${i}`, ...tokenizer.encodeForTraining([{ role: 'user', content: `Review: ${input}\nSentiment:` }, { role: 'assistant', content: gold }]) }));
/** Text cut every `length` tokens, all of it to be learned. */
const blocks = (count: number, length: number): readonly TrainingSample[] => {
  const ids = chats(reviews.length).flatMap((sample) => sample.ids);
  return Array.from({ length: count }, (_, i) => ({ id: `block-${i}`, ids: ids.slice(i * length, (i + 1) * length), responseStart: 1 }));
};
const CASES: readonly Case[] = [
  { name: 'fixed-4x128', batchSize: 4, padTo: 0, warmUpSteps: 2, stepsPerTurn: 3, samples: (count) => blocks(count, 128) },
  { name: 'chats-padded-to-longest', batchSize: 8, padTo: 0, warmUpSteps: 3, stepsPerTurn: 4, samples: chats },
  { name: 'chats-padded-to-512', batchSize: 8, padTo: 512, warmUpSteps: 1, stepsPerTurn: 1, samples: chats },
];

function taskOf(measured: Case): TrainingTask {
  const { batchSize, padTo } = measured;
  // One step more than is taken: the epoch does not end while turns remain.
  const samples = measured.samples((measured.warmUpSteps + pairs * measured.stepsPerTurn + 1) * batchSize);
  const training = campaignSpecSchema.shape.training.parse({ epochs: 1, batchSize, learningRate: 1e-3, schedule: 'constant', warmupRatio: 0, weightDecay: 0.01, lora: { r: 16, alpha: 32, dropout: 0, targets: ['q_proj', 'v_proj'] } });
  const order = permutation(samples.length, randomStream(SEED, RANDOM_STREAM.dataOrder, 0));
  return { modelPath, threads: THREADS, seed: SEED, training, samples, order: [...order], padTo };
}

const median = (numbers: readonly number[]): number => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? NaN;
const rounded = (value: number): number => Math.round(value * 1_000) / 1_000;
const spread = (numbers: readonly number[]) => ({ median: rounded(median(numbers)), lowest: rounded(Math.min(...numbers)), highest: rounded(Math.max(...numbers)) });

function summary(turns: readonly Turn[], rates: readonly number[]) {
  const tokens = turns.reduce((sum, turn) => sum + turn.computedTokens, 0);
  return { tokensPerSecond: spread(rates), computedTokens: tokens, peakRssMiB: Math.round(Math.max(...turns.map((turn) => turn.peakRssBytes)) / 2 ** 20), lossNats: turns.flatMap((turn) => turn.lossNats.map(rounded)) };
}

async function measure(measured: Case, python: string, folder: string) {
  const task = taskOf(measured);
  const file = join(folder, `${measured.name}.json`);
  await writeFile(file, JSON.stringify(task));
  const peers = join(import.meta.dirname, 'peers');
  await using ours = startProgram('stillhouse', process.execPath, [join(peers, 'train.ts'), file], process.env);
  await using theirs = startProgram('peft', python, [join(peers, PEER.script), file], peerEnvironment());
  for (const program of [ours, theirs]) await program.take(measured.warmUpSteps);
  const turns = new Map<Program, Turn[]>([[ours, []], [theirs, []]]);
  for (let pair = 0; pair < pairs; pair += 1) {
    for (const program of pair % 2 === 0 ? [ours, theirs] : [theirs, ours]) turns.get(program)?.push(await program.take(measured.stepsPerTurn));
  }
  /** The rows' own tokens of each turn, the same for both. */
  const rowsPerTurn = measured.stepsPerTurn * measured.batchSize;
  const tokens = Array.from({ length: pairs }, (_, pair) => {
    const start = measured.warmUpSteps * measured.batchSize + pair * rowsPerTurn;
    return task.order.slice(start, start + rowsPerTurn).reduce((sum, i) => sum + (task.samples[i]?.ids.length ?? 0), 0);
  });
  const [mine = [], peer = []] = [...turns.values()];
  const ratesOf = (taken: readonly Turn[]): number[] => taken.map((turn, pair) => (tokens[pair] ?? NaN) / turn.seconds);
  const [myRates, peerRates] = [ratesOf(mine), ratesOf(peer)];
  const ratio = spread(myRates.map((rate, pair) => rate / (peerRates[pair] ?? NaN)));
  const lossDifference = Math.max(...mine.flatMap((turn, pair) => turn.lossNats.map((loss, i) => Math.abs(loss - (peer[pair]?.lossNats[i] ?? NaN)))));
  say(`${measured.name}: ${median(myRates).toFixed(1)} against ${median(peerRates).toFixed(1)} tokens/s, ratio ${ratio.median} (${ratio.lowest} to ${ratio.highest})`);
  return { case: measured.name, batchSize: measured.batchSize, padTo: measured.padTo, stepsPerTurn: measured.stepsPerTurn, pairs, rowTokens: tokens.reduce((sum, count) => sum + count, 0), stillhouse: summary(mine, myRates), peft: summary(peer, peerRates), ratio, largestLossDifferenceNats: rounded(lossDifference) };
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
  process.stdout.write(`${JSON.stringify({ bench: 'train', model: MODEL, threads: THREADS, results }, undefined, values.json ? 2 : 0)}\n`);
} finally {
  await rm(folder, { recursive: true, force: true });
}
