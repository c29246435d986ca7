/** Soft targets as an endpoint gives them with its answers, learned by a student of the same vocabulary. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { Sample } from '../../src/contracts/records.ts';
import { packSoftTargets } from '../../src/dataset/soft-targets.ts';
import type { SoftTarget } from '../../src/dataset/soft-targets.ts';
import { loadModel } from '../../src/lm/load.ts';
import type { LoadedModel } from '../../src/lm/load.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getRows, putRows } from '../../src/store/jsonl.ts';
import type { LossPoint } from '../../src/contracts/records.ts';
import { createOnnxTrainer } from '../../src/training/onnx-trainer.ts';
import type { TrainingSample } from '../../src/training/packing.ts';
import { tokenizeSamples } from '../../src/training/samples.ts';
import { givenTargets } from '../../src/training/soft-targets/given.ts';
import { makeSoftTargets } from '../../src/training/soft-targets/make.ts';
import type { StoredTargets } from '../../src/training/soft-targets/stored.ts';
import { temporaryFolder } from '../support/folder.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';
import { trainingSpec } from '../support/training-runs.ts';

const folder = temporaryFolder();
const cache = join(folder, 'cache');
const K = 12;
let student: LoadedModel;
let samples: readonly TrainingSample[];
/** What the teacher itself says. */
let stored: StoredTargets;

