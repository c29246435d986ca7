/** One graph serves packed rows, rows after a cached prefix and batched decoding: each gives what a plain run gives. */
import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { Graph } from '../../src/graph/graph.ts';
import { toOnnx } from '../../src/graph/serialize.ts';
import { decoderInputs, MASKED, weightConstants } from '../../src/lm/architectures/decoder.ts';
import { decoder, decoderLogits } from '../../src/lm/architectures/registry.ts';
import { loadModel } from '../../src/lm/load.ts';
import type { LoadedModel } from '../../src/lm/load.ts';
import { temporaryFolder } from '../support/folder.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();
let model: LoadedModel;
let session: InferenceSession;
before(async () => {
  model = await loadModel({ path: writeTinyLlama(join(folder, 'model')), cache: join(folder, 'cache') });
  const g = new Graph();
  const weight = weightConstants(g, model.weights);
  const { hidden, present } = decoder(g, model.config, weight, decoderInputs(g, model.config, { past: true }), { contextTokens: 64 });
  g.output('logits', decoderLogits(g, model.config, weight, hidden, g.input('rows', 'int64', ['R'])));
  present.forEach(({ key, value }, layer) => {
    g.output(`present.${layer}.key`, key);
    g.output(`present.${layer}.value`, value);
  });
  session = await InferenceSession.create(toOnnx(g, 'llama'), { intraOpNumThreads: 1, logSeverityLevel: 3, extra: { session: { model_external_initializers_file_folder_path: dirname(model.weights.path) } } });
});
after(async () => {
  await session.release();
});

type Cache = readonly { readonly key: Tensor; readonly value: Tensor }[];
interface Call {
  readonly ids: readonly (readonly number[])[];
  readonly positions: readonly (readonly number[])[];
  /** Does token i of row b attend to entry j of past and row together? */
  readonly open: (b: number, i: number, j: number) => boolean;
  readonly past?: Cache;
}
async function run({ ids, positions, open, past }: Call): Promise<{ readonly logits: readonly Float32Array[]; readonly present: Cache }> {
  const { config } = model;
  const [B, T, P] = [ids.length, ids[0]?.length ?? 0, past?.[0]?.key.dims[2] ?? 0];
  const int64 = (values: readonly number[], dims: readonly number[]) => new Tensor('int64', BigInt64Array.from(values, BigInt), dims);
  const mask = new Float32Array(B * T * (P + T)).map((_, at) => (open(Math.floor(at / (T * (P + T))), Math.floor(at / (P + T)) % T, at % (P + T)) ? 0 : MASKED));
  const empty = (): Tensor => new Tensor('float32', new Float32Array(0), [B, config.keyValueHeads, 0, config.headSize]);
  const feeds: Record<string, Tensor> = { ids: int64(ids.flat(), [B, T]), positions: int64(positions.flat(), [B, T]), mask: new Tensor('float32', mask, [B, 1, T, P + T]), rows: int64(Array.from({ length: B * T }, (_, i) => i), [B * T]) };
  for (let layer = 0; layer < config.layers; layer++) {
    feeds[`past.${layer}.key`] = past?.[layer]?.key ?? empty();
    feeds[`past.${layer}.value`] = past?.[layer]?.value ?? empty();
  }
  const results = await session.run(feeds);
  const flat = results['logits']?.data as Float32Array;
  const V = config.vocabularySize;
  return {
    logits: Array.from({ length: B * T }, (_, i) => flat.slice(i * V, (i + 1) * V)),
    present: Array.from({ length: config.layers }, (_, layer) => ({ key: results[`present.${layer}.key`] as Tensor, value: results[`present.${layer}.value`] as Tensor })),
  };
}

const count = (length: number, from = 0): number[] => Array.from({ length }, (_, i) => from + i);
const causal = (past = 0) => (_b: number, i: number, j: number): boolean => j <= past + i;
const plain = (ids: readonly number[]) => run({ ids: [ids], positions: [count(ids.length)], open: causal() });

function assertClose(got: readonly Float32Array[], expected: readonly Float32Array[]): void {
  assert.equal(got.length, expected.length);
  got.forEach((row, i) => row.forEach((value, j) => assert.ok(Math.abs(value - (expected[i]?.[j] ?? NaN)) < 1e-4, `logit ${j} of token ${i}: ${value} against ${expected[i]?.[j]}`)));
}

const FIRST = [10, 20, 30, 40, 50];
const SECOND = [60, 70, 80];

test('two samples packed into one row are two samples alone', async () => {
  const [one, two] = [await plain(FIRST), await plain(SECOND)];
  const packed = await run({ ids: [[...FIRST, ...SECOND]], positions: [[...count(5), ...count(3)]], open: (_, i, j) => j <= i && i < 5 === j < 5 });
  assertClose(packed.logits, [...one.logits, ...two.logits]);
  const leaking = await run({ ids: [[...FIRST, ...SECOND]], positions: [[...count(5), ...count(3)]], open: causal() });
  assert.throws(() => assertClose(leaking.logits, [...one.logits, ...two.logits]), 'without the block mask they must differ');
});

test('rows after a cached prefix are whole rows', async () => {
  const whole = await plain(FIRST);
  const { present } = await plain(FIRST.slice(0, 2));
  const rest = await run({ ids: [FIRST.slice(2)], positions: [count(3, 2)], open: causal(2), past: present });
  assertClose(rest.logits, whole.logits.slice(2));
});

test('a padded batch decodes one token each as the rows would alone', async () => {
  const [one, two] = [await plain(FIRST), await plain(SECOND)];
  // Four cached tokens of the first; two of the second, and two of padding.
  const cached = await run({ ids: [FIRST.slice(0, 4), [60, 70, 0, 0]], positions: [count(4), count(4)], open: causal() });
  const next = await run({ ids: [[50], [80]], positions: [[4], [2]], open: (b, _i, j) => b === 0 || j < 2 || j === 4, past: cached.present });
  assertClose(next.logits, [one.logits[4] as Float32Array, two.logits[2] as Float32Array]);
});
