/**
 * A worker process: `node worker/main.ts --roles orchestrator,teacher,trainer`, or the roles as
 * plain arguments. It ends on SIGTERM and SIGINT, and when the parent that forked it is gone.
 */
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import type { Worker } from '@temporalio/worker';
import { pino } from 'pino';
import type { Logger } from 'pino';
import { readConfig } from '../src/config.ts';
import type { Config } from '../src/config.ts';
import { StillhouseError } from '../src/contracts/errors.ts';
import { currentBundle } from './bundle.ts';
import { composeWorker } from './compose.ts';
import type { Composition } from './compose.ts';
import { createOrchestratorWorker } from './orchestrator.ts';
import type { WorkerPlace } from './orchestrator.ts';
import { connectWorker, installRuntime } from './runtime.ts';
import { createTeacherWorker } from './teacher.ts';
import { createTrainerWorker } from './trainer.ts';

export const ROLES = ['orchestrator', 'teacher', 'trainer'] as const;
export type Role = (typeof ROLES)[number];

/** BAD_INPUT for roles that do not exist; all of them when none is named. */
export function parseRoles(args: readonly string[]): readonly Role[] {
  const { values, positionals } = parseArgs({ args: [...args], options: { roles: { type: 'string' } }, allowPositionals: true });
  const named = [...positionals, ...(values.roles === undefined ? [] : [values.roles])].flatMap((text) => text.split(',')).filter((text) => text !== '');
  const unknown = named.filter((name) => !(ROLES as readonly string[]).includes(name));
  if (unknown.length > 0) throw new StillhouseError('BAD_INPUT', `roles: expected some of ${ROLES.join(', ')}, got ${unknown.join(', ')}`);
  return named.length === 0 ? ROLES : ROLES.filter((role) => named.includes(role));
}

async function createWorker(role: Role, place: WorkerPlace, config: Config, composition: Composition): Promise<Worker> {
  switch (role) {
    case 'orchestrator':
      return await createOrchestratorWorker(place, await currentBundle(config.cache), composition.orchestrator());
    case 'teacher':
      return await createTeacherWorker(place, composition.teacher());
    case 'trainer':
      return await createTrainerWorker(place, composition.trainer());
  }
}

/** Runs the workers of `roles` until they are told to stop; rejects when one of them fails. */
export async function runWorkers(roles: readonly Role[], config: Config, logger: Logger): Promise<void> {
  // An orphan would take work from the workers of the next parent. Before it has any, it may go at once.
  const leave = (): void => process.exit(0);
  process.once('disconnect', leave);
  installRuntime(logger);
  const connection = await connectWorker(config.temporal.address, logger);
  await using composition = composeWorker(config);
  try {
    const place = { connection, namespace: config.temporal.namespace };
    const workers = await Promise.all(roles.map((role) => createWorker(role, place, config, composition)));
    const stop = (): void => workers.filter((worker) => worker.getState() === 'RUNNING').forEach((worker) => worker.shutdown());
    process.off('disconnect', leave).once('disconnect', stop);
    const runs = workers.map((worker) => worker.run());
    logger.info({ roles, address: config.temporal.address }, 'workers run');
    try {
      await Promise.all(runs);
    } finally {
      // One that failed takes the others with it: the whole process is started again.
      stop();
      await Promise.allSettled(runs);
    }
  } finally {
    await connection.close();
  }
}

async function main(): Promise<void> {
  const config = readConfig();
  const logger = pino({ level: config.logLevel, base: { pid: process.pid } });
  try {
    await runWorkers(parseRoles(process.argv.slice(2)), config, logger);
    // Handles of native code must not keep a worker alive that is done.
    process.exit(0);
  } catch (error) {
    logger.fatal({ err: error }, error instanceof Error ? error.message : String(error));
    process.exit(1);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
