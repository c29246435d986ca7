/**
 * Every architecture in every weight format against transformers, on small random models
 * (fixtures/architectures_reference.py). Greatest difference of a logit that was measured: see docs/log.md.
 */
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { createEngine } from '../../src/lm/engine.ts';
import type { Engine } from '../../src/lm/engine.ts';
import { generateFromTokens } from '../../src/lm/generation.ts';
import { loadModel } from '../../src/lm/load.ts';
import { temporaryFolder } from '../support/folder.ts';
import { logitsOf } from '../support/logits.ts';
import { GGUF_TYPES, readReference, writeFolderModel, writeGgufModel } from '../support/recipe.ts';
import type { LogitsReference } from '../support/recipe.ts';

const reference = readReference();
const folder = temporaryFolder();

const LOGIT_TOLERANCE = 1e-3;

async function openEngine(path: string): Promise<Engine> {
  const cache = mkdtempSync(join(folder, 'cache-'));
  const { config, weights } = await loadModel({ path, cache });
  return createEngine({ config, weights, threads: 1 });
}

function largestDifference(logits: Float32Array, expected: LogitsReference, V: number): number {
  let worst = 0;
  expected.positions.forEach((position, i) => {
    const row = logits.subarray(position * V, (position + 1) * V);
    reference.columns.forEach((column, j) => (worst = Math.max(worst, Math.abs((row[column] ?? NaN) - (expected.logits[i]?.[j] ?? NaN)))));
    const largest = row.reduce((a, b) => Math.max(a, b), -Infinity);
    const logSumExp = largest + Math.log(row.reduce((sum, value) => sum + Math.exp(value - largest), 0));
    worst = Math.max(worst, Math.abs(logSumExp - (expected.logSumExp[i] ?? NaN)));
    assert.ok(!Number.isNaN(worst));
  });
  return worst;
}

for (const [name, expected] of Object.entries(reference.architectures)) {
  describe(name, () => {
    const V = expected.config['vocab_size'] as number;
    const check = async (path: string, wanted: LogitsReference, report: (text: string) => void): Promise<void> => {
      await using engine = await openEngine(path);
      const difference = largestDifference(await logitsOf(engine, reference.ids), wanted, V);
      report(`largest difference ${difference.toExponential(1)}`);
      assert.ok(difference <= LOGIT_TOLERANCE, `largest difference ${difference}`);
    };
    for (const dtype of ['F32', 'F16', 'BF16'] as const) {
      test(`a folder of ${dtype} gives the logits of transformers`, (t) => check(writeFolderModel(join(folder, `${name}-${dtype}`), expected, dtype), expected.huggingFace.logits, (text) => t.diagnostic(text)));
    }
    test('a sharded folder gives the logits of transformers', (t) => check(writeFolderModel(join(folder, `${name}-sharded`), expected, 'BF16', true), expected.huggingFace.logits, (text) => t.diagnostic(text)));
    for (const type of GGUF_TYPES) {
      test(`a GGUF file of ${type} gives the logits of transformers`, (t) => check(writeGgufModel(join(folder, `${name}-${type}.gguf`), name, expected, type), expected.gguf.byType[type] as LogitsReference, (text) => t.diagnostic(text)));
    }
    test('64 greedy tokens after each of 20 prompts equal those of transformers', async (t) => {
      await using engine = await openEngine(join(folder, `${name}-F32`));
      const { greedy } = expected.huggingFace;
      const texts = await generateFromTokens(engine, { decode: (ids) => ids.map((id) => ` ${id}`).join(''), endIds: [] }, greedy.map(({ ids }) => ids), { maxNewTokens: 64, temperature: 0 });
      t.diagnostic(`least lead of a chosen token ${Math.min(...greedy.map(({ leastMargin }) => leastMargin))}`);
      greedy.forEach(({ tokens }, i) => assert.deepEqual(texts[i]?.tokens, tokens, `prompt ${i}`));
    });
    test('hidden states are those of transformers', async () => {
      await using engine = await openEngine(join(folder, `${name}-F32`));
      const { ids } = reference;
      const run = { batch: 1, tokens: ids.length, ids: BigInt64Array.from(ids, BigInt), cache: engine.createCache(), logitRows: [0] };
      const { hidden } = await engine.run(run, { hidden: [0, 1] });
      const H = engine.config.hiddenSize;
      expected.huggingFace.hidden.forEach((states, layer) => {
        const last = hidden[layer]?.subarray((ids.length - 1) * H) ?? [];
        states.forEach((value, i) => assert.ok(Math.abs((last[i * 32] ?? NaN) - value) < 1e-4, `layer ${layer}, ${i * 32}: expected ${value}, got ${last[i * 32]}`));
      });
    });
    test('tokens one at a time, or in parts after a cache, give the same', async () => {
      await using engine = await openEngine(join(folder, `${name}-F32`));
      for (const chunk of [1, 5]) {
        const difference = largestDifference(await logitsOf(engine, reference.ids, chunk), expected.huggingFace.logits, V);
        assert.ok(difference <= LOGIT_TOLERANCE, `parts of ${chunk}: largest difference ${difference}`);
      }
    });
  });
}
