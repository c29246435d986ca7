/** Learning from a model through the trainer port: a killed process, what is exported, what is refused. The teacher is wider and deeper than the student. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { Sample } from '../../src/contracts/records.ts';
import { openSafetensors } from '../../src/lm/weights/safetensors.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { putRows } from '../../src/store/jsonl.ts';
import type { ArtifactStore } from '../../src/store/store.ts';
import { createOnnxTrainer } from '../../src/training/onnx-trainer.ts';
import type { EpochJob, Trainer } from '../../src/training/trainer.ts';
import { temporaryFolder } from '../support/folder.ts';
import { descendants } from '../support/processes.ts';
import { TINY, writeTinyLlama } from '../support/tiny-llama.ts';
import { trainingSpec } from '../support/training-runs.ts';

const folder = temporaryFolder();
let store: ArtifactStore;
let trainer: Trainer;
let dataset: ArtifactRef;
const assets = { model: (name: string) => Promise.resolve({ name, path: join(folder, name), license: 'CC0-1.0' }) };

before(async () => {
  writeTinyLlama(join(folder, 'student'));
  writeTinyLlama(join(folder, 'teacher'), 8, { ...TINY, layers: 3, hiddenSize: 48 });
  writeTinyLlama(join(folder, 'worded'), 8, { ...TINY, layers: 3, hiddenSize: 48 }, { merges: [['o', 'o'], ['oo', 'd'], ['b', 'a']], afterRole: ': ' });
  writeTinyLlama(join(folder, 'other'), 9);
  for (const [name, from, to] of [['tokenizer.json', '"A":68', '"A":69'], ['tokenizer.json', '"B":69', '"B":68']] as const) {
    const path = join(folder, 'other', name);
    const text = readFileSync(path, 'utf8');
    assert.ok(text.includes(from), from);
    writeFileSync(path, text.replace(from, to));
  }
  writeTinyLlama(join(folder, 'templated'), 9);
  const config = join(folder, 'templated', 'tokenizer_config.json');
  writeFileSync(config, readFileSync(config, 'utf8').replace("message['role'] + ", "message['role'] + ':' + "));
  store = createFileStore(join(folder, 'store'));
  trainer = createOnnxTrainer({ store, assets, cache: join(folder, 'cache'), threads: 1 });
  dataset = await putRows(store, 'dataset', Array.from({ length: 120 }, (_, i): Sample => ({
    id: `row-${i}`, input: `text ${i}`, output: i % 2 === 0 ? 'good' : 'bad', messages: [{ role: 'user', content: `Review: text ${i}` }, { role: 'assistant', content: i % 2 === 0 ? 'good' : 'bad' }], round: 1, origin: `test:${i}`, requestId: `request-${i}`,
  })));
});

const job = (training: object): EpochJob => ({ student: { model: 'student' }, training: trainingSpec({ teacher: { model: 'teacher' }, epochs: 1, batchSize: 2, checkpointEverySteps: 10, lora: { r: 4, dropout: 0.1 }, ...training }), seed: 11, epoch: 0, dataset });

describe('learning from a model through the trainer', () => {
  for (const [what, training, projections] of [
    ['distributions beside the student', { method: 'logit' }, 0],
    ['stored distributions', { method: 'logit', logit: { targets: 'offline', topK: 30, minMass: 0.1 } }, 0],
    ['hidden states, by trained projections', { method: 'feature', tune: 'full', lora: undefined }, 2],
    ['hidden states and stored distributions', { method: 'feature', logit: { targets: 'offline', topK: 30, minMass: 0.1 }, feature: { layers: [{ student: 1, teacher: 2 }] } }, 1],
    ['hidden states and whole distributions', { method: 'feature', logit: {}, feature: { layers: [{ student: 1, teacher: 2 }] } }, 1],
    ['distributions of another vocabulary, by rank', { method: 'cross-tokenizer', teacher: { model: 'worded' } }, 0],
    ['distributions of what the student writes', { method: 'on-policy', onPolicy: { maxTokens: 6, refreshEverySteps: 7 } }, 0],
  ] as const) {
    test(`${what}: killed in mid-epoch it ends in the same bytes, and the student has no projection`, async () => {
      const whole = await trainer.trainEpoch(job(training), {});
      let newest: ArtifactRef | undefined;
      const died = trainer.trainEpoch(job(training), {
        onProgress: ({ step, checkpoint }) => {
          newest = checkpoint ?? newest;
          if (step === 22) for (const { pid, command } of descendants(process.pid)) if (command.includes('training/process.ts')) process.kill(pid, 'SIGKILL');
        },
      });
      await assert.rejects(died, (error) => error instanceof StillhouseError && error.code === 'PROCESS_DIED');
      assert.ok(newest !== undefined);
      const resumed = await trainer.trainEpoch({ ...job(training), from: newest }, {});
      assert.deepEqual(resumed.checkpoint, whole.checkpoint);
      using file = openSafetensors(await store.localPath(whole.checkpoint));
      const names = [...file.tensors.keys()];
      assert.equal(names.filter((name) => name.startsWith('projection.')).length, projections);
      const student = await trainer.studentOf(whole.checkpoint, { model: 'student' }, join(folder, 'exported'));
      const exported = student.kind === 'full' ? [...student.weights.tensors.keys()] : [...openSafetensors(join(student.adapterPath, 'adapter_model.safetensors')).tensors.keys()];
      assert.ok(exported.length > 0 && !exported.some((name) => name.includes('projection.')), exported.join(' '));
    });
  }

  for (const [what, training, message] of [
    ['a teacher of another vocabulary', { method: 'logit', teacher: { model: 'other' } }, /one vocabulary, got other with 259 tokens and student with 259: 2 of 259 ids differ, the first of them 68.*or training\.method: cross-tokenizer/],
    ['a teacher of another chat template', { method: 'logit', teacher: { model: 'templated' } }, /dataset, row row-0: expected the chat templates of templated and student to give the same tokens, got \d+ and \d+ with answers from \d+ and \d+; token \d+ is ":" and "\\n"/],
    ['layers that the teacher does not have', { method: 'feature', feature: { layers: [{ student: 1, teacher: 4 }] } }, /training\.feature\.layers: expected layers of the teacher from 0, its embedding, to 3, got 4/],
  ] as const) {
    test(`${what} is refused before the first step`, async () => {
      await assert.rejects(trainer.trainEpoch(job(training), {}), (error: unknown) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && message.test(error.message) || assert.fail(String(error)));
    });
  }
});
