import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { it } from 'node:test';
import { promisify } from 'node:util';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { temporaryFolder } from '../support/folder.ts';

const STILL = join(import.meta.dirname, '..', '..', 'src', 'cli', 'still.ts');

it('still ledger shows calls, tokens, cost and what reuse saved, of all campaigns or of one; without a ledger it says so', async () => {
  const home = temporaryFolder();
  const still = (...args: readonly string[]) => promisify(execFile)(process.execPath, [STILL, 'ledger', ...args], { env: { ...process.env, STILLHOUSE_HOME: home } });
  await assert.rejects(still(), /expected a ledger at .*ledger\.sqlite, got none/);
  const ledger = createLedger(join(home, 'ledger.sqlite'));
  const keys = ['a', 'b'].map((digit) => digit.repeat(64));
  await ledger.recordIntents(keys.map((key, index) => ({ key, provider: 'http://localhost/v1', model: 'm', request: '{}', campaign: `c${index}`, purpose: 'train' as const })));
  const usage = { promptTokens: 7, cachedPromptTokens: 0, completionTokens: 2 };
  await ledger.recordAnswers(keys.map((key) => ({ key, answer: { text: 'yes', finishReason: 'stop', usage, costUsd: 0.25, latencyMs: 1, model: 'm' } })));
  await ledger.recordReuse({ batch: 'b', campaign: 'c1', keys: [{ key: keys[0] ?? '', purpose: 'test' }] });
  await ledger.close();
  assert.match((await still()).stdout, /\nall +2 +0 +0 +14 +4 +0 +0\.500000 +0 +0\.000000 +1 +0\.250000\n/);
  assert.match((await still('c1')).stdout, /\nc1 +m +test +0 +0 +0 +0 +0 +0 +0\.000000 +0 +0\.000000 +1 +0\.250000\nc1 +m +train +1 /);
  const one = JSON.parse((await still('c1', '--json')).stdout) as { readonly calls: number; readonly costUsd: number };
  assert.deepEqual([one.calls, one.costUsd], [1, 0.25]);
});
