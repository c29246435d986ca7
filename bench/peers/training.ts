/**
 * Training beside PyTorch, in turns: what is measured and how, for every bench that trains. Both programs are up at once
 * and take turns on the same weights, initial adapter, rows, order and threads; tokens a second count the rows' own
 * tokens, not padding, and not less where a shared prefix is computed once. Memory is the highest resident memory of
 * each process from its first step on, pages of mapped weight files included.
 */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createAssets } from '../../src/assets/create-assets.ts';
import { readConfig } from '../../src/config.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { TrainingSpec } from '../../src/contracts/training-spec.ts';
import type { ModelConfig, WeightFile } from '../../src/lm/config.ts';
import { firstAndLast, keepLayersOf } from '../../src/lm/layers.ts';
import { loadModel } from '../../src/lm/load.ts';
import { encodeSafetensors } from '../../src/lm/weights/safetensors.ts';
import type { TrainingSample } from '../../src/training/packing.ts';
import { tensorView } from '../../src/training/parameters.ts';
import { permutation, RANDOM_STREAM, randomStream } from '../../src/training/random.ts';
import { trainableOf } from '../../src/training/trainable.ts';
import { peerEnvironment, pythonOf } from './python.ts';
import type { Peer } from './python.ts';
import { openRandomModel, writeRandomModel } from './random-model.ts';
import type { ShapeName } from './random-model.ts';
import { spread } from './statistics.ts';
import { startProgram } from './turns.ts';
import type { Program, TrainingTask, Turn } from './turns.ts';

const THREADS = 2;
const SEED = 17;
export const MODEL = 'smollm2-135m-instruct';
const PEER: Peer = { name: 'torch', requirement: 'peft==0.21.2', also: ['torch==2.15.0', 'transformers==5.23.0', 'gguf==0.19.0'], script: 'train.py' };
const { cache, hub } = readConfig();
const assets = createAssets({ cache, hub });
const say = (line: string): void => void process.stderr.write(`${line}\n`);

export interface TrainingCase {
  readonly name: string;
  readonly model: typeof MODEL | ShapeName;
  /** What is measured beside it: PyTorch; our own training on the text alone; nothing, where a model needs most of the machine. */
  readonly beside: 'pytorch' | 'sft' | 'nothing';
  /** Layers of the model that the student is made of. Default: all. */
  readonly studentLayers?: number;
  /** The student learns the whole model's distributions: the settings of the method. */
  readonly logit?: TrainingSpec['logit'];
  /** Default: each batch, so that it counts in every turn. */
  readonly teacherReads?: 'before';
  /** Of the adapters' inputs; the programs draw other masks, so that their losses differ. Default: 0. */
  readonly dropout?: number;
  readonly batchSize: number;
  readonly padTo: number;
  readonly warmUpSteps: number;
  readonly stepsPerTurn: number;
  readonly samples: (count: number) => Promise<readonly TrainingSample[]>;
}

export async function chats(count: number): Promise<readonly TrainingSample[]> {
  const reviews = readFileSync(await assets.dataset('catalogue:hutto-reviews-gold'), 'utf8').split('\n').filter((line) => line !== '').slice(0, count).map((line) => JSON.parse(line) as { input: string; gold: string });
  const { tokenizer } = await loadModel({ path: (await assets.model(MODEL)).path, cache });
  return reviews.map(({ input, gold }, i) => ({ id: `row-${i}`, ...tokenizer.encodeForTraining([{ role: 'user', content: `Review: ${input}\nSentiment:` }, { role: 'assistant', content: gold }]) }));
}

/** Text cut every `length` tokens, all of it to be learned. */
export async function blocks(count: number, length: number): Promise<readonly TrainingSample[]> {
  const ids = (await chats(Infinity)).flatMap((sample) => sample.ids);
  return Array.from({ length: count }, (_, i) => ({ id: `block-${i}`, ids: ids.slice(i * length, (i + 1) * length), responseStart: 1 }));
}

interface Opened {
  readonly path: string;
  readonly config: ModelConfig;
  readonly weights: WeightFile;
}

async function modelOf({ model, name }: TrainingCase, folder: string): Promise<Opened> {
  if (model === MODEL) {
    const { path } = await assets.model(MODEL);
    return { path, ...(await loadModel({ path, cache })) };
  }
  const path = join(folder, name);
  say(`${name}: writing random weights of ${model}`);
  writeRandomModel(path, model, SEED);
  return { path, ...openRandomModel(path) };
}

async function taskOf(measured: TrainingCase, pairs: number, folder: string): Promise<TrainingTask> {
  const { batchSize, padTo, dropout = 0, studentLayers, logit, teacherReads = 'each-batch' } = measured;
  const { path: modelPath, config: whole, weights } = await modelOf(measured, folder);
  const layers = firstAndLast(studentLayers ?? whole.layers, whole.layers);
  // One step more than is taken: the epoch does not end while turns remain.
  const samples = await measured.samples((measured.warmUpSteps + pairs * measured.stepsPerTurn + 1) * batchSize);
  const training = campaignSpecSchema.shape.training.parse({
    epochs: 1, batchSize, learningRate: 1e-3, schedule: 'constant', warmupRatio: 0, weightDecay: 0.01, lora: { r: 16, alpha: 32, dropout, targets: ['q_proj', 'v_proj'] },
    ...(logit === undefined ? {} : { method: 'logit', logit }),
  });
  const { layout, initial } = trainableOf(keepLayersOf(whole, layers), training);
  const adapter = initial(weights, SEED);
  const adapterPath = join(folder, `${measured.name}.safetensors`);
  await writeFile(adapterPath, encodeSafetensors(layout.tensors.map((tensor) => ({ name: tensor.name, shape: tensor.shape, values: tensorView(adapter, tensor) }))));
  const order = permutation(samples.length, randomStream(SEED, RANDOM_STREAM.dataOrder, 0));
  return { modelPath, layers, teacherReads, adapterPath, threads: THREADS, seed: SEED, training, samples, order: [...order], padTo };
}

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
    lossNats: turns.flatMap((turn) => turn.lossNats.map((loss) => Math.round(loss * 1_000) / 1_000)),
  };
}

