import assert from 'node:assert/strict';
import { it } from 'node:test';
import { temporaryFolder } from '../support/folder.ts';
import { soakProblems, soakSampling } from '../support/sampling-soak.ts';

it('1,000 rows through every fault and two kills: each good or rejected, billed once but what was in flight', async () => {
  const folder = temporaryFolder();
  const concurrency = 32;
  const result = await soakSampling({ folder, rows: 1_000, kills: 2, faultShare: 0.13, concurrency, seed: 3 });
  assert.deepEqual(soakProblems(result, concurrency), []);
  assert.ok(result.lostByFaults > 0 && result.rejectedRows > 0, 'the faults were felt');
  assert.notDeepEqual(soakProblems({ ...result, goodRows: result.goodRows - 1 }, concurrency), [], 'a lost row is noticed');
  assert.notDeepEqual(soakProblems({ ...result, boughtTwice: result.boughtTwice + 1_000 }, concurrency), [], 'needless buying is noticed');
});
