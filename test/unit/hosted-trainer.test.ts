/** The trainer port over a fine-tuning API on a real socket: one job, whatever happens to whoever waits for it. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FineTuneInput } from '../../src/contracts/activities.ts';
import type { CampaignSpec, HostedStudentSpec } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { parseSpec } from '../../src/contracts/parse-spec.ts';
import type { Sample } from '../../src/contracts/records.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { putJson, putRows } from '../../src/store/jsonl.ts';
import { OPENAI_BASE_URL } from '../../src/teacher/openai-client.ts';
import { fineTuningClosed, listedPrice, trainingUsdPerMillion } from '../../src/teacher/prices.ts';
import { studentMessages } from '../../src/dataset/student-prompt.ts';
import { readHostedModel } from '../../src/training/hosted/hosted-model.ts';
import { openHostedTraining } from '../../src/training/hosted/hosted-training.ts';
import type { HostedResult, HostedTrainerDeps } from '../../src/training/hosted/hosted-trainer.ts';
import type { HostedTimings } from '../../src/training/hosted/provider.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';
import type { OpenAIServer, OpenAIServerOptions } from '../support/openai-server.ts';
import type { HostedProcessOrder } from '../support/hosted-process.ts';
import { labelSpec, row, workspace } from '../support/rows.ts';

const TIMINGS: HostedTimings = { pollMs: 10, attemptTimeoutMs: 2_000, retryBudgetMs: 1_000, firstRetryDelayMs: 10, settleMs: 100 };

const rejectsWith = (code: string, message: RegExp, work: () => Promise<unknown>): Promise<void> =>
  assert.rejects(work, (error: unknown) => error instanceof StillhouseError && error.code === code && message.test(error.message));

interface Bench extends AsyncDisposable {
  readonly server: OpenAIServer;
  readonly spec: CampaignSpec;
  readonly deps: HostedTrainerDeps;
  readonly order: HostedProcessOrder;
  readonly train: (change?: { readonly run?: string; readonly campaign?: string; readonly timings?: Partial<HostedTimings>; readonly signal?: AbortSignal }) => Promise<HostedResult>;
}

async function bench(context: TestContext, options: OpenAIServerOptions = {}): Promise<Bench> {
  const { folder } = workspace();
  const root = join(folder, 'objects');
  const store = createFileStore(root);
  const server = await startOpenAIServer(options);
  const spec = labelSpec({ student: { provider: 'openai', model: 'gpt-4o-mini', baseUrl: server.baseUrl }, training: { epochs: 2 } });
  const samples = Array.from({ length: 12 }, (_, index): Sample => {
    const { id, input, origin } = row(`sentence ${index}`);
    return { id, input, output: 'positive', messages: [...studentMessages(spec.task, input), { role: 'assistant', content: 'positive' }], round: 1, origin, requestId: `train-1-${index}` };
  });
  const input: FineTuneInput = {
    campaign: 'test', round: 1, spec: await putJson(store, 'spec', spec), dataset: await putRows(store, 'dataset', samples),
    development: await putRows(store, 'rows', [row('held out', 'negative')]),
  };
  const ledger = createLedger(join(folder, 'ledger.sqlite'));
  const deps: HostedTrainerDeps = { store, ledger, readSecret: () => TEST_KEY, timings: TIMINGS };
  return {
    server, spec, deps,
    order: { input, root, ledgerPath: join(folder, 'ledger.sqlite'), timings: TIMINGS },
    train: async ({ run = 'run', campaign = 'test', timings = {}, signal } = {}) => {
      const opened = await openHostedTraining({ ...deps, timings: { ...TIMINGS, ...timings } }, { ...input, campaign }, run);
      return await opened.trainer.trainEpoch(opened.job, signal === undefined ? {} : { signal });
    },
    [Symbol.asyncDispose]: async () => {
      await ledger.close();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** Starts the process, and kills it with -9 once `condition` holds; without one its result. */
