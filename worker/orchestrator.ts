/** The orchestrator's worker: workflows, and quick work on rows. */
import { Worker } from '@temporalio/worker';
import type { NativeConnection, WorkflowBundleOption } from '@temporalio/worker';
import { createOrchestratorActivities } from '../activities/orchestrator.ts';
import type { OrchestratorDeps } from '../activities/orchestrator.ts';
import { ORCHESTRATOR_QUEUE } from '../src/contracts/names.ts';
import { sharedOptions } from './runtime.ts';

export interface WorkerPlace {
  readonly connection: NativeConnection;
  readonly namespace: string;
}

export function createOrchestratorWorker({ connection, namespace }: WorkerPlace, workflowBundle: WorkflowBundleOption, deps: OrchestratorDeps): Promise<Worker> {
  return Worker.create({
    ...sharedOptions(connection, namespace, 'orchestrator'),
    taskQueue: ORCHESTRATOR_QUEUE,
    workflowBundle,
    activities: createOrchestratorActivities(deps),
    // Row work shares one event loop: more of it side by side would only delay heartbeats.
    maxConcurrentActivityTaskExecutions: 4,
    maxConcurrentActivityTaskPolls: 2,
    maxConcurrentWorkflowTaskExecutions: 16,
    maxConcurrentWorkflowTaskPolls: 4,
    nonStickyToStickyPollRatio: 0.2,
    // About 1 MB each; a campaign that falls out is replayed in milliseconds.
    maxCachedWorkflows: 200,
    workflowThreadPoolSize: 1,
    reuseV8Context: true,
    // How long a workflow task waits for a worker that is gone before another may take it.
    stickyQueueScheduleToStartTimeout: '5 seconds',
    // Row work is done in seconds as a rule: let it end.
    shutdownGraceTime: '5 seconds',
  });
}
