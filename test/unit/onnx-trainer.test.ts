/** The trainer port: a process for each epoch, durable checkpoints, stopping, dying, exporting. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { ArtifactRef, FolderManifest } from '../../src/contracts/artifacts.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { LossPoint, Sample } from '../../src/contracts/records.ts';
import { readAdapter } from '../../src/lm/adapter.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getRows, putJson, putRows } from '../../src/store/jsonl.ts';
import type { ArtifactStore } from '../../src/store/store.ts';
import { exportStudent } from '../../src/training/export.ts';
import { createOnnxTrainer } from '../../src/training/onnx-trainer.ts';
import type { EpochJob, EpochProgress, Trainer } from '../../src/training/trainer.ts';
import { temporaryFolder } from '../support/folder.ts';
import { labelSpec } from '../support/rows.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();
let store: ArtifactStore;
let trainer: Trainer;
let dataset: ArtifactRef;
const assets = { model: (name: string) => Promise.resolve({ name, path: join(folder, 'model'), license: 'CC0-1.0' }) };
const training = campaignSpecSchema.shape.training.parse({ epochs: 2, batchSize: 2, learningRate: 1e-2, checkpointEverySteps: 2, maxTokens: 128 });

before(async () => {
  writeTinyLlama(join(folder, 'model'));
  store = createFileStore(join(folder, 'store'));
  trainer = createOnnxTrainer({ store, assets, cache: join(folder, 'cache'), threads: 1, graceMs: 10_000 });
  dataset = await putSamples(12);
});

function putSamples(length: number): Promise<ArtifactRef> {
  return putRows(store, 'dataset', Array.from({ length }, (_, i): Sample => ({
    id: `row-${i}`,
    input: `text ${i}`,
    output: i % 2 === 0 ? 'good' : 'bad',
    messages: [{ role: 'user', content: `Review: text ${i}` }, { role: 'assistant', content: i % 2 === 0 ? 'good' : 'bad' }],
    round: 1,
    origin: `test:${i}`,
    requestId: `request-${i}`,
  })));
}

const job = (changes: Partial<EpochJob> = {}): EpochJob => ({ student: { model: 'tiny' }, training, seed: 11, epoch: 0, dataset, ...changes });
const hasCode = (code: string) => (error: unknown) => error instanceof StillhouseError && error.code === code;

/** Processes of this test's own that run the trainer. */
function trainerProcesses(): number[] {
  const lines = execFileSync('ps', ['-eo', 'pid,ppid,args'], { encoding: 'utf8' }).split('\n');
  return lines.flatMap((line) => {
    const [, pid, parent] = /^\s*(\d+)\s+(\d+)\s.*training\/process\.ts/.exec(line) ?? [];
    return Number(parent) === process.pid ? [Number(pid)] : [];
  });
}

