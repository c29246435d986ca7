/** `npm run soak -- sample [--rows N] [--kills N] [--faults SHARE] [--json]`: long runs with faults and kills. Exit 1 when a promise is broken. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { soakProblems, soakSampling } from '../test/support/sampling-soak.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rows: { type: 'string', default: '10000' }, kills: { type: 'string', default: '5' }, faults: { type: 'string', default: '0.05' },
    concurrency: { type: 'string', default: '64' }, seed: { type: 'string', default: '17' }, json: { type: 'boolean', default: false },
  },
});
if (positionals.length !== 1 || positionals[0] !== 'sample') {
  process.stderr.write(`soak: expected sample, got ${positionals.join(' ') || 'nothing'}\n`);
  process.exit(2);
}
const folder = await mkdtemp(join(tmpdir(), 'stillhouse-soak-'));
try {
  const concurrency = Number(values.concurrency);
  const result = await soakSampling({ folder, rows: Number(values.rows), kills: Number(values.kills), faultShare: Number(values.faults), concurrency, seed: Number(values.seed) });
  const problems = soakProblems(result, concurrency);
  process.stdout.write(values.json ? `${JSON.stringify({ ...result, problems }, undefined, 2)}\n` : `${Object.entries(result).map(([name, value]) => `${name.padEnd(20)} ${JSON.stringify(value)}`).join('\n')}\n`);
  for (const problem of problems) process.stderr.write(`soak: ${problem}\n`);
  process.exitCode = problems.length === 0 ? 0 : 1;
} finally {
  await rm(folder, { recursive: true, force: true });
}
