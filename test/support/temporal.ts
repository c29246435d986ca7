/** A real Temporal development server, workers of the real workflows, and helpers that read history. One server a test file. */
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import type { WorkflowBundleOption } from '@temporalio/worker';
import type { WorkflowHandle } from '@temporalio/client';
import { defineSearchAttributeKey } from '@temporalio/common';
import type { SearchAttributeType } from '@temporalio/common';
import { join } from 'node:path';
import { readConfig } from '../../src/config.ts';
import { createAssets } from '../../src/assets/create-assets.ts';
import { ORCHESTRATOR_QUEUE, SEARCH_ATTRIBUTES, TEACHER_QUEUE, TRAINER_QUEUE } from '../../src/contracts/names.ts';
import { currentBundle } from '../../worker/bundle.ts';

const config = readConfig();
let installed = false;

/** Silent unless something goes wrong; the runtime can be installed once a process. */
function installRuntime(): void {
  if (installed) return;
  installed = true;
  Runtime.install({ logger: new DefaultLogger('ERROR'), telemetryOptions: { logging: { forward: {}, filter: 'ERROR' } } });
}

export function testBundle(): Promise<WorkflowBundleOption> {
  installRuntime();
  return currentBundle(config.cache, new DefaultLogger('ERROR'));
}

export async function startTemporal(): Promise<TestWorkflowEnvironment> {
  installRuntime();
  const path = await createAssets(config).temporalCli();
  return await TestWorkflowEnvironment.createLocal({
    server: {
      executable: { type: 'existing-path', path },
      log: { format: 'pretty', level: 'error' },
      searchAttributes: Object.entries(SEARCH_ATTRIBUTES).map(([name, type]) => defineSearchAttributeKey(name, type.toUpperCase() as SearchAttributeType)),
    },
  });
}

/** Workers of all three queues in this process, until `use` is done. */
export async function withWorkers<T>(env: TestWorkflowEnvironment, workflowBundle: WorkflowBundleOption, activities: object, use: () => Promise<T>): Promise<T> {
  const common = { connection: env.nativeConnection, namespace: env.namespace ?? 'default', activities, maxHeartbeatThrottleInterval: 300, shutdownGraceTime: 0 } as const;
  const workers = await Promise.all([
    Worker.create({ ...common, taskQueue: ORCHESTRATOR_QUEUE, workflowBundle }),
    Worker.create({ ...common, taskQueue: TEACHER_QUEUE }),
    Worker.create({ ...common, taskQueue: TRAINER_QUEUE }),
  ]);
  const runs = workers.map((worker) => worker.run());
  try {
    return await use();
  } finally {
    workers.forEach((worker) => worker.shutdown());
    await Promise.all(runs);
  }
}

export async function until<T>(read: () => Promise<T>, holds: (value: T) => boolean, limitMs = 15_000): Promise<T> {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const value = await read();
    if (holds(value)) return value;
    if (Date.now() > deadline) throw new Error(`expected the condition to hold within ${limitMs} ms, last value ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export interface RunMeasure {
  readonly runId: string;
  readonly events: number;
  readonly sizeBytes: number;
  readonly largestPayloadBytes: number;
  readonly continued: boolean;
}

/** Every run of a workflow, the first one first: its events, its size as the server counts it, its largest payload. */
export async function measureRuns(env: TestWorkflowEnvironment, workflowId: string, firstRunId: string): Promise<readonly RunMeasure[]> {
  const measures: RunMeasure[] = [];
  for (let runId: string | undefined = firstRunId; runId !== undefined; ) {
    const handle: WorkflowHandle = env.client.workflow.getHandle(workflowId, runId);
    const history = await handle.fetchHistory();
    const description = await handle.describe();
    const events = history.events ?? [];
    const next: string | null | undefined = events.at(-1)?.workflowExecutionContinuedAsNewEventAttributes?.newExecutionRunId;
    measures.push({ runId, events: events.length, sizeBytes: description.historySize ?? NaN, largestPayloadBytes: largestPayload(events), continued: typeof next === 'string' });
    runId = next ?? undefined;
  }
  return measures;
}

function largestPayload(value: unknown): number {
  if (value === null || typeof value !== 'object') return 0;
  if (value instanceof Uint8Array) return value.byteLength;
  return Math.max(0, ...Object.values(value).map(largestPayload));
}

export const historiesFolder = join(import.meta.dirname, '..', 'replay', 'histories');
