/** The soak of `npm run soak -- budget` with few campaigns: a real stack, a provider that fails, workers killed. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { soakBudget } from '../support/budget-soak.ts';
import { temporaryFolder } from '../support/folder.ts';

it('campaigns with random prices and limits stay within them through faults and kills, and go on when raised', async (context) => {
  const folder = temporaryFolder();
  const result = await soakBudget({ folder, campaigns: 3, atOnce: 3, kills: 1, seed: 17 });
  context.diagnostic(JSON.stringify(result));
  assert.deepEqual(result.problems, []);
  assert.deepEqual([result.completed, result.continuedAfterRaise, result.kills], [3, 3, 1]);
  assert.equal(result.largestOvershootUsd, 0);
});

it("of campaigns that are cancelled while their worker dies the books and what is uncertain cover the provider's bill", async (context) => {
  const result = await soakBudget({ folder: temporaryFolder(), campaigns: 6, atOnce: 3, kills: 0, seed: 17, cancelledShare: 1 });
  context.diagnostic(JSON.stringify(result));
  assert.deepEqual(result.problems, []);
  assert.ok(result.cancelled === 6 && result.kills > 0 && result.unansweredUsd > 0 && result.uncertainUsd >= result.unansweredUsd);
});
