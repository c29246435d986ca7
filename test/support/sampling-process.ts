/** A process that samples a campaign's batches one after another, as a worker's activities would, to be killed by its tests. */
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import type { BatchTimings } from '../../src/teacher/batch.ts';
import type { CallTimings } from '../../src/teacher/openai.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import type { CampaignContext, PlannedRequests } from '../../src/contracts/activities.ts';
import { hostedDirectory } from './hosted-directory.ts';

export interface SamplingOrder {
  readonly context: CampaignContext;
  readonly planned: Pick<PlannedRequests, 'requests' | 'count' | 'batchSize'>;
  readonly root: string;
  readonly ledgerPath: string;
  readonly timings: Partial<CallTimings>;
  readonly batchTimings?: Partial<BatchTimings>;
}

/** What the process prints when it is done: one line of JSON. */
export interface SamplingOutcome {
  readonly callsBought: number;
  readonly callsRepeated: number;
  readonly seconds: number;
  readonly peakRssBytes: number;
  /** Resident memory after each batch. */
  readonly rssBytes: readonly number[];
}

const order = JSON.parse(process.argv[2] ?? '') as SamplingOrder;
const { context, planned } = order;
await using directory = hostedDirectory({ timings: order.timings });
const ledger = createLedger(order.ledgerPath);
const store = createFileStore(order.root);
const startedMs = performance.now();
const rssBytes: number[] = [];
let callsBought = 0;
let callsRepeated = 0;
for (let from = 0; from < planned.count; from += planned.batchSize) {
  const to = Math.min(planned.count, from + planned.batchSize);
  const { spending } = await sampleBatch({ store, ledger, directory, ...(order.batchTimings === undefined ? {} : { batchTimings: order.batchTimings }) }, { ...context, requests: planned.requests, from, to }, { run: 'run' });
  callsBought += spending.callsBought;
  callsRepeated += spending.callsRepeated;
  rssBytes.push(process.memoryUsage.rss());
}
await ledger.close();
const outcome: SamplingOutcome = {
  callsBought, callsRepeated, rssBytes,
  seconds: (performance.now() - startedMs) / 1_000,
  // getrusage counts in KiB.
  peakRssBytes: process.resourceUsage().maxRSS * 1_024,
};
process.stdout.write(`${JSON.stringify(outcome)}\n`);
