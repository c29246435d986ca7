import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import type { Campaigns } from '../../src/client/campaigns.ts';
import { createCampaigns, openGateway } from '../../src/client/gateway.ts';
import { ScriptedActivities, campaignInput, refOf } from '../support/scripted-activities.ts';
import { useTemporal } from '../support/temporal.ts';
import { until } from '../support/until.ts';

describe('gateway', () => {
  const temporal = useTemporal();
  let campaigns: Campaigns;
  before(() => {
    campaigns = createCampaigns(temporal.client);
  });

  const over = (campaign: string) => until(() => campaigns.describe(campaign), ({ status }) => status !== 'running');

  it('starts a campaign once: the same spec means that one, another spec is a conflict, also after it ended', async () => {
    await temporal.work(new ScriptedActivities().activities, async () => {
      const input = campaignInput('once');
      const other = { ...input, spec: refOf('spec', 'another') };
      assert.deepEqual(await campaigns.start(input), { created: true });
      assert.deepEqual(await campaigns.start(input), { created: false });
      await assert.rejects(campaigns.start(other), { code: 'CONFLICT' });
      const description = await over('once');
      assert.equal(description.status, 'completed');
      assert.equal(description.specSha256, input.spec.sha256);
      assert.equal(description.state?.bestRound, 2);
      assert.deepEqual(await campaigns.start(input), { created: false });
      await assert.rejects(campaigns.start(other), { code: 'CONFLICT' });
      assert.deepEqual((await campaigns.rounds('once')).map(({ round }) => round), [1, 2]);
      await assert.rejects(campaigns.pause('once', 'late'), { code: 'CONFLICT', message: /expected one that is not over, got one that is completed/ });
    });
  });

  it('updates a running campaign, shows what runs, and passes on why an update was refused', async () => {
    const script = new ScriptedActivities();
    await temporal.work(script.activities, async () => {
      const held = script.hold('buildDataset');
      await campaigns.start(campaignInput('steered', {}, { usd: 5 }));
      await held.reached;
      assert.equal((await campaigns.pause('steered', 'wait')).pauseReason, 'wait');
      const description = await campaigns.describe('steered');
      assert.equal(description.state?.status, 'paused');
      assert.deepEqual(description.activities?.map(({ name, attempt }) => [name, attempt]), [['buildDataset', 1]]);
      await assert.rejects(campaigns.pause('steered', 'again'), { code: 'CONFLICT', message: /already|paused: wait/ });
      await assert.rejects(campaigns.raiseBudget('steered', { usd: 1 }), { code: 'BAD_INPUT', message: /usd: expected at least the present 5, got 1/ });
      assert.equal((await campaigns.raiseBudget('steered', { usd: 6 })).budget.usd, 6);
      assert.equal((await campaigns.resume('steered')).status, 'running');
      await campaigns.cancel('steered', 'enough');
      assert.equal((await over('steered')).status, 'cancelled');
    });
  });

  it('shows what the contestants of a tournament do', async () => {
    const script = new ScriptedActivities();
    await temporal.work(script.activities, async () => {
      const held = script.hold('trainEpoch');
      await campaigns.start(campaignInput('competing', { tournament: { firstRung: 1, reductionFactor: 2, concurrent: 2 } }));
      await held.reached;
      const { activities } = await until(() => campaigns.describe('competing'), (description) => description.activities?.length === 2);
      assert.deepEqual(activities?.map(({ name, contestant }) => [contestant, name]).sort(), [['sft', 'trainEpoch'], ['step-by-step', 'trainEpoch']]);
      await campaigns.cancel('competing', 'seen');
      assert.equal((await over('competing')).status, 'cancelled');
    });
  });

  it('lists open and closed campaigns, each once', async () => {
    const script = new ScriptedActivities();
    await temporal.work(script.activities, async () => {
      const held = script.hold('buildDataset');
      await campaigns.start(campaignInput('listed'));
      await held.reached;
      const named = await until(() => campaigns.list(), (list) => list.some(({ campaign, stage }) => campaign === 'listed' && stage === 'filtering'));
      assert.deepEqual(named.map(({ campaign }) => campaign).sort(), ['competing', 'listed', 'once', 'steered'], 'contestants are no campaigns');
      const once = named.find(({ campaign }) => campaign === 'once');
      assert.equal(once?.status, 'completed');
      assert.equal(once?.round, 2);
      assert.ok(Math.abs((once?.retention ?? 0) - 0.85 / 0.9) < 1e-9);
      assert.equal(named.find(({ campaign }) => campaign === 'steered')?.status, 'cancelled');
      await campaigns.cancel('listed', 'seen');
      await over('listed');
    });
  });

  it('says what is missing: the campaign, the workers, the server', async () => {
    await assert.rejects(campaigns.describe('nobody'), { code: 'NOT_FOUND' });
    await assert.rejects(campaigns.pause('nobody', 'x'), { code: 'NOT_FOUND' });
    await campaigns.check();
    assert.equal((await campaigns.describe('once')).state?.status, 'completed');
    await campaigns.start(campaignInput('unattended'));
    const description = await campaigns.describe('unattended');
    assert.equal(description.status, 'running');
    assert.equal(description.state, undefined);
    await assert.rejects(campaigns.pause('unattended', 'x'), { code: 'UNAVAILABLE', message: /worker/ });
    const nowhere = openGateway({ address: '127.0.0.1:1', namespace: 'default' });
    try {
      await assert.rejects(nowhere.check(), { code: 'UNAVAILABLE' });
    } finally {
      await nowhere.close();
    }
  });
});
