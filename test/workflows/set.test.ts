/** Settings that are changed under way: the workflow's own numbers follow them, over pauses and rounds. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setSpecUpdate, setTeacherUpdate, stateQuery } from '../../src/contracts/messages.ts';
import { PLAN, ScriptedActivities, campaignInput, refOf } from '../support/scripted-activities.ts';
import { useTemporal } from '../support/temporal.ts';

describe('changed settings', () => {
  const temporal = useTemporal();

  it('another teacher has as many batches in flight as it would have from the start', async () => {
    const script = new ScriptedActivities({ requests: [100] });
    let [asking, most] = [0, 0];
    const sampleBatch = async (input: Parameters<typeof script.activities.sampleBatch>[0]) => {
      asking += 1;
      most = Math.max(most, asking);
      await new Promise((resolve) => setTimeout(resolve, 100));
      asking -= 1;
      return script.activities.sampleBatch(input);
    };
    await temporal.work({ ...script.activities, sampleBatch }, async () => {
      script.failNext('sampleBatch', 'no such model', 'NOT_FOUND');
      const input = campaignInput('lanes', { maxRounds: 1, concurrentBatches: 1 });
      const handle = await temporal.start(input);
      await temporal.paused(handle, 'failure');
      assert.equal(most, 1);
      await handle.executeUpdate(setTeacherUpdate, { args: [{ spec: refOf('spec', 'an endpoint'), replaces: input.spec.sha256, plan: { ...PLAN, maxRounds: 1, concurrentBatches: 4 } }] });
      await handle.result();
      assert.equal(most, 4);
    });
  });

  it('rounds and thresholds follow, any number of times, and go on over the end of a round', async () => {
    const script = new ScriptedActivities();
    await temporal.work(script.activities, async () => {
      const held = script.hold('trainEpoch');
      const input = campaignInput('rounds', { maxRounds: 1, epochs: 1 });
      const handle = await temporal.start(input);
      await held.reached;
      let replaces = input.spec.sha256;
      for (const maxRounds of [5, 4, 3]) {
        const spec = refOf('spec', maxRounds);
        const state = await handle.executeUpdate(setSpecUpdate, { args: [{ spec, replaces, plan: { ...PLAN, maxRounds, epochs: 2, minGain: 0 } }] });
        assert.deepEqual([state.maxRounds, state.changedSpec], [maxRounds, spec]);
        replaces = spec.sha256;
      }
      await assert.rejects(handle.executeUpdate(setSpecUpdate, { args: [{ spec: refOf('spec', 'late'), replaces: input.spec.sha256, plan: PLAN }] }), (error: Error) => /it was changed in between/.test(String(error.cause)));
      await assert.rejects(handle.executeUpdate(setSpecUpdate, { args: [{ spec: refOf('spec', 'late'), replaces } as never] }), (error: Error) => /plan: expected the numbers/.test(String(error.cause)));
      held.release();
      const done = await handle.result();
      assert.deepEqual([done.status, done.bestRound, done.maxRounds, done.stopReason], ['completed', 3, 3, 'max-rounds']);
      assert.deepEqual(script.inputs('trainEpoch').map(({ round, epoch }) => [round, epoch]), [[1, 0], [1, 1], [2, 0], [2, 1], [3, 0], [3, 1]]);
      assert.ok(script.inputs('trainEpoch').slice(1).every(({ spec }) => spec.sha256 === replaces));
      assert.equal((await temporal.latest(handle).query(stateQuery)).status, 'completed');
    });
  });

  it('settings that mend the choice of rows or the filter are taken up where the campaign paused', async () => {
    const script = new ScriptedActivities();
    await temporal.work(script.activities, async () => {
      script.failNext('prepareCampaign', 'expected rows that filter and training.maxTokens let through, got none of 3', 'BAD_INPUT');
      script.failNext('buildDataset', 'expected at least one of 40 answers to pass the filters', 'BAD_INPUT');
      const input = campaignInput('mended', { maxRounds: 1, epochs: 1 });
      const handle = await temporal.start(input);
      const first = await temporal.paused(handle, 'failure');
      assert.match(first.remedies?.[0]?.command ?? '', /^still set mended /);
      const [second, third] = [refOf('spec', 2), refOf('spec', 3)];
      const plan = { ...PLAN, maxRounds: 1, epochs: 1 };
      await handle.executeUpdate(setSpecUpdate, { args: [{ spec: second, replaces: input.spec.sha256, plan }] });
      await temporal.reaches(handle, ({ stage, status }) => stage === 'filtering' && status === 'paused');
      await handle.executeUpdate(setSpecUpdate, { args: [{ spec: third, replaces: second.sha256, plan }] });
      assert.equal((await handle.result()).status, 'completed');
      assert.deepEqual(script.inputs('prepareCampaign').map(({ spec }) => spec.sha256), [input.spec.sha256, second.sha256]);
      assert.deepEqual(script.inputs('buildDataset').map(({ spec }) => spec.sha256), [second.sha256, third.sha256]);
    });
  });
});
