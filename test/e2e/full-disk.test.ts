/** A campaign with rows that are too long and a disk that fills up while it trains: real rows, real calls, a real training. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { createTrainerActivities } from '../../activities/trainer.ts';
import { resumeUpdate, stateQuery } from '../../src/contracts/messages.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { RejectedSample, Sample } from '../../src/contracts/records.ts';
import type { CampaignManifest } from '../../src/evaluation/report.ts';
import { measureSpeed } from '../../src/evaluation/speed.ts';
import { runStudent } from '../../src/evaluation/student.ts';
import { createModelHost } from '../../src/lm/host.ts';
import { getJson, getRows } from '../../src/store/jsonl.ts';
import type { ArtifactStore } from '../../src/store/store.ts';
import { exportStudent } from '../../src/training/export.ts';
import { createOnnxTrainer } from '../../src/training/onnx-trainer.ts';
import type { Trainer } from '../../src/training/trainer.ts';
import { temporaryFolder, writeRows } from '../support/folder.ts';
import { startOpenAIServer } from '../support/openai-server.ts';
import { Teaching } from '../support/teaching-campaign.ts';
import { useTemporal } from '../support/temporal.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';
import { until } from '../support/until.ts';

const TEXTS = 400;
const TOO_LONG = 20;
const HELD_OUT = 6 + 8;
const WORDS = ['amber', 'birch', 'cedar', 'dune', 'elm', 'fern', 'grove', 'heath', 'iris', 'jade'];

/** The store of a disk with room for so many checkpoints. */
class Disk {
  room = Infinity;
  refused = 0;

  over(store: ArtifactStore): ArtifactStore {
    return {
      put: (kind, bytes) => store.put(kind, bytes), putFolder: (kind, path) => store.putFolder(kind, path), get: (ref) => store.get(ref), localPath: (ref) => store.localPath(ref),
      extractFolder: (ref, target) => store.extractFolder(ref, target), has: (ref) => store.has(ref), remove: (ref) => store.remove(ref),
      putFile: async (kind, path) => {
        if (kind === 'checkpoint' && (this.room -= 1) < 0) {
          this.refused += 1;
          throw new StillhouseError('DISK_FULL', `expected free space to write ${path}, got ENOSPC: free some space and resume`);
        }
        return await store.putFile(kind, path);
      },
    };
  }
}

interface Step {
  readonly attempt: number;
  readonly epoch: number;
  readonly step: number;
  readonly checkpointed: boolean;
}

/** The trainer, with a list of all steps that it has done. */
function watched(trainer: Trainer, steps: Step[]): Trainer {
  let attempts = 0;
  return {
    studentOf: (...input) => trainer.studentOf(...input),
    trainEpoch: (job, options) => {
      const attempt = (attempts += 1);
      return trainer.trainEpoch(job, {
        ...options,
        onProgress: (progress) => {
          steps.push({ attempt, epoch: job.epoch, step: progress.step, checkpointed: progress.checkpoint !== undefined });
          options.onProgress?.(progress);
        },
      });
    },
  };
}

