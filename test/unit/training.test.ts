/** Training is bitwise repeatable, resumes bitwise, learns, and says what is wrong with its input. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { learningRateAt } from '../../src/training/optimizer.ts';
import { packRow, splitBatch } from '../../src/training/packing.ts';
import { fillDropoutMask, permutation, RANDOM_STREAM, randomStream } from '../../src/training/random.ts';
import { ALL_LINEAR, openTrainingRuns, trainingSpec } from '../support/training-runs.ts';
import type { TrainingRuns } from '../support/training-runs.ts';

let runs: TrainingRuns;
let { input, run, runAll, saved } = {} as Pick<TrainingRuns, 'input' | 'run' | 'runAll' | 'saved'>;
before(async () => {
  runs = await openTrainingRuns();
  ({ input, run, runAll, saved } = runs);
});
after(() => runs[Symbol.dispose]());

describe('training', () => {
  test('is bitwise the same for one seed, and another for another', async () => {
    const [first, second, other] = [await run(), await run(), await run({ seed: 6 })];
    assert.ok(first.checkpoint.equals(second.checkpoint));
    assert.ok(!first.checkpoint.equals(other.checkpoint));
    assert.equal(first.state.curve.length, 4);
  });

  test('resumed from any checkpoint of two epochs is bitwise the uninterrupted run', async () => {
    const first = await run();
    const second = await run({ epoch: 1, from: saved(first.checkpoint) });
    assert.equal(second.state.curve.length, 8);
    for (const checkpoint of first.checkpoints) {
      const resumed = await run({ from: saved(checkpoint) });
      assert.ok(resumed.checkpoint.equals(first.checkpoint));
    }
    for (const checkpoint of second.checkpoints) {
      const resumed = await run({ epoch: 1, from: saved(checkpoint) });
      assert.ok(resumed.checkpoint.equals(second.checkpoint));
    }
  });

  test('stopped between steps leaves a checkpoint that goes on', async () => {
    const whole = await run();
    const stopped = await run({}, 2);
    assert.equal(stopped.finished, false);
    assert.equal(stopped.state.epochStep, 2);
    const resumed = await run({ from: saved(stopped.checkpoint) });
    assert.ok(resumed.checkpoint.equals(whole.checkpoint));
  });

  for (const [name, changes] of [
    ['adapters', { learningRate: 2e-2, lora: { r: 8, dropout: 0, targets: ALL_LINEAR } }],
    ['rank-stabilised adapters', { learningRate: 1e-2, lora: { r: 8, rankStabilised: true, dropout: 0, targets: ALL_LINEAR } }],
    ['all weights', { learningRate: 1e-2, tune: 'full' }],
  ] as const) {
    test(`of ${name} brings the loss of eight samples near zero`, async () => {
      const training = trainingSpec({ epochs: 40, batchSize: 8, schedule: 'cosine', ...changes });
      const losses = (await runAll({ training })).state.curve.map((point) => point.lossNats);
      assert.ok((losses[0] ?? 0) > 3, `first loss ${losses[0]}`);
      assert.ok((losses.at(-1) ?? Infinity) < 0.1, `last loss ${losses.at(-1)}`);
    });
  }

  test('gives the same gradient step however the batch is split into rows', async () => {
    const training = trainingSpec({ batchSize: 8, lora: { dropout: 0 } });
    const { training: _, ...rest } = input();
    const one = await run({ ...rest, training });
    const narrow = await run({ ...rest, training: { ...training, maxTokens: 64, rowTokens: 64 } });
    const [a, b] = [one.state.curve[0], narrow.state.curve[0]];
    assert.ok(Math.abs((a?.lossNats ?? 0) - (b?.lossNats ?? 1)) < 1e-5);
    assert.ok(Math.abs((a?.gradientNorm ?? 0) - (b?.gradientNorm ?? 1)) < 1e-4);
  });

  test('gives the same bits whether attention shares are kept or, where rows may be long, made again', async () => {
    const train = (rowTokens: number) => run({ training: trainingSpec({ rowTokens, lora: { targets: [...ALL_LINEAR], dropout: 0 } }) });
    const [kept, made] = [await train(512), await train(8_192)];
    assert.equal(made.state.curve.length, 4);
    assert.deepEqual(made.state.curve, kept.state.curve);
  });

  test('refuses long rows by their ids before it starts', async () => {
    const longest = input().samples.toSorted((a, b) => b.ids.length - a.ids.length)[0];
    assert.ok(longest !== undefined);
    const maxTokens = longest.ids.length - 1;
    await assert.rejects(run({ training: trainingSpec({ maxTokens }) }), (error) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && error.message.includes(`maxTokens = ${maxTokens}`) && error.message.includes(longest.id));
    assert.equal((await run({ training: trainingSpec({ maxTokens: maxTokens + 1 }) }, 1)).state.epochStep, 1);
  });

  test('refuses a checkpoint of other data, and one of the wrong epoch', async () => {
    const { checkpoint } = await run({}, 1);
    await assert.rejects(run({ from: saved(checkpoint), datasetSha256: 'other' }), /expected a checkpoint of this model, dataset/);
    await assert.rejects(run({ from: saved(checkpoint), epoch: 1 }), /end of epoch 0, got step 1 of 4 of epoch 0/);
    await assert.rejects(run({ epoch: 1 }), /expected a checkpoint to start epoch 1/);
  });

  test('ends with DIVERGED when the loss is no number', async () => {
    const training = trainingSpec({ learningRate: 0.9, warmupRatio: 0, epochs: 1, lora: { alpha: 1e300 } });
    await assert.rejects(run({ training }), (error) => error instanceof StillhouseError && error.code === 'DIVERGED');
  });
});

describe('packing', () => {
  const sample = (id: string, ids: readonly number[], responseStart: number) => ({ id, ids, responseStart });

  test('shares what prompts begin with, keeps samples apart and learns answers alone', () => {
    const row = packRow([sample('a', [1, 2, 3, 8, 9], 3), sample('b', [1, 2, 4, 7], 3)]);
    // 1 2 are shared; then 3 8 of a, and 4 of b. The last token of each predicts nothing.
    assert.deepEqual([...row.ids].map(Number), [1, 2, 3, 8, 4]);
    assert.deepEqual([...row.positions].map(Number), [0, 1, 2, 3, 2]);
    assert.deepEqual([...row.rows].map(Number), [2, 3, 4]);
    assert.deepEqual([...row.labels].map(Number), [8, 9, 7]);
    const open = Array.from({ length: 5 }, (_, i) => Array.from({ length: 5 }, (_unused, j) => (row.mask[i * 5 + j] === 0 ? 1 : 0)).join(''));
    assert.deepEqual(open, ['10000', '11000', '11100', '11110', '11001']);
  });

  test('lays samples side by side where one long row would cost more', () => {
    const long = (id: string) => sample(id, Array.from({ length: 513 }, (_, i) => i), 1);
    const row = packRow([long('a'), long('b'), sample('c', Array.from({ length: 401 }, (_, i) => i + 1), 1)]);
    assert.deepEqual([row.batch, row.width, row.tokens, row.labels.length], [3, 512, 1_536, 1_424]);
    assert.deepEqual([row.rows[0], row.rows[512], row.rows.at(-1)], [0n, 512n, 1_423n]);
    const opens = (b: number, i: number, j: number): boolean => row.mask[(b * 512 + i) * 512 + j] === 0;
    assert.ok(opens(2, 399, 0) && !opens(2, 0, 399) && opens(2, 450, 450) && !opens(2, 450, 0), 'padding attends to itself alone');
  });

  test('splits a batch in order at the token limit', () => {
    const batch = [sample('a', [1, 2, 3], 1), sample('b', [1, 2, 3], 1), sample('c', [1, 2, 3, 4, 5, 6, 7], 1)];
    assert.deepEqual(splitBatch(batch, 6).map((row) => row.map(({ id }) => id)), [['a', 'b'], ['c']]);
  });
});

describe('schedules and random numbers', () => {
  test('rise over the warm-up and fall to zero', () => {
    const training = { learningRate: 1, warmupRatio: 0.2, schedule: 'linear' } as const;
    assert.deepEqual([0, 1, 2, 6, 9].map((step) => learningRateAt(training, step, 10)), [0.5, 1, 1, 0.5, 0.125]);
    assert.equal(learningRateAt({ ...training, schedule: 'cosine' }, 6, 10).toFixed(6), '0.500000');
    assert.equal(learningRateAt({ ...training, schedule: 'constant' }, 9, 10), 1);
  });

  test('no step of any training has a rate of 0, and none more than the whole one', () => {
    for (const schedule of ['linear', 'cosine', 'constant'] as const) {
      for (const warmupRatio of [0, 0.03, 0.1, 0.5, 0.999]) {
        for (const steps of [1, 2, 3, 10, 101]) {
          const rates = Array.from({ length: steps }, (_, step) => learningRateAt({ learningRate: 1, warmupRatio, schedule }, step, steps));
          assert.ok(rates.every((rate) => rate > 0 && rate <= 1), `${schedule}, warm-up ${warmupRatio} of ${steps} steps: ${rates.join(', ')}`);
          assert.ok(rates.includes(1), `${schedule}, warm-up ${warmupRatio} of ${steps} steps reaches the whole rate: ${rates.join(', ')}`);
        }
      }
    }
  });

  test('permutations hold every index once and differ by epoch', () => {
    const [first, second] = [permutation(100, randomStream(1, 2, 0)), permutation(100, randomStream(1, 2, 1))];
    assert.deepEqual(first.toSorted((a, b) => a - b), Array.from({ length: 100 }, (_, i) => i));
    assert.notDeepEqual(first, second);
  });

  test('dropout masks keep their share and the mean within three standard deviations, whatever they are for', () => {
    for (const probability of [0.05, 0.3]) {
      const [masks, length] = [400, 500];
      const keptAt = new Float64Array(length);
      let kept = 0;
      for (let step = 0; step < masks; step++) {
        const mask = new Float32Array(length);
        fillDropoutMask(mask, probability, randomStream(3, RANDOM_STREAM.dropout, step, step % 3, step % 7));
        mask.forEach((value, i) => {
          assert.ok(value === 0 || value === Math.fround(1 / (1 - probability)));
          kept += value === 0 ? 0 : 1;
          keptAt[i] = (keptAt[i] as number) + (value === 0 ? 0 : 1);
        });
      }
      const draws = masks * length;
      const sigma = Math.sqrt((probability * (1 - probability)) / draws);
      assert.ok(Math.abs(kept / draws - (1 - probability)) < 3 * sigma, `kept ${kept / draws}`);
      assert.ok(Math.abs(kept / draws / (1 - probability) - 1) < (3 * sigma) / (1 - probability), 'the mean is kept');
      // No place is favoured: the counts by place vary as independent draws do.
      const expected = masks * (1 - probability);
      const chiSquare = keptAt.reduce((sum, count) => sum + (count - expected) ** 2 / (expected * probability), 0);
      assert.ok(Math.abs(chiSquare - length) < 3 * Math.sqrt(2 * length), `chi square ${chiSquare} of ${length} places`);
    }
  });
});
