/** GGUF files that are exported read back as the same model; llama.cpp reads them in test/exports. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { exportGguf, exportGgufLora, exportType } from '../../src/lm/export/export-model.ts';
import { openExportSource } from '../../src/lm/export/source.ts';
import { openModel } from '../../src/lm/load.ts';
import { rotaryPairs } from '../../src/lm/architectures/architecture.ts';
import { openGguf } from '../../src/lm/weights/gguf.ts';
import { temporaryFolder } from '../support/folder.ts';
import { readReference, writeFolderModel, writeGgufModel } from '../support/recipe.ts';
import { TINY, writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();

const provenance = { baseModel: 'hf:org/base@main', license: 'Apache-2.0', campaign: 'reviews', datasetSha256: 'ab'.repeat(32) };
const only = (target: string): string => join(target, readdirSync(target).find((name) => name.endsWith('.gguf')) ?? 'none');

/** As GGUF stores a number of this type. */
const LIMIT = { f32: 0, f16: 2 ** -11, q8_0: 2 ** -7 } as const;

const { architectures } = readReference();
for (const [name, reference] of Object.entries(architectures)) {
  // The recipe's folders have no pre-tokenizer that llama.cpp knows by name; its GGUF files name one.
  const path = writeGgufModel(join(folder, `${name}.gguf`), name, reference, 'F32');
  describe(name, () => {
    for (const type of ['f32', 'f16', 'q8_0'] as const) {
      test(`written in ${type} has the configuration, the tokenizer and every weight`, async () => {
        const target = join(folder, `${name}-${type}`);
        using source = openExportSource({ path, provenance });
        await exportGguf(source, target, type);
        using model = openModel(path);
        using again = openModel(only(target));
        assert.deepEqual({ ...again.config, rotary: { base: again.config.rotary.base } }, { ...model.config, rotary: { base: model.config.rotary.base } });
        assert.deepEqual(again.config.rotary.scaling, model.config.rotary.scaling);
        assert.deepEqual(again.tokenizer.endIds, model.tokenizer.endIds);
        assert.deepEqual(again.tokenizer.encode('abba t7'), model.tokenizer.encode('abba t7'));
        for (const [key, tensor] of model.tensors) {
          const [before, after] = [tensor.read(), again.tensors.get(key)?.read() ?? new Float32Array(0)];
          const largest = before.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
          const off = before.findIndex((value, i) => !(Math.abs(value - (after[i] ?? NaN)) <= largest * LIMIT[type]));
          assert.equal(off, -1, `${key}, ${off}: ${before[off]} became ${after[off]}`);
          assert.equal(again.tensors.get(key)?.storedAs, tensor.shape.length === 1 ? 'F32' : type.toUpperCase(), key);
        }
      });
    }
  });
}

test('a folder becomes a file that names base model, licence, dataset and campaign, and keeps the chat', async () => {
  const path = writeTinyLlama(join(folder, 'tiny'));
  const target = join(folder, 'named');
  using source = openExportSource({ path, provenance });
  const files = await exportGguf(source, target, 'q8_0');
  assert.deepEqual(files.map((file) => file.path), ['README.md', 'reviews.Q8_0.gguf', 'stillhouse.json']);
  using file = openGguf(only(target));
  const of = (...keys: string[]): unknown[] => keys.map((key) => file.metadata.get(key));
  assert.deepEqual(of('general.type', 'general.name', 'general.license', 'general.base_model.0.name', 'general.base_model.0.organization', 'general.base_model.0.repo_url', 'general.file_type', 'stillhouse.campaign', 'stillhouse.dataset_sha256'), [
    'model', 'reviews', 'apache-2.0', 'base', 'org', 'https://huggingface.co/org/base', 7, 'reviews', 'ab'.repeat(32),
  ]);
  assert.deepEqual(of('tokenizer.ggml.pre', 'tokenizer.ggml.bos_token_id', 'tokenizer.ggml.eos_token_id', 'tokenizer.ggml.add_bos_token'), ['gpt-2', 1, 2, false]);
  using model = openModel(path);
  using again = openModel(only(target));
  const chat = [{ role: 'user' as const, content: 'Grüße, 世界 🙂' }];
  assert.deepEqual(again.tokenizer.encodeChat(chat, { openAssistantTurn: true }), model.tokenizer.encodeChat(chat, { openAssistantTurn: true }));
});

