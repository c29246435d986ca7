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
}

/** A session over a graph that points into `weights`. UNAVAILABLE when this machine lacks a wanted provider. */
export async function createSession(graph: Uint8Array, weights: WeightFile, options: SessionOptions): Promise<InferenceSession> {
  const { threads, executionProviders = ['cpu'] } = options;
  try {
    return await InferenceSession.create(graph, {
      executionProviders: [...executionProviders],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      enableMemPattern: false, // shapes differ from run to run
      graphOptimizationLevel: 'all',
      logSeverityLevel: 3,
      extra: { session: { model_external_initializers_file_folder_path: dirname(weights.path) } },
    });
  } catch (cause) {
    const accelerators = executionProviders.filter((provider) => provider !== 'cpu');
    if (accelerators.length > 0) {
      throw new StillhouseError('UNAVAILABLE', `execution providers [${executionProviders.join(', ')}]: expected this machine to have ${accelerators.join(' and ')}, got: ${String(cause)}`, { cause });
    }
    throw new StillhouseError('INTERNAL', `graph: expected the runtime to load it, got: ${String(cause)}`, { cause });
  }
}
