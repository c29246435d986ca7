/** The estimate of a step's memory beside what was measured, and what it depends on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { graphMemory } from '../../src/graph/liveness.ts';
import { Graph } from '../../src/graph/graph.ts';
import type { ModelConfig } from '../../src/lm/config.ts';
import { estimateStepBytes } from '../../src/training/memory.ts';
import type { MethodInput } from '../../src/training/method.ts';
import type { StepShape } from '../../src/training/memory.ts';
import { trainingSpec } from '../support/training-runs.ts';

const SMOLLM2: ModelConfig = {
  architecture: 'llama', layers: 30, hiddenSize: 576, attentionHeads: 9, keyValueHeads: 3, headSize: 64, feedForwardSize: 1536, vocabularySize: 49_152,
  normEpsilon: 1e-5, rotary: { base: 1e5 }, tiedEmbeddings: true, maxPositions: 8192,
};
const QWEN: ModelConfig = {
  architecture: 'qwen2', layers: 24, hiddenSize: 896, attentionHeads: 14, keyValueHeads: 2, headSize: 64, feedForwardSize: 4864, vocabularySize: 151_936,
  normEpsilon: 1e-6, rotary: { base: 1e6 }, tiedEmbeddings: true, maxPositions: 32_768,
};
const LARGER: ModelConfig = { ...QWEN, layers: 28, hiddenSize: 1536, attentionHeads: 12, headSize: 128, feedForwardSize: 8960 };
const QUERY_AND_VALUE = { lora: { r: 16, alpha: 32, dropout: 0, targets: ['q_proj', 'v_proj'] } };
const ALL = { r: 16, alpha: 32, dropout: 0, targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] };

const HEAD = { shape: [QWEN.vocabularySize, QWEN.hiddenSize], offsetBytes: 0, lengthBytes: 4 * QWEN.vocabularySize * QWEN.hiddenSize };
/** A teacher of the student's shape. */
const TEACHER = { config: QWEN, weights: { path: '/weights/teacher', tensors: new Map([['model.embed_tokens.weight', HEAD]]) }, sha256: 't' };
const LEARNED = { ...QUERY_AND_VALUE, method: 'logit' };

/** Resident memory at its highest in MiB (VmHWM, weights mapped, those of the small model packed), without what is trained, its gradients and moments. */
const MEASURED: readonly { readonly name: string; readonly config: ModelConfig; readonly spec: object; readonly shape: StepShape; readonly mebibytes: number; readonly taught?: Pick<MethodInput, 'teacher' | 'targets'> }[] = [
  { name: '126 tokens', config: SMOLLM2, spec: QUERY_AND_VALUE, shape: { batch: 1, width: 126, labels: 126 }, mebibytes: 1_426 },
  { name: '4 × 127 tokens', config: SMOLLM2, spec: QUERY_AND_VALUE, shape: { batch: 4, width: 127, labels: 508 }, mebibytes: 1_718 },
  { name: 'one row of 511', config: SMOLLM2, spec: QUERY_AND_VALUE, shape: { batch: 1, width: 511, labels: 511 }, mebibytes: 1_696 },
  { name: 'one row of 1,023', config: SMOLLM2, spec: QUERY_AND_VALUE, shape: { batch: 1, width: 1_023, labels: 1_023 }, mebibytes: 2_119 },
  { name: 'adapters everywhere', config: SMOLLM2, spec: { lora: ALL }, shape: { batch: 4, width: 127, labels: 508 }, mebibytes: 1_825 },
  { name: 'adapters everywhere with dropout', config: SMOLLM2, spec: { lora: { ...ALL, dropout: 0.1 } }, shape: { batch: 4, width: 127, labels: 508 }, mebibytes: 2_106 },
  { name: 'all weights', config: SMOLLM2, spec: { tune: 'full' }, shape: { batch: 4, width: 127, labels: 508 }, mebibytes: 2_390 },
  { name: '4 × 127 tokens in float16', config: SMOLLM2, spec: { ...QUERY_AND_VALUE, precision: 'float16' }, shape: { batch: 4, width: 127, labels: 508 }, mebibytes: 1_545 },
  { name: 'adapters everywhere in float16', config: SMOLLM2, spec: { lora: ALL, precision: 'float16' }, shape: { batch: 4, width: 127, labels: 508 }, mebibytes: 1_738 },
  { name: 'all weights in float16', config: SMOLLM2, spec: { tune: 'full', precision: 'float16' }, shape: { batch: 4, width: 127, labels: 508 }, mebibytes: 2_814 },
  { name: 'a vocabulary of 152k', config: QWEN, spec: QUERY_AND_VALUE, shape: { batch: 4, width: 127, labels: 508 }, mebibytes: 2_830 },
  { name: 'a vocabulary of 152k and the rows of a teacher that has read before', config: QWEN, spec: LEARNED, taught: { teacher: TEACHER, targets: { source: { kind: 'rows' } } }, shape: { batch: 4, width: 127, labels: 508 }, mebibytes: 3_631 },
  { name: 'a vocabulary of 152k and 50 stored tokens of each distribution', config: QWEN, spec: LEARNED, taught: { teacher: TEACHER, targets: { source: { kind: 'top-k', k: 50 } } }, shape: { batch: 4, width: 127, labels: 508 }, mebibytes: 3_106 },
  { name: 'a vocabulary of 152k and a teacher beside each batch', config: QWEN, spec: LEARNED, taught: { teacher: TEACHER }, shape: { batch: 4, width: 127, labels: 508 }, mebibytes: 5_453 },
  { name: '1.5 B parameters', config: LARGER, spec: QUERY_AND_VALUE, shape: { batch: 4, width: 127, labels: 508 }, mebibytes: 7_622 },
];

