/**
 * `npm run soak -- NAME [options] [--json]`: long runs with faults and kills. Exit 1 when a promise is broken.
 *
 *   sample   [--rows N] [--kills N] [--faults SHARE] [--concurrency N]   a campaign's sampling; its worker is killed
 *   budget   [--campaigns N] [--at-once N] [--kills N] [--cancelled SHARE]   whole campaigns within random limits
 *   outage   [--minutes N]                                               a campaign whose provider is away
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { soakBudget } from '../test/support/budget-soak.ts';
import { soakOutage } from '../test/support/outage-soak.ts';
import { soakProblems } from '../test/support/sampling-soak.ts';
import { soakSamplingStack } from '../test/support/sampling-stack-soak.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rows: { type: 'string', default: '10000' }, faults: { type: 'string', default: '0.05' }, concurrency: { type: 'string', default: '64' },
    campaigns: { type: 'string', default: '200' }, 'at-once': { type: 'string', default: '10' },
    cancelled: { type: 'string', default: '0.1' }, minutes: { type: 'string', default: '10' },
    kills: { type: 'string' }, seed: { type: 'string', default: '17' }, json: { type: 'boolean', default: false },
  },
});

type Result = Readonly<Record<string, unknown>> & { readonly problems: readonly string[] };
const seed = Number(values.seed);
const kills = (otherwise: number): number => (values.kills === undefined ? otherwise : Number(values.kills));
const say = (line: string): void => void process.stderr.write(`${line}\n`);

const SOAKS: Readonly<Record<string, (folder: string) => Promise<Result>>> = {
  sample: async (folder) => {
    const concurrency = Number(values.concurrency);
    const result = await soakSamplingStack({ folder, rows: Number(values.rows), kills: kills(5), faultShare: Number(values.faults), concurrency, seed, say });
    return { ...result, problems: soakProblems(result, concurrency) };
  },
  budget: async (folder) => ({ ...(await soakBudget({ folder, campaigns: Number(values.campaigns), atOnce: Number(values['at-once']), kills: kills(40), cancelledShare: Number(values.cancelled), seed, say })) }),
  outage: async (folder) => ({ ...(await soakOutage({ folder, minutes: Number(values.minutes), say })) }),
};

const soak = positionals.length === 1 ? SOAKS[positionals[0] ?? ''] : undefined;
if (soak === undefined) {
  process.stderr.write(`soak: expected one of ${Object.keys(SOAKS).join(', ')}, got ${positionals.join(' ') || 'nothing'}\n`);
  process.exit(2);
}
const folder = await mkdtemp(join(tmpdir(), 'stillhouse-soak-'));
try {
  const { problems, ...result } = await soak(folder);
  process.stdout.write(values.json ? `${JSON.stringify({ ...result, problems }, undefined, 2)}\n` : `${Object.entries(result).map(([name, value]) => `${name.padEnd(24)} ${JSON.stringify(value)}`).join('\n')}\n`);
  for (const problem of problems) process.stderr.write(`soak: ${problem}\n`);
  process.exitCode = problems.length === 0 ? 0 : 1;
} finally {
  await rm(folder, { recursive: true, force: true });
}
