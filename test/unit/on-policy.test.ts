/** On-policy distillation on the tiny model: what the student writes, when, with which weights, and that it is kept. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { readAdapter } from '../../src/lm/adapter.ts';
import { createEngine } from '../../src/lm/engine.ts';
import { generateFromTokens } from '../../src/lm/generation.ts';
import { loadModel } from '../../src/lm/load.ts';
import type { LoadedModel } from '../../src/lm/load.ts';
import { readCheckpointState } from '../../src/training/checkpoint.ts';
import { trainEpoch } from '../../src/training/epoch.ts';
import type { EpochInput } from '../../src/training/epoch.ts';
import { trainedStudent } from '../../src/training/export.ts';
import { withAnswers } from '../../src/training/on-policy.ts';
import type { Written } from '../../src/training/on-policy.ts';
import { permutation, RANDOM_STREAM, randomStream } from '../../src/training/random.ts';
import { openTrainingRuns, trainingSpec } from '../support/training-runs.ts';
import type { TrainingRuns } from '../support/training-runs.ts';
import { TINY, writeTinyLlama } from '../support/tiny-llama.ts';

let runs: TrainingRuns;
let teacher: LoadedModel;
before(async () => {
  runs = await openTrainingRuns();
  teacher = await loadModel({ path: writeTinyLlama(join(runs.folder, 'teacher'), 8, { ...TINY, hiddenSize: 48 }), cache: join(runs.folder, 'cache') });
});
after(() => runs[Symbol.dispose]());

const onPolicy = (settings: object, changes: object = {}): Pick<EpochInput, 'training' | 'teacher' | 'writing'> => ({
  training: trainingSpec({ method: 'on-policy', batchSize: 2, ...changes, onPolicy: { maxTokens: 8, refreshEverySteps: 2, ...settings } }),
  teacher: { config: teacher.config, weights: teacher.weights, sha256: teacher.identity.sha256 },
  writing: { tokenizer: runs.model.tokenizer, folder: runs.folder, vocabularySize: runs.model.config.vocabularySize },
});
const losses = (run: Awaited<ReturnType<TrainingRuns['run']>>): readonly number[] => run.state.curve.map(({ lossNats }) => lossNats);
/** What checkpoints hold beside the state. */
const tensorsOf = (checkpoint: Buffer): Buffer => checkpoint.subarray(8 + Number(checkpoint.readBigUInt64LE(0)));