/** What each of `programs` took for its turns, in alternation after a warm-up. */
async function takeTurns(programs: readonly Program[], { warmUpSteps, stepsPerTurn }: TrainingCase, pairs: number): Promise<readonly (readonly Turn[])[]> {
  const turns = programs.map((): Turn[] => []);
  for (const program of programs) await program.take(warmUpSteps);
  for (let pair = 0; pair < pairs; pair += 1) {
    const order = programs.map((_, i) => i);
    for (const i of pair % 2 === 0 ? order : order.toReversed()) turns[i]?.push(await (programs[i] as Program).take(stepsPerTurn));
  }
  return turns;
}

/** The programs of a case: ours, and what is measured beside it. */
async function programsOf({ name, beside }: TrainingCase, task: TrainingTask, python: string, folder: string): Promise<readonly (() => Program)[]> {
  const written = async (what: string, given: TrainingTask): Promise<string> => {
    const file = join(folder, `${name}-${what}.json`);
    await writeFile(file, JSON.stringify(given));
    return file;
  };
  const ours = (what: string, file: string) => (): Program => startProgram(what, process.execPath, [join(import.meta.dirname, 'train.ts'), file], process.env);
  const file = await written('stillhouse', task);
  const first = ours('stillhouse', file);
  if (beside === 'nothing') return [first];
  if (beside === 'pytorch') return [first, () => startProgram('pytorch', python, [join(import.meta.dirname, PEER.script), file], peerEnvironment())];
  const { logit: _logit, ...sft } = task.training;
  return [first, ours('sft', await written('sft', { ...task, training: { ...sft, method: 'sft' } }))];
}

async function measure(measured: TrainingCase, pairs: number, python: string, folder: string) {
  const { name, batchSize, padTo, stepsPerTurn, warmUpSteps, beside } = measured;
  const task = await taskOf(measured, pairs, folder);
  await using programs = new AsyncDisposableStack();
  const started = (await programsOf(measured, task, python, folder)).map((start) => programs.use(start()));
  const [mine = [], theirs] = await takeTurns(started, measured, pairs);
  const rowsPerTurn = stepsPerTurn * batchSize;
  const rowTokens = Array.from({ length: pairs }, (_, pair) => {
    const start = warmUpSteps * batchSize + pair * rowsPerTurn;
    return task.order.slice(start, start + rowsPerTurn).reduce((sum, i) => sum + (task.samples[i]?.ids.length ?? 0), 0);
  });
  const { rates, costs, ...stillhouse } = summary(mine, rowTokens);
  const common = { case: name, model: measured.model, studentLayers: task.layers.length, batchSize, padTo, stepsPerTurn, pairs, rowTokens: rowTokens.reduce((sum, count) => sum + count, 0), stillhouse };
  if (theirs === undefined) {
    say(`${name}: ${stillhouse.tokensPerSecond.median} tokens/s, ${stillhouse.peakRssMiB} MiB`);
    return common;
  }
  const { rates: peerRates, costs: peerCosts, ...other } = summary(theirs, rowTokens);
  const ratio = spread(rates.map((rate, pair) => rate / (peerRates[pair] ?? NaN)));
  const processorRatio = spread(costs.map((cost, pair) => (peerCosts[pair] ?? NaN) / cost));
  const memoryRatio = Math.round((1_000 * stillhouse.peakRssMiB) / other.peakRssMiB) / 1_000;
  const largestLossDifferenceNats = Math.max(...mine.flatMap((turn, pair) => turn.lossNats.map((loss, i) => Math.abs(loss - (theirs[pair]?.lossNats[i] ?? NaN)))));
  say(`${name}: ${stillhouse.tokensPerSecond.median} against ${beside}'s ${other.tokensPerSecond.median} tokens/s, ratio ${ratio.median} (${ratio.lowest} to ${ratio.highest}), of processor time ${processorRatio.median}, memory ${stillhouse.peakRssMiB} against ${other.peakRssMiB} MiB, ratio ${memoryRatio}`);
  return { ...common, [beside]: other, ratio, processorRatio, memoryRatio, ...(beside === 'pytorch' ? { largestLossDifferenceNats } : {}) };
}

/** The whole of a bench: its cases, or the one that is asked for, as one document on standard output. */
export async function benchTraining(bench: string, cases: readonly TrainingCase[]): Promise<void> {
  const { values } = parseArgs({ options: { json: { type: 'boolean', default: false }, pairs: { type: 'string', default: '5' }, case: { type: 'string' } } });
  const chosen = cases.filter(({ name }) => values.case === undefined || values.case === name);
  if (chosen.length === 0) {
    say(`${bench}: expected one of ${cases.map(({ name }) => name).join(', ')}, got ${values.case}`);
    process.exitCode = 2;
    return;
  }
  const python = await pythonOf(PEER, say);
  const folder = await mkdtemp(join(tmpdir(), 'stillhouse-bench-'));
  try {
    const results = [];
    for (const measured of chosen) results.push(await measure(measured, Number(values.pairs), python, folder));
    process.stdout.write(`${JSON.stringify({ bench, threads: THREADS, results }, undefined, values.json ? 2 : 0)}\n`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
