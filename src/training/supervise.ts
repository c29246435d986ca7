/** The trainer's process under supervision: it is stopped gently, and gone whatever happens. What it writes, the caller keeps. */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { modelEnvironment } from '../config.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { fromWireError } from '../lm/protocol.ts';
import type { RunFacts } from './epoch.ts';
import type { PartsProgress } from './parts.ts';
import type { FromTrainer, ToTrainer, TrainingOrder } from './protocol.ts';
import type { EpochProgress, EpochResult } from './trainer.ts';

/** A step of a few seconds and a checkpoint of a few hundred megabytes. */
const DEFAULT_GRACE_MS = 20_000;
const PROCESS_PATH = fileURLToPath(new URL('./process.ts', import.meta.url));

type KeptProgress<Kept> = Omit<EpochProgress, 'checkpoint'> & { readonly checkpoint?: Kept };
type KeptResult<Kept> = Omit<EpochResult, 'checkpoint' | 'lossCurve'> & { readonly checkpoint: Kept; readonly lossCurve: Kept };

export interface Supervision<Kept> {
  readonly signal?: AbortSignal | undefined;
  /** How long a stopped process may take to finish its step and write a checkpoint. */
  readonly graceMs?: number | undefined;
  /** Takes a file that the process has written and will not touch again. It is durable when this resolves. */
  readonly keep: (kind: 'checkpoint' | 'loss-curve' | 'batch', path: string) => Promise<Kept>;
  /** How a person finds what was kept. */
  readonly named: (kept: Kept) => string;
  /** Before the first step, while the teacher's distributions are made: rows that have them. */
  readonly onPrepare?: ((done: PartsProgress) => void) | undefined;
  readonly onStart?: ((facts: RunFacts) => void) | undefined;
  readonly onProgress?: ((progress: KeptProgress<Kept>) => void) | undefined;
}

export function cancelled(): StillhouseError {
  return new StillhouseError('CANCELLED', 'training was stopped by its caller');
}

const isAborted = (signal: AbortSignal | undefined): boolean => signal?.aborted === true;

/** Runs the process to its end. Whatever happens, it is gone when this settles. */
export async function superviseTraining<Kept>(order: TrainingOrder, options: Supervision<Kept>): Promise<KeptResult<Kept>> {
  if (isAborted(options.signal)) throw cancelled();
  // Standard output belongs to the parent's own answers: what the process prints goes to standard error.
  const child = fork(PROCESS_PATH, [], { env: modelEnvironment(), execArgv: [], stdio: ['ignore', 2, 2, 'ipc'] });
  const ended = childEnd(child);
  let killTimer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    post(child, { kind: 'stop' });
    killTimer ??= setTimeout(() => child.kill('SIGKILL'), options.graceMs ?? DEFAULT_GRACE_MS);
  };
  options.signal?.addEventListener('abort', stop, { once: true });
  try {
    post(child, { kind: 'start', order });
    const result = await Promise.race([receive(child, options), ended]);
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
function receive<Kept>(child: ChildProcess, { keep, named, onPrepare, onStart, onProgress }: Supervision<Kept>): Promise<KeptResult<Kept> | undefined> {
  return new Promise((resolve, reject) => {
    let queue = Promise.resolve();
    let batch: string | undefined;
    const handle = async (message: FromTrainer): Promise<void> => {
      switch (message.kind) {
        case 'preparing': {
          const { kind: _kind, ...done } = message;
          onPrepare?.(done);
          return;
        }
        case 'started': {
          const { kind: _kind, ...facts } = message;
          onStart?.(facts);
          return;
        }
        case 'progress': {
          const { kind: _kind, checkpointPath, ...progress } = message;
          const checkpoint = checkpointPath === undefined ? undefined : await keep('checkpoint', checkpointPath);
          onProgress?.({ ...progress, ...(checkpoint === undefined ? {} : { checkpoint }) });
          return;
        }
        case 'finished':
        case 'interrupted': {
          const { kind, step, checkpointPath, curvePath, ...result } = message;
          const { steps, tokens, lossLastNats, seconds } = result;
          const checkpoint = await keep('checkpoint', checkpointPath);
          onProgress?.({ step, steps, lossNats: lossLastNats, tokensPerSecond: seconds > 0 ? tokens / seconds : 0, checkpoint });
          const lossCurve = await keep('loss-curve', curvePath);
          resolve(kind === 'interrupted' ? undefined : { ...result, checkpoint, lossCurve });
          return;
        }
        case 'diverged':
          batch = named(await keep('batch', message.batchPath));
          return;
        case 'failed': {
          const error = fromWireError(message.error);
          reject(batch === undefined ? error : new StillhouseError(error.code, `${error.message}; its rows are kept in ${batch}`, { details: { ...error.details, batch } }));
        }
      }
    };
    child.on('message', (message: FromTrainer) => {
      queue = queue.then(() => handle(message)).catch(reject);
    });
  });
}
