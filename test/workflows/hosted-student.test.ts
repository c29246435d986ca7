/** Campaigns whose student is trained and served by a provider: all of it real, Temporal, ledger and a fine-tuning API on a socket. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { cancelUpdate, raiseBudgetUpdate, resumeUpdate, roundsQuery } from '../../src/contracts/messages.ts';
import type { ReportedLoss } from '../../src/contracts/records.ts';
import type { CampaignManifest } from '../../src/evaluation/report.ts';
import { getJson, getRows } from '../../src/store/jsonl.ts';
import { readHostedModel } from '../../src/training/hosted/hosted-model.ts';
import { temporaryFolder } from '../support/folder.ts';
import { startOpenAIServer } from '../support/openai-server.ts';
import type { OpenAIServer, OpenAIServerOptions } from '../support/openai-server.ts';
import { Teaching } from '../support/teaching-campaign.ts';
import { useTemporal } from '../support/temporal.ts';
import type { CampaignHandle } from '../support/temporal.ts';
import { until } from '../support/until.ts';

/** 40 training rows, 6 development rows, 8 test rows of the teacher; 6 and 8 of the student, 8 of the untuned one. The last: the first question to the untuned student. */
const CALLS = 40 + 6 + 8 + 6 + 8 + 8 + 1;

