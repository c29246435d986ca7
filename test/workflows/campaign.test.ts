import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ApplicationFailure, CancelledFailure, WorkflowFailedError, WorkflowUpdateFailedError } from '@temporalio/client';
import { cancelUpdate, pauseUpdate, raiseBudgetUpdate, resumeUpdate, roundsQuery, stateQuery } from '../../src/contracts/messages.ts';
import { ScriptedActivities, campaignInput } from '../support/scripted-activities.ts';
import { measureRuns, useTemporal } from '../support/temporal.ts';
import { until } from '../support/until.ts';

describe('campaign workflow', () => {
  const temporal = useTemporal();
  const run = <T>(script: ScriptedActivities, use: () => Promise<T>): Promise<T> => temporal.work(script.activities, use);
  /** The message with which an update was refused. */
  const refused = async (update: Promise<unknown>): Promise<string> => {
    const error = await update.then(() => assert.fail('expected the update to be refused'), (reason: unknown) => reason);
    assert.ok(error instanceof WorkflowUpdateFailedError);
    assert.ok(error.cause instanceof ApplicationFailure);
    return error.cause.message;
  };

  it('runs two rounds, one a run, then tests, exports and reports the better student', async () => {
    const script = new ScriptedActivities();
    await run(script, async () => {
      const handle = await temporal.start(campaignInput('two-rounds'));
      const state = await handle.result();
      assert.equal(state.status, 'completed');
      assert.equal(state.stage, 'finished');
      assert.equal(state.stopReason, 'max-rounds');
      assert.equal(state.bestRound, 2);
      assert.deepEqual(state.test?.studentScore, 0.85);
      assert.deepEqual(state.test?.untunedScore, 0.6);
      assert.ok(state.report !== undefined && state.adapter !== undefined && state.manifest !== undefined && state.history !== undefined);
      // 4 + 2 training batches, 2 of development rows once, 2 of test rows once.
      assert.equal(script.count('sampleBatch'), 10);
      assert.equal(state.spending.callsBought, 100);
      assert.ok(Math.abs(state.spending.usd - 1) < 1e-9);

      const epochs = script.inputs('trainEpoch');
      assert.deepEqual(epochs.map(({ round, epoch }) => [round, epoch]), [[1, 0], [1, 1], [2, 0], [2, 1]]);
      assert.deepEqual(epochs.map(({ from }) => from !== undefined), [false, true, false, true]);
      const selected = script.inputs('planRequests').filter(({ purpose }) => purpose === 'train').map(({ selection }) => selection !== undefined);
      assert.deepEqual(selected, [false, true]);

      const [first] = await temporal.latest(handle).query(roundsQuery);
      assert.equal(first?.round, 1);
      const runs = await measureRuns(temporal, handle.workflowId, handle.firstExecutionRunId);
      assert.deepEqual(runs.map(({ continued }) => continued), [true, false]);
    });
  });

  it('keeps history and payloads small in the largest round and over many rounds', async (t) => {
    const script = new ScriptedActivities({ requests: Array<number>(4).fill(400_000), batchSize: 10 });
    await run(script, async () => {
      const handle = await temporal.start(campaignInput('x'.repeat(63), { maxRounds: 4, epochs: 10, usesJudge: true, minGain: 0 }, { usd: 1e6, tokens: 1e9, hours: 100 }));
      const state = await handle.result();
      assert.equal(state.bestRound, 4);
      const runs = await measureRuns(temporal, handle.workflowId, handle.firstExecutionRunId);
      assert.equal(runs.length, 4);
      for (const [index, { events, sizeBytes, largestPayloadBytes }] of runs.entries()) {
        t.diagnostic(`round ${index + 1}: ${events} events, ${sizeBytes} bytes, largest payload ${largestPayloadBytes} bytes`);
        assert.ok(events < 500, `round ${index + 1}: expected fewer than 500 events, got ${events}`);
        assert.ok(sizeBytes < 256 * 1024, `round ${index + 1}: expected less than 262144 bytes, got ${sizeBytes}`);
        assert.ok(largestPayloadBytes < 4_096, `round ${index + 1}: expected payloads under 4096 bytes, got ${largestPayloadBytes}`);
      }
    });
  });

  it('goes on to evaluate when the development loss ends training before its last epoch', async () => {
    const script = new ScriptedActivities({ lastEpoch: 1 });
    await run(script, async () => {
      const handle = await temporal.start(campaignInput('early-stop', { epochs: 9, maxRounds: 1 }, { hours: 8 }));
      assert.equal((await handle.result()).status, 'completed');
      const epochs = script.inputs('trainEpoch');
      assert.deepEqual(epochs.map(({ epoch }) => epoch), [0, 1]);
      assert.ok(epochs.every(({ hoursLeft }) => hoursLeft !== undefined && hoursLeft > 7.9 && hoursLeft <= 8));
      assert.equal(script.inputs('runStudent')[0]?.checkpoint?.kind, 'checkpoint');
    });
  });

  it('stops at the target, and without gain reports the earlier student', async () => {
    await run(new ScriptedActivities(), async () => {
      const handle = await temporal.start(campaignInput('target', { targetRetention: 0.8, maxRounds: 5 }));
      assert.equal((await handle.result()).stopReason, 'target-retention');
    });
    const worse = new ScriptedActivities({ rounds: [{ teacherScore: 0.9, studentScore: 0.8, low: 0.8 }, { teacherScore: 0.9, studentScore: 0.79, low: 0.8 }] });
    await run(worse, async () => {
      const handle = await temporal.start(campaignInput('no-gain', { maxRounds: 5 }));
      const state = await handle.result();
      assert.equal(state.stopReason, 'no-gain');
      assert.equal(state.bestRound, 1);
      const [firstRoundLast] = worse.inputs('trainEpoch').filter(({ round, epoch }) => round === 1 && epoch === 1);
      assert.ok(firstRoundLast !== undefined);
      assert.deepEqual(worse.inputs('exportStudent')[0]?.dataset, firstRoundLast.dataset);
    });
    await run(new ScriptedActivities({ requests: [40] }), async () => {
      const handle = await temporal.start(campaignInput('no-inputs', { maxRounds: 5 }));
      assert.equal((await handle.result()).stopReason, 'no-inputs-left');
    });
  });

  it('pauses between activities and goes on when resumed', async () => {
    const script = new ScriptedActivities();
    await run(script, async () => {
      const held = script.hold('trainEpoch');
      const handle = await temporal.start(campaignInput('paused', { maxRounds: 1 }));
      await held.reached;
      assert.match(await refused(handle.executeUpdate(resumeUpdate)), /expected a paused campaign, got one that is running/);
      assert.match(await refused(handle.executeUpdate(pauseUpdate, { args: [{ reason: ' ' }] })), /reason: expected a text/);
      const state = await handle.executeUpdate(pauseUpdate, { args: [{ reason: 'lunch' }] });
      assert.equal(state.status, 'paused');
      assert.equal(state.pauseKind, 'user');
      held.release();
      await until(() => handle.query(stateQuery), ({ progress }) => progress === 0.5);
      assert.equal(script.count('trainEpoch'), 1);
      await handle.executeUpdate(resumeUpdate);
      assert.equal((await handle.result()).status, 'completed');
      assert.equal(script.count('trainEpoch'), 2);
    });
  });

  it('cancels what runs, writes the report of what exists, and completes as cancelled', async () => {
    const script = new ScriptedActivities();
    await run(script, async () => {
      const held = script.hold('selectInputs');
      const handle = await temporal.start(campaignInput('cancelled', { maxRounds: 3 }));
      await held.reached;
      await temporal.latest(handle).executeUpdate(cancelUpdate, { args: [{ reason: 'enough' }] });
      const state = await handle.result();
      assert.equal(state.status, 'cancelled');
      assert.equal(state.stopReason, 'cancelled');
      assert.ok(state.report !== undefined);
      assert.equal(script.inputs('writeReport')[0]?.stopReason, 'cancelled');
      await assert.rejects(temporal.latest(handle).executeUpdate(pauseUpdate, { args: [{ reason: 'late' }] }), { name: 'WorkflowNotFoundError' });
      assert.equal((await temporal.latest(handle).query(stateQuery)).status, 'cancelled');
    });
  });

  it('writes the report as well when it is cancelled through Temporal itself, and is then shown as cancelled', async () => {
    const script = new ScriptedActivities();
    await run(script, async () => {
      const held = script.hold('selectInputs');
      const handle = await temporal.start(campaignInput('cancelled-outside', { maxRounds: 3 }));
      await held.reached;
      await temporal.latest(handle).cancel();
      await assert.rejects(handle.result(), (error) => error instanceof WorkflowFailedError && error.cause instanceof CancelledFailure);
      assert.equal(script.count('writeReport'), 1);
      assert.equal((await temporal.latest(handle).query(stateQuery)).status, 'cancelled');
    });
  });

  it('cancels a campaign without a finished round, and one that is paused, without a report', async () => {
    const script = new ScriptedActivities();
    await run(script, async () => {
      script.failNext('planRequests', 'disk full');
      const handle = await temporal.start(campaignInput('cancelled-early'));
      await temporal.paused(handle);
      await handle.executeUpdate(cancelUpdate, { args: [{ reason: 'never mind' }] });
      const state = await handle.result();
      assert.equal(state.status, 'cancelled');
      assert.equal(state.report, undefined);
      assert.equal(script.count('writeReport'), 0);
    });
  });

  it('pauses when the budget does not cover a batch, says what is needed, and goes on when it is raised', async () => {
    const script = new ScriptedActivities();
    await run(script, async () => {
      // 40 requests in four batches of up to $0.20 that truly cost $0.10: two fit at once, then one more.
      const handle = await temporal.start(campaignInput('budget', { maxRounds: 1 }, { usd: 0.4 }));
      const state = await temporal.paused(handle);
      assert.equal(state.pauseKind, 'budget');
      assert.match(state.pauseReason ?? '', /the next batch may cost \$0\.20 and \$0\.10 of \$0\.40 is left\. To go on, raise it to \$0\.50/);
      assert.equal(script.count('sampleBatch'), 3);
      assert.match(await refused(handle.executeUpdate(resumeUpdate)), /expected a raised budget first/);
      assert.match(await refused(handle.executeUpdate(raiseBudgetUpdate, { args: [{ usd: 0.1 }] })), /usd: expected at least the present 0\.4, got 0\.1/);
      assert.match(await refused(handle.executeUpdate(raiseBudgetUpdate, { args: [{ tokens: 5 }] })), /tokens: expected nothing, because it has no limit/);
      const little = await handle.executeUpdate(raiseBudgetUpdate, { args: [{ usd: 0.45 }] });
      assert.equal(little.status, 'paused');
      assert.match(little.pauseReason ?? '', /\$0\.15 of \$0\.45 is left/);
      const enough = await handle.executeUpdate(raiseBudgetUpdate, { args: [{ usd: 5 }] });
      assert.equal(enough.status, 'running');
      assert.equal((await handle.result()).status, 'completed');
    });
  });

  it('stops for its budget at a round boundary when going on could not be paid for', async () => {
    await run(new ScriptedActivities(), async () => {
      // Round 1 spends $0.60 with the development rows; a batch and the test rows may cost $0.60 more.
      const handle = await temporal.start(campaignInput('budget-stop', { maxRounds: 3 }, { usd: 1.1 }));
      const state = await handle.result();
      assert.equal(state.stopReason, 'budget');
      assert.equal(state.bestRound, 1);
      assert.equal(state.status, 'completed');
    });
  });

  it('becomes paused by a failure that retrying cannot cure, and tries again when resumed', async () => {
    const script = new ScriptedActivities();
    await run(script, async () => {
      script.failNext('sampleBatch', 'the disk is full');
      const handle = await temporal.start(campaignInput('failed', { maxRounds: 1, concurrentBatches: 1 }));
      const state = await temporal.paused(handle);
      assert.equal(state.pauseKind, 'failure');
      assert.equal(state.pauseReason, 'teacher, requests 1 to 10: the disk is full');
      assert.equal(script.count('sampleBatch'), 1);
      script.failNext('evaluate', 'still full');
      await handle.executeUpdate(resumeUpdate);
      const again = await temporal.paused(handle);
      assert.match(again.pauseReason ?? '', /^Evaluating: still full/);
      const description = await handle.describe();
      assert.deepEqual(description.searchAttributes['StillhouseStatus'], ['paused']);
      assert.deepEqual(description.searchAttributes['StillhouseStage'], ['evaluating']);
      await handle.executeUpdate(resumeUpdate);
      const done = await handle.result();
      assert.equal(done.status, 'completed');
      assert.equal(done.pauseReason, undefined);
    });
  });
});
