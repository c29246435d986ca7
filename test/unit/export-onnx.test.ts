/** Exported ONNX graphs, run by plain onnxruntime with the inputs that Optimum's exports take, against transformers. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import type { ModelConfig } from '../../src/lm/config.ts';
import { createEngine } from '../../src/lm/engine.ts';
import { exportOnnx } from '../../src/lm/export/export-model.ts';
import { openExportSource } from '../../src/lm/export/source.ts';
import { generate } from '../../src/lm/generation.ts';
import { loadModel } from '../../src/lm/load.ts';
import { temporaryFolder } from '../support/folder.ts';
import { readReference, writeFolderModel } from '../support/recipe.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();

const LOGIT_TOLERANCE = 1e-3;
const provenance = { baseModel: 'org/base', license: 'Apache-2.0', campaign: 'reviews', datasetSha256: 'ab'.repeat(32) };

async function exported(path: string): Promise<{ readonly folder: string; readonly config: ModelConfig; readonly session: InferenceSession }> {
  const target = `${path}-onnx`;
  using source = openExportSource({ path, provenance });
  await exportOnnx(source, target);
  return { folder: target, config: source.config, session: await InferenceSession.create(join(target, 'model.onnx'), { intraOpNumThreads: 1, logSeverityLevel: 3 }) };
}

const int64 = (rows: readonly (readonly number[])[]): Tensor => new Tensor('int64', BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0]?.length ?? 0]);

/** A run after `past`; `attention` covers past and new tokens. Positions count the tokens that are not padding. */
async function run(session: InferenceSession, config: ModelConfig, ids: readonly (readonly number[])[], attention: readonly (readonly number[])[], past?: Record<string, Tensor>) {
  const T = ids[0]?.length ?? 0;
  const positions = attention.map((row) => {
    let count = -1;
    return row.map((open) => Math.max(0, (count += open))).slice(-T);
  });
  const empty = new Tensor('float32', new Float32Array(0), [ids.length, config.keyValueHeads, 0, config.headSize]);
  const feeds: Record<string, Tensor> = { input_ids: int64(ids), attention_mask: int64(attention), position_ids: int64(positions) };
  for (let layer = 0; layer < config.layers; layer += 1) {
    for (const side of ['key', 'value']) feeds[`past_key_values.${layer}.${side}`] = past?.[`present.${layer}.${side}`] ?? empty;
  }
  return session.run(feeds) as Promise<Record<string, Tensor>>;
}

const row = (logits: Tensor | undefined, b: number, t: number): Float32Array => {
  const [, T = 0, V = 0] = (logits?.dims ?? []) as readonly number[];
  const data = logits?.data;
  assert.ok(data instanceof Float32Array);
  return data.subarray((b * T + t) * V, (b * T + t + 1) * V);
};
const largest = (a: Float32Array, b: Float32Array): number => a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] ?? NaN))), 0);
const ones = (length: number): number[] => Array.from({ length }, () => 1);

const reference = readReference();
for (const [name, expected] of Object.entries(reference.architectures)) {
  describe(name, () => {
    const { ids } = reference;
    const path = writeFolderModel(join(folder, name), expected, 'F32');

    test('gives the logits of transformers, at once, in parts after a cache, and beside a padded row', async () => {
      const { config, session } = await exported(path);
      const whole = await run(session, config, [ids], [ones(ids.length)]);
      expected.huggingFace.logits.positions.forEach((position, i) => {
        const got = row(whole['logits'], 0, position);
        reference.columns.forEach((column, j) => assert.ok(Math.abs((got[column] ?? NaN) - (expected.huggingFace.logits.logits[i]?.[j] ?? NaN)) <= LOGIT_TOLERANCE, `position ${position}, column ${column}`));
      });

      const cut = ids.length - 3;
      const first = await run(session, config, [ids.slice(0, cut)], [ones(cut)]);
      const second = await run(session, config, [ids.slice(cut)], [ones(ids.length)], first);
      for (let t = 0; t < 3; t += 1) assert.ok(largest(row(second['logits'], 0, t), row(whole['logits'], 0, cut + t)) <= LOGIT_TOLERANCE, `after a cache, token ${t}`);

      // Another row, four tokens shorter and padded on the left; then one more token of both.
      const short = [0, 0, 0, 0, ...ids.slice(0, ids.length - 4)];
      const masks = [ones(ids.length), [0, 0, 0, 0, ...ones(ids.length - 4)]];
      const both = await run(session, config, [ids, short], masks);
      assert.ok(largest(row(both['logits'], 0, ids.length - 1), row(whole['logits'], 0, ids.length - 1)) <= LOGIT_TOLERANCE, 'unpadded row');
      assert.ok(largest(row(both['logits'], 1, ids.length - 1), row(whole['logits'], 0, ids.length - 5)) <= LOGIT_TOLERANCE, 'padded row');
      const next = await run(session, config, [[7], [ids[ids.length - 4] as number]], masks.map((mask) => [...mask, 1]), both);
      assert.ok(largest(row(next['logits'], 1, 0), row(whole['logits'], 0, ids.length - 4)) <= LOGIT_TOLERANCE, 'padded row, one token on');
      await session.release();
    });
  });
}

test('greedy answers are those of the engine, and the folder has all that Optimum looks for', async () => {
  const path = writeTinyLlama(join(folder, 'tiny'));
  const { folder: target, config, session } = await exported(path);
  assert.deepEqual(session.inputNames.slice(0, 5), ['input_ids', 'attention_mask', 'position_ids', 'past_key_values.0.key', 'past_key_values.0.value']);
  assert.deepEqual(session.outputNames.slice(0, 3), ['logits', 'present.0.key', 'present.0.value']);
  for (const name of ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'README.md', 'model.onnx_data']) assert.ok(readFileSync(join(target, name)).length > 0, name);
  assert.deepEqual(JSON.parse(readFileSync(join(target, 'generation_config.json'), 'utf8')), { eos_token_id: [2] });
  // The file's own metadata: keys and values beside the graph.
  const graph = readFileSync(join(target, 'model.onnx')).toString('latin1');
  for (const text of ['stillhouse.base_model', 'org/base', 'stillhouse.license', 'stillhouse.campaign', 'stillhouse.dataset_sha256', provenance.datasetSha256]) assert.ok(graph.includes(text), text);

  const loaded = await loadModel({ path, cache: join(folder, 'cache') });
  await using engine = await createEngine({ config, weights: loaded.weights, threads: 1 });
  const prompts = ['Hello', 'The sea is', '你好，世界', '🙂'];
  const texts = await generate(engine, loaded.tokenizer, { prompts: prompts.map((text) => ({ text })), maxNewTokens: 12, temperature: 0 });
  for (const [i, prompt] of prompts.entries()) {
    let ids = loaded.tokenizer.encode(prompt);
    let past: Record<string, Tensor> | undefined;
    let seen = 0;
    const tokens: number[] = [];
    while (tokens.length < 12) {
      seen += ids.length;
      past = await run(session, config, [ids], [ones(seen)], past);
      const last = row(past['logits'], 0, ids.length - 1);
      const token = last.indexOf(Math.max(...last));
      if (loaded.tokenizer.endIds.includes(token)) break;
      tokens.push(token);
      ids = [token];
    }
    assert.deepEqual(tokens, texts[i]?.tokens, prompt);
  }
  await session.release();
});
