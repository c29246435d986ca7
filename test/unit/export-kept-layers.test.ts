/** Every way to train × every choice of layers × every format: a student that loads and answers as the trained one, or one refusal. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpec } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { Sample } from '../../src/contracts/records.ts';
import { openStudent } from '../../src/evaluation/student.ts';
import { ADAPTER_CONFIG, EXPORT_FORMATS, exportGguf, exportModel, exportSafetensors, type ExportFormat } from '../../src/lm/export/export-model.ts';
import { PROVENANCE_FILE, readProvenance } from '../../src/lm/export/provenance.ts';
import { openExportSource } from '../../src/lm/export/source.ts';
import { createModelHost } from '../../src/lm/host.ts';
import { openModel } from '../../src/lm/load.ts';
import type { LanguageModel } from '../../src/lm/model.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { putJson, putRows } from '../../src/store/jsonl.ts';
import type { ArtifactStore } from '../../src/store/store.ts';
import { exportStudent } from '../../src/training/export.ts';
import { createOnnxTrainer } from '../../src/training/onnx-trainer.ts';
import type { Trainer } from '../../src/training/trainer.ts';
import { temporaryFolder } from '../support/folder.ts';
import { readReference, writeGgufModel } from '../support/recipe.ts';
import { TINY, writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();
const cache = join(folder, 'cache');
const model = writeTinyLlama(join(folder, 'model'), 7, { ...TINY, layers: 4 });
const assets = { model: (name: string) => Promise.resolve({ name, path: name, license: 'CC0-1.0' }) };
const host = createModelHost({ assets, cache, threads: 1 });
const TEXT = 'Text: one and two\nKind:';
let store: ArtifactStore;
let trainer: Trainer;
let dataset: ArtifactRef;

before(async () => {
  store = createFileStore(join(folder, 'store'));
  trainer = createOnnxTrainer({ store, assets, cache, threads: 1 });
  dataset = await putRows(store, 'dataset', Array.from({ length: 4 }, (_, i): Sample => ({
    id: `row-${i}`, input: `text ${i}`, output: 'even', messages: [{ role: 'user', content: `text ${i}` }, { role: 'assistant', content: 'even' }], round: 1, origin: `test:${i}`, requestId: `request-${i}`,
  })));
});

function specOf(student: object, tune: 'lora' | 'full'): CampaignSpec {
  return campaignSpecSchema.parse({
    name: 'kept', task: { description: 'Sort.', instruction: '{input}', output: { kind: 'label', labels: ['even', 'odd'] } },
    teacher: { provider: 'openai', model: 'teacher' }, sampling: { source: { kind: 'inputs', dataset: 'pool.jsonl' }, rows: 4 },
    student: { model, ...student },
    training: { epochs: 1, batchSize: 2, learningRate: 5e-3, maxTokens: 128, tune, ...(tune === 'lora' ? { lora: { r: 4, dropout: 0, targets: ['q_proj', 'v_proj', 'down_proj'] } } : {}) },
    evaluation: { source: { kind: 'dataset', dataset: 'gold.jsonl' }, developmentRows: 2, testRows: 2, scorer: { kind: 'label' } },
  });
}

/** Log-probability of each token of the text after those before it. */
async function logProbsOf(opened: LanguageModel): Promise<readonly number[]> {
  const [scores] = await opened.scoreTexts({ texts: [{ text: TEXT }] });
  return [...(scores?.logProbs ?? [])];
}

/** The same of an exported ONNX graph in plain onnxruntime. */
async function onnxLogProbs(target: string): Promise<readonly number[]> {
  using source = openModel(model);
  const ids = source.tokenizer.encode(TEXT, { begin: true });
  const config = JSON.parse(readFileSync(join(target, 'config.json'), 'utf8')) as { readonly num_hidden_layers: number };
  const session = await InferenceSession.create(join(target, 'model.onnx'), { intraOpNumThreads: 1, logSeverityLevel: 3 });
  const row = (values: readonly number[]): Tensor => new Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length]);
  const empty = new Tensor('float32', new Float32Array(0), [1, TINY.keyValueHeads, 0, TINY.hiddenSize / TINY.heads]);
  const past = Array.from({ length: config.num_hidden_layers }, (_, layer) => [[`past_key_values.${layer}.key`, empty], [`past_key_values.${layer}.value`, empty]] as const).flat();
  const { logits } = await session.run({ input_ids: row(ids), attention_mask: row(ids.map(() => 1)), position_ids: row(ids.map((_, i) => i)), ...Object.fromEntries(past) });
  await session.release();
  const data = logits?.data as Float32Array;
  const V = data.length / ids.length;
  return ids.slice(1).map((id, t) => {
    const values = data.subarray(t * V, (t + 1) * V);
    return (values[id] ?? NaN) - Math.log(values.reduce((sum, value) => sum + Math.exp(value), 0));
  });
}

