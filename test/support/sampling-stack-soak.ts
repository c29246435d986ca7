/**
 * Sampling by the whole stack: a campaign under Temporal whose teacher worker is killed with -9 at random
 * moments, against a server that fails in every way; and the books of both sides compared. It ends when
 * the dataset is built, before any training.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import type { BuiltDataset, PlannedRequests } from '../../src/contracts/activities.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { campaignWorkflowId } from '../../src/contracts/names.ts';
import { homePaths } from '../../src/config.ts';
import type { RejectedSample, Sample } from '../../src/contracts/records.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getRows } from '../../src/store/jsonl.ts';
import { writeRows } from './folder.ts';
import { startOpenAIServer, TEST_KEY } from './openai-server.ts';
import { killHard } from './processes.ts';
import { booksOf, countRepairs, evenFaults, openCalls, pairSpec, writePair } from './sampling-soak.ts';
import type { SoakOptions, SoakResult } from './sampling-soak.ts';
import { Stack } from './stack.ts';
import { writeTinyLlama } from './tiny-llama.ts';

/** Batches of one campaign in flight, see specToPlan. */
export const LANES = 4;
const LIMIT_MS = 30 * 60_000;
const POLL_MS = 5;

export async function soakSamplingStack(options: SoakOptions & { readonly say?: (line: string) => void }): Promise<SoakResult> {
  const { rows, kills, faultShare, concurrency, seed, folder, say = () => undefined } = options;
  await using server = await startOpenAIServer({ latencyMs: 50, answer: writePair, faults: evenFaults(faultShare), random: createRandom(seed, 'faults') });
  const spec = specOf(folder, server.baseUrl, rows, Math.ceil(concurrency / LANES));
  await using stack = new Stack({ home: join(folder, 'home'), environment: { OPENAI_API_KEY: TEST_KEY } });
  const ledgerPath = homePaths(stack.home).ledger;
  const random = createRandom(seed, 'kills');
  const moments = Array.from({ length: kills }, () => Math.floor(rows * (0.05 + 0.85 * random()))).sort((a, b) => a - b);
  const inFlightAtKills: number[] = [];
  const startedMs = performance.now();
  await stack.start();
  await stack.submit(spec);
  for (const moment of moments) {
    // The next kill finds work under way: a worker that was killed before is back by then.
    while (server.counts.billedCalls < moment || server.counts.inFlight === 0) {
      if (performance.now() - startedMs > LIMIT_MS) throw new Error(`waited for ${moment} calls, got ${server.counts.billedCalls}\n${stack.log()}`);
      await sleep(POLL_MS);
    }
    const worker = stack.processes().find(({ command }) => command.includes('worker/main.ts') && command.includes('teacher'));
    if (worker === undefined || !killHard(worker.pid)) throw new Error('expected a teacher worker to kill, got none');
    inFlightAtKills.push(await openCalls(ledgerPath));
    say(`killed the teacher worker after ${server.counts.billedCalls} calls, ${inFlightAtKills.at(-1)} in flight`);
  }
  const { state } = await stack.watch(spec.name, LIMIT_MS, (campaign) => {
    if (campaign.status === 'failed' || campaign.state?.status === 'paused') throw new Error(`campaign ${campaign.status}: ${campaign.state?.pauseReason ?? campaign.failure ?? ''}\n${stack.log()}`);
    return campaign.state?.stage === 'training';
  });
  const seconds = (performance.now() - startedMs) / 1_000;
  const built = await builtDataset(stack.temporalAddress, spec.name);
  const store = createFileStore(homePaths(stack.home).artifacts);
  const ledger = createLedger(ledgerPath);
  const totals = await ledger.totals();
  const repairs = await countRepairs({ store, teacher: campaignSpecSchema.parse(spec).teacher, requests: built.requests }, ledger);
  await ledger.close();
  const good = await getRows<Sample>(store, built.dataset);
  const rejected = await getRows<RejectedSample>(store, built.rejected);
  return { ...booksOf({ requests: rows, repairs, good, rejected, counts: server.counts, totals, inFlightAtKills }), reportedRepeated: state?.spending.callsRepeated ?? NaN, seconds };
}

/** What the planning and the filter stage returned, from the workflow's own history. */
async function builtDataset(address: string, campaign: string): Promise<Pick<BuiltDataset, 'dataset' | 'rejected'> & Pick<PlannedRequests, 'requests'>> {
  const connection = await Connection.connect({ address });
  try {
    const { events } = await new Client({ connection }).workflow.getHandle(campaignWorkflowId(campaign)).fetchHistory();
    const results = (events ?? []).flatMap((event) => {
      const data = event.activityTaskCompletedEventAttributes?.result?.payloads?.[0]?.data;
      return data == null ? [] : [JSON.parse(Buffer.from(data).toString('utf8')) as Partial<BuiltDataset & PlannedRequests>];
    });
    const { requests } = results.find((result) => result.requests !== undefined) ?? {};
    const { dataset, rejected } = results.find((result) => result.dataset !== undefined) ?? {};
    if (requests === undefined || dataset === undefined || rejected === undefined) throw new Error(`expected requests and a dataset in the history of ${campaign}, got none`);
    return { requests, dataset, rejected };
  } finally {
    await connection.close();
  }
}

function specOf(folder: string, baseUrl: string, rows: number, concurrency: number): CampaignSpecInput {
  mkdirSync(folder, { recursive: true });
  const gold = writeRows(join(folder, 'gold.jsonl'), Array.from({ length: 10 }, (_, index) => ({ input: `held-out row number ${index} ${'abcdefghij'[index]}`, gold: index % 2 === 0 ? 'positive' : 'negative' })));
  const { name, task, sampling, filter, teacher, evaluation } = pairSpec('soak', baseUrl, rows, concurrency);
  return {
    name, task, sampling: { ...sampling, batchSize: 250 }, filter,
    // An attempt that stalls holds its place for so long.
    teacher: { ...teacher, timeoutSeconds: 3 },
    student: { model: writeTinyLlama(join(folder, 'student')) },
    evaluation: { ...evaluation, source: { kind: 'dataset', dataset: gold }, developmentRows: 4, testRows: 4 },
  };
}