for (const { name, config, spec, shape, mebibytes, taught = {} } of MEASURED) {
  test(`the estimate for ${name} lies within a fifth of what was measured`, (t) => {
    const ratio = estimateStepBytes({ config, training: trainingSpec(spec), ...taught }, shape) / 2 ** 20 / mebibytes;
    t.diagnostic(`${ratio.toFixed(2)} of it`);
    assert.ok(Math.abs(ratio - 1) < 0.2, `${ratio} of it`);
  });
}

test('values count from the node that makes them to the last that reads them', () => {
  const g = new Graph();
  const x = g.input('x', 'float32', ['T', 10]);
  const early = g.exp(x);
  let y = early;
  for (let i = 0; i < 5; i++) y = g.exp(y);
  g.output('chain', y);
  assert.deepEqual(graphMemory(g, { T: 100 }), { constantBytes: 0, inputBytes: 4_000, resultBytes: 8_000 });
  g.output('early', early);
  assert.equal(graphMemory(g, { T: 100 }).resultBytes, 12_000);
  assert.throws(() => graphMemory(g, {}), /dimension T: expected a size/);
});

test('what is multiplied in half precision is there in float16, once for all products with it, and in float32 again', () => {
  const g = new Graph();
  const x = g.input('x', 'float32', ['T', 10]);
  const weights = ['a', 'b'].map((name) => g.external(name, [20, 10], { location: 'weights', offsetBytes: name === 'a' ? 0 : 800, lengthBytes: 800 }));
  weights.forEach((weight, i) => g.output(`y${i}`, g.halfMatMul(x, weight, { transB: true })));
  // Twice two bytes and four for each number: 400 of weights, and with 1,000 of x the two results of 2,000.
  assert.deepEqual(graphMemory(g, { T: 100 }, { packed: true }), { constantBytes: 6 * 400, inputBytes: 4_000, resultBytes: 6 * 1_000 + 4 * 2 * 2_000 });
});

test('a loop takes the memory of one run of its body at a time', () => {
  const bytes = (runs: number): number => {
    const g = new Graph();
    const { results } = g.scan({ states: [], sequences: [g.input('x', 'float32', ['N', 10])] }, (body, [slice]) => {
      const wide = body.exp(body.matMul(body.unsqueeze(slice as never, [1]), body.floats(new Float32Array(1_000), [1, 1_000]))); // (10, 1000)
      return { states: [], results: [body.reduceSum(wide, [0, 1], false)] };
    });
    g.output('sums', results[0] as never);
    return graphMemory(g, { N: runs }).resultBytes;
  };
  assert.equal(bytes(100) - bytes(1), 99 * 4);
  assert.ok(bytes(1) >= 2 * 40_000);
});

for (const tune of ['lora', 'full'] as const) {
  for (const source of [{ kind: 'rows' }, { kind: 'top-k', k: 50 }] as const) {
    test(`with a vocabulary of 152k and ${tune}, learning distributions (${source.kind}) takes at most 1.3 times what learning the text does`, (t) => {
      const shape = { batch: 4, width: 127, labels: 508 };
      const tuned = tune === 'lora' ? QUERY_AND_VALUE : { tune };
      const text = estimateStepBytes({ config: QWEN, training: trainingSpec(tuned) }, shape);
      const ratio = estimateStepBytes({ config: QWEN, training: trainingSpec({ ...tuned, method: 'logit' }), teacher: TEACHER, targets: { source } }, shape) / text;
      t.diagnostic(`${ratio.toFixed(2)} of it`);
      assert.ok(ratio > 1 && ratio <= 1.3, `${ratio} of it`);
      // A teacher beside the student has its own weights there as well.
      const beside = estimateStepBytes({ config: QWEN, training: trainingSpec({ ...tuned, method: 'logit' }), teacher: TEACHER }, shape);
      assert.ok(beside - text > 0.9 * 4 * 494e6, `${beside - text} bytes more`);
    });
  }
}
