/** Distilling step by step: output and rationale as two tasks of one student, their losses weighed against each other. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { splitBatch, packRow } from '../../src/training/packing.ts';
import { stepParts, tokenizeSamples } from '../../src/training/samples.ts';
import { createStep } from '../../src/training/step.ts';
import { trainableOf } from '../../src/training/trainable.ts';
import { openTrainingRuns, trainingSpec } from '../support/training-runs.ts';
import type { TrainingRuns } from '../support/training-runs.ts';

let runs: TrainingRuns;
before(async () => {
  runs = await openTrainingRuns();
});
after(() => runs[Symbol.dispose]());

const rowsOf = (rationales: readonly (string | undefined)[]): string =>
  rationales.map((rationale, i) => JSON.stringify({ id: `row-${i}`, messages: [{ role: 'system', content: 's' }, { role: 'user', content: `number ${i}` }, { role: 'assistant', content: i % 2 === 0 ? 'even' : 'odd' }], ...(rationale === undefined ? {} : { rationale }) })).join('\n');
const spec = (changes: object = {}) => trainingSpec({ method: 'step-by-step', epochs: 1, batchSize: 4, ...changes });

describe('step by step', () => {
  test('the output is asked for as ever, the rationale with the prefix before the last question', () => {
    const { tokenizer } = runs.model;
    const training = spec({ stepByStep: { rationalePrefix: '[why] ' } });
    const [first, second] = tokenizeSamples(rowsOf(['it ends in 0', undefined]), tokenizer, training);
    const [plain] = tokenizeSamples(rowsOf(['it ends in 0']), tokenizer, {});
    assert.deepEqual(first?.ids, plain?.ids);
    assert.equal(plain?.rationale, undefined);
    assert.equal(second?.rationale, undefined);
    const { ids = [], responseStart = 0 } = first?.rationale ?? {};
    assert.match(tokenizer.decode(ids.slice(0, responseStart)), /\[why\] number 0/);
    assert.equal(tokenizer.decode(ids.slice(responseStart)), 'it ends in 0');
  });

  test('loss and gradient are those of the outputs plus the weight times those of the rationales', async () => {
    const training = spec({ stepByStep: { rationaleWeight: 0.3 }, lora: { dropout: 0 } });
    const samples = tokenizeSamples(rowsOf(['zero is even', 'one is odd', undefined, 'three is what remains']), runs.model.tokenizer, training);
    const { config, weights } = runs.model;
    const trainable = trainableOf(config, training);
    const parameters = trainable.initial(weights, 3).map((value, i) => value + 0.01 * Math.sin(i));
    await using step = await createStep({ config, weights, training, threads: 1 }, trainable);
    const measure = async (parts: ReturnType<typeof stepParts>) => {
      const gradients = new Float32Array(trainable.layout.length);
      let loss = 0;
      for (const row of splitBatch(parts.samples, step.maxRowTokens).map(packRow)) loss += await step.accumulate({ row, scale: parts.scale, parameters, gradients, dropout: [0, 0, 0] });
      return { loss, gradients };
    };
    const both = await measure(stepParts(samples, training));
    const outputs = await measure(stepParts(samples, {}));
    const rationales = await measure(stepParts(samples.flatMap(({ id, rationale }) => (rationale === undefined ? [] : [{ id, ...rationale }])), {}));
    assert.ok(Math.abs(both.loss - (outputs.loss + 0.3 * rationales.loss)) < 1e-5, `${both.loss} of ${outputs.loss} and ${rationales.loss}`);
    const norm = Math.hypot(...both.gradients);
    assert.ok(norm > 0.1);
    const error = Math.hypot(...both.gradients.map((value, i) => value - ((outputs.gradients[i] as number) + 0.3 * (rationales.gradients[i] as number))));
    assert.ok(error / norm < 1e-5, `relative error ${error / norm}`);
  });

  test('a run learns both, and its development loss is that of the outputs alone', async () => {
    const training = spec({ epochs: 20, batchSize: 8, learningRate: 2e-2, lora: { r: 8, dropout: 0 }, development: { share: 0.1 } });
    const samples = tokenizeSamples(rowsOf(Array.from({ length: 8 }, (_, i) => `${i} is ${i % 2 === 0 ? 'a multiple of two' : 'not'}`)), runs.model.tokenizer, training);
    const { state } = await runs.runAll({ training, samples, development: { samples: samples.map(({ rationale: _rationale, ...sample }) => sample), sha256: 'v' } });
    const [first, last] = [state.curve[0], state.curve.at(-1)];
    assert.ok((last?.lossNats ?? Infinity) < 0.5 * (first?.lossNats ?? 0), `${first?.lossNats} to ${last?.lossNats}`);
    assert.ok((last?.developmentNats ?? Infinity) < 0.5 * (first?.developmentNats ?? 0));
  });

  test('a dataset without any rationale is refused, and so is one that is too long with its row', async () => {
    const refused = (message: RegExp) => (error: unknown) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && message.test(error.message);
    assert.throws(() => tokenizeSamples(rowsOf([undefined, ' ']), runs.model.tokenizer, spec()), refused(/expected rows with a rationale for method step-by-step, got 2 without/));
    const samples = tokenizeSamples(rowsOf(['x'.repeat(200), 'short']), runs.model.tokenizer, spec());
    await assert.rejects(runs.run({ training: spec(), samples }), refused(/maxTokens = 128 tokens, got 1 longer: row-0/));
  });
});
