/**
 * Every architecture in every weight format against transformers, on small random models
 * (fixtures/architectures_reference.py). Greatest difference of a logit that was measured: see docs/log.md.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { createEngine } from '../../src/lm/engine.ts';
import type { Engine } from '../../src/lm/engine.ts';
import { loadModel } from '../../src/lm/load.ts';
import { MASKED } from '../../src/lm/architectures/decoder.ts';
import { GGUF_TYPES, readReference, writeFolderModel, writeGgufModel } from '../support/recipe.ts';
import type { LogitsReference } from '../support/recipe.ts';

const reference = readReference();
const folder = mkdtempSync(join(tmpdir(), 'stillhouse-architectures-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const LOGIT_TOLERANCE = 1e-3;

async function openEngine(path: string): Promise<Engine> {
  const cache = mkdtempSync(join(folder, 'cache-'));
  const { config, weights } = await loadModel({ path, cache });
  return createEngine({ config, weights, threads: 1 });
}

/** Logits (T, V) of one row; with `chunks`, run in parts of that many tokens after a growing cache. */
async function logitsOf(engine: Engine, ids: readonly number[], chunk = ids.length): Promise<Float32Array> {
  const { vocabularySize: V } = engine.config;
  const out = new Float32Array(ids.length * V);
  let cache = engine.emptyCache(1);
  for (let from = 0; from < ids.length; from += chunk) {
    const part = ids.slice(from, from + chunk);
    const [T, S] = [part.length, from + part.length];
    const mask = new Float32Array(T * S).fill(MASKED);
    for (let t = 0; t < T; t += 1) mask.fill(0, t * S, t * S + from + t + 1);
    const rows = Array.from(part.keys());
    const run = { batch: 1, tokens: T, ids: BigInt64Array.from(part, BigInt), positions: BigInt64Array.from(rows, (t) => BigInt(from + t)), mask, cache, logitRows: rows };
    const result = await engine.run(run, { logits: true, cache: true });
    out.set(result.logits, from * V);
    cache = result.cache ?? cache;
  }
  return out;
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
    test('tokens one at a time, or in parts after a cache, give the same', async () => {
      await using engine = await openEngine(join(folder, `${name}-F32`));
      for (const chunk of [1, 5]) {
        const difference = largestDifference(await logitsOf(engine, reference.ids, chunk), expected.huggingFace.logits, V);
        assert.ok(difference <= LOGIT_TOLERANCE, `parts of ${chunk}: largest difference ${difference}`);
      }
    });
  });
}
