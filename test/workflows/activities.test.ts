import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { MockActivityEnvironment } from '@temporalio/testing';
import { toFailure } from '../../activities/failures.ts';
import { supervised } from '../../activities/heartbeat.ts';
import { createOrchestratorActivities } from '../../activities/orchestrator.ts';
import type { OrchestratorStages, TrainerStages } from '../../activities/stages.ts';
import { createTrainerActivities } from '../../activities/trainer.ts';
import type { BuildDatasetInput, PlanRequestsInput, PreparedData, TrainHeartbeat } from '../../src/contracts/activities.ts';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { RoundSummary } from '../../src/contracts/state.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getRows, putJson, putRows } from '../../src/store/jsonl.ts';
import type { EpochJob, EpochProgress, EpochResult, Trainer } from '../../src/training/trainer.ts';
import { temporaryFolder } from '../support/folder.ts';
import { refOf } from '../support/scripted-activities.ts';

const EPOCH: EpochResult = {
  checkpoint: refOf('checkpoint', 'end'), lossCurve: refOf('loss-curve', 'end'), steps: 4, tokens: 400, lossFirstNats: 2, lossLastNats: 1, seconds: 1, stopped: false,
};
const environment = (info: ConstructorParameters<typeof MockActivityEnvironment>[0] = {}): MockActivityEnvironment =>
  new MockActivityEnvironment({ heartbeatTimeoutMs: 2_000, ...info });

/** A trainer that runs what a test gives it and remembers its jobs. */
function scriptedTrainer(work: (options: Parameters<Trainer['trainEpoch']>[1]) => Promise<EpochResult>): Trainer & { readonly jobs: EpochJob[] } {
  const jobs: EpochJob[] = [];
  return {
    jobs,
    trainEpoch: (job, options) => {
      jobs.push(job);
      return work(options);
    },
    studentOf: () => Promise.reject(new Error('not part of these tests')),
  };
}

describe('trainEpoch activity', () => {
  const store = createFileStore(temporaryFolder());
  let spec: ArtifactRef;
  let durable: ArtifactRef;
  before(async () => {
    spec = await putJson(store, 'spec', { student: { model: 'student-model' }, training: { epochs: 1 }, seed: 5 });
    durable = await store.put('checkpoint', 'a durable checkpoint');
  });

  const input = () => ({ campaign: 'c', spec, round: 1, epoch: 1, dataset: refOf('dataset', 1), from: refOf('checkpoint', 'epoch before') });
  const activityOf = (trainer: Trainer) => createTrainerActivities({ store, trainer, stages: {} as TrainerStages }).trainEpoch;
  const progress = (step: number, checkpoint?: ArtifactRef): EpochProgress => ({ step, steps: 4, lossNats: 1.5, tokensPerSecond: 10, ...(checkpoint === undefined ? {} : { checkpoint }) });

  it('names in its heartbeats the newest durable checkpoint and no other', async () => {
    const trainer = scriptedTrainer(async ({ onProgress }) => {
      onProgress?.(progress(1));
      onProgress?.(progress(2, durable));
      onProgress?.(progress(3));
      return EPOCH;
    });
    const env = environment();
    const beats: (TrainHeartbeat | undefined)[] = [];
    env.on('heartbeat', (details: TrainHeartbeat | undefined) => beats.push(details));
    assert.deepEqual(await env.run(activityOf(trainer), input()), EPOCH);
    assert.deepEqual(beats.map((beat) => [beat?.step, beat?.checkpoint?.sha256]), [[1, undefined], [2, durable.sha256], [3, durable.sha256]]);
    assert.deepEqual(trainer.jobs[0]?.from, input().from);
    assert.equal(trainer.jobs[0]?.student.model, 'student-model');
  });

  it("hands the trainer the campaign's own teacher where that is a local model that is learned from", async () => {
    const trainer = scriptedTrainer(() => Promise.resolve(EPOCH));
    const training = { epochs: 1, method: 'logit', logit: { targets: 'online' } };
    const local = await putJson(store, 'spec', { student: { model: 'student-model' }, teacher: { provider: 'local', model: 'teacher-model' }, training, seed: 5 });
    await environment().run(activityOf(trainer), { ...input(), spec: local });
    const named = await putJson(store, 'spec', { student: { model: 'student-model' }, teacher: { provider: 'local', model: 'teacher-model' }, training: { ...training, teacher: { model: 'other' } }, seed: 5 });
    await environment().run(activityOf(trainer), { ...input(), spec: named });
    assert.deepEqual(trainer.jobs.map((job) => job.training.teacher), [{ model: 'teacher-model' }, { model: 'other' }]);
  });

  it('goes on from the checkpoint that the attempt before named, and keeps naming it', async () => {
    const trainer = scriptedTrainer(async ({ onProgress }) => {
      onProgress?.(progress(3));
      return EPOCH;
    });
    const env = environment({ attempt: 2, heartbeatDetails: { step: 2, steps: 4, lossNats: 1.5, checkpoint: durable } });
    const beats: (TrainHeartbeat | undefined)[] = [];
    env.on('heartbeat', (details: TrainHeartbeat | undefined) => beats.push(details));
    await env.run(activityOf(trainer), input());
    assert.deepEqual(trainer.jobs[0]?.from, durable);
    assert.deepEqual(beats[0]?.checkpoint, durable);
  });

  it('starts the epoch again when the details are not understood or their checkpoint is gone', async () => {
    for (const heartbeatDetails of [{ epoch: 7 }, 'text', { step: 1, steps: 4, lossNats: 1, checkpoint: refOf('checkpoint', 'gone') }]) {
      const trainer = scriptedTrainer(() => Promise.resolve(EPOCH));
      await environment({ attempt: 2, heartbeatDetails }).run(activityOf(trainer), input());
      assert.deepEqual(trainer.jobs[0]?.from, input().from);
    }
  });

  it('beats on its own while the trainer says nothing, at most half the timeout apart', async () => {
    const trainer = scriptedTrainer(() => new Promise((resolve) => setTimeout(() => resolve(EPOCH), 450)));
    const env = environment({ heartbeatTimeoutMs: 400 });
    const times: number[] = [];
    env.on('heartbeat', () => times.push(Date.now()));
    await env.run(activityOf(trainer), input());
    assert.ok(times.length >= 3, `expected at least 3 beats, got ${times.length}`);
  });

  it('stops the trainer when it is cancelled; a shutdown is retried, a wish of the workflow is not', async () => {
    const waiting = () =>
      scriptedTrainer(({ signal }) => new Promise((_, reject) => signal?.addEventListener('abort', () => reject(new StillhouseError('CANCELLED', 'stopped')))));
    const outcome = async (reason: 'CANCELLED' | 'WORKER_SHUTDOWN'): Promise<unknown> => {
      const env = environment();
      const running = env.run(activityOf(waiting()), input()).catch((error: unknown) => error);
      await new Promise((resolve) => setTimeout(resolve, 20));
      env.cancel(reason);
      return await running;
    };
    assert.ok((await outcome('CANCELLED')) instanceof CancelledFailure);
    const shutdown = await outcome('WORKER_SHUTDOWN');
    assert.ok(shutdown instanceof ApplicationFailure);
    assert.equal(shutdown.nonRetryable, false);
  });
});

