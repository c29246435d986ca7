/**
 * `npm run bench -- sample [--json] [--rows N] [--runs N] [--concurrency N] [--long-calls N]`: sampling at
 * 100 ms latency against the sequential loop of the textbook, bespokelabs-curator and distilabel, each
 * pointed at the same local server, interleaved; process memory beside it. Every call of ours goes
 * through the ledger. `--long-calls` asks that many in one process and shows whether memory stays flat.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { OpenAI } from 'openai';
import { startOpenAIServer, TEST_KEY } from '../test/support/openai-server.ts';
import type { OpenAIServer } from '../test/support/openai-server.ts';
import { labelSpec, planWork, startSampling } from '../test/support/sampling-soak.ts';
import { peerEnvironment, pythonOf } from './peers/python.ts';
import type { Peer } from './peers/python.ts';

const LATENCY_MS = 100;
const SEQUENTIAL_CALLS = 20;
const PEER_TIMEOUT_MS = 300_000;
const PEER_MODEL = 'gpt-4o-mini';
const run = promisify(execFile);

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false }, rows: { type: 'string', default: '2000' }, runs: { type: 'string', default: '3' },
    concurrency: { type: 'string', default: '64' }, 'long-calls': { type: 'string', default: '0' },
  },
});
const [rows, runs, concurrency, longCalls] = [Number(values.rows), Number(values.runs), Number(values.concurrency), Number(values['long-calls'])];
const say = (line: string): void => void process.stderr.write(`${line}\n`);

interface Measured {
  readonly rows: number;
  readonly seconds: number;
  readonly peakRssBytes: number;
}
const PEERS: readonly Peer[] = [
  { name: 'curator', requirement: 'bespokelabs-curator==0.1.31', also: [], script: 'curator_sample.py' },
  { name: 'distilabel', requirement: 'distilabel[openai]==1.5.3', also: ['requests'], script: 'distilabel_sample.py' },
];

const startServer = (forget = false): Promise<OpenAIServer> => startOpenAIServer({ latencyMs: LATENCY_MS, answer: () => 'positive', forget });

async function measurePeer(peer: Peer, python: string): Promise<Measured> {
  await using server = await startServer();
  const script = join(import.meta.dirname, 'peers', peer.script);
  const { stdout } = await run(python, [script, server.baseUrl, String(rows), String(concurrency), PEER_MODEL], { timeout: PEER_TIMEOUT_MS, maxBuffer: 1 << 26, env: { ...peerEnvironment(), OPENAI_API_KEY: TEST_KEY } });
  const measured = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Measured;
  if (measured.rows !== rows) throw new Error(`expected ${rows} answers of ${peer.name}, got ${measured.rows}`);
  return measured;
}

async function measureOurs(count: number, forget: boolean): Promise<Measured & { readonly rssBytes: readonly number[] }> {
  await using server = await startServer(forget);
  const folder = await mkdtemp(join(tmpdir(), 'stillhouse-bench-'));
  try {
    const { order } = await planWork(folder, labelSpec('bench', server.baseUrl, count, concurrency));
    const outcome = await startSampling(order).outcome;
    if (outcome === undefined || outcome.callsBought !== count) throw new Error(`expected ${count} calls, got ${outcome?.callsBought}`);
    return { rows: count, seconds: outcome.seconds, peakRssBytes: outcome.peakRssBytes, rssBytes: outcome.rssBytes };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** One call after the other, as tutorials do it; in this process, so that its memory includes the server's. */
async function measureSequential(): Promise<Measured> {
  await using server = await startServer();
  const client = new OpenAI({ apiKey: TEST_KEY, baseURL: server.baseUrl });
  const startedMs = performance.now();
  for (let index = 0; index < SEQUENTIAL_CALLS; index += 1) {
    await client.chat.completions.create({ model: 'gpt-4o-mini', messages: [{ role: 'user', content: `Review: sentence ${index} is good.\nSentiment:` }], max_tokens: 16 });
  }
  return { rows: SEQUENTIAL_CALLS, seconds: (performance.now() - startedMs) / 1_000, peakRssBytes: process.memoryUsage.rss() };
}

const perSecond = ({ rows: count, seconds }: Measured): number => count / seconds;
const median = (numbers: readonly number[]): number => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? NaN;
const rounded = (value: number): number => Math.round(value * 100) / 100;

function summary(measured: readonly Measured[]) {
  const rates = measured.map(perSecond);
  return { callsPerSecond: rounded(median(rates)), lowest: rounded(Math.min(...rates)), highest: rounded(Math.max(...rates)), peakRssMiB: rounded(median(measured.map(({ peakRssBytes }) => peakRssBytes)) / 2 ** 20), runs: measured.length };
}

const measurements = new Map<string, Measured[]>();
const keep = (name: string, measured: Measured): void => {
  measurements.set(name, [...(measurements.get(name) ?? []), measured]);
  say(`${name}: ${perSecond(measured).toFixed(1)} calls/s, ${(measured.peakRssBytes / 2 ** 20).toFixed(0)} MiB`);
};
const pythons = new Map<Peer, string>();
for (const peer of PEERS) pythons.set(peer, await pythonOf(peer, say));
for (let index = 0; index < runs; index += 1) {
  keep('stillhouse', await measureOurs(rows, true));
  for (const [peer, python] of pythons) keep(peer.name, await measurePeer(peer, python));
  keep('sequential', await measureSequential());
}
const results = Object.fromEntries([...measurements].map(([name, measured]) => [name, summary(measured)]));
const ratios = Object.fromEntries([...measurements].filter(([name]) => name !== 'stillhouse').map(([name, theirs]) => {
  // Run by run: neighbours in time share what else the machine was doing.
  const each = theirs.map((measured, index) => perSecond(measurements.get('stillhouse')?.[index] ?? measured) / perSecond(measured));
  return [name, { ratio: rounded(median(each)), lowest: rounded(Math.min(...each)), highest: rounded(Math.max(...each)) }];
}));
const long = longCalls > 0 ? await measureOurs(longCalls, true) : undefined;
const longRun = long === undefined ? {} : { longRun: { calls: longCalls, callsPerSecond: rounded(perSecond(long)), peakRssMiB: rounded(long.peakRssBytes / 2 ** 20), rssMiB: long.rssBytes.map((bytes) => Math.round(bytes / 2 ** 20)) } };
const document = { bench: 'sample', latencyMs: LATENCY_MS, rows, concurrency, results, ratios, ...longRun };
process.stdout.write(`${JSON.stringify(document, undefined, values.json ? 2 : 0)}\n`);
