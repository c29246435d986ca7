/**
 * A small real campaign (the real model, real rows) five times: undisturbed, and with SIGKILL of the
 * training process, the worker, the Temporal server, and everything at once. Each ends by itself with the
 * same dataset and a bitwise equal adapter.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { temporaryFolder } from '../support/folder.ts';
import { killHard } from '../support/processes.ts';
import { Stack } from '../support/stack.ts';
import type { CampaignResource } from '../support/stack.ts';

const NAME = 'kill-test';
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
  sampling: { source: { kind: 'inputs', dataset: 'catalogue:hutto-reviews-pool' }, rows: 48, batchSize: 16 },
  student: { model: 'smollm2-135m-instruct' },
  training: { epochs: 2, batchSize: 4, learningRate: 1e-3, checkpointEverySteps: 3 },
  evaluation: { source: { kind: 'dataset', dataset: 'catalogue:hutto-reviews-gold' }, developmentRows: 16, testRows: 16, scorer: { kind: 'label' }, bootstrapResamples: 200 },
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

const inStage = (stack: Stack, stage: string, ready: (campaign: CampaignResource) => boolean = () => true): Promise<CampaignResource> =>
  stack.watch(NAME, CAMPAIGN_TIMEOUT_MS, (campaign) => {
    assert.notEqual(campaign.status, 'completed', `the campaign ended before it could be disturbed in ${stage}`);
    return campaign.state?.stage === stage && ready(campaign);
  });

const find = (stack: Stack, what: RegExp): number[] => stack.processes().filter(({ command }) => what.test(command)).map(({ pid }) => pid);

/** Kills every process whose command matches, at least one. */
function kill(stack: Stack, what: RegExp): void {
  const killed = find(stack, what).filter((pid) => killHard(pid));
  assert.ok(killed.length > 0, `expected a process like ${what}, got ${stack.processes().map(({ command }) => command).join('\n')}`);
}

/** In mid-epoch: the training process lives, and a few of its steps are done. */
async function inMidEpoch(stack: Stack): Promise<void> {
  await inStage(stack, 'training', () => find(stack, /training\/process/).length > 0);
  await new Promise((resolve) => setTimeout(resolve, 6_000));
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

  it('ends the same after kill -9 of the training process in mid-epoch', async (context) => {
    assertSame(await run('training', async (stack) => {
      await inMidEpoch(stack);
      kill(stack, /training\/process/);
    }), context);
  });

  it('ends the same after kill -9 of the worker in mid-sampling', async (context) => {
    assertSame(await run('worker', async (stack) => {
      await inStage(stack, 'sampling', ({ state }) => (state?.spending.callsBought ?? 0) >= 16);
      kill(stack, /worker\/main/);
    }), context);
  });

  it('ends the same after kill -9 of the Temporal server', async (context) => {
    assertSame(await run('server', async (stack) => {
      await inMidEpoch(stack);
      kill(stack, /temporal.* server start-dev/);
    }), context);
  });

  it('ends the same after kill -9 of everything at once', async (context) => {
    assertSame(await run('everything', async (stack) => {
      await inMidEpoch(stack);
      await stack.killEverything();
      await stack.start();
    }), context);
  });
});
