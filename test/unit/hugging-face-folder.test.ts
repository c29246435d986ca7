/** A model written as a Hugging Face folder reads back as the same model. */
import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { writeHuggingFaceFolder } from '../../src/lm/export/hugging-face-folder.ts';
import { loadModel } from '../../src/lm/load.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

test('a written folder has the configuration, every weight and the end tokens of its model', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'stillhouse-hf-'));
  try {
    const source = writeTinyLlama(join(folder, 'source'));
    const model = await loadModel({ path: source, cache: join(folder, 'cache') });
    const written = join(folder, 'written');
    writeHuggingFaceFolder(model, model.tokenizer.endIds, written);
    for (const name of ['tokenizer.json', 'tokenizer_config.json']) copyFileSync(join(source, name), join(written, name));
    const again = await loadModel({ path: written, cache: join(folder, 'cache-of-written') });
    assert.deepEqual(again.config, model.config);
    assert.deepEqual(again.tokenizer.endIds, model.tokenizer.endIds);
    const [before, after] = [readFileSync(model.weights.path), readFileSync(again.weights.path)];
    assert.deepEqual([...again.weights.tensors.keys()].toSorted(), [...model.weights.tensors.keys()].toSorted());
    for (const [name, { offsetBytes, lengthBytes }] of model.weights.tensors) {
      const other = again.weights.tensors.get(name);
      assert.ok(other !== undefined, name);
      assert.ok(before.subarray(offsetBytes, offsetBytes + lengthBytes).equals(after.subarray(other.offsetBytes, other.offsetBytes + other.lengthBytes)), name);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
