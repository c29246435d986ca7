/** Sessions of the native runtime: the one place where threads, execution providers and external weights are set. */
import { dirname } from 'node:path';
import { InferenceSession } from 'onnxruntime-node';
import { StillhouseError } from '../contracts/errors.ts';
import type { ExecutionProvider } from '../contracts/execution-providers.ts';
import type { WeightFile } from './config.ts';

export interface SessionOptions {
  readonly threads: number;
  /** The first that can run a node runs it. Default: cpu. */
  readonly executionProviders?: readonly ExecutionProvider[];
  /** Copies of the weights in the order in which the processor multiplies: faster, at twice their memory. Default: true. */
  readonly packWeights?: boolean;
}

/** The runtime reads external weights from one folder. */
function folderOf(files: readonly WeightFile[]): string {
  const folders = new Set(files.map(({ path }) => dirname(path)));
  const [folder, other] = folders;
  if (folder === undefined || other !== undefined) throw new StillhouseError('INTERNAL', `session: expected weight files in one folder, got ${[...folders].join(' and ') || 'none'}`);
  return folder;
}

/** A session over a graph that points into `weights`, which lie in one folder. UNAVAILABLE when this machine lacks a wanted provider. */
export async function createSession(graph: Uint8Array, weights: WeightFile | readonly WeightFile[], options: SessionOptions): Promise<InferenceSession> {
  const { threads, executionProviders = ['cpu'], packWeights = true } = options;
  try {
    return await InferenceSession.create(graph, {
      executionProviders: [...executionProviders],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      enableMemPattern: false, // shapes differ from run to run
      graphOptimizationLevel: 'all',
      logSeverityLevel: 3,
      extra: {
        session: {
          model_external_initializers_file_folder_path: folderOf('path' in weights ? [weights] : weights),
          disable_prepacking: packWeights ? '0' : '1',
          // Waking a thread costs more than most waits are long; one that spins longer takes the core from whoever it waits for.
          intra_op: { allow_spinning: '1', spin_duration_us: '100' },
        },
      },
    });
  } catch (cause) {
    const accelerators = executionProviders.filter((provider) => provider !== 'cpu');
    if (accelerators.length > 0) {
      throw new StillhouseError('UNAVAILABLE', `execution providers [${executionProviders.join(', ')}]: expected this machine to have ${accelerators.join(' and ')}, got: ${String(cause)}`, { cause });
    }
    throw new StillhouseError('INTERNAL', `graph: expected the runtime to load it, got: ${String(cause)}`, { cause });
  }
}