describe('the onnx trainer', () => {
  test('trains two epochs, reports each step, and names checkpoints that the store has', async () => {
    const progress: EpochProgress[] = [];
    const stored: Promise<boolean>[] = [];
    const onProgress = (point: EpochProgress): void => {
      progress.push(point);
      if (point.checkpoint !== undefined) stored.push(store.has(point.checkpoint));
    };
    const first = await trainer.trainEpoch(job(), { onProgress });
    const second = await trainer.trainEpoch(job({ epoch: 1, from: first.checkpoint }), {});
    assert.equal(first.steps, 6);
    assert.deepEqual(progress.map(({ step }) => step), [1, 2, 3, 4, 5, 6, 6]);
    assert.deepEqual(await Promise.all(stored), [true, true, true]);
    const curve = await getRows<LossPoint>(store, second.lossCurve);
    assert.deepEqual(curve.map(({ epoch, step }) => [epoch, step]), Array.from({ length: 12 }, (_, i) => [i < 6 ? 0 : 1, i + 1]));
    assert.equal(second.lossFirstNats, curve[6]?.lossNats);
    assert.deepEqual(trainerProcesses(), []);

    // An epoch that went on from its own middle ends in the same checkpoint: the same bytes, the same ref.
    const middle = progress[3]?.checkpoint;
    assert.ok(middle !== undefined);
    assert.deepEqual((await trainer.trainEpoch(job({ from: middle }), {})).checkpoint, first.checkpoint);
  });

  test('stopped by its caller, it leaves a durable checkpoint from which the epoch ends the same', async () => {
    const whole = await trainer.trainEpoch(job(), {});
    const stop = new AbortController();
    let newest: ArtifactRef | undefined;
    const stopped = trainer.trainEpoch(job(), {
      signal: stop.signal,
      onProgress: ({ step, checkpoint }) => {
        newest = checkpoint ?? newest;
        if (step === 1) stop.abort();
      },
    });
    await assert.rejects(stopped, hasCode('CANCELLED'));
    assert.ok(newest !== undefined && (await store.has(newest)));
    assert.deepEqual((await trainer.trainEpoch(job({ from: newest }), {})).checkpoint, whole.checkpoint);
    assert.deepEqual(trainerProcesses(), []);
  });

  test('a killed process is PROCESS_DIED, and the newest checkpoint goes on', async () => {
    const long = job({ dataset: await putSamples(200), training: { ...training, batchSize: 1, checkpointEverySteps: 10 } });
    const whole = await trainer.trainEpoch(long, {});
    let newest: ArtifactRef | undefined;
    const died = trainer.trainEpoch(long, {
      onProgress: ({ step, checkpoint }) => {
        newest = checkpoint ?? newest;
        if (step === 12) for (const pid of trainerProcesses()) process.kill(pid, 'SIGKILL');
      },
    });
    await assert.rejects(died, hasCode('PROCESS_DIED'));
    assert.ok(newest !== undefined);
    assert.deepEqual((await trainer.trainEpoch({ ...long, from: newest }, {})).checkpoint, whole.checkpoint);
  });

  test('what would outlast the time that is left is refused after a few steps, with the measured pace', async () => {
    const hasty = trainer.trainEpoch(job({ training: { ...training, epochs: 100 }, leftSeconds: 1e-3 }), {});
    await assert.rejects(hasty, (error: unknown) => hasCode('TOO_LARGE')(error) && /expected 597 steps in the 0 s that are left, got about .* s a step, measured\)/.test(String(error)));
    assert.ok((await trainer.trainEpoch(job({ leftSeconds: 1e6 }), {})).steps > 0);
  });

  test('checkpoints come by the minutes that pass as well', async () => {
    const named: number[] = [];
    const often = job({ training: { ...training, checkpointEverySteps: 1_000, checkpointEveryMinutes: 1e-9 } });
    const { checkpoint } = await trainer.trainEpoch(often, { onProgress: (progress) => void (progress.checkpoint !== undefined && named.push(progress.step)) });
    assert.deepEqual(named, [1, 2, 3, 4, 5, 6]);
    // When they were written decides no number, and is no part of the run's identity.
    assert.deepEqual((await trainer.trainEpoch(job(), {})).checkpoint, checkpoint);
  });

  test('of the checkpoints inside an epoch the two newest stay, and the epoch ends the same', async () => {
    const tidy = createOnnxTrainer({ store, assets, cache: join(folder, 'cache'), threads: 1, supersededAfterMs: 0 });
    const refs: ArtifactRef[] = [];
    const seeded = job({ seed: 12, training: { ...training, checkpointEverySteps: 1 } });
    const { checkpoint } = await tidy.trainEpoch(seeded, { onProgress: (progress) => void (progress.checkpoint !== undefined && refs.push(progress.checkpoint)) });
    assert.equal(refs.length, 6);
    assert.deepEqual(await Promise.all(refs.map((ref) => store.has(ref))), [false, false, false, false, true, true]);
    assert.deepEqual(refs.at(-1), checkpoint);
    assert.deepEqual((await tidy.trainEpoch({ ...seeded, from: refs.at(-2) as ArtifactRef }, {})).checkpoint, checkpoint);
  });

  test('errors of the process keep their code and name the row', async () => {
    await assert.rejects(trainer.trainEpoch(job({ training: { ...training, maxTokens: 8 } }), {}), (error: unknown) => hasCode('BAD_INPUT')(error) && /row-0/.test(String(error)));
    await assert.rejects(trainer.trainEpoch(job(), { signal: AbortSignal.abort() }), hasCode('CANCELLED'));
  });

  test('its process ends when the parent is killed', async () => {
    const script = join(folder, 'parent.mts');
    const processPath = fileURLToPath(new URL('../../src/training/process.ts', import.meta.url));
    writeFileSync(script, `import { fork } from 'node:child_process'; const child = fork(${JSON.stringify(processPath)}); console.log(child.pid); setInterval(() => undefined, 1000);`);
    const parent = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const pid = await new Promise<number>((resolve) => parent.stdout.once('data', (text: Buffer) => resolve(Number(text))));
    await new Promise((resolve) => setTimeout(resolve, 300));
    process.kill(pid, 0);
    parent.kill('SIGKILL');
    const gone = async (): Promise<boolean> => {
      for (let i = 0; i < 100; i++) {
        try {
          process.kill(pid, 0);
        } catch {
          return true;
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      return false;
    };
    assert.ok(await gone(), `process ${pid} outlived its parent by 5 s`);
  });

  test('exports what was trained as a PEFT folder with a card', async () => {
    const { checkpoint } = await trainer.trainEpoch(job(), {});
    const spec = await putJson(store, 'spec', labelSpec({ student: { model: 'tiny' } }));
    const { adapter } = await exportStudent({ store, trainer, assets }, { campaign: 'test', spec, checkpoint, dataset });
    const target = join(folder, 'exported');
    const manifest: FolderManifest = await store.extractFolder(adapter, target);
    assert.deepEqual(manifest.files.map(({ path }) => path).toSorted(), ['README.md', 'adapter_config.json', 'adapter_model.safetensors', 'stillhouse.json']);
    const read = readAdapter(target);
    assert.equal(read.scale, 2);
    assert.deepEqual([...read.pairs.keys()].toSorted(), [0, 1].flatMap((layer) => ['q_proj', 'v_proj'].map((name) => `model.layers.${layer}.self_attn.${name}.weight`)));
    assert.ok(read.pairs.get('model.layers.0.self_attn.q_proj.weight')?.b.values.some((value) => value !== 0));
    assert.match(readFileSync(join(target, 'README.md'), 'utf8'), new RegExp(checkpoint.sha256));
  });
});
