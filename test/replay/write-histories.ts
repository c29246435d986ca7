/**
 * Writes the histories that replay.test.ts replays: `node test/replay/write-histories.ts`, or those that are named.
 * Run it for a release and keep the old files as long as campaigns that old may still run.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';
import { cancelUpdate, setSpecUpdate, setTeacherUpdate } from '../../src/contracts/messages.ts';
import { contestantWorkflowId } from '../../src/contracts/names.ts';
import { PLAN, ScriptedActivities, campaignInput, refOf } from '../support/scripted-activities.ts';
import { Temporal, historiesFolder } from '../support/temporal.ts';

await using temporal = new Temporal();
await temporal.open();

/** Two rounds with a judge: the run that continued, and the run after it that finished. */
async function writeFinished(): Promise<void> {
  await temporal.work(new ScriptedActivities().activities, async () => {
    const input = campaignInput('two-rounds', { usesJudge: true }, { usd: 10, tokens: 1e6, hours: 10 });
    const handle = await temporal.start(input);
    await handle.result();
    await save('continued', handle.workflowId, handle.firstExecutionRunId);
    await save('finished', handle.workflowId);
  });
}

/** Paused by a failure that retrying cannot cure, after one such pause was resumed. */
async function writePaused(): Promise<void> {
  const script = new ScriptedActivities();
  await temporal.work(script.activities, async () => {
    script.failNext('sampleBatch', 'the disk is full');
    script.failNext('buildDataset', 'the disk is still full');
    const handle = await temporal.start(campaignInput('paused', { concurrentBatches: 1 }));
    const paused = (reason: RegExp) => temporal.reaches(handle, ({ pauseReason }) => reason.test(pauseReason ?? ''));
    await paused(/disk is full/);
    await handle.executeUpdate('resume');
    await paused(/still full/);
    await save('paused', handle.workflowId);
    await handle.terminate();
  });
}

/** A provider that is away twice and is asked again by itself, then another teacher, and a round to its end. */
async function writeSteered(): Promise<void> {
  const script = new ScriptedActivities();
  await temporal.work(script.activities, async () => {
    script.failNext('sampleBatch', 'no answer', 'UNAVAILABLE');
    script.failNext('sampleBatch', 'no answer', 'UNAVAILABLE');
    script.failNext('sampleBatch', 'no such model', 'NOT_FOUND');
    const input = { ...campaignInput('steered', { concurrentBatches: 2, maxRounds: 1 }, { usd: 5 }), probes: { firstMs: 100, longestMs: 1_000 } };
    const handle = await temporal.start(input);
    await temporal.reaches(handle, ({ pauseReason }) => /no such model/.test(pauseReason ?? ''));
    await handle.executeUpdate(setTeacherUpdate, { args: [{ spec: refOf('spec', 'another teacher'), replaces: input.spec.sha256 }] });
    await handle.result();
    await save('steered', handle.workflowId);
  });
}

/** Settings changed while a failed training is paused: the dataset is built anew, and the rounds follow the new plan. */
async function writeSettings(): Promise<void> {
  const script = new ScriptedActivities();
  await temporal.work(script.activities, async () => {
    script.failNext('trainEpoch', 'the disk is full');
    const input = campaignInput('settings', { concurrentBatches: 1, maxRounds: 1 });
    const handle = await temporal.start(input);
    await temporal.paused(handle);
    await handle.executeUpdate(setSpecUpdate, { args: [{ spec: refOf('spec', 'other settings'), replaces: input.spec.sha256, plan: { ...PLAN, maxRounds: 1, epochs: 3 } }] });
    await handle.executeUpdate('resume');
    await handle.result();
    await save('settings', handle.workflowId);
  });
}

/** A tournament whose settings change while its first contestant is paused. */
async function writeContestants(): Promise<void> {
  const script = new ScriptedActivities({ requests: [10], contestants: [{ name: 'first', scores: [0.8, 0.82] }, { name: 'second', scores: [0.7, 0.9] }] });
  await temporal.work(script.activities, async () => {
    script.failNext('trainEpoch', 'the disk is full');
    const tournament = { firstRung: 1, reductionFactor: 2, concurrent: 1 };
    const input = campaignInput('contestants', { maxRounds: 1, tournament });
    const handle = await temporal.start(input);
    await temporal.paused(handle);
    await handle.executeUpdate(setSpecUpdate, { args: [{ spec: refOf('spec', 'other settings'), replaces: input.spec.sha256, plan: { ...PLAN, maxRounds: 1, tournament } }] });
    await handle.executeUpdate('resume');
    await handle.result();
    await save('contestants', handle.workflowId);
  });
}

/** A campaign that begins with another's second round. */
async function writeForked(): Promise<void> {
  await temporal.work(new ScriptedActivities().activities, async () => {
    const fork = { campaign: 'two-rounds', round: 2, requests: refOf('requests', 'second round'), requestsBefore: 40, history: refOf('history', 'first round') };
    const handle = await temporal.start({ ...campaignInput('forked'), fork });
    await handle.result();
    await save('forked', handle.workflowId);
  });
}

/** Two contestants of two epochs: the campaign, and the one that won. */
async function writeTournament(): Promise<void> {
  const script = new ScriptedActivities({ requests: [10], contestants: [{ name: 'first', scores: [0.8, 0.82] }, { name: 'second', scores: [0.7, 0.9] }] });
  await temporal.work(script.activities, async () => {
    script.failNext('trainEpoch', 'the disk is full');
    const handle = await temporal.start(campaignInput('tournament', { maxRounds: 1, usesJudge: true, tournament: { firstRung: 1, reductionFactor: 2, concurrent: 1 } }, { usd: 10, hours: 10 }));
    await temporal.paused(handle);
    await handle.executeUpdate('resume');
    await handle.result();
    await save('tournament', handle.workflowId);
    await save('contestant', contestantWorkflowId('tournament', 'first'));
  });
}

/** Cancelled while it trains in its second round, with a report of the first. */
async function writeCancelled(): Promise<void> {
  const script = new ScriptedActivities();
  await temporal.work(script.activities, async () => {
    const handle = await temporal.start(campaignInput('cancelled', { concurrentBatches: 1 }));
    await temporal.reaches(handle, ({ round }) => round === 2);
    const held = script.hold('trainEpoch');
    await held.reached;
    const latest = temporal.latest(handle);
    await latest.executeUpdate(cancelUpdate, { args: [{ reason: 'enough' }] });
    await latest.result();
    await save('cancelled', handle.workflowId);
    held.release();
  });
}

async function save(name: string, workflowId: string, runId?: string): Promise<void> {
  const history = await temporal.client.workflow.getHandle(workflowId, runId).fetchHistory();
  const json = JSON.stringify(JSON.parse(historyToJSON(history)), withoutMachine, 1);
  await writeFile(join(historiesFolder, `${name}.json`), `${json}\n`);
}

/** Who ran it and where decides nothing. */
function withoutMachine(key: string, value: unknown): unknown {
  if (key === 'stackTrace') return '';
  return typeof value === 'string' ? value.replace(/^\d+@[\w.]+/, 'worker') : value;
}

const writers: Readonly<Record<string, () => Promise<void>>> = {
  finished: writeFinished, paused: writePaused, steered: writeSteered, settings: writeSettings, contestants: writeContestants, forked: writeForked, tournament: writeTournament, cancelled: writeCancelled,
};
const wanted = process.argv.slice(2);

for (const [name, write] of Object.entries(writers)) if (wanted.length === 0 || wanted.includes(name)) await write();
