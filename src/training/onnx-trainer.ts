/** The trainer port over our own engine: a process for each epoch, checkpoints into the store as they appear. */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Assets } from '../assets/assets.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { fromWireError } from '../lm/protocol.ts';
import type { ArtifactStore } from '../store/store.ts';
import { trainedStudent } from './export.ts';
import type { FromTrainer, ToTrainer, TrainingOrder } from './protocol.ts';
import type { EpochJob, EpochResult, Trainer } from './trainer.ts';

export interface OnnxTrainerDeps {
  readonly store: ArtifactStore;
  readonly assets: Pick<Assets, 'model'>;
  /** Folder below which float32 weights are kept. */
  readonly cache: string;
  /** Default: all cores. */
  readonly threads?: number;
  /** How long a stopped process may take to finish its step and write a checkpoint. */
  readonly graceMs?: number;
}

/** A step of a few seconds and a checkpoint of a few hundred megabytes. */
const DEFAULT_GRACE_MS = 20_000;
const PROCESS_PATH = fileURLToPath(new URL('./process.ts', import.meta.url));

type TrainOptions = Parameters<Trainer['trainEpoch']>[1];

export function createOnnxTrainer(deps: OnnxTrainerDeps): Trainer {
  return {
    trainEpoch: (job, options) => trainEpoch(deps, job, options),
    studentOf: async (checkpoint, { model }, folder) => trainedStudent(await deps.store.localPath(checkpoint), model, folder),
  };
}

const isAborted = (signal: AbortSignal | undefined): boolean => signal?.aborted === true;

function cancelled(): StillhouseError {
  return new StillhouseError('CANCELLED', 'training was stopped by its caller');
}

async function trainEpoch(deps: OnnxTrainerDeps, job: EpochJob, options: TrainOptions): Promise<EpochResult> {
  const { store } = deps;
  if (isAborted(options.signal)) throw cancelled();
  const model = await deps.assets.model(job.student.model, options.signal === undefined ? {} : { signal: options.signal });
  const outFolder = await mkdtemp(join(tmpdir(), 'stillhouse-train-'));
  try {
    const order: TrainingOrder = {
      modelPath: model.path,
      modelName: model.name,
      layers: job.student.layers,
      keepLayers: job.student.keepLayers,
      cache: deps.cache,
      threads: deps.threads ?? availableParallelism(),
      training: job.training,
      seed: job.seed,
      epoch: job.epoch,
      datasetPath: await store.localPath(job.dataset),
      datasetSha256: job.dataset.sha256,
      outFolder,
      ...(job.from === undefined ? {} : { fromPath: await store.localPath(job.from) }),
    };
    if (isAborted(options.signal)) throw cancelled();
    return await superviseTraining(deps, order, options);
  } finally {
    await rm(outFolder, { recursive: true, force: true });
  }
}

/** Runs the process to its end. Whatever happens, it is gone when this settles. */
async function superviseTraining(deps: OnnxTrainerDeps, order: TrainingOrder, options: TrainOptions): Promise<EpochResult> {
  // Standard output belongs to the parent's own answers: what the process prints goes to standard error.
  const child = fork(PROCESS_PATH, [], { execArgv: [], stdio: ['ignore', 2, 2, 'ipc'] });
  const ended = childEnd(child);
  let killTimer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    post(child, { kind: 'stop' });
    killTimer ??= setTimeout(() => child.kill('SIGKILL'), deps.graceMs ?? DEFAULT_GRACE_MS);
  };
  options.signal?.addEventListener('abort', stop, { once: true });
  try {
    post(child, { kind: 'start', order });
    const result = await Promise.race([receive(deps.store, child, options), ended]);
    if (isAborted(options.signal) && result === undefined) throw cancelled();
    if (result === undefined) throw new StillhouseError('INTERNAL', 'training process: expected a result, got a stop that nobody asked for');
    return result;
  } catch (error) {
    // A process that did not stop in time is killed by us: to the caller that is still its own wish.
    throw isAborted(options.signal) && error instanceof StillhouseError && error.code === 'PROCESS_DIED' ? cancelled() : error;
  } finally {
    options.signal?.removeEventListener('abort', stop);
    clearTimeout(killTimer);
    child.kill('SIGKILL');
    await ended.catch(() => undefined);
  }
}

function post(child: ChildProcess, message: ToTrainer): void {
  if (child.connected) child.send(message, () => undefined); // a failed send is followed by the end of the process
}

/** Rejects with PROCESS_DIED when the process ends. */
function childEnd(child: ChildProcess): Promise<never> {
  const ended = new Promise<never>((_, reject) => {
    child.once('error', (cause) => reject(new StillhouseError('PROCESS_DIED', `training process: expected it to start, got: ${cause.message}`, { cause })));
    child.once('exit', (code, signal) => reject(new StillhouseError('PROCESS_DIED', `training process: expected a result, got its end by ${signal ?? `exit code ${code}`}`, { details: { code, signal } })));
  });
  ended.catch(() => undefined);
  return ended;
}

/** Handles messages one after another, so that a checkpoint is durable before later progress names it. undefined: it stopped. */
function receive(store: ArtifactStore, child: ChildProcess, { onProgress }: TrainOptions): Promise<EpochResult | undefined> {
  return new Promise((resolve, reject) => {
    let queue = Promise.resolve();
    const handle = async (message: FromTrainer): Promise<void> => {
      switch (message.kind) {
        case 'progress': {
          const { kind: _kind, checkpointPath, ...progress } = message;
          const checkpoint = checkpointPath === undefined ? undefined : await take(store, checkpointPath);
          onProgress?.({ ...progress, ...(checkpoint === undefined ? {} : { checkpoint }) });
          return;
        }
        case 'finished':
        case 'interrupted': {
          const { kind, step, checkpointPath, curvePath, ...result } = message;
          const { steps, tokens, lossLastNats, seconds } = result;
          const checkpoint = await take(store, checkpointPath);
          onProgress?.({ step, steps, lossNats: lossLastNats, tokensPerSecond: seconds > 0 ? tokens / seconds : 0, checkpoint });
          const lossCurve = await store.putFile('loss-curve', curvePath);
          resolve(kind === 'interrupted' ? undefined : { ...result, checkpoint, lossCurve });
          return;
        }
        case 'failed':
          reject(fromWireError(message.error));
      }
    };
    child.on('message', (message: FromTrainer) => {
      queue = queue.then(() => handle(message)).catch(reject);
    });
  });
}

async function take(store: ArtifactStore, path: string): ReturnType<ArtifactStore['putFile']> {
  const ref = await store.putFile('checkpoint', path);
  await rm(path, { force: true });
  return ref;
}