test('rows that are no whole blocks of Q8_0 become F16', async () => {
  using model = openModel(writeTinyLlama(join(folder, 'tiny-narrow')));
  assert.equal(TINY.feedForwardSize % 32, 16);
  const target = join(folder, 'narrow');
  using source = openExportSource({ path: join(folder, 'tiny-narrow'), provenance });
  await exportGguf(source, target, 'q8_0');
  using file = openGguf(only(target));
  assert.deepEqual([file.tensors.get('blk.0.ffn_down.weight')?.storedAs, file.tensors.get('blk.0.ffn_up.weight')?.storedAs], ['F16', 'Q8_0']);
  assert.equal(model.config.feedForwardSize, TINY.feedForwardSize);
});

test('a tokenizer that llama.cpp has no name for is refused before anything is written', async () => {
  const path = writeFolderModel(join(folder, 'unnamed'), architectures['llama'] as NonNullable<(typeof architectures)[string]>, 'F32');
  using source = openExportSource({ path, provenance });
  await assert.rejects(exportGguf(source, join(folder, 'refused'), 'f16'), (error) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && /pre_tokenizer: expected one that llama\.cpp knows by name, got null/.test(error.message));
  assert.ok(!readdirSync(folder).some((name) => name.startsWith('refused')));
});

test('an adapter becomes a GGUF adapter: rows in the order of the weight, and alpha so that the scale is the same', async () => {
  using model = openModel(writeTinyLlama(join(folder, 'tiny-lora')));
  const { hiddenSize: H, heads } = TINY;
  const numbers = (length: number, first: number): Float32Array => Float32Array.from({ length }, (_, i) => first + i);
  const pair = { a: { shape: [2, H], values: numbers(2 * H, 1) }, b: { shape: [H, 2], values: numbers(2 * H, 1000) } };
  const [query, output] = ['model.layers.1.self_attn.q_proj.weight', 'model.layers.1.self_attn.o_proj.weight'];
  const adapter = { scale: Math.SQRT1_2, pairs: new Map([[query, pair], [output, pair]]) };
  const target = join(folder, 'lora');
  await exportGgufLora({ config: model.config, adapter, provenance }, target, 'f32');
  using file = openGguf(only(target));
  const of = (...keys: string[]): unknown[] => keys.map((key) => file.metadata.get(key));
  assert.deepEqual(of('general.type', 'adapter.type', 'general.architecture', 'stillhouse.base_model'), ['adapter', 'lora', 'llama', 'hf:org/base@main']);
  assert.equal(file.metadata.get('adapter.lora.alpha'), Math.fround(Math.SQRT1_2 * 2));
  assert.deepEqual([...file.tensors.keys()].toSorted(), ['attn_output', 'attn_q'].flatMap((name) => [`blk.1.${name}.weight.lora_a`, `blk.1.${name}.weight.lora_b`]));
  assert.deepEqual(file.tensors.get('blk.1.attn_q.weight.lora_a')?.read(), pair.a.values);
  assert.deepEqual(file.tensors.get('blk.1.attn_q.weight.lora_b')?.read(), rotaryPairs(heads).toGguf(pair.b.values, [H, 2]));
  assert.deepEqual(file.tensors.get('blk.1.attn_output.weight.lora_b')?.read(), pair.b.values);

  const other = { scale: 1, pairs: new Map([['model.layers.9.self_attn.q_proj.weight', pair]]) };
  await assert.rejects(exportGgufLora({ config: model.config, adapter: other, provenance }, join(folder, 'none'), 'f32'), /adapter, model\.layers\.9.*expected matrices for a weight of the model/);
});

test('a type that a format does not have is refused with those that it has', () => {
  assert.equal(exportType('gguf'), 'f16');
  assert.equal(exportType('gguf', 'q8_0'), 'q8_0');
  assert.throws(() => exportType('safetensors', 'q8_0'), /type: expected f32, bf16, f16 for safetensors, got "q8_0"/);
});
