/**
 * Trains a small LoRA on the real SmolLM2-135M-Instruct, exports it, and writes what check_adapter.py needs:
 * FOLDER/base (the dequantised model), FOLDER/adapter (the export), FOLDER/answers.json (our greedy answers).
 *
 *   node test/peft/write-adapter.ts FOLDER && python test/peft/check_adapter.py FOLDER
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createAssets } from '../../src/assets/create-assets.ts';
import { readConfig } from '../../src/config.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { ChatMessage, Sample } from '../../src/contracts/records.ts';
import { readAdapter } from '../../src/lm/adapter.ts';
import { createEngine } from '../../src/lm/engine.ts';
import { exportSafetensors } from '../../src/lm/export/export-model.ts';
import { openExportSource } from '../../src/lm/export/source.ts';
import { generate } from '../../src/lm/generation.ts';
import { loadModel } from '../../src/lm/load.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { putRows } from '../../src/store/jsonl.ts';
import { createOnnxTrainer } from '../../src/training/onnx-trainer.ts';

const MODEL = 'smollm2-135m-instruct';
const TRAINING_ROWS = 64;
const REVIEW_PROMPTS = 10;
const MAX_NEW_TOKENS = 32;
const QUESTIONS = [
  'What is the capital of France?', 'Name three colours of the rainbow.', 'Why is the sky blue?', 'Write one sentence about the sea.', 'What does a baker do?',
  'Give a short definition of gravity.', 'How many legs does a spider have?', 'Tell me about the moon.', 'What is a good breakfast?', 'Explain what a database is.',
];

const [folder] = process.argv.slice(2);
if (folder === undefined) {
  process.stderr.write('write-adapter: expected a folder to write to, got nothing\n');
  process.exit(2);
}
const { cache, hub } = readConfig();
const assets = createAssets({ cache, hub });
const rows = readFileSync(await assets.dataset('catalogue:hutto-reviews-gold'), 'utf8').split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as { input: string; gold: string });
const ask = (input: string): ChatMessage[] => [{ role: 'user', content: `Review: ${input}\nSentiment:` }];

mkdirSync(folder, { recursive: true });
const store = createFileStore(join(folder, 'store'));
const dataset = await putRows(store, 'dataset', rows.slice(0, TRAINING_ROWS).map(({ input, gold }, i): Sample => ({
  id: `row-${i}`, input, output: gold, messages: [...ask(input), { role: 'assistant', content: gold }], round: 1, origin: `gold:${i}`, requestId: `request-${i}`,
})));
const trainer = createOnnxTrainer({ store, assets, cache });
const training = campaignSpecSchema.shape.training.parse({ epochs: 1, batchSize: 8, learningRate: 1e-3 });
const trained = await trainer.trainEpoch({ student: { model: MODEL }, training, seed: 5, epoch: 0, dataset }, {});
await trainer.studentOf(trained.checkpoint, { model: MODEL }, join(folder, 'adapter'));

const { path } = await assets.model(MODEL);
const model = await loadModel({ path, cache });
using source = openExportSource({ path, provenance: { baseModel: MODEL, license: model.identity.license } });
await exportSafetensors(source, join(folder, 'base'), 'f32');
const prompts = [...rows.slice(TRAINING_ROWS, TRAINING_ROWS + REVIEW_PROMPTS).map(({ input }) => ask(input)), ...QUESTIONS.map((content): ChatMessage[] => [{ role: 'user', content }])];
const answer = async (adapterPath?: string): Promise<readonly (readonly number[])[]> => {
  await using engine = await createEngine({ config: model.config, weights: model.weights, threads: 2, ...(adapterPath === undefined ? {} : { adapter: readAdapter(adapterPath) }) });
  const texts = await generate(engine, model.tokenizer, { prompts: prompts.map((messages) => ({ messages })), maxNewTokens: MAX_NEW_TOKENS, temperature: 0 });
  return texts.map(({ tokens }) => tokens);
};
const base = await answer();
const tuned = await answer(join(folder, 'adapter'));
const answers = prompts.map((messages, i) => ({ promptIds: model.tokenizer.encodeChat(messages, { openAssistantTurn: true }), base: base[i], tuned: tuned[i], text: model.tokenizer.decode(tuned[i] ?? []) }));
writeFileSync(join(folder, 'answers.json'), JSON.stringify({ maxNewTokens: MAX_NEW_TOKENS, endIds: model.tokenizer.endIds, steps: trained.steps, answers }));
process.stdout.write(`trained ${trained.steps} steps, loss ${trained.lossFirstNats.toFixed(3)} to ${trained.lossLastNats.toFixed(3)} nats; wrote ${answers.length} answers below ${folder}\n`);