/** What an exported folder answers: alone, or as an adapter of the base model. */
async function answersOf(target: string, format: ExportFormat): Promise<readonly number[]> {
  if (format === 'onnx') return onnxLogProbs(target);
  const gguf = readdirSync(target).find((name) => name.endsWith('.gguf'));
  await using opened = await host.open(format === 'peft' ? { model, adapterPath: target } : { model: gguf === undefined ? target : join(target, gguf) });
  return await logProbsOf(opened);
}

const FORMATS_OF = { adapter: EXPORT_FORMATS, model: ['safetensors', 'gguf', 'onnx'] } as const satisfies Record<string, readonly ExportFormat[]>;

for (const tune of ['lora', 'full'] as const) {
  for (const [what, choice, kept] of [['all layers', {}, undefined], ['the first layer and the last', { keepLayers: 2 }, [0, 3]], ['layers 1, 2 and 3', { layers: [1, 2, 3] }, [1, 2, 3]]] as const) {
    const kind = tune === 'lora' && kept === undefined ? 'adapter' : 'model';
    test(`tune: ${tune}, ${what}: the stored student and each of its formats answer as the trained one`, async () => {
      const spec = specOf(choice, tune);
      const { checkpoint } = await trainer.trainEpoch({ student: spec.student, training: spec.training, seed: 7, epoch: 0, dataset }, {});
      await using student = await openStudent({ store, host, trainer }, { ...choice, model } as never, checkpoint, undefined);
      const expected = await logProbsOf(student.model);
      assert.ok(expected.length > 10);
      const { adapter } = await exportStudent({ store, trainer, assets }, { campaign: 'kept', spec: await putJson(store, 'spec', spec), checkpoint, dataset });
      assert.equal(adapter.kind, kind);
      const stored = join(folder, `stored-${tune}-${kept?.join('') ?? 'all'}`);
      await store.extractFolder(adapter, stored);
      const provenance = readProvenance(join(stored, PROVENANCE_FILE));
      assert.deepEqual(provenance.keptLayers, kept);
      assert.match(readFileSync(join(stored, 'README.md'), 'utf8'), kept === undefined ? /^- weights of the base model: F32, sha256 [0-9a-f]{64}$/m : new RegExp(`^- layers of the base model: ${kept.join(', ')}$`, 'm'));
      for (const format of EXPORT_FORMATS) {
        const target = `${stored}-${format}`;
        const request = { format, provenance, ...(format === 'gguf' ? { type: 'f32' } : {}), ...(kind === 'adapter' ? { path: model, adapterPath: stored } : { path: stored }) };
        if (!(FORMATS_OF[kind] as readonly ExportFormat[]).includes(format)) {
          await assert.rejects(exportModel(request, target), (error) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && /expected an adapter to export, got a whole model, as students of some layers or with all weights trained are; its formats are safetensors, gguf and onnx/.test(error.message));
          continue;
        }
        await exportModel(request, target);
        if (format === 'gguf-lora') continue; // llama.cpp alone reads it: test/exports
        const got = await answersOf(target, format);
        assert.equal(got.length, expected.length);
        got.forEach((value, i) => assert.ok(Math.abs(value - (expected[i] as number)) < 1e-3, `${format}, token ${i}: ${value} against ${expected[i]}`));
      }
      assert.equal(readdirSync(stored).includes(ADAPTER_CONFIG), kind === 'adapter');
    });
  }
}

describe('layers of Gemma 3', () => {
  const { architectures } = readReference();
  const path = writeGgufModel(join(folder, 'gemma3.gguf'), 'gemma3', architectures['gemma3'] as NonNullable<(typeof architectures)[string]>, 'F32');
  const provenance = { baseModel: path, license: 'gemma' };

  test('whose windows GGUF cannot say are refused before anything is written', async () => {
    using source = openExportSource({ path, choice: { layers: [0, 5, 1, 2] }, provenance });
    await assert.rejects(exportGguf(source, join(folder, 'gemma-refused'), 'f32'), /gemma3: expected every n-th layer to see everything, which GGUF can say, got layers 1/);
  });

  test('whose attention scale readers of GGUF would take for another are refused', async () => {
    using source = openExportSource({ path, provenance });
    const scaled = { ...source, config: { ...source.config, attentionScale: 0.1 } };
    await assert.rejects(exportGguf(scaled, join(folder, 'gemma-scaled'), 'f32'), /gemma3: expected attention scores times 0\.125000, which readers of GGUF assume for 6 layers, got 0\.100000; its other formats are safetensors and onnx/);
  });

  test('are written under their new numbers in a folder', async () => {
    using source = openExportSource({ path, choice: { layers: [2, 5] }, provenance });
    const target = join(folder, 'gemma-kept');
    await exportSafetensors(source, target, 'f32');
    using again = openModel(target);
    using whole = openModel(path);
    assert.deepEqual(again.tensors.get('model.layers.1.mlp.up_proj.weight')?.read(), whole.tensors.get('model.layers.5.mlp.up_proj.weight')?.read());
    assert.deepEqual(again.config.slidingWindow?.layers, [true, false]);
  });
});
