/** Runs of the training loop on the tiny model, in this process, with the bytes of their checkpoints. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { TrainingSpec } from '../../src/contracts/training-spec.ts';
import { loadModel } from '../../src/lm/load.ts';
import type { LoadedModel } from '../../src/lm/load.ts';
import { trainEpoch } from '../../src/training/epoch.ts';
import type { EpochInput, EpochOutcome } from '../../src/training/epoch.ts';
import { writeTinyLlama } from './tiny-llama.ts';

const trainingSchema = campaignSpecSchema.shape.training;
export const trainingSpec = (changes: object = {}): TrainingSpec => trainingSchema.parse({ epochs: 2, batchSize: 2, learningRate: 1e-2, checkpointEverySteps: 1, maxTokens: 128, ...changes });

export const ALL_LINEAR = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] as const;
const SENTENCES = ['a fine film', 'dull and long', 'I loved it', 'never again', 'great sound', 'it broke', 'warm and funny', 'a waste of time'];

export interface Run extends EpochOutcome {
  /** After each step. */
  readonly checkpoints: readonly Buffer[];
  readonly checkpoint: Buffer;
}

export interface TrainingRuns extends Disposable {
  readonly folder: string;
  readonly model: LoadedModel;
  readonly input: (changes?: Partial<EpochInput>) => EpochInput;
  /** One epoch, or its first `stopAfter` steps. */
  readonly run: (changes?: Partial<EpochInput>, stopAfter?: number) => Promise<Run>;
  /** All epochs, or those before patience runs out; the last of them. */
  readonly runAll: (changes: Partial<EpochInput> & Pick<EpochInput, 'training'>) => Promise<Run>;
  readonly saved: (bytes: Buffer) => string;
}

export async function openTrainingRuns(): Promise<TrainingRuns> {
  const folder = mkdtempSync(join(tmpdir(), 'stillhouse-training-'));
  const model = await loadModel({ path: writeTinyLlama(join(folder, 'model')), cache: join(folder, 'cache') });
  let files = 0;
  const newPath = (): string => join(folder, `checkpoint-${files++}`);
  const bytesOf = (write: (path: string) => void): Buffer => {
    const path = newPath();
    write(path);
    return readFileSync(path);
  };
  const saved = (bytes: Buffer): string => {
    const path = newPath();
    writeFileSync(path, bytes);
    return path;
  };
  const samples = SENTENCES.map((text, i) => ({
    id: `row-${i}`,
    ...model.tokenizer.encodeForTraining([
      { role: 'user', content: `Review: ${text}` },
      { role: 'assistant', content: i % 2 === 0 ? 'good' : 'bad' },
    ]),
  }));
  const { config, weights } = model;
  const input = (changes: Partial<EpochInput> = {}): EpochInput => ({ config, weights, modelSha256: 'm', datasetSha256: 'd', samples, training: trainingSpec(), seed: 5, epoch: 0, threads: 1, ...changes });
  const run: TrainingRuns['run'] = async (changes, stopAfter = Infinity) => {
    const checkpoints: Buffer[] = [];
    const outcome = await trainEpoch(input(changes), {
      shouldStop: () => checkpoints.length >= stopAfter,
      afterStep: ({ writeCheckpoint }) => checkpoints.push(bytesOf(writeCheckpoint)),
    });
    return { ...outcome, checkpoints, checkpoint: bytesOf(outcome.writeCheckpoint) };
  };
  const runAll: TrainingRuns['runAll'] = async (changes) => {
    let last = await run({ ...changes, epoch: 0 });
    for (let epoch = 1; epoch < changes.training.epochs && !last.state.stopped; epoch++) last = await run({ ...changes, epoch, from: saved(last.checkpoint) });
    return last;
  };
  return { folder, model, input, run, runAll, saved, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}
