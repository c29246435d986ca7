/** The teacher's worker: calls to endpoints and local teachers. It registers no workflows. */
import { Worker } from '@temporalio/worker';
import { createTeacherActivities } from '../activities/teacher.ts';
import type { TeacherStages } from '../activities/stages.ts';
import { TEACHER_QUEUE } from '../src/contracts/names.ts';
import type { WorkerPlace } from './orchestrator.ts';
import { sharedOptions } from './runtime.ts';

export function createTeacherWorker({ connection, namespace }: WorkerPlace, stages: TeacherStages): Promise<Worker> {
  return Worker.create({
    ...sharedOptions(connection, namespace, 'teacher'),
    taskQueue: TEACHER_QUEUE,
    activities: createTeacherActivities({ stages }),
    // A batch waits for its provider nearly all the time; how many calls are in flight is the limiter's business.
    maxConcurrentActivityTaskExecutions: 16,
    maxConcurrentActivityTaskPolls: 2,
    // What was answered is in the ledger already; the rest is asked by the next worker.
    shutdownGraceTime: '1 second',
  });
}