describe('failures', () => {
  const failureOf = (error: unknown, deaths = 0): ApplicationFailure => {
    const failure = toFailure(error, { deaths });
    assert.ok(failure instanceof ApplicationFailure);
    return failure;
  };

  it('retries what may pass, and says how long to wait where the provider did', () => {
    const limited = failureOf(new StillhouseError('RATE_LIMITED', 'slow down', { retryAfterMs: 1_500 }));
    assert.equal(limited.nonRetryable, false);
    assert.equal(limited.type, 'Stillhouse:RATE_LIMITED');
    assert.equal(limited.nextRetryDelay, 1_500);
    for (const code of ['UNAVAILABLE', 'PROCESS_DIED', 'IN_USE'] as const) assert.equal(failureOf(new StillhouseError(code, '')).nonRetryable, false, code);
    assert.equal(failureOf(Object.assign(new Error('reset'), { code: 'ECONNRESET' })).nonRetryable, false);
  });

  it('does not retry what cannot, a full disk and a defect included', () => {
    for (const code of ['BAD_INPUT', 'UNAUTHORIZED', 'QUOTA_EXHAUSTED', 'DIVERGED', 'CORRUPT', 'DISK_FULL'] as const) {
      assert.equal(failureOf(new StillhouseError(code, '')).nonRetryable, true, code);
    }
    const full = failureOf(Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' }));
    assert.equal(full.type, 'Stillhouse:DISK_FULL');
    assert.equal(full.nonRetryable, true);
    assert.equal(failureOf(new TypeError('x is not a function')).type, 'Stillhouse:INTERNAL');
  });

  it('comes back to work that goes on at a provider, which is no outage', () => {
    const waits = toFailure(new StillhouseError('PENDING', 'the batch b has answered 3 of 9 questions', { retryAfterMs: 60_000 }), { surfacesOutages: true });
    const away = toFailure(new StillhouseError('UNAVAILABLE', 'no answer', { retryAfterMs: 60_000 }), { surfacesOutages: true });
    assert.ok(waits instanceof ApplicationFailure && away instanceof ApplicationFailure);
    assert.deepEqual([waits.nonRetryable, waits.nextRetryDelay, away.nonRetryable], [false, 60_000, true]);
  });

  it('gives up on a process that keeps dying', () => {
    assert.equal(failureOf(new StillhouseError('PROCESS_DIED', 'killed'), 9).nonRetryable, false);
    const last = failureOf(new StillhouseError('PROCESS_DIED', 'killed'), 10);
    assert.equal(last.nonRetryable, true);
    assert.match(last.message, /killed \(10 times/);
  });

  it('counts the deaths of its process alone, over attempts that a redeployed worker has ended', async () => {
    const dies = () => supervised(() => Promise.reject(new StillhouseError('PROCESS_DIED', 'killed')));
    const after = async (heartbeatDetails: unknown, attempt: number): Promise<{ readonly failure: ApplicationFailure; readonly last: unknown }> => {
      const env = environment({ attempt, ...(heartbeatDetails === undefined ? {} : { heartbeatDetails }) });
      let last: unknown;
      env.on('heartbeat', (details: unknown) => (last = details));
      const failure = await env.run(dies).catch((error: unknown) => error);
      assert.ok(failure instanceof ApplicationFailure);
      return { failure, last };
    };
    const redeployed = await after(undefined, 50);
    assert.deepEqual([redeployed.failure.nonRetryable, redeployed.last], [false, { deaths: 1 }]);
    const kept = await after({ step: 2, steps: 4, deaths: 8 }, 51);
    assert.deepEqual([kept.failure.nonRetryable, kept.last], [false, { step: 2, steps: 4, deaths: 9 }]);
    assert.equal((await after(kept.last, 52)).failure.nonRetryable, true);
    for (const odd of [null, 'text', { deaths: 'many' }, { deaths: -3 }]) assert.deepEqual((await after(odd, 2)).last, { ...(typeof odd === 'object' ? odd : {}), deaths: 1 });
  });

  it('tells the newest checkpoint with every failure of a training', async () => {
    const store = createFileStore(temporaryFolder());
    const spec = await putJson(store, 'spec', { student: { model: 'm' }, training: { epochs: 1 }, seed: 5 });
    const checkpoint = await store.put('checkpoint', 'step 2');
    for (const code of ['DISK_FULL', 'TOO_LARGE', 'BAD_INPUT', 'PROCESS_DIED'] as const) {
      const trainer = scriptedTrainer(({ onProgress }) => {
        onProgress?.({ step: 2, steps: 4, lossNats: 1, tokensPerSecond: 1, checkpoint });
        onProgress?.({ step: 3, steps: 4, lossNats: 1, tokensPerSecond: 1 });
        return Promise.reject(new StillhouseError(code, 'no'));
      });
      const { trainEpoch } = createTrainerActivities({ store, trainer, stages: {} as TrainerStages });
      const failure = await environment().run(trainEpoch, { campaign: 'c', spec, round: 1, epoch: 0, dataset: refOf('dataset', 1) }).catch((error: unknown) => error);
      assert.ok(failure instanceof ApplicationFailure);
      assert.deepEqual(failure.details, [{ checkpoint, checkpointStep: 2, steps: 4 }], code);
    }
  });
});

describe('orchestrator activities', () => {
  it('record rounds in an artifact and give stages the lists in it', async () => {
    const store = createFileStore(temporaryFolder());
    const seen: { plan?: PlanRequestsInput; build?: BuildDatasetInput } = {};
    const stages = {
      planRequests: (input: PlanRequestsInput) => Promise.resolve(void (seen.plan = input)),
      buildDataset: (input: BuildDatasetInput) => Promise.resolve(void (seen.build = input)),
    } as unknown as OrchestratorStages;
    const activities = createOrchestratorActivities({ store, stages });
    const row = (id: string) => ({ id, input: `text ${id}`, origin: 'test' });
    const pool = await putRows(store, 'rows', ['a', 'b', 'c', 'd'].map(row));
    const asked = (id: string) => putRows(store, 'requests', [{ id: `request-${id}`, purpose: 'train', row: row(id), sampleIndex: 0 }]);
    const [first, second, third] = await Promise.all([asked('a'), asked('c'), asked('d')]);
    const context = { campaign: 'c', spec: refOf('spec', 1) };
    const record = (round: number, requests: ArtifactRef, history?: ArtifactRef) =>
      environment().run(activities.recordRound, { ...context, summary: { round } as RoundSummary, requests, evaluation: refOf('evaluation', round), ...(history === undefined ? {} : { history }) });

    const one = (await record(1, first)) as { history: ArtifactRef };
    assert.deepEqual(await record(1, first), one);
    const { history } = (await record(2, second, one.history)) as { history: ArtifactRef };
    const candidates = (await environment().run(activities.planCandidates, { ...context, pool, history, limit: 10 })) as { rows: ArtifactRef; count: number };
    assert.equal(candidates.count, 2);
    assert.deepEqual((await getRows<{ id: string }>(store, candidates.rows)).map(({ id }) => id), ['b', 'd']);

    const data: PreparedData = { pool, development: pool, test: pool, poolRows: 4, developmentRows: 4, testRows: 4 };
    await environment().run(activities.planRequests, { ...context, data, purpose: 'train' as const, round: 3, history });
    assert.ok(seen.plan?.earlier !== undefined);
    assert.deepEqual((await getRows<{ id: string }>(store, seen.plan.earlier)).map(({ id }) => id), ['request-a', 'request-c']);
    await environment().run(activities.buildDataset, { ...context, data, round: 3, requests: third, history });
    assert.deepEqual(seen.build?.requests, [first, second, third]);
  });
});
