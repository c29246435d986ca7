/** Sampling by a process that is killed at random moments, against a server that fails in every way; and the books of both sides compared. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CampaignContext, PlannedRequests, PreparedData } from '../../src/contracts/activities.ts';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpec, EndpointSpec } from '../../src/contracts/campaign-spec.ts';
import type { RejectedSample, Sample, TeacherRequest } from '../../src/contracts/records.ts';
import { buildDataset } from '../../src/dataset/build.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { ledgerKey } from '../../src/ledger/key.ts';
import type { Ledger, LedgerTotals } from '../../src/ledger/ledger.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getJson, getRows, putJson, putRows } from '../../src/store/jsonl.ts';
import type { ArtifactStore } from '../../src/store/store.ts';
import { createAnswerReader } from '../../src/teacher/answers.ts';
import type { CallTimings } from '../../src/teacher/openai.ts';
import { planRequests } from '../../src/teacher/plan.ts';
import { repairOf } from '../../src/teacher/repair.ts';
import { hostedDirectory } from './hosted-directory.ts';
import { startOpenAIServer } from './openai-server.ts';
import type { ChatCall, Fault, OpenAIServerCounts } from './openai-server.ts';
import type { SamplingOrder, SamplingOutcome } from './sampling-process.ts';

export const FAULTS: readonly Fault[] = [
  '429', '500', '503', 'reset', 'reset-after-work', 'stall', 'truncated-body', 'truncated-json', 'broken-schema', 'refusal', 'content-filter', 'content-filter-400', 'context-length', 'duplicate',
];
const TIMINGS: Partial<CallTimings> = { attemptTimeoutMs: 3_000, retryBudgetMs: 120_000, firstRetryDelayMs: 20, maxRetryDelayMs: 500 };
const POLL_MS = 2;

/** Each call writes one pair, from its own combination of two attributes. */
export function pairSpec(name: string, baseUrl: string, rows: number, concurrency: number): CampaignSpec {
  const side = Math.ceil(Math.sqrt(rows));
  const values = (prefix: string): string[] => Array.from({ length: side }, (_, index) => `${prefix} ${index}`);
  return campaignSpecSchema.parse({
    name,
    task: { description: 'Tell good from bad.', instruction: 'Review: {input}\nSentiment:', output: { kind: 'label', labels: ['negative', 'positive'] } },
    teacher: { provider: 'openai', model: 'gpt-4o-mini', baseUrl, concurrency },
    sampling: { source: { kind: 'description', pairsPerCall: 1, attributes: { topic: values('topic'), style: values('style') } }, rows, batchSize: Math.min(1_000, rows) },
    filter: { nearDuplicateSimilarity: 1 },
    student: { model: 'smollm2-135m-instruct' },
    evaluation: { source: { kind: 'dataset', dataset: 'gold.jsonl' }, developmentRows: 1, testRows: 1, scorer: { kind: 'label' } },
  });
}

/** The teacher labels rows that are there: short questions, one for each row. */
export function labelSpec(name: string, baseUrl: string, rows: number, concurrency: number): CampaignSpec {
  const { task, student, evaluation, teacher } = pairSpec(name, baseUrl, rows, concurrency);
  return campaignSpecSchema.parse({ name, task, student, evaluation, teacher, sampling: { source: { kind: 'inputs', dataset: 'pool.jsonl' }, rows, batchSize: Math.min(1_000, rows) } });
}

/** One pair whose input nobody else writes. */
export function writePair(call: ChatCall): string {
  const digest = createHash('sha256').update(JSON.stringify(call.messages)).digest();
  return JSON.stringify({ pairs: [{ input: digest.toString('hex'), output: digest.readUInt8(0) % 2 === 0 ? 'positive' : 'negative' }] });
}

export interface SamplingWork {
  readonly store: ArtifactStore;
  readonly context: CampaignContext;
  readonly data: PreparedData;
  readonly planned: PlannedRequests;
  readonly order: SamplingOrder;
}

