import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { WorkflowFailedError } from '@temporalio/client';
import type { CampaignPlan } from '../../src/contracts/campaign.ts';
import { cancelUpdate, contestantQuery, pauseUpdate, raiseBudgetUpdate, resumeUpdate, setTeacherUpdate } from '../../src/contracts/messages.ts';
import { contestantWorkflowId } from '../../src/contracts/names.ts';
import type { CampaignState } from '../../src/contracts/state.ts';
import type { contestant } from '../../workflows/index.ts';
import { SCRIPT, ScriptedActivities, campaignInput, refOf } from '../support/scripted-activities.ts';
import type { Script } from '../support/scripted-activities.ts';
import { measureRuns, useTemporal } from '../support/temporal.ts';
import { until } from '../support/until.ts';

const HALVING: Partial<CampaignPlan> = { maxRounds: 1, tournament: { firstRung: 1, reductionFactor: 2, concurrent: 1 } };

const TWO = [{ name: 'a', scores: [0.8, 0.8] }, { name: 'b', scores: [0.9, 0.9] }];
/** One batch of rows to learn from: what is tested comes after it. */
const scripted = (contestants: Script['contestants'] = TWO): ScriptedActivities => new ScriptedActivities({ requests: [10, 10], contestants });

describe('tournament', () => {
  const temporal = useTemporal();
  const run = <T>(script: ScriptedActivities, use: () => Promise<T>): Promise<T> => temporal.work(script.activities, use);
  const child = (campaignName: string, name: string) => temporal.client.workflow.getHandle<typeof contestant>(contestantWorkflowId(campaignName, name));
  const statusOf = async (campaignName: string, name: string): Promise<string> => (await child(campaignName, name).describe()).status.name;
  const epochsOf = (script: ScriptedActivities, state: CampaignState): readonly (readonly [string, number])[] => {
    const names = new Map(script.contestants.map(({ name }) => [refOf('spec', [state.tournament?.spec.sha256, name]).sha256, name]));
    return script.inputs('trainEpoch').map(({ spec, epoch }) => [names.get(spec.sha256) ?? '?', epoch]);
  };
  const summary = (state: CampaignState) => state.tournament?.contestants.map(({ name, status, trained, best }) => [name, status, trained, best?.score.mean, best?.epoch]);

  it('halves the contestants at each rung, and goes on with the student of the last one', async (t) => {
    const script = scripted(SCRIPT.contestants);
    await run(script, async () => {
      const handle = await temporal.start(campaignInput('halving', HALVING));
      const state = await handle.result();
      assert.equal(state.status, 'completed');
      // One after the other in the spec's order; the two best after one epoch train on, the best of these to its end.
      assert.deepEqual(epochsOf(script, state), [['sft', 0], ['step-by-step', 0], ['full', 0], ['half', 0], ['sft', 1], ['full', 1], ['full', 2]]);
      // The last epoch was worse: the winner's student is the one that had its best score.
      assert.deepEqual(summary(state), [['sft', 'stopped', 2, 0.82, 2], ['step-by-step', 'stopped', 1, 0.7, 1], ['full', 'winner', 3, 0.85, 2], ['half', 'stopped', 1, 0.6, 1]]);
      const [sft, stepByStep, full] = state.tournament?.contestants ?? [];
      assert.equal(sft?.ended?.reason, 'place 2 of 2 on the development rows, 82.0 % against 85.0 % of full: one stays');
      assert.equal(stepByStep?.ended?.reason, 'place 3 of 4 on the development rows, 70.0 % against 80.0 % of sft: 2 go on');
      assert.equal(full?.ended?.reason, 'the highest development score, 85.0 % after epoch 2');
      assert.deepEqual(full?.measured, [{ epoch: 1, score: 0.81 }, { epoch: 2, score: 0.85 }, { epoch: 3, score: 0.84 }]);
      const winner = refOf('spec', [state.tournament?.spec.sha256, 'full']);
      assert.deepEqual(state.changedSpec, winner);
      const [exported] = script.inputs('exportStudent');
      assert.deepEqual([exported?.spec, exported?.checkpoint], [winner, full?.best?.checkpoint]);
      assert.equal(state.test?.studentScore, 0.85);
      assert.equal(script.inputs('writeReport')[0]?.tournament?.contestants.length, 4);
      // The test rows are answered once, by the winner and by its untuned model.
      const test = script.inputs('runStudent').filter(({ rows }) => rows.sha256 === refOf('rows', ['halving', 'test']).sha256);
      assert.deepEqual(test.map(({ spec, checkpoint }) => [spec.sha256, checkpoint?.sha256]), [[winner.sha256, undefined], [winner.sha256, full?.best?.checkpoint.sha256]]);
      for (const name of ['sft', 'step-by-step', 'full', 'half']) assert.equal(await statusOf('halving', name), 'COMPLETED', name);
      const [measured] = await measureRuns(temporal, handle.workflowId, handle.firstExecutionRunId);
      const [of] = await measureRuns(temporal, contestantWorkflowId('halving', 'full'), (await child('halving', 'full').describe()).runId);
      t.diagnostic(`campaign: ${measured?.events} events, largest payload ${measured?.largestPayloadBytes} bytes; contestant of 3 epochs: ${of?.events} events`);
      assert.ok((measured?.largestPayloadBytes ?? Infinity) < 12_288 && (measured?.events ?? Infinity) < 500, JSON.stringify(measured));
    });
  });

  it('trains the later rounds by the winner, and keeps the earlier of two that tie', async () => {
    const script = scripted([{ name: 'first', scores: [0.8, 0.8] }, { name: 'second', scores: [0.8, 0.9] }]);
    await run(script, async () => {
      const handle = await temporal.start(campaignInput('rounds', { ...HALVING, maxRounds: 2 }));
      const state = await handle.result();
      assert.deepEqual(summary(state), [['first', 'winner', 2, 0.8, 1], ['second', 'stopped', 1, 0.8, 1]]);
      assert.equal(state.tournament?.contestants[1]?.ended?.reason, 'place 2 of 2 on the development rows, 80.0 % against 80.0 % of first, which the spec names first: one stays');
      const winner = refOf('spec', [state.tournament?.spec.sha256, 'first']).sha256;
      assert.deepEqual(script.inputs('trainEpoch').filter(({ round }) => round === 2).map(({ spec, epoch }) => [spec.sha256, epoch]), [[winner, 0], [winner, 1]]);
      assert.equal(script.count('planTournament'), 1);
    });
  });

  it('lets several train at once where the spec says so, with the same outcome', async () => {
    const script = scripted(SCRIPT.contestants.map(({ name, scores }) => ({ name, scores: scores.slice(0, 1) })));
    await run(script, async () => {
      const handle = await temporal.start(campaignInput('at-once', { ...HALVING, tournament: { firstRung: 1, reductionFactor: 2, concurrent: 4 } }));
      assert.deepEqual(summary(await handle.result())?.map(([name, status]) => [name, status]), [['sft', 'stopped'], ['step-by-step', 'stopped'], ['full', 'winner'], ['half', 'stopped']]);
    });
  });

  it('goes on without one that cannot be trained', async () => {
    const script = scripted([...TWO, { name: 'c', scores: [0.85, 0.85] }]);
    await run(script, async () => {
      script.failNext('trainEpoch', 'expected a finite loss, got NaN', 'DIVERGED');
      const handle = await temporal.start(campaignInput('one-fails', HALVING));
      const state = await handle.result();
      assert.deepEqual(summary(state), [['a', 'failed', 0, undefined, undefined], ['b', 'winner', 2, 0.9, 1], ['c', 'stopped', 1, 0.85, 1]]);
      assert.equal(state.tournament?.contestants[0]?.ended?.reason, 'expected a finite loss, got NaN');
      assert.equal(await statusOf('one-fails', 'a'), 'COMPLETED');
    });
  });

  it('keeps the student that a contestant had before it failed', async () => {
    const script = scripted([{ name: 'a', scores: [0.9, 0.9, 0.9] }, { name: 'b', scores: [0.8, 0.8, 0.8] }]);
    await run(script, async () => {
      const held = script.hold('evaluate');
      const handle = await temporal.start(campaignInput('fails-late', HALVING));
      await held.reached;
      script.failNext('trainEpoch', 'expected at most 2.0 hours, got 3.0', 'TOO_LARGE');
      held.release();
      const state = await handle.result();
      assert.equal(state.status, 'completed');
      assert.deepEqual(summary(state), [['a', 'winner', 1, 0.9, 1], ['b', 'stopped', 1, 0.8, 1]]);
      assert.equal(state.tournament?.contestants[0]?.ended?.reason, 'expected at most 2.0 hours, got 3.0; the highest development score, 90.0 % after epoch 1');
    });
  });

  it('pauses when no contestant can be trained, and tries all of them again when it is resumed', async () => {
    const script = scripted([{ name: 'a', scores: [0.8] }, { name: 'b', scores: [0.9] }]);
    await run(script, async () => {
      for (const name of ['a', 'b']) script.failNext('trainEpoch', `${name} does not fit`, 'TOO_LARGE');
      const handle = await temporal.start(campaignInput('all-fail', HALVING));
      const state = await temporal.paused(handle);
      assert.equal(state.pauseKind, 'failure');
      assert.equal(state.pauseReason, 'No contestant could be trained. a: a does not fit; b: b does not fit');
      await handle.executeUpdate(resumeUpdate);
      assert.deepEqual(summary(await handle.result()), [['a', 'stopped', 1, 0.8, 1], ['b', 'winner', 1, 0.9, 1]]);
    });
  });

  it('pauses for what is wrong with the machine, and asks the same contestant again', async () => {
    const script = scripted();
    await run(script, async () => {
      script.failNext('runStudent', 'the disk is full');
      const handle = await temporal.start(campaignInput('disk', HALVING));
      assert.equal((await temporal.paused(handle)).pauseReason, 'Contestant a: the disk is full');
      assert.equal(script.count('trainEpoch'), 1);
      await handle.executeUpdate(resumeUpdate);
      assert.equal((await handle.result()).tournament?.contestants[1]?.status, 'winner');
    });
  });

  it('gives no order while it is paused', async () => {
    const script = scripted();
    await run(script, async () => {
      const held = script.hold('trainEpoch');
      const handle = await temporal.start(campaignInput('pause', HALVING));
      await held.reached;
      await handle.executeUpdate(pauseUpdate, { args: [{ reason: 'the device is needed' }] });
      held.release();
      await temporal.reaches(handle, ({ tournament }) => tournament?.contestants[0]?.trained === 1);
      await until(() => child('pause', 'a').query(contestantQuery), ({ status }) => status === 'waiting');
      assert.deepEqual([script.count('trainEpoch'), script.count('runStudent')], [1, 0]);
      await handle.executeUpdate(resumeUpdate);
      assert.equal((await handle.result()).status, 'completed');
    });
  });

  it('pauses when the hours are over in the middle of it, and goes on when they are raised', async () => {
    const script = scripted();
    await run(script, async () => {
      const held = script.hold('trainEpoch');
      const handle = await temporal.start(campaignInput('hours', HALVING, { hours: 2 / 3_600 }));
      await held.reached;
      await new Promise((resolve) => setTimeout(resolve, 2_100));
      held.release();
      const state = await temporal.paused(handle);
      assert.equal(state.pauseKind, 'budget');
      assert.match(state.pauseReason ?? '', /hours are over/);
      assert.equal(script.count('trainEpoch'), 1);
      await handle.executeUpdate(raiseBudgetUpdate, { args: [{ hours: 1 }] });
      assert.equal((await handle.result()).tournament?.contestants[1]?.status, 'winner');
      assert.ok(script.inputs('trainEpoch').every(({ hoursLeft }) => hoursLeft !== undefined));
    });
  });

  it('bills each contestant what judging it has cost, and pauses when the money is over in the middle of it', async () => {
    const script = scripted();
    await run(script, async () => {
      // $0.30 for teaching, then $0.20 for judging the first contestant: two batches of up to $0.20 that cost $0.10.
      const handle = await temporal.start(campaignInput('judged', { ...HALVING, usesJudge: true }, { usd: 0.6 }));
      const state = await temporal.paused(handle);
      assert.deepEqual([state.pauseKind, state.stage, state.tournament?.contestants.map(({ usd, measured }) => [usd, measured.length])], ['budget', 'evaluating', [[0.2, 1], [0, 0]]]);
      await handle.executeUpdate(raiseBudgetUpdate, { args: [{ usd: 5 }] });
      assert.deepEqual((await handle.result()).tournament?.contestants.map(({ status, usd, measured }) => [status, usd, measured.length]), [['stopped', 0.2, 1], ['winner', 0.4, 2]]);
    });
  });

  it('cancels its children, and reports how far they came', async () => {
    const script = scripted();
    await run(script, async () => {
      const held = script.hold('trainEpoch');
      const handle = await temporal.start(campaignInput('cancelled', HALVING));
      await held.reached;
      await handle.executeUpdate(cancelUpdate, { args: [{ reason: 'enough' }] });
      const state = await handle.result();
      assert.equal(state.status, 'cancelled');
      assert.ok(state.report !== undefined);
      assert.deepEqual(script.inputs('writeReport')[0]?.tournament?.contestants.map(({ name, status }) => [name, status]), [['a', 'competing'], ['b', 'competing']]);
      for (const name of ['a', 'b']) assert.equal(await statusOf('cancelled', name), 'CANCELLED', name);
      held.release();
    });
  });

  it('ends its children when an operator terminates it', async () => {
    const script = scripted();
    await run(script, async () => {
      const held = script.hold('trainEpoch');
      const handle = await temporal.start(campaignInput('terminated', HALVING));
      await held.reached;
      await handle.terminate('by an operator');
      await assert.rejects(handle.result(), WorkflowFailedError);
      for (const name of ['a', 'b']) await until(() => statusOf('terminated', name), (status) => status === 'CANCELLED');
      held.release();
    });
  });

  it('goes on without a contestant whose workflow an operator has ended', async () => {
    const script = scripted([{ name: 'a', scores: [0.8, 0.9] }, { name: 'b', scores: [0.7, 0.8] }, { name: 'c', scores: [0.6, 0.7] }]);
    await run(script, async () => {
      const held = script.hold('evaluate');
      const handle = await temporal.start(campaignInput('operator', HALVING));
      await held.reached;
      await child('operator', 'b').terminate('not this one');
      held.release();
      const state = await handle.result();
      const gone = state.tournament?.contestants[1];
      assert.deepEqual([gone?.status, gone?.trained, gone?.best?.epoch], ['failed', 1, 1]);
      assert.match(gone?.ended?.reason ?? '', /its workflow was ended: .*; place 2 of 2/);
      assert.equal(state.tournament?.contestants[0]?.status, 'winner');
    });
  });

  it('ends with the winner by the teacher of now', async () => {
    const script = scripted([{ name: 'a', scores: [0.8] }, { name: 'b', scores: [0.9] }]);
    await run(script, async () => {
      const held = script.hold('trainEpoch');
      const input = campaignInput('teacher', HALVING);
      const handle = await temporal.start(input);
      await held.reached;
      const changed = refOf('spec', 'another teacher');
      await handle.executeUpdate(setTeacherUpdate, { args: [{ spec: changed, replaces: input.spec.sha256 }] });
      held.release();
      const state = await handle.result();
      assert.deepEqual(state.changedSpec, refOf('spec', [changed.sha256, 'b']));
      assert.equal(state.tournament?.spec.sha256, changed.sha256, 'those that were still to train did so by it');
    });
  });
});
