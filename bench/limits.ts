/**
 * `npm run bench -- limits [--json] [--seconds N] [--latency MS]`: two campaigns with one key against an
 * enforced limit of 6,000 requests a minute, in one worker process and in two: how much of it they use,
 * how often they are refused, how evenly they share.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { runLimited } from '../test/support/limited-campaign.ts';
import { startOpenAIServer } from '../test/support/openai-server.ts';

const REQUESTS_PER_MINUTE = 6_000;
/** The share of the minute over which the server enforces its limit: also the burst that it permits. */
const ENFORCED_OVER_MS = 1_000;
const CONCURRENCY = 32;

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false }, seconds: { type: 'string', default: '20' }, latency: { type: 'string', default: '50' } } });
const [seconds, latencyMs] = [Number(values.seconds), Number(values.latency)];

/** Worker processes, each with the campaigns named. */
async function measure(processes: readonly (readonly string[])[]) {
  await using server = await startOpenAIServer({ requestsPerMinute: REQUESTS_PER_MINUTE, enforcedOverMs: ENFORCED_OVER_MS, latencyMs, answer: () => 'positive' });
  const folder = await mkdtemp(join(tmpdir(), 'stillhouse-limits-'));
  try {
    const orders = processes.map((campaigns) => ({ baseUrl: server.baseUrl, limitsPath: join(folder, 'limits.sqlite'), campaigns, concurrency: CONCURRENCY }));
    const answered = await runLimited(orders, 1_000 * seconds);
    const permitted = (REQUESTS_PER_MINUTE / 60_000) * (1_000 * seconds + ENFORCED_OVER_MS);
    const done = answered.reduce((sum, count) => sum + count, 0);
    const refused = server.counts.statuses.get('429') ?? 0;
    return {
      processes: processes.length, seconds, answered, permitted: Math.round(permitted), calls: server.counts.calls, refused,
      usedShare: done / permitted, refusedShare: refused / server.counts.calls, difference: (Math.max(...answered) - Math.min(...answered)) / Math.max(...answered),
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const document = { bench: 'limits', requestsPerMinute: REQUESTS_PER_MINUTE, latencyMs, results: [await measure([['one', 'two']]), await measure([['one'], ['two']])] };
process.stdout.write(`${JSON.stringify(document, undefined, values.json ? 2 : 0)}\n`);
