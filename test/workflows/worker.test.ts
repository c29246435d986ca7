import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { createCampaigns } from '../../src/client/gateway.ts';
import { homePaths } from '../../src/config.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import { specToPlan } from '../../src/contracts/campaign.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { putJson } from '../../src/store/jsonl.ts';
import { parseRoles } from '../../worker/main.ts';
import { temporaryFolder } from '../support/folder.ts';
import { useTemporal } from '../support/temporal.ts';
import { until } from '../support/until.ts';

const MAIN = join(import.meta.dirname, '..', '..', 'worker', 'main.ts');

describe('worker process', () => {
  const temporal = useTemporal();
  const home = temporaryFolder();

  const children: ChildProcess[] = [];
  after(() => children.forEach((child) => child.kill('SIGKILL')));

  const start = (...args: readonly string[]): { readonly child: ChildProcess; readonly ended: Promise<number | null>; output(): string } => {
    let output = '';
    const child = fork(MAIN, args, { stdio: ['ignore', 'pipe', 'pipe', 'ipc'], env: { ...process.env, STILLHOUSE_HOME: home, TEMPORAL_ADDRESS: temporal.env.address } });
    children.push(child);
    for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (text: string) => (output += text));
    return { child, ended: once(child, 'exit').then(([code]) => code as number | null), output: () => output };
  };

  it('takes roles in either form, and names one that it does not know', async () => {
    assert.deepEqual(parseRoles(['--roles', 'trainer,orchestrator']), ['orchestrator', 'trainer']);
    assert.deepEqual(parseRoles(['teacher']), ['teacher']);
    assert.deepEqual(parseRoles([]), ['orchestrator', 'teacher', 'trainer']);
    const { ended, output } = start('--roles', 'trainer,butler');
    assert.equal(await ended, 1);
    assert.match(output(), /roles: expected some of orchestrator, teacher, trainer, got butler/);
  });

  it('turns a failure of real work into a pause with its reason, and ends when its parent is gone', async () => {
    const { child, ended, output } = start('--roles', 'orchestrator,teacher,trainer');
    const store = createFileStore(homePaths(home).artifacts);
    const missing = join(home, 'no-such-rows.jsonl');
    const spec = campaignSpecSchema.parse({
      name: 'missing-rows', task: { description: 'd', output: { kind: 'label', labels: ['x', 'y'] } }, teacher: { provider: 'local', model: 'm' },
      sampling: { source: { kind: 'inputs', dataset: missing }, rows: 10 }, student: { model: 'm' },
      evaluation: { source: { kind: 'dataset', dataset: missing }, developmentRows: 5, testRows: 5, scorer: { kind: 'label' } },
    });
    const campaigns = createCampaigns(temporal.client);
    await campaigns.start({ campaign: spec.name, spec: await putJson(store, 'spec', spec), plan: specToPlan(spec), budget: {} });
    const { state } = await until(() => campaigns.describe(spec.name), (description) => description.state?.status === 'paused', { limitMs: 30_000 }).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${output()}`);
    });
    assert.equal(state?.pauseKind, 'failure');
    assert.match(state?.pauseReason ?? '', /^Preparing the data: .*no-such-rows\.jsonl/);
    const askedAt = Date.now();
    child.disconnect();
    assert.equal(await ended, 0, output());
    assert.ok(Date.now() - askedAt < 15_000, `expected it to end within 15 s, took ${Date.now() - askedAt} ms`);
  });
});