describe('a disk that fills up while a campaign trains', () => {
  const temporal = useTemporal();

  it('completes after there is space again and one resume: no checkpointed step is repeated, nothing is bought twice, long rows are left out', async (context) => {
    const folder = temporaryFolder();
    const model = writeTinyLlama(join(folder, 'student'));
    const assets = { model: (name: string) => Promise.resolve({ name, path: name, license: 'apache-2.0' }) };
    const long = new Set(Array.from({ length: TOO_LONG }, (_, i) => i * 19));
    const pool = writeRows(join(folder, 'texts.jsonl'), Array.from({ length: TEXTS }, (_, i) => {
      const words = [0, 1, 2].map((place) => WORDS[Math.floor(i / 10 ** place) % 10]).join(' ');
      return { input: long.has(i) ? `${words} ${'and on it goes '.repeat(20)}${i}` : `${words} ${i}` };
    }));
    await using server = await startOpenAIServer({ answer: ({ messages }) => (messages.at(-1)?.content.includes('amber') === true ? 'positive' : 'negative') });
    await using teaching = new Teaching({ folder, models: assets });
    const spec = teaching.spec('full-disk', server.baseUrl, {
      sampling: { source: { kind: 'inputs', dataset: pool }, rows: TEXTS, batchSize: 64 },
      student: { model },
      training: { epochs: 2, batchSize: 16, learningRate: 1e-2, maxTokens: 128, checkpointEverySteps: 3 },
      budget: { usd: 5 },
    });
    const disk = new Disk();
    const steps: Step[] = [];
    const store = disk.over(teaching.store);
    const cache = join(folder, 'cache');
    const host = createModelHost({ assets, cache, threads: 1 });
    const trainer = watched(createOnnxTrainer({ store, assets, cache, threads: 1 }), steps);
    const stages = {
      runStudent: (input: Parameters<typeof runStudent>[1]) => runStudent({ store, host, trainer }, input),
      measureSpeed: (input: Parameters<typeof measureSpeed>[1]) => measureSpeed({ store, host, trainer }, input),
      exportStudent: (input: Parameters<typeof exportStudent>[1]) => exportStudent({ store, trainer, assets }, input),
    };
    disk.room = 2;
    await temporal.work({ ...teaching.activities(), ...createTrainerActivities({ store, trainer, stages }) }, async () => {
      const handle = await temporal.start(await teaching.input(spec));
      const paused = await until(() => handle.query(stateQuery), ({ status }) => status === 'paused', { limitMs: 60_000 });
      assert.deepEqual([paused.pauseKind, paused.pauseCode, paused.stage, paused.kept?.epoch, paused.kept?.step], ['failure', 'DISK_FULL', 'training', 1, 6], paused.pauseReason);
      assert.match(paused.pauseReason ?? '', /^Training, epoch 1: expected free space to write .*checkpoint-9, got ENOSPC/);
      assert.ok(disk.refused > 0);
      assert.deepEqual(paused.remedies?.map(({ command }) => command), ['still resume full-disk']);
      const bought = server.counts.billedCalls;
      disk.room = Infinity;
      await handle.executeUpdate(resumeUpdate);
      const done = await handle.result();
      assert.equal(done.status, 'completed');

      const kept = Math.max(...steps.filter(({ attempt, checkpointed }) => attempt === 1 && checkpointed).map(({ step }) => step));
      const again = steps.filter(({ attempt, epoch }) => attempt === 2 && epoch === 0).map(({ step }) => step);
      assert.deepEqual([kept, again[0]], [6, 7]);
      assert.deepEqual([...new Set(steps.map(({ attempt, epoch }) => `${attempt}:${epoch}`))], ['1:0', '2:0', '3:1']);

      assert.equal(server.counts.billedByQuestion.size, TEXTS - TOO_LONG + HELD_OUT, 'the long rows were not bought');
      assert.equal(server.counts.billedCalls, server.counts.billedByQuestion.size, 'nothing was bought twice');
      assert.deepEqual([done.spending.callsBought, done.spending.callsRepeated], [server.counts.billedCalls, 0]);
      assert.equal(server.counts.billedCalls - bought, HELD_OUT, 'after the resume only the held-out rows were asked');

      const manifest = await getJson<CampaignManifest>(teaching.store, done.manifest ?? assert.fail('expected a manifest'));
      const excluded = await getRows<RejectedSample>(teaching.store, manifest.data?.excluded ?? assert.fail('expected rows that were left out'));
      assert.deepEqual([...new Set(excluded.map(({ reason }) => reason))], ['length']);
      assert.equal(excluded.length, TOO_LONG);
      assert.match(excluded[0]?.detail ?? '', /\d{3} tokens, training\.maxTokens 128$/);
      assert.equal((await getRows<Sample>(teaching.store, manifest.rounds[0]?.dataset ?? assert.fail())).length, TEXTS - TOO_LONG);
      assert.match((await teaching.store.get(done.report ?? assert.fail())).toString(), /Left out before anything was bought: 20 length/);
      context.diagnostic(`${steps.length} steps reported, ${server.counts.billedCalls} calls, student ${done.test?.studentScore}`);
    });
  });
});