const rowOf = (i: number): Sample => ({
  id: `row-${i}`, input: `text ${i}`, output: i % 2 === 0 ? 'good' : 'bad', messages: [{ role: 'user', content: `Review: text ${i}` }, { role: 'assistant', content: i % 2 === 0 ? 'good' : 'bad' }], round: 1, origin: `test:${i}`, requestId: `request-${i}`,
});
const ROWS = Array.from({ length: 16 }, (_, i) => rowOf(i));
const jsonl = (rows: readonly Sample[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join('');

before(async () => {
  student = await loadModel({ path: writeTinyLlama(join(folder, 'student')), cache });
  const teacher = await loadModel({ path: writeTinyLlama(join(folder, 'teacher'), 8), cache });
  samples = tokenizeSamples(jsonl(ROWS), student.tokenizer, {});
  stored = await makeSoftTargets(
    { teacher: { config: teacher.config, weights: teacher.weights, sha256: teacher.identity.sha256 }, vocabulary: { name: 't', tokens: teacher.tokenizer.tokens }, samples, vocabularySize: 259, k: K, maxRowTokens: 512, folder: join(folder, 'targets'), threads: 1 },
    () => undefined,
  );
});

/** The row as a server of the teacher would have answered it: tokens by their bytes, with its end token or without, after a blank. */
function answered(i: number, { end, blank = false }: { readonly end: boolean; readonly blank?: boolean }): Sample {
  const sample = samples[i] as TrainingSample;
  const { teacherTokens, teacherLogProbs } = stored.valuesOf(sample);
  const text = (id: number) => ({ token: student.tokenizer.tokenText(id), bytes: student.tokenizer.tokenBytes(id) });
  const targets = sample.ids.slice(sample.responseStart).map((id, at): SoftTarget => {
    const alternatives = Array.from({ length: K }, (_, j) => ({ ...text(Number(teacherTokens?.data[at * K + j])), logProb: Number(teacherLogProbs?.data[at * K + j]) }));
    return { ...text(id), logProb: -6, alternatives };
  });
  return { ...rowOf(i), softTargets: packSoftTargets([...(blank ? [{ ...text(199), token: ' ', bytes: [32], logProb: -1, alternatives: [] }] : []), ...(end ? targets : targets.slice(0, -1))]) };
}
const given = (rows: readonly Sample[], topK = K): StoredTargets => givenTargets({ rows: jsonl(rows), samples: samples.slice(0, rows.length), tokenizer: student.tokenizer, topK });
const refused = (message: RegExp) => (error: unknown) => (error instanceof StillhouseError && error.code === 'BAD_INPUT' && message.test(error.message)) || assert.fail(String(error));

describe('soft targets that came with the answers', () => {
  test("are the teacher's own, token by token, a blank before the answer left out", () => {
    const targets = given(ROWS.map((_, i) => answered(i, { end: true, blank: i % 3 === 0 })));
    assert.deepEqual(targets.source, { kind: 'top-k', k: K });
    targets.check(0.05);
    for (const sample of samples) {
      const [got, wanted] = [targets.valuesOf(sample), stored.valuesOf(sample)];
      const byToken = ({ teacherTokens, teacherLogProbs }: typeof got) => new Map(Array.from(teacherTokens?.data as BigInt64Array, (id, i) => [`${Math.floor(i / K)} ${id}`, teacherLogProbs?.data[i] as number]));
      const expected = byToken(wanted);
      let found = 0;
      // The written token comes in place of the least likely where it is not among the likeliest.
      for (const [key, logProb] of byToken(got)) {
        const of = expected.get(key);
        if (of === undefined) continue;
        found += 1;
        assert.ok(Math.abs(of - logProb) < 1e-3, `${key}: ${logProb} against ${of}`);
      }
      assert.ok(found >= expected.size - (sample.ids.length - sample.responseStart));
      got['teacherRest']?.data.forEach((rest: number | bigint, i: number) => assert.ok(Math.abs(Number(rest) - Number(wanted['teacherRest']?.data[i])) < 0.05));
    }
  });

  test('an answer that came without its end token teaches that token as certain', () => {
    const [sample] = samples as [TrainingSample];
    const { teacherTokens, teacherLogProbs, teacherRest } = given([answered(0, { end: false })]).valuesOf(sample);
    const last = sample.ids.length - sample.responseStart - 1;
    assert.equal(Number(teacherTokens?.data[last * K]), sample.ids.at(-1));
    assert.equal(teacherLogProbs?.data[last * K], 0);
    assert.equal(teacherRest?.data[last], -Infinity);
    assert.equal(new Set(Array.from(teacherTokens?.data.subarray(last * K) as BigInt64Array)).size, K);
  });

  test('train a student through the trainer without any model of the teacher', async () => {
    const store = createFileStore(join(folder, 'store'));
    const dataset = await putRows(store, 'dataset', ROWS.map((_, i) => answered(i, { end: i % 2 === 0 })));
    const trainer = createOnnxTrainer({ store, assets: { model: (name) => Promise.resolve({ name, path: join(folder, name), license: 'CC0-1.0' }) }, cache, threads: 1 });
    const training = trainingSpec({ method: 'logit', epochs: 1, learningRate: 2e-2, tune: 'full', logit: { targets: 'offline', topK: 8, minMass: 0 } });
    const { lossCurve } = await trainer.trainEpoch({ student: { model: 'student' }, training, seed: 3, epoch: 0, dataset }, {});
    const losses = (await getRows<LossPoint>(store, lossCurve)).map(({ lossNats }) => lossNats);
    assert.ok((losses.at(-1) ?? NaN) < 0.8 * (losses[0] ?? NaN), losses.join(' '));
  });

  test('a row without them, or of another vocabulary, is refused by its name', () => {
    assert.throws(() => given([answered(0, { end: true }), rowOf(1)]), refused(/row row-1: expected soft targets with the answer.*got neither in 1 of 2 rows/));
    const { softTargets = '' } = answered(1, { end: true });
    assert.throws(() => given([{ ...rowOf(0), softTargets }]), refused(/row row-0: expected an answer in the student's own tokens.*got "b" at position 0 where the student reads "g"; take a teacher of the student's family/));
    assert.throws(() => given(ROWS.map((_, i) => answered(i, { end: true })), 1).check(0.9), refused(/row row-0: expected the stored tokens to hold at least minMass = 0\.9/));
  });
});
