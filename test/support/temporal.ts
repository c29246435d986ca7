/** A real Temporal development server, workers of the real workflows, and helpers that read history. One server a test file. */
import { join } from 'node:path';
import { after, before } from 'node:test';
import type { WorkflowHandle, WorkflowHandleWithFirstExecutionRunId } from '@temporalio/client';
import { defineSearchAttributeKey } from '@temporalio/common';
import type { SearchAttributeType } from '@temporalio/common';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import type { WorkflowBundleOption } from '@temporalio/worker';
import { createAssets } from '../../src/assets/create-assets.ts';
import { readConfig } from '../../src/config.ts';
import type { CampaignInput } from '../../src/contracts/campaign.ts';
import { stateQuery } from '../../src/contracts/messages.ts';
import { CAMPAIGN_WORKFLOW, ORCHESTRATOR_QUEUE, SEARCH_ATTRIBUTES, TEACHER_QUEUE, TRAINER_QUEUE, campaignWorkflowId } from '../../src/contracts/names.ts';
import type { CampaignState } from '../../src/contracts/state.ts';
import { currentBundle } from '../../worker/bundle.ts';
import type { campaign } from '../../workflows/index.ts';
import { until } from './until.ts';

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

/** Follows a campaign over continue-as-new to its end. */
export type CampaignHandle = WorkflowHandleWithFirstExecutionRunId<typeof campaign>;

export class Temporal implements AsyncDisposable {
  #env: TestWorkflowEnvironment | undefined;

  async open(): Promise<void> {
    installRuntime();
    const path = await createAssets(config).temporalCli();
    this.#env = await TestWorkflowEnvironment.createLocal({
      server: {
        executable: { type: 'existing-path', path },
        log: { format: 'pretty', level: 'error' },
        searchAttributes: Object.entries(SEARCH_ATTRIBUTES).map(([name, type]) => defineSearchAttributeKey(name, type.toUpperCase() as SearchAttributeType)),
      },
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#env?.teardown();
  }

  get env(): TestWorkflowEnvironment {
    if (this.#env === undefined) throw new Error('expected a server that was opened, got none');
    return this.#env;
  }

  get client(): TestWorkflowEnvironment['client'] {
    return this.env.client;
  }

  /** Workers of all three queues in this process, until `use` is done. */
  async work<T>(activities: object, use: () => Promise<T>): Promise<T> {
    const { nativeConnection: connection, namespace = 'default' } = this.env;
    const common = { connection, namespace, activities, maxHeartbeatThrottleInterval: 300, shutdownGraceTime: 0 } as const;
    const workers = await Promise.all([
      Worker.create({ ...common, taskQueue: ORCHESTRATOR_QUEUE, workflowBundle: await testBundle() }),
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

  start(input: CampaignInput): Promise<CampaignHandle> {
    return this.client.workflow.start<typeof campaign>(CAMPAIGN_WORKFLOW, { workflowId: campaignWorkflowId(input.campaign), taskQueue: ORCHESTRATOR_QUEUE, args: [input] });
  }

  /** The handle of its newest run: updates and queries go to one run. */
  latest({ workflowId }: CampaignHandle): WorkflowHandle<typeof campaign> {
    return this.client.workflow.getHandle<typeof campaign>(workflowId);
  }

  /** The state in which it holds. */
  reaches(handle: CampaignHandle, holds: (state: CampaignState) => boolean): Promise<CampaignState> {
    return until(() => this.latest(handle).query(stateQuery), holds);
  }

  paused(handle: CampaignHandle, kind?: CampaignState['pauseKind']): Promise<CampaignState> {
    return this.reaches(handle, ({ status, pauseKind }) => status === 'paused' && (kind === undefined || pauseKind === kind));
  }
}

/** One server for the tests of a suite: there before its first, gone after its last. */
export function useTemporal(): Temporal {
  const temporal = new Temporal();
  before(() => temporal.open());
  after(() => temporal[Symbol.asyncDispose]());
  return temporal;
}

export interface RunMeasure {
  readonly runId: string;
  readonly events: number;
  readonly sizeBytes: number;
  readonly largestPayloadBytes: number;
  readonly continued: boolean;
}

/** Every run of a workflow, the first one first: its events, its size as the server counts it, its largest payload. */
export async function measureRuns({ client }: Temporal, workflowId: string, firstRunId: string): Promise<readonly RunMeasure[]> {
  const measures: RunMeasure[] = [];
  for (let runId: string | undefined = firstRunId; runId !== undefined; ) {
    const handle: WorkflowHandle = client.workflow.getHandle(workflowId, runId);
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