describe('a student at its provider', () => {
  const temporal = useTemporal();
  const folder = temporaryFolder();

  interface Scene {
    readonly teaching: Teaching;
    readonly server: OpenAIServer;
    readonly handle: CampaignHandle;
    /** Runs workers until `use` is done. */
    readonly work: <T>(use: () => Promise<T>) => Promise<T>;
  }

  /** The teacher and the fine-tuned student know the gold labels, the untuned student says "negative" to everything. */
  const answer: NonNullable<OpenAIServerOptions['answer']> = ({ model, messages }) => {
    const number = Number(/(\d+)\nSentiment:$/.exec(messages.at(-1)?.content ?? '')?.[1]);
    const untuned = !model.startsWith('ft:') && messages.length === 1;
    return untuned || (number / 31) % 2 === 0 ? 'negative' : 'positive';
  };

  async function scene(name: string, options: OpenAIServerOptions, act: (scene: Scene) => Promise<void>, change: Partial<CampaignSpecInput> = {}): Promise<void> {
    await using server = await startOpenAIServer({ answer, ...options });
    await using teaching = new Teaching({ folder: join(folder, name) });
    const student = {
      provider: 'openai' as const, model: 'gpt-4o-mini', baseUrl: server.baseUrl, fineTuning: { batchSize: 8 },
      price: { trainingUsdPerMillion: 3, inputUsdPerMillion: 0.15, outputUsdPerMillion: 0.6 },
    };
    const input = await teaching.input(teaching.spec(name, server.baseUrl, { student, training: { epochs: 2 }, ...change }));
    const handle = await temporal.start(input);
    await act({ teaching, server, handle, work: (use) => temporal.work(teaching.activities(), use) });
  }

  const jobs = ({ fineTuning }: OpenAIServer) => fineTuning.all;
  const jobRuns = (server: OpenAIServer): Promise<unknown> => until(() => jobs(server), (all) => all.some(({ status }) => status === 'running'));

  it('is trained by one job through a restart of the workers, measured as any student, paid to the billionth, and said where it lives', async () => {
    await scene('whole', { fineTuning: { runningMs: 1_500 } }, async ({ teaching, server, handle, work }) => {
      await work(() => jobRuns(server));
      // No worker is there when the job ends.
      await until(() => jobs(server), ([job]) => job?.status === 'succeeded');
      const [state, rounds] = await work(async () => [await handle.result(), await handle.query(roundsQuery)] as const);
      const [job, ...others] = jobs(server);
      assert.deepEqual(others, [], 'one job');
      assert.deepEqual(job?.hyperparameters, { n_epochs: 2, batch_size: 8, learning_rate_multiplier: 1.8 });
      assert.equal(job?.seed, 17);
      assert.equal(server.files.all.filter(({ purpose }) => purpose === 'fine-tune').length, 2, 'a training and a validation file');
      assert.equal(state.status, 'completed');
      const { test } = state;
      assert.deepEqual([test?.teacherScore, test?.studentScore, test?.untunedScore], [1, 1, 0.5]);
      assert.equal(state.spending.callsBought, CALLS + 1, 'every answer, and the job');
      assert.equal(server.counts.billedCalls, CALLS);
      assert.equal(state.spending.usd, Math.round(server.counts.usd * 1e9) / 1e9);
      assert.equal(state.uncertain, undefined, 'the restart left no doubt about what was bought');
      const { store } = teaching;
      const round = rounds[0];
      assert.ok(round !== undefined && state.adapter !== undefined && state.manifest !== undefined && state.report !== undefined);
      const model = await readHostedModel(store, round.checkpoint);
      assert.equal(model.model, job?.fine_tuned_model);
      assert.equal(model.trainedTokens, server.counts.trainedTokens);
      const curve = await getRows<ReportedLoss>(store, round.lossCurve);
      assert.deepEqual(curve.map(({ epoch, step }) => [epoch, step]), [[0, 5], [1, 10]]);
      assert.ok(round.lossLastNats < round.lossFirstNats);
      const manifest = await getJson<CampaignManifest>(store, state.manifest);
      assert.deepEqual(manifest.models.find(({ role }) => role === 'student')?.hosted, model);
      assert.match((await store.get(state.report)).toString(), new RegExp(`job ${model.job}, and served there as ${model.model}`));
      const exported = join(folder, 'export');
      const { files } = await store.extractFolder(state.adapter, exported);
      assert.deepEqual(files.map(({ path }) => path).sort(), ['README.md', 'hosted-model.json']);
      assert.ok((await readFile(join(exported, 'README.md'), 'utf8')).includes(`"model": "${model.model}"`));
      const usage = await teaching.ledger.usage({ campaign: 'whole' });
      assert.deepEqual(usage.flatMap(({ purpose, calls }) => (purpose === 'student' || purpose === 'fine-tuning' ? [`${purpose} ${calls}`] : [])).sort(), ['fine-tuning 1', 'student 14', 'student 9']);
    });
  });

  it('whose job fails pauses the campaign with the provider\'s words; resumed, another job is ordered', async () => {
    await scene('failing', { fineTuning: { failure: { code: 'unsafe_content', message: 'The training file is blocked by our moderation system.' } } }, async ({ server, handle, work }) => {
      await work(async () => {
        const state = await temporal.reaches(handle, ({ status }) => status === 'paused');
        assert.equal(state.pauseKind, 'failure');
        assert.match(state.pauseReason ?? '', /^Fine-tuning: expected the fine-tuning job ftjob-\S+ of gpt-4o-mini at \S+ to succeed, got failed: The training file is blocked by our moderation system\./);
        server.options = { answer };
        await handle.executeUpdate(resumeUpdate);
        const done = await handle.result();
        assert.equal(done.status, 'completed');
        assert.deepEqual(jobs(server).map(({ status }) => status), ['failed', 'succeeded']);
        assert.equal(done.spending.usd, Math.round(server.counts.usd * 1e9) / 1e9);
      });
    });
  });

  it('whose campaign is cancelled has its job cancelled, be a worker there or not', async () => {
    await scene('cancelled', { fineTuning: { runningMs: 600_000 } }, async ({ server, handle, work }) => {
      await work(async () => {
        await jobRuns(server);
        await handle.executeUpdate(cancelUpdate, { args: [{ reason: 'a test' }] });
        assert.equal((await handle.result()).status, 'cancelled');
        assert.deepEqual(jobs(server).map(({ status }) => status), ['cancelled']);
      });
    });
    await scene('deserted', { fineTuning: { runningMs: 600_000 } }, async ({ server, handle, work }) => {
      await work(() => jobRuns(server));
      assert.deepEqual(jobs(server).map(({ status }) => status), ['running'], 'workers that shut down leave the job alone');
      await handle.cancel();
      await work(() => assert.rejects(handle.result()));
      assert.deepEqual(jobs(server).map(({ status }) => status), ['cancelled']);
    });
  });

  it('whose training the budget does not cover is not trained before it is raised', async () => {
    await scene('poor', {}, async ({ server, handle, work }) => {
      await work(async () => {
        const state = await temporal.reaches(handle, ({ status, stage }) => status === 'paused' && stage === 'training');
        assert.equal(state.pauseKind, 'budget');
        assert.equal(jobs(server).length, 0);
        await handle.executeUpdate(raiseBudgetUpdate, { args: [{ usd: 1 }] });
        const done = await handle.result();
        assert.equal(done.status, 'completed');
        assert.equal(done.spending.usd, Math.round(server.counts.usd * 1e9) / 1e9);
      });
    }, { budget: { usd: 0.005 } });
  });
});
