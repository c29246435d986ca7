/** The trainer's worker: one piece of work at a time on this host's device. It registers no workflows. */
import { Worker } from '@temporalio/worker';
import { createTrainerActivities } from '../activities/trainer.ts';
import type { TrainerDeps } from '../activities/trainer.ts';
import { TRAINER_QUEUE } from '../src/contracts/names.ts';
import type { WorkerPlace } from './orchestrator.ts';
import { sharedOptions } from './runtime.ts';

export function createTrainerWorker({ connection, namespace }: WorkerPlace, deps: TrainerDeps): Promise<Worker> {
  return Worker.create({
    ...sharedOptions(connection, namespace, 'trainer'),
    taskQueue: TRAINER_QUEUE,
    activities: createTrainerActivities(deps),
    // The device is the scarce thing: two jobs on it would both be slower, or would not fit.
    maxConcurrentActivityTaskExecutions: 1,
    maxConcurrentActivityTaskPolls: 1,
    // An epoch cannot end in time: tell the trainer at once, so that the grace goes to its checkpoint.
    shutdownGraceTime: '1 second',
  });
}