describe('on-policy distillation', () => {
  test('with a share of 0 is learning from the distributions of the dataset\'s answers, bit for bit', async () => {
    const own = await runs.run(onPolicy({ share: 0, beta: 0.3 }));
    const { teacher: model } = onPolicy({});
    const off = await runs.run({ training: trainingSpec({ method: 'logit', batchSize: 2, logit: { divergence: 'jensen-shannon', beta: 0.3, temperature: 1, alpha: 1 } }), ...(model === undefined ? {} : { teacher: model }) });
    assert.deepEqual(losses(own), losses(off));
    assert.ok(tensorsOf(own.checkpoint).equals(tensorsOf(off.checkpoint)));
  });

  test('with a share of 1 the dataset\'s answers decide nothing', async () => {
    const input = onPolicy({ share: 1 });
    const { samples } = runs.input();
    const others = samples.map(({ id, ids, responseStart }) => ({ id, ids: [...ids.slice(0, responseStart), 70, 71, 72, ids.at(-1) as number], responseStart }));
    const [own, same, off] = [await runs.run(input), await runs.run({ ...input, samples: others }), await runs.run({ ...onPolicy({ share: 0 }), samples: others })];
    assert.deepEqual(losses(own), losses(same));
    assert.notDeepEqual(losses(own), losses(off));
  });

  test('a stretch of steps learns from what the student wrote with the weights before it', async () => {
    const { tokenizer, config, weights } = runs.model;
    const run = await runs.run(onPolicy({ share: 1, temperature: 0 }, { learningRate: 5e-2, weightDecay: 0 }));
    const { samples } = runs.input();
    const order = permutation(samples.length, randomStream(5, RANDOM_STREAM.dataOrder, 0));
    // Of four steps, the checkpoint after the third holds the answers of the second stretch, written after the second step.
    const written = readCheckpointState(runs.saved(run.checkpoints[2] as Buffer)).written?.answers ?? [];
    assert.deepEqual(written.map(({ place }) => place), [4, 5, 6, 7]);
    const answersOf = async (adapter?: string): Promise<readonly (readonly number[])[]> => {
      await using engine = await createEngine({ config, weights, threads: 1, ...(adapter === undefined ? {} : { adapter: readAdapter(adapter) }) });
      const prompts = written.map(({ place }) => samples[order[place] as number]).map((sample) => sample?.ids.slice(0, sample.responseStart) ?? []);
      const answers = await generateFromTokens(engine, tokenizer, prompts, { maxNewTokens: 8, temperature: 0 });
      return answers.map(({ tokens, finishReason }) => (finishReason === 'stop' ? [...tokens, tokenizer.endId] : tokens));
    };
    const student = await trainedStudent(runs.saved(run.checkpoints[1] as Buffer), 'model', join(runs.folder, 'exported'));
    assert.ok(student.kind === 'adapter');
    assert.deepEqual(written.map(({ ids }) => ids), await answersOf(student.adapterPath));
    assert.notDeepEqual(written.map(({ ids }) => ids), await answersOf());
  });

  test('the share is that of the rows, drawn anew in each epoch, and answers take the place of the dataset\'s', async () => {
    const input = onPolicy({ share: 0.5, refreshEverySteps: 4 });
    const places = async (epoch: number, from?: string): Promise<{ readonly places: readonly number[]; readonly end: string }> => {
      const run = await runs.run({ ...input, epoch, ...(from === undefined ? {} : { from }) });
      const answers = readCheckpointState(runs.saved(run.checkpoints[0] as Buffer)).written?.answers ?? [];
      assert.equal(run.state.written, undefined);
      return { places: answers.map(({ place }) => place), end: runs.saved(run.checkpoint) };
    };
    const first = await places(0);
    const second = await places(1, first.end);
    assert.ok(first.places.length > 0 && first.places.length < 8 && second.places.length < 8);
    assert.notDeepEqual(first.places, second.places);
    const [a, b] = runs.input().samples;
    assert.ok(a !== undefined && b !== undefined);
    assert.deepEqual(withAnswers([a, b], 6, { until: 4, answers: [{ place: 7, ids: [5, 2] }] }), [a, { ...b, ids: [...b.ids.slice(0, b.responseStart), 5, 2] }]);
  });

  test('a run that is stopped while the student writes goes on to the same bytes', async () => {
    const input = onPolicy({ share: 1, refreshEverySteps: 4 });
    const whole = await runs.run(input);
    let asked = 0;
    // Asked before the step, and then before the first group of answers.
    const stopped = await trainEpoch(runs.input(input), { afterStep: () => assert.fail('a step without answers'), shouldStop: () => ++asked > 1 });
    assert.deepEqual([stopped.finished, stopped.state.epochStep, stopped.state.written], [false, 0, undefined]);
    const path = join(runs.folder, 'stopped');
    stopped.writeCheckpoint(path);
    assert.ok((await runs.run({ ...input, from: path })).checkpoint.equals(whole.checkpoint));
  });

  test('an answer ends before a token that is padding of the vocabulary, and at the longest row', async () => {
    const { samples } = runs.input();
    const longest = Math.max(...samples.map(({ ids }) => ids.length));
    const input = onPolicy({ share: 1, maxTokens: 64, refreshEverySteps: 4 }, { maxTokens: longest });
    const answersOf = async (vocabularySize: number): Promise<Written['answers']> => {
      const run = await runs.run({ ...input, writing: { tokenizer: runs.model.tokenizer, folder: runs.folder, vocabularySize } }, 1);
      return run.state.written?.answers ?? [];
    };
    const [whole, cut] = [await answersOf(runs.model.config.vocabularySize), await answersOf(130)];
    assert.ok(whole.some(({ ids }) => ids.some((id) => id >= 130)));
    whole.forEach(({ ids }, i) => {
      const first = ids.findIndex((id) => id >= 130);
      assert.deepEqual(cut[i]?.ids, first < 0 ? ids : [...ids.slice(0, first), runs.model.tokenizer.endId]);
      assert.ok(ids.length < 64);
    });
  });

  for (const [what, changes] of [['adapters', {}], ['all weights', { tune: 'full' }]] as const) {
    test(`${what}: the loss falls, and a run that goes on after any step ends in the same bytes`, async () => {
      const input = onPolicy({ share: 0.5 }, { epochs: 8, ...changes });
      const { state } = await runs.runAll(input);
      const mean = (points: typeof state.curve): number => points.reduce((sum, { lossNats }) => sum + lossNats, 0) / points.length;
      assert.ok(mean(state.curve.slice(-4)) < 0.9 * mean(state.curve.slice(0, 4)), `${mean(state.curve.slice(0, 4))} to ${mean(state.curve.slice(-4))}`);
      const whole = await runs.run(input);
      for (const done of [1, 2, 3]) {
        const part = await runs.run(input, done);
        assert.equal(part.finished, false);
        const rest = await runs.run({ ...input, from: runs.saved(part.checkpoint) });
        assert.ok(rest.checkpoint.equals(whole.checkpoint), `after ${done}`);
      }
    });
  }
});