/** Plans the first round of a spec in a folder and writes the order for a sampling process. */
export async function planWork(folder: string, spec: CampaignSpec): Promise<SamplingWork> {
  const root = join(folder, 'objects');
  const store = createFileStore(root);
  await using directory = hostedDirectory();
  const held = await putRows(store, 'rows', [{ id: 'held', input: 'a held-out row', origin: 'held:1', gold: 'positive' }]);
  const rows = spec.sampling.source.kind === 'inputs' ? Array.from({ length: spec.sampling.rows }, (_, index) => ({ id: `row-${index}`, input: `sentence ${index} is good.`, origin: `pool:${index + 1}` })) : [];
  const data: PreparedData = { ...(rows.length === 0 ? {} : { pool: await putRows(store, 'rows', rows) }), development: held, test: held, poolRows: rows.length, developmentRows: 1, testRows: 1 };
  const context = { campaign: spec.name, spec: await putJson(store, 'spec', spec) };
  const planned = await planRequests({ store, directory, find: async (_spec, requests) => requests.map(() => undefined) }, { ...context, data, purpose: 'train', round: 1 });
  return { store, context, data, planned, order: { context, planned, root, ledgerPath: join(folder, 'ledger.sqlite'), timings: TIMINGS } };
}

/** A sampling process; `outcome` is undefined when it was killed. */
export function startSampling(order: SamplingOrder): { readonly kill: () => void; readonly running: () => boolean; readonly outcome: Promise<SamplingOutcome | undefined> } {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'sampling-process.ts'), JSON.stringify(order)], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit') as Promise<[number | null, string | null]>;
  const outcome = Promise.all([exited, text(child.stdout)]).then(([[code, signal], printed]) => {
    if (signal === 'SIGKILL') return undefined;
    if (code !== 0) throw new Error(`expected the sampling process to end with 0, got ${code ?? signal}`);
    return JSON.parse(printed) as SamplingOutcome;
  });
  return { kill: () => void child.kill('SIGKILL'), running: () => child.exitCode === null && child.signalCode === null, outcome };
}

export interface SoakOptions {
  readonly folder: string;
  readonly rows: number;
  readonly kills: number;
  /** Share of calls that fail, spread evenly over all kinds of faults. */
  readonly faultShare: number;
  readonly concurrency: number;
  readonly seed: number;
}

export interface SoakResult {
  readonly requests: number;
  readonly goodRows: number;
  readonly rejectedRows: number;
  readonly distinctRequestIds: number;
  readonly rejectedByReason: Readonly<Record<string, number>>;
  readonly billedCalls: number;
  readonly distinctBilledCalls: number;
  /** Billed calls beyond the first of each question. */
  readonly boughtTwice: number;
  /** Billed calls whose answers the server's faults kept back. */
  readonly lostByFaults: number;
  /** Calls without a recorded answer when the process died, for each kill. */
  readonly inFlightAtKills: readonly number[];
  /** Answers that were broken JSON, each of which is asked about once more. */
  readonly repairs: number;
  readonly ledgerCalls: number;
  readonly openCalls: number;
  readonly reportedRepeated: number;
  readonly statuses: Readonly<Record<string, number>>;
  readonly faults: Readonly<Record<string, number>>;
  readonly seconds: number;
}

export async function soakSampling(options: SoakOptions): Promise<SoakResult> {
  const { rows, kills, faultShare, concurrency, seed } = options;
  await using server = await startOpenAIServer({ latencyMs: 10, answer: writePair, faults: evenFaults(faultShare), random: createRandom(seed, 'faults') });
  const work = await planWork(options.folder, pairSpec('soak', server.baseUrl, rows, concurrency));
  const random = createRandom(seed, 'kills');
  const moments = Array.from({ length: kills }, () => Math.floor(rows * (0.05 + 0.9 * random()))).sort((a, b) => a - b);
  const startedMs = performance.now();
  const inFlightAtKills: number[] = [];
  for (const moment of moments) {
    const sampling = startSampling(work.order);
    while (server.counts.billedCalls < moment && sampling.running()) await sleep(POLL_MS);
    sampling.kill();
    if ((await sampling.outcome) !== undefined) throw new Error(`expected to kill the process after ${moment} calls, but it was done before`);
    inFlightAtKills.push(await openCalls(work.order.ledgerPath));
  }
  const outcome = await startSampling(work.order).outcome;
  const seconds = (performance.now() - startedMs) / 1_000;
  const ledger = createLedger(work.order.ledgerPath);
  try {
    const totals = await ledger.totals();
    const answers = createAnswerReader({ ledger, directory: hostedDirectory() });
    const built = await buildDataset({ store: work.store, answers }, { ...work.context, data: work.data, round: 1, requests: [work.planned.requests] });
    const good = await getRows<Sample>(work.store, built.dataset);
    const rejected = await getRows<RejectedSample>(work.store, built.rejected);
    const { teacher } = await getJson<CampaignSpec>(work.store, work.context.spec);
    const repairs = await countRepairs({ store: work.store, teacher, requests: work.planned.requests }, ledger);
    return { ...booksOf({ requests: work.planned.count, repairs, good, rejected, counts: server.counts, totals, inFlightAtKills }), reportedRepeated: outcome?.callsRepeated ?? NaN, seconds };
  } finally {
    await ledger.close();
  }
}