async function inProcess(order: HostedProcessOrder, condition?: () => boolean): Promise<HostedResult | undefined> {
  const child = spawn(process.execPath, [join(import.meta.dirname, '..', 'support', 'hosted-process.ts'), JSON.stringify(order)], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  if (condition !== undefined) {
    while (!condition() && child.exitCode === null) await sleep(1);
    assert.equal(child.exitCode, null, 'still running when it is killed');
    child.kill('SIGKILL');
  }
  const [code] = (await ended) as [number | null];
  if (condition !== undefined) return undefined;
  assert.equal(code, 0);
  return JSON.parse(text) as HostedResult;
}

describe('hosted trainer', () => {
  it('killed with -9 before, while and after its job is created, it finds the job again and never makes another', async (context) => {
    await using scene = await bench(context, { fineTuning: { creationReplyMs: 300, runningMs: 600_000 } });
    const { server, order } = scene;
    const files = (): number => server.files.all.length;
    const jobs = () => server.fineTuning.all;
    await inProcess(order, () => files() >= 1 && jobs().length === 0);
    await inProcess(order, () => jobs().length === 1); // its creation is not answered yet
    await inProcess(order, () => jobs()[0]?.status === 'running');
    await inProcess(order, () => true);
    server.fineTuning.finish(jobs()[0]?.id ?? '');
    const result = await inProcess(order);
    assert.equal(jobs().length, 1);
    assert.deepEqual(new Set(server.files.all.map(({ filename }) => filename)).size, server.files.all.length, 'no file was sent twice');
    assert.deepEqual(result?.spending, { usd: server.counts.usd, tokens: server.counts.trainedTokens, callsBought: 1, callsReused: 0, callsRepeated: 0 });
    assert.deepEqual(await inProcess(order), result, 'the same result, from the ledger');
    const [usage] = await scene.deps.ledger.usage();
    assert.deepEqual([usage?.purpose, usage?.calls, usage?.open, usage?.repeated], ['fine-tuning', 1, 0, 0]);
  });

  it('tells the job\'s files, seed, epochs and key; the same training is bought once by all campaigns', async (context) => {
    await using scene = await bench(context);
    const [first, second] = await Promise.all([scene.train(), scene.train({ campaign: 'other', run: 'other-run' })]);
    assert.equal(scene.server.fineTuning.all.length, 1);
    assert.deepEqual(second.checkpoint, first.checkpoint);
    assert.deepEqual([first, second].map(({ spending }) => `${spending.callsBought} bought, ${spending.callsReused} reused`).sort(), ['0 bought, 1 reused', '1 bought, 0 reused']);
    const job = scene.server.fineTuning.all[0];
    assert.deepEqual(job?.method, { type: 'supervised', supervised: { hyperparameters: { n_epochs: 2, batch_size: 1, learning_rate_multiplier: 1.8 } } });
    assert.equal(job?.seed, 17);
    assert.match(job?.metadata?.['stillhouse_key'] ?? '', /^[0-9a-f]{64}$/);
    const lines = scene.server.files.text(job?.training_file ?? '', 'training_file').trim().split('\n').map((line) => JSON.parse(line) as unknown);
    assert.equal(lines.length, 12);
    assert.deepEqual(lines[3], { messages: [{ role: 'user', content: 'Review: sentence 3\nSentiment:' }, { role: 'assistant', content: 'positive' }] });
    const validation = scene.server.files.text(job?.validation_file ?? '', 'validation_file');
    assert.deepEqual(JSON.parse(validation), { messages: [{ role: 'user', content: 'Review: held out\nSentiment:' }, { role: 'assistant', content: 'negative' }] });
    const model = await readHostedModel(scene.deps.store, first.checkpoint);
    assert.deepEqual(model.hyperparameters, { n_epochs: 2, batch_size: 1, learning_rate_multiplier: 1.8 });
    assert.deepEqual([model.provider, model.model, model.job], [scene.server.baseUrl, job?.fine_tuned_model, job?.id]);
  });

  it('a creation whose answer is lost is looked for before it is tried again', async (context) => {
    await using scene = await bench(context, { fineTuning: { creationReplyMs: 400 } });
    await scene.train({ timings: { attemptTimeoutMs: 150 } });
    assert.equal(scene.server.fineTuning.all.length, 1);
  });

  it('reads the loss of every step from the job\'s events, and reports where it stands', async (context) => {
    await using scene = await bench(context, { fineTuning: { validatingMs: 100, runningMs: 200 } });
    const { trainer, job } = await openHostedTraining(scene.deps, scene.order.input, 'run');
    const seen: string[] = [];
    await trainer.trainEpoch(job, { onProgress: ({ step, steps, note }) => seen.push(`${step}/${steps} ${note}`) });
    assert.ok(seen.some((line) => /^0\/0 ftjob-\S+ validating files: Validating training file/.test(line)), seen.join('\n'));
    assert.ok(seen.some((line) => /^12\/24 ftjob-\S+ running: Step 12: training loss=1\.00/.test(line)), seen.join('\n'));
    assert.ok(seen.some((line) => /^24\/24 ftjob-\S+ succeeded: The job has successfully completed/.test(line)), seen.join('\n'));
  });

  it('a failed job is told with the provider\'s words, once; then another is made', async (context) => {
    await using scene = await bench(context, { fineTuning: { failure: { code: 'unsafe', message: 'blocked' } } });
    await rejectsWith('BAD_INPUT', /expected the fine-tuning job ftjob-\S+ of gpt-4o-mini at \S+ to succeed, got failed: blocked\. Resuming orders a new job/, () => scene.train());
    scene.server.options = {};
    await scene.train();
    assert.deepEqual(scene.server.fineTuning.all.map(({ status }) => status), ['failed', 'succeeded']);
  });

  it('a stop leaves the job alone; cancelling ends it, and twice is as good as once', async (context) => {
    await using scene = await bench(context, { fineTuning: { runningMs: 600_000 } });
    const stop = new AbortController();
    const training = rejectsWith('CANCELLED', /stopped/, () => scene.train({ signal: stop.signal }));
    while (scene.server.fineTuning.all[0]?.status !== 'running') await sleep(5);
    stop.abort();
    await training;
    assert.deepEqual(scene.server.fineTuning.all.map(({ status }) => status), ['running']);
    const { trainer, job } = await openHostedTraining(scene.deps, scene.order.input, 'run');
    await trainer.cancel(job);
    await trainer.cancel(job);
    assert.deepEqual(scene.server.fineTuning.all.map(({ status }) => status), ['cancelled']);
    assert.equal((await scene.deps.ledger.totals()).open, 0);
  });

  it('of several campaigns that want one job, only the last ends it; whoever stays goes on with it', async (context) => {
    await using scene = await bench(context, { fineTuning: { runningMs: 600_000 } });
    const { server, deps, order } = scene;
    const statuses = () => server.fineTuning.all.map(({ status }) => status);
    // Each with a process of its own, as far as the ledger knows.
    const campaigns = await Promise.all(['a', 'b', 'c'].map(async (campaign) => {
      const ledger = createLedger(order.ledgerPath);
      const opened = await openHostedTraining({ ...deps, ledger }, { ...order.input, campaign }, `run-${campaign}`);
      const stop = new AbortController();
      const training = opened.trainer.trainEpoch(opened.job, { signal: stop.signal }).catch((error: unknown) => error);
      while (statuses()[0] !== 'running') await sleep(5);
      return { ledger, training, cancel: async () => {
        stop.abort();
        await training;
        return await opened.trainer.cancel(opened.job);
      } };
    }));
    const [a, b, c] = campaigns as [(typeof campaigns)[0], (typeof campaigns)[0], (typeof campaigns)[0]];
    await sleep(50);
    const nothing = { usd: 0, tokens: 0, callsBought: 0, callsReused: 0, callsRepeated: 0 };
    assert.deepEqual(await b.cancel(), nothing);
    assert.deepEqual(statuses(), ['running'], 'a, which ordered it, and c want it still');
    await a.cancel();
    await a.cancel();
    assert.deepEqual(statuses(), ['running'], 'c goes on with it');
    await sleep(50);
    await c.cancel();
    assert.deepEqual(statuses(), ['cancelled']);
    assert.equal((await c.ledger.totals()).open, 0);
    server.options = { fineTuning: {} };
    await scene.train({ campaign: 'd', run: 'run-d' });
    assert.deepEqual(statuses(), ['cancelled', 'succeeded'], 'one that comes later orders its own');
    await Promise.all(campaigns.map(({ ledger }) => ledger.close()));
  });

  it('the campaign that waits has the result when the one that ordered the job is cancelled', async (context) => {
    await using scene = await bench(context, { fineTuning: { runningMs: 600_000 } });
    const { server, deps, order } = scene;
    const stop = new AbortController();
    const first = scene.train({ campaign: 'a', run: 'run-a', signal: stop.signal }).catch((error: unknown) => error);
    while (server.fineTuning.all[0]?.status !== 'running') await sleep(5);
    const second = scene.train({ campaign: 'b', run: 'run-b' });
    await sleep(50);
    stop.abort();
    await first;
    const opened = await openHostedTraining(deps, { ...order.input, campaign: 'a' }, 'run-a');
    await opened.trainer.cancel(opened.job);
    server.fineTuning.finish(server.fineTuning.all[0]?.id ?? '');
    assert.equal((await second).spending.callsBought, 1);
    assert.equal(server.fineTuning.all.length, 1);
  });

  it('what the provider refuses leaves nothing open in the ledger', async (context) => {
    await using scene = await bench(context, { fineTuning: { closed: true } });
    await rejectsWith('UNAUTHORIZED', /403: Fine-tuning is no longer available to your organization/, () => scene.train());
    assert.equal((await scene.deps.ledger.totals()).open, 0);
  });

  it('knows what training costs, and until when OpenAI takes jobs', () => {
    const student = (model: string): HostedStudentSpec => ({ provider: 'openai', model, apiKeyEnv: 'KEY', concurrency: 1, maxTokens: 8, fineTuning: {} });
    assert.equal(trainingUsdPerMillion(student('gpt-4o-mini-2024-07-18'), OPENAI_BASE_URL), 3);
    assert.equal(listedPrice('ft:gpt-4o-mini-2024-07-18:org:mine:abc')?.outputUsdPerMillion, 1.2);
    assert.throws(() => trainingUsdPerMillion(student('unknown'), 'https://tuning.example/v1'), /expected a price for fine-tuning the model unknown/);
    assert.equal(fineTuningClosed(OPENAI_BASE_URL, Date.parse('2027-01-06T12:00:00Z')), undefined);
    assert.match(fineTuningClosed(OPENAI_BASE_URL, Date.parse('2027-01-07T00:00:00Z')) ?? '', /no new fine-tuning jobs after 2027-01-06/);
    assert.equal(fineTuningClosed('https://tuning.example/v1', Date.parse('2028-01-01T00:00:00Z')), undefined);
  });
});

const SPEC = (student: string, training = ''): string => `
name: hosted
task: { description: d, output: { kind: label, labels: [a, b] } }
teacher: { provider: openai, model: gpt-4o }
sampling: { source: { kind: inputs, dataset: pool.jsonl }, rows: 20 }
student: ${student}
${training}
evaluation: { source: { kind: dataset, dataset: gold.jsonl }, developmentRows: 2, testRows: 2, scorer: { kind: label } }
`;

describe('the spec of a hosted student', () => {
  it('is read with its defaults; a student without a provider is a local one', () => {
    const { student } = parseSpec(SPEC('{ provider: openai, model: gpt-4o-mini }', 'training: { epochs: 2 }'));
    assert.deepEqual(student, { provider: 'openai', model: 'gpt-4o-mini', apiKeyEnv: 'OPENAI_API_KEY', concurrency: 16, maxTokens: 512, fineTuning: {} });
    assert.deepEqual(parseSpec(SPEC('{ model: m }')).student, { provider: 'local', model: 'm' });
  });

  const REFUSED: readonly (readonly [what: string, student: string, training: string, message: RegExp])[] = [
    ['settings that only our own trainer has', '{ provider: openai, model: m }', 'training: { epochs: 2, tune: full, learningRate: 1.0e-3 }', /training: expected epochs alone with student\.provider openai, .* got tune, .*learningRate/],
    ['a provider that there is none of', '{ provider: azure, model: m }', '', /student\.provider: expected one of local, openai, got "azure"/],
    ['settings of a provider for a local student', '{ model: m, fineTuning: { batchSize: 2 } }', '', /student\.fineTuning: expected one of the keys provider, model, layers, keepLayers, got an unknown key/],
    ['a batch of no rows', '{ provider: openai, model: m, fineTuning: { batchSize: 0 } }', '', /student\.fineTuning\.batchSize: expected a number of at least 1, got 0/],
  ];
  for (const [what, student, training, message] of REFUSED) {
    it(`refuses ${what}`, () => {
      assert.throws(() => parseSpec(SPEC(student, training)), message);
    });
  }
});
