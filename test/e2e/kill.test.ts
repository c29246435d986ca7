/**
 * A small real campaign (the real model, real rows) three times, each on a home of its own: undisturbed; with
 * SIGKILL of the training process and, an epoch later, of the Temporal server; with SIGKILL of the workers
 * in mid-sampling and of everything at once in mid-epoch. Each ends by itself with the same dataset and a
 * bitwise equal adapter.
 */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { homePaths } from '../../src/config.ts';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { temporaryFolder } from '../support/folder.ts';
import { killHard } from '../support/processes.ts';
import { Stack } from '../support/stack.ts';
import type { CampaignResource } from '../support/stack.ts';
import { until } from '../support/until.ts';

const NAME = 'kill-test';
const EPOCHS = 2;
const CAMPAIGN_TIMEOUT_MS = 400_000;
/** Rows that a local teacher answers in one run, with one batch in flight. */
const CALLS_IN_FLIGHT = 16;

const SPEC: CampaignSpecInput = {
  name: NAME,
  task: {
    description: 'Decide whether a sentence from a film or product review is positive or negative.',
    instruction: 'Review: {input}\nSentiment:',
    output: { kind: 'label', labels: ['negative', 'positive'] },
  },
  teacher: {
    provider: 'local', model: 'smollm2-135m-instruct', calibration: 'prior',
    shots: [
      { input: 'The plot makes no sense and the jokes fall flat.', output: 'negative' },
      { input: 'A warm, funny film with a wonderful lead performance.', output: 'positive' },
    ],
  },
  sampling: { source: { kind: 'inputs', dataset: 'catalogue:hutto-reviews-pool' }, rows: 32, batchSize: CALLS_IN_FLIGHT },
  student: { model: 'smollm2-135m-instruct' },
  training: { epochs: EPOCHS, batchSize: 2, learningRate: 1e-3, checkpointEverySteps: 3 },
  evaluation: { source: { kind: 'dataset', dataset: 'catalogue:hutto-reviews-gold' }, developmentRows: 8, testRows: 8, scorer: { kind: 'label' }, bootstrapResamples: 200 },
  iterate: { maxRounds: 1 },
  budget: { hours: 1 },
};

interface Outcome {
  readonly dataset: string;
  readonly adapter: string;
  readonly campaign: CampaignResource;
}

async function outcome(stack: Stack): Promise<Outcome> {
  const campaign = await stack.finished(NAME, CAMPAIGN_TIMEOUT_MS);
  const [dataset, adapter] = await Promise.all([stack.artifact(NAME, 'dataset'), stack.artifact(NAME, 'adapter')]);
  assert.match(adapter.text, /adapter_model\.safetensors/);
  return { dataset: dataset.sha256, adapter: adapter.sha256, campaign };
}

/** Waits for a moment to disturb it. */
const reaches = (stack: Stack, moment: (campaign: CampaignResource) => boolean): Promise<CampaignResource> =>
  stack.watch(NAME, CAMPAIGN_TIMEOUT_MS, (campaign) => {
    assert.notEqual(campaign.status, 'completed', 'the campaign ended before it could be disturbed');
    return moment(campaign);
  });

const stored = (stack: Stack): number => readdirSync(join(homePaths(stack.home).artifacts, 'sha256'), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).length;

/** In this epoch, 0-based, after some of its checkpoints: nothing else is stored while it goes on. */
async function inMidEpoch(stack: Stack, epoch: number, checkpoints: number): Promise<void> {
  await reaches(stack, ({ state }) => state?.stage === 'training' && state.progress === epoch / EPOCHS);
  const before = stored(stack);
  await until(() => stored(stack), (now) => now >= before + checkpoints, { limitMs: 120_000, everyMs: 20 });
}

const find = (stack: Stack, what: RegExp): number[] => stack.processes().filter(({ command }) => what.test(command)).map(({ pid }) => pid);

/** Kills every process whose command matches, at least one. */
function kill(stack: Stack, what: RegExp): void {
  const killed = find(stack, what).filter((pid) => killHard(pid));
  assert.ok(killed.length > 0, `expected a process like ${what}, got ${stack.processes().map(({ command }) => command).join('\n')}`);
}

describe('a campaign that is killed', { concurrency: 1 }, () => {
  const folder = temporaryFolder();
  let undisturbed: Outcome;

  async function run(name: string, disturb: (stack: Stack) => Promise<void>): Promise<Outcome> {
    await using stack = new Stack({ home: join(folder, name) });
    await stack.start();
    await stack.submit(SPEC);
    await disturb(stack);
    return await outcome(stack);
  }

  function assertSame(disturbed: Outcome, context: { diagnostic(message: string): void }): void {
    assert.equal(disturbed.dataset, undisturbed.dataset, 'dataset hash');
    assert.equal(disturbed.adapter, undisturbed.adapter, 'adapter hash');
    const repeated = disturbed.campaign.state?.spending.callsRepeated ?? Number.NaN;
    assert.ok(repeated <= CALLS_IN_FLIGHT, `expected at most ${CALLS_IN_FLIGHT} repeated calls, got ${repeated}`);
    context.diagnostic(`dataset ${disturbed.dataset.slice(0, 12)} adapter ${disturbed.adapter.slice(0, 12)} repeated calls ${repeated}`);
  }

  it('ends undisturbed', async () => {
    undisturbed = await run('undisturbed', async () => {});
    assert.equal(undisturbed.campaign.state?.spending.callsRepeated, 0);
  });

  it('ends the same after kill -9 of the training process in mid-epoch, and of the Temporal server in the next', async (context) => {
    assertSame(await run('one-by-one', async (stack) => {
      await inMidEpoch(stack, 0, 1);
      kill(stack, /training\/process/);
      await inMidEpoch(stack, 1, 1);
      kill(stack, /temporal.* server start-dev/);
    }), context);
  });

  it('ends the same after kill -9 of the workers in mid-sampling, and of everything at once in mid-epoch', async (context) => {
    assertSame(await run('at-once', async (stack) => {
      await reaches(stack, ({ state }) => state?.stage === 'sampling' && state.spending.callsBought >= CALLS_IN_FLIGHT);
      kill(stack, /worker\/main/);
      // By the third checkpoint the server has been told of the first.
      await inMidEpoch(stack, 0, 3);
      await stack.killEverything();
      await stack.start();
    }), context);
  });
});
