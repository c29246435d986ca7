/** The Temporal runtime of a worker process, and the options that workers of every role share. */
import { hostname } from 'node:os';
import { DefaultLogger, NativeConnection, Runtime, makeTelemetryFilterString } from '@temporalio/worker';
import type { LogEntry, WorkerOptions } from '@temporalio/worker';
import type { Logger } from 'pino';

const LEVELS = { TRACE: 'trace', DEBUG: 'debug', INFO: 'info', WARN: 'warn', ERROR: 'error' } as const;

/** Installs the runtime, once a process and before anything connects: SDK, core and activities then log through `logger`. */
export function installRuntime(logger: Logger): void {
  const forward = ({ level, message, meta }: LogEntry): void => logger[LEVELS[level]](meta ?? {}, message);
  Runtime.install({
    logger: new DefaultLogger('INFO', forward),
    telemetryOptions: { logging: { forward: {}, filter: makeTelemetryFilterString({ core: 'WARN', other: 'ERROR' }) } },
    shutdownSignals: ['SIGTERM', 'SIGINT'],
  });
}

/** Connects, waiting for a server that is still starting; the last error when it does not come up. */
export async function connectWorker(address: string, logger: Logger, limitMs = 120_000): Promise<NativeConnection> {
  const deadline = Date.now() + limitMs;
  for (let pauseMs = 250; ; pauseMs = Math.min(2 * pauseMs, 5_000)) {
    try {
      return await NativeConnection.connect({ address });
    } catch (error) {
      if (Date.now() + pauseMs > deadline) throw error;
      logger.warn({ address, reason: error instanceof Error ? error.message : String(error) }, `no Temporal server yet; trying again in ${pauseMs} ms`);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }
}

/**
 * Every option that decides performance or shutdown is set by a role; these are the same for all.
 * Heartbeats are passed on at most this far apart, so that a cancellation is noticed in seconds and
 * a checkpoint that was just made durable is soon known to the server.
 */
export function sharedOptions(connection: NativeConnection, namespace: string, role: string): Pick<
  WorkerOptions,
  'connection' | 'namespace' | 'identity' | 'maxHeartbeatThrottleInterval' | 'defaultHeartbeatThrottleInterval' | 'maxConcurrentLocalActivityExecutions' | 'shutdownForceTime'
> {
  return {
    connection,
    namespace,
    identity: `${role}@${hostname()}:${process.pid}`,
    maxHeartbeatThrottleInterval: '5 seconds',
    defaultHeartbeatThrottleInterval: '5 seconds',
    // None is used; one slot is the least.
    maxConcurrentLocalActivityExecutions: 1,
    // Below the supervisor's patience, so that a worker that hangs still ends by itself.
    shutdownForceTime: '25 seconds',
  };
}
