/** The development loss: rows that are not learned from steer which weights become the student, and when training ends. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { readAdapterMatrices } from '../../src/training/checkpoint.ts';
import { holdOut } from '../../src/training/development.ts';
import { openTrainingRuns, trainingSpec } from '../support/training-runs.ts';
import type { TrainingRuns } from '../support/training-runs.ts';

let runs: TrainingRuns;
before(async () => {
  runs = await openTrainingRuns();
});
after(() => runs[Symbol.dispose]());

/** A rate that soon overshoots, so that the lowest development loss lies before the end. */
const overshooting = (changes: object = {}) => trainingSpec({ epochs: 4, learningRate: 0.03, schedule: 'constant', warmupRatio: 0, development: { share: 0.25, everySteps: 2, ...changes } });
const adapterOf = (checkpoint: Buffer) => readAdapterMatrices(runs.saved(checkpoint)).tensors;

describe('the development loss', () => {
  test('is measured every so many steps and at the end of each epoch, on rows that are not learned from', async () => {
    const { state } = await runs.runAll({ training: trainingSpec({ development: { share: 0.25, everySteps: 2 } }) });
    assert.equal(state.stepsPerEpoch, 3); // six of the eight rows, two a step
    assert.deepEqual(state.curve.flatMap(({ step, developmentNats }) => (developmentNats === undefined ? [] : [step])), [2, 3, 4, 6]);
  });

  test('holds out the same rows for a seed, others for another, and at least one', () => {
    const { samples } = runs.input();
    const ids = (share: number, seed: number): string[] => holdOut(samples, share, seed).development.map(({ id }) => id);
    assert.deepEqual(ids(0.25, 5), ids(0.25, 5));
    assert.notDeepEqual(ids(0.25, 5), ids(0.25, 6));
    assert.equal(ids(0.01, 5).length, 1);
    assert.throws(() => holdOut(samples.slice(0, 1), 0.5, 5), (error) => error instanceof StillhouseError && error.code === 'BAD_INPUT');
  });

  test('takes rows that are given in place of a share', async () => {
    const { samples } = runs.input();
    const { state } = await runs.run({ training: trainingSpec({ development: {} }), samples: samples.slice(0, 6), development: { samples: samples.slice(6), sha256: 'v' } });
    assert.equal(state.stepsPerEpoch, 3);
    assert.ok((state.best?.developmentNats ?? 0) > 0);
  });

  test('of weights that did not change is the training loss of the same rows', async () => {
    const { samples } = runs.input();
    const training = trainingSpec({ epochs: 1, batchSize: 8, learningRate: 1e-30, lora: { dropout: 0 }, development: {} });
    const { state } = await runs.run({ training, development: { samples, sha256: 'v' } });
    const [point] = state.curve;
    assert.ok(point?.developmentNats !== undefined && Math.abs(point.developmentNats - point.lossNats) < 1e-5, JSON.stringify(point));
  });

  test('makes the weights with the lowest one the student', async () => {
    const last = await runs.runAll({ training: overshooting() });
    const { best, curve } = last.state;
    const measured = curve.flatMap(({ step, developmentNats }) => (developmentNats === undefined ? [] : [{ step, developmentNats }]));
    assert.deepEqual(best, measured.toSorted((a, b) => a.developmentNats - b.developmentNats)[0]);
    assert.ok(best !== undefined && best.step < curve.length, `expected the best before the end, got step ${best?.step} of ${curve.length}`);
    // The run that ends at the best step has the same student.
    const epochsBefore = Math.floor((best.step - 1) / 3);
    let from: string | undefined;
    for (let epoch = 0; epoch < epochsBefore; epoch++) from = runs.saved((await runs.run({ training: overshooting(), epoch, ...(from === undefined ? {} : { from }) })).checkpoint);
    const there = await runs.run({ training: overshooting(), epoch: epochsBefore, ...(from === undefined ? {} : { from }) }, best.step - epochsBefore * 3);
    assert.deepEqual(adapterOf(last.checkpoint), adapterOf(there.checkpoint));
  });

  test('ends training when patience runs out, and not before', async () => {
    const patient = await runs.runAll({ training: overshooting({ patience: 1_000 }) });
    assert.equal(patient.state.stopped, false);
    const { state } = await runs.runAll({ training: overshooting({ patience: 2 }) });
    assert.equal(state.stopped, true);
    assert.ok(state.curve.length < patient.state.curve.length);
    assert.equal(state.measurementsSinceBest, 2);
    assert.deepEqual(state.curve, patient.state.curve.slice(0, state.curve.length));
  });

  test('with its best weights and its patience survives a kill at any step, bitwise', async () => {
    const training = overshooting({ patience: 2 });
    const epochs: Awaited<ReturnType<typeof runs.run>>[] = [];
    for (let epoch = 0; epoch < training.epochs && epochs.at(-1)?.state.stopped !== true; epoch++) {
      const before = epochs.at(-1)?.checkpoint;
      epochs.push(await runs.run({ training, epoch, ...(before === undefined ? {} : { from: runs.saved(before) }) }));
    }
    assert.ok(epochs.at(-1)?.state.stopped);
    for (const [epoch, whole] of epochs.entries()) {
      for (const checkpoint of whole.checkpoints) {
        const resumed = await runs.run({ training, epoch, from: runs.saved(checkpoint) });
        assert.ok(resumed.checkpoint.equals(whole.checkpoint), `epoch ${epoch}`);
      }
    }
    // Asked to go on after the end, it says again that it is over.
    const again = await runs.run({ training, epoch: epochs.length, from: runs.saved(epochs.at(-1)?.checkpoint as Buffer) });
    assert.ok(again.finished && again.state.stopped && again.checkpoint.equals(epochs.at(-1)?.checkpoint as Buffer));
  });
});
