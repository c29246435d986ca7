/** The trainer port over our own engine: a process for each epoch, checkpoints into the store as they appear. */
import { rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { ExecutionProvider } from '../contracts/execution-providers.ts';
import type { Assets } from '../assets/assets.ts';
import { withWorkFolder } from '../assets/work-folder.ts';
import type { ArtifactRef } from '../contracts/artifacts.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { ArtifactStore } from '../store/store.ts';
import { trainedStudent } from './export.ts';
import type { TrainingOrder } from './protocol.ts';
import { cancelled, superviseTraining } from './supervise.ts';
import type { EpochJob, EpochResult, Trainer } from './trainer.ts';

export interface OnnxTrainerDeps {
  readonly store: ArtifactStore;
  readonly assets: Pick<Assets, 'model'>;
  /** Folder below which float32 weights are kept. */
  readonly cache: string;
  /** Default: all cores. */
  readonly threads?: number;
  readonly executionProviders?: readonly ExecutionProvider[];
  /** How long a stopped process may take to finish its step and write a checkpoint. */
  readonly graceMs?: number;
  /** How long a checkpoint inside an epoch stays after it was replaced. */
  readonly supersededAfterMs?: number;
}

/** Heartbeats name the newest checkpoint; what the service knows of them is seconds old, never as old as this. */
const SUPERSEDED_AFTER_MS = 120_000;

/** Takes back checkpoints inside an epoch that newer ones have replaced: those of a whole model would soon fill a disk. */
class SupersededCheckpoints {
  readonly #store: ArtifactStore;
  readonly #afterMs: number;
  #kept: readonly { readonly ref: ArtifactRef; readonly sinceMs: number }[] = [];

  constructor(store: ArtifactStore, afterMs: number) {
    this.#store = store;
    this.#afterMs = afterMs;
  }

  async after(newest: ArtifactRef): Promise<void> {
    const nowMs = performance.now();
    const newer = this.#kept.filter(({ ref }) => ref.sha256 !== newest.sha256);
    // Replaced since the one after it was there. The last of them stays beside the newest in any case.
    const old = newer.filter((_, i) => nowMs - (newer[i + 1]?.sinceMs ?? nowMs) >= this.#afterMs && i < newer.length - 1);
    this.#kept = [...newer.filter((one) => !old.includes(one)), { ref: newest, sinceMs: nowMs }];
    for (const { ref } of old) await this.#store.remove(ref);
  }
}

/** STALE where the checkpoint is gone or damaged: what it held is trained again. */
async function checkpointPath(store: ArtifactStore, from: ArtifactRef): Promise<string> {
  try {
    return await store.localPath(from);
  } catch (cause) {
    if (!(cause instanceof StillhouseError) || (cause.code !== 'NOT_FOUND' && cause.code !== 'CORRUPT')) throw cause;
    throw new StillhouseError('STALE', cause.message, { cause });
  }
}

type TrainOptions = Parameters<Trainer['trainEpoch']>[1];

export function createOnnxTrainer(deps: OnnxTrainerDeps): Trainer {
  return {
    trainEpoch: (job, options) => trainEpoch(deps, job, options),
    studentOf: async (checkpoint, { model }, folder) => trainedStudent(await deps.store.localPath(checkpoint), model, folder),
  };
}

async function trainEpoch(deps: OnnxTrainerDeps, job: EpochJob, options: TrainOptions): Promise<EpochResult> {
  const { store } = deps;
  if (options.signal?.aborted === true) throw cancelled();
  const fetching = options.signal === undefined ? {} : { signal: options.signal };
  const model = await deps.assets.model(job.student.model, fetching);
  const { teacher: chosen } = job.training;
  const teacher = chosen === undefined ? undefined : await deps.assets.model(chosen.model, fetching);
  return withWorkFolder('train', async (outFolder) => {
    const order: TrainingOrder = {
      modelPath: model.path,
      modelName: model.name,
      layers: job.student.layers,
      keepLayers: job.student.keepLayers,
      cache: deps.cache,
      threads: deps.threads ?? availableParallelism(),
      ...(deps.executionProviders === undefined ? {} : { executionProviders: deps.executionProviders }),
      training: job.training,
      ...(teacher === undefined ? {} : { teacher: { modelPath: teacher.path, modelName: teacher.name, layers: chosen?.layers, keepLayers: chosen?.keepLayers } }),
      seed: job.seed,
      epoch: job.epoch,
      datasetPath: await store.localPath(job.dataset),
      datasetSha256: job.dataset.sha256,
      outFolder,
      ...(job.from === undefined ? {} : { fromPath: await checkpointPath(store, job.from) }),
      ...(job.leftSeconds === undefined ? {} : { leftSeconds: job.leftSeconds }),
    };
    const superseded = new SupersededCheckpoints(store, deps.supersededAfterMs ?? SUPERSEDED_AFTER_MS);
    return await superviseTraining(order, {
      ...options,
      graceMs: deps.graceMs,
      named: ({ kind, sha256 }) => `the store, ${kind} ${sha256}`,
      keep: async (kind, path) => {
        const ref = await store.putFile(kind, path);
        await rm(path, { force: true });
        if (kind === 'checkpoint') await superseded.after(ref);
        return ref;
      },
    });
  });
}

