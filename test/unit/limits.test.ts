import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { admit, learn, limitOf, newAccount } from '../../src/teacher/rate-account.ts';
import type { Account, Rates } from '../../src/teacher/rate-account.ts';
import { createSharedLimits } from '../../src/teacher/shared-limits.ts';
import { temporaryFolder } from '../support/folder.ts';
import { runLimited } from '../support/limited-campaign.ts';
import { startOpenAIServer } from '../support/openai-server.ts';

const none = { requests: 0, tokens: 0, atMs: 0 };
const STEP_MS = 10;

/** Two processes with a campaign each that always has ten calls to make, visiting in turn; how many calls each got in a time. */
function race(account: Account, forMs: number, more: { readonly tokens?: readonly [number, number]; readonly limits?: Rates; readonly startOfSecondMs?: number } = {}): readonly [number, number] {
  const got: [number, number] = [0, 0];
  for (let nowMs = STEP_MS; nowMs <= forMs; nowMs += STEP_MS) {
    for (const [index, user] of (['a', 'b'] as const).entries()) {
      if (index === 1 && nowMs < (more.startOfSecondMs ?? 0)) continue;
      const { admitted } = admit(account, [{ user, calls: Array<number>(10).fill(more.tokens?.[index] ?? 1), limits: more.limits }], 10, nowMs);
      got[index as 0 | 1] += admitted[0] ?? 0;
    }
  }
  return got;
}

describe('account of a provider key', () => {
  it('admits at the limit that headers name, after the burst that they show to remain', () => {
    const account = newAccount(0);
    learn(account, { limitRequests: 6_000, remainingRequests: 49 }, undefined, none, 0);
    const [a, b] = race(account, 10_000);
    assert.ok(a + b >= 1_000 && a + b <= 1_051, `got ${a + b}`);
  });

  it('is fair to campaigns of different processes, also when their calls differ in size or one comes later', () => {
    const equal = newAccount(0);
    learn(equal, { limitRequests: 6_000, remainingRequests: 10 }, undefined, none, 0);
    const [a, b] = race(equal, 10_000);
    assert.ok(Math.abs(a - b) <= 12, `got ${a} and ${b}`);
    const sized = newAccount(0);
    learn(sized, { limitTokens: 60_000, remainingTokens: 500 }, undefined, none, 0);
    const [small, large] = race(sized, 10_000, { tokens: [10, 50] });
    assert.ok(Math.abs(small * 10 - large * 50) < 0.1 * small * 10, `got ${small * 10} and ${large * 50} tokens`);
    const later = newAccount(0);
    learn(later, { limitRequests: 6_000, remainingRequests: 10 }, undefined, none, 0);
    const [first, second] = race(later, 20_000, { startOfSecondMs: 10_000 });
    assert.ok(Math.abs(first - 1_500) < 40 && Math.abs(second - 500) < 40, `got ${first} and ${second}: it owes nothing for the time before`);
  });

  it('takes the lowest of what the provider names, a person sets and a campaign allows', () => {
    const account = newAccount(0);
    learn(account, { limitRequests: 600, remainingRequests: 600 }, undefined, none, 0);
    admit(account, [{ user: 'careful', calls: [1], limits: { requestsPerMinute: 120 } }], 1, 0);
    assert.equal(limitOf(account, 'requests', 1), 120);
    assert.equal(limitOf(account, 'requests', 60_000), 600, 'a campaign that is over limits nobody');
    account.requests.set = 60;
    assert.equal(limitOf(account, 'requests', 1), 60);
    const [a, b] = race(account, 10_000, { limits: { requestsPerMinute: 120 } });
    assert.ok(a + b <= 12 && a + b >= 10, `got ${a + b} in ten seconds at 60 a minute, with a second's burst`);
  });

  it('stops for all at a 429 for as long as Retry-After says', () => {
    const account = newAccount(0);
    learn(account, { refused: true, retryAfterMs: 5_000 }, undefined, none, 0);
    assert.deepEqual(admit(account, [{ user: 'a', calls: [1] }], 1, 4_999).admitted, [0]);
    assert.deepEqual(admit(account, [{ user: 'a', calls: [1] }], 1, 5_000).admitted, [1]);
  });
});

describe('limits of a home', () => {
  const folder = temporaryFolder();
  const key = { id: 'd1', provider: 'https://llm.example.com/v1', keyName: 'LLM_KEY' };

  it('are seen by every process, set and lifted by a command, and keep no key', async () => {
    const home = join(folder, 'home');
    const STILL = join(import.meta.dirname, '..', '..', 'src', 'cli', 'still.ts');
    const still = async (...args: readonly string[]) => (await promisify(execFile)(process.execPath, [STILL, 'limits', ...args], { env: { ...process.env, STILLHOUSE_HOME: home } })).stdout;
    await assert.rejects(still(), /expected rate limits at .*limits\.sqlite, got none/);
    using one = createSharedLimits(join(home, 'limits.sqlite'));
    using two = createSharedLimits(join(home, 'limits.sqlite'));
    one.visit(key, { returned: { feedback: { limitRequests: 500, remainingRequests: 400 }, inFlight: none }, demands: [], atMost: 0 });
    assert.equal(two.visit(key, { demands: [], atMost: 0 }).limited, true);
    assert.match(await still('--provider', 'https://llm.example.com/v1/', '--requests', '100'), /LLM_KEY +500 +100 +100/);
    assert.equal(two.list()[0]?.requestsPerMinute.effective, 100);
    const lifted = JSON.parse(await still('--provider', key.provider, '--key', 'LLM_KEY', '--requests', 'none', '--json')) as { accounts: { requestsPerMinute: object }[] };
    assert.deepEqual(lifted.accounts[0]?.requestsPerMinute, { learned: 500, effective: 500 });
    await assert.rejects(still('--requests', '5'), /expected --provider with a rate/);
    await assert.rejects(still('--provider', 'http://other/v1', '--requests', '5'), /expected a key of http:\/\/other\/v1 that was used/);
  });

  it('are shared by two worker processes, which use them and hardly run into them', async () => {
    await using server = await startOpenAIServer({ requestsPerMinute: 6_000, enforcedOverMs: 500, latencyMs: 20, answer: () => 'positive' });
    const orders = ['one', 'two'].map((campaign) => ({ baseUrl: server.baseUrl, limitsPath: join(folder, 'two.sqlite'), campaigns: [campaign], concurrency: 16 }));
    const [one = 0, two = 0] = await runLimited(orders, 3_000);
    const refused = server.counts.statuses.get('429') ?? 0;
    // 350 are permitted: 100 a second and a burst of 50. The machine may be busy; that the limit holds does not depend on it.
    assert.ok(one + two >= 100 && one + two <= 380, `answered ${one} and ${two}`);
    assert.ok(refused <= 0.05 * server.counts.calls, `refused ${refused} of ${server.counts.calls}`);
  });
});