/** Questions that were asked once more, because their answer was not the JSON that was asked for. */
export async function countRepairs({ store, teacher, requests: ref }: { readonly store: ArtifactStore; readonly teacher: EndpointSpec; readonly requests: ArtifactRef }, ledger: Ledger): Promise<number> {
  await using directory = hostedDirectory();
  const identity = await directory.identify(teacher);
  const requests = await getRows<TeacherRequest>(store, ref);
  const answers = await ledger.lookup(requests.map((request) => ledgerKey(identity, request)));
  return requests.filter((request) => {
    const answer = answers.get(ledgerKey(identity, request));
    return answer !== undefined && repairOf(request, answer) !== undefined;
  }).length;
}

/** All kinds of faults, equally often. */
export const evenFaults = (share: number): Partial<Record<Fault, number>> => Object.fromEntries(FAULTS.map((fault) => [fault, share / FAULTS.length]));

interface Books {
  readonly requests: number;
  readonly repairs: number;
  readonly good: readonly Sample[];
  readonly rejected: readonly RejectedSample[];
  readonly counts: OpenAIServerCounts;
  readonly totals: LedgerTotals;
  readonly inFlightAtKills: readonly number[];
}

/** The rows, the server's bill and the ledger, side by side. */
export function booksOf({ requests, repairs, good, rejected, counts, totals, inFlightAtKills }: Books): Omit<SoakResult, 'reportedRepeated' | 'seconds'> {
  return {
    requests,
    goodRows: good.length,
    rejectedRows: rejected.length,
    distinctRequestIds: new Set([...good, ...rejected].map(({ requestId }) => requestId)).size,
    rejectedByReason: Object.fromEntries([...Map.groupBy(rejected, ({ reason }) => reason)].map(([reason, list]) => [reason, list.length])),
    billedCalls: counts.billedCalls,
    distinctBilledCalls: counts.billedByQuestion.size,
    boughtTwice: counts.billedCalls - counts.billedByQuestion.size,
    lostByFaults: counts.lostAnswers,
    inFlightAtKills,
    repairs,
    ledgerCalls: totals.calls,
    openCalls: totals.open,
    statuses: Object.fromEntries(counts.statuses),
    faults: Object.fromEntries(counts.faults),
  };
}

export async function openCalls(ledgerPath: string): Promise<number> {
  const ledger = createLedger(ledgerPath);
  const { open } = await ledger.totals();
  await ledger.close();
  return open;
}

/** What must hold of every soak: one sentence for each thing that does not. */
export function soakProblems(result: SoakResult, concurrency: number): readonly string[] {
  const lostAtKills = result.inFlightAtKills.reduce((sum, open) => sum + open, 0);
  const problems: string[] = [];
  const expect = (holds: boolean, message: string): void => void (holds || problems.push(message));
  expect(result.goodRows + result.rejectedRows === result.requests, `expected ${result.requests} rows good or rejected, got ${result.goodRows + result.rejectedRows}`);
  expect(result.distinctRequestIds === result.requests, `expected no row lost or doubled, got ${result.distinctRequestIds} of ${result.requests} requests`);
  const calls = result.requests + result.repairs;
  expect(result.ledgerCalls === calls && result.openCalls === 0, `expected ${calls} recorded calls and none open, got ${result.ledgerCalls} and ${result.openCalls}`);
  expect(result.inFlightAtKills.every((open) => open <= concurrency), `expected at most ${concurrency} calls in flight at a kill, got ${result.inFlightAtKills.join(', ')}`);
  expect(result.boughtTwice <= result.lostByFaults + lostAtKills, `expected at most ${result.lostByFaults} + ${lostAtKills} calls bought twice, got ${result.boughtTwice}`);
  expect(result.reportedRepeated <= lostAtKills, `expected at most ${lostAtKills} repeated calls in the ledger, got ${result.reportedRepeated}`);
  return problems;
}
