/** What the checks of exports share: a student that is really trained, twenty prompts, and our own greedy answers. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Assets } from '../../src/assets/assets.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { LocalStudentSpec } from '../../src/contracts/campaign-spec.ts';
import type { ChatMessage, Sample } from '../../src/contracts/records.ts';
import { readAdapter } from '../../src/lm/adapter.ts';
import { createEngine } from '../../src/lm/engine.ts';
import { generate } from '../../src/lm/generation.ts';
import type { LayerChoice } from '../../src/lm/layers.ts';
import { loadModel } from '../../src/lm/load.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { putRows } from '../../src/store/jsonl.ts';
import { createOnnxTrainer } from '../../src/training/onnx-trainer.ts';

export const MODEL = 'smollm2-135m-instruct';
export const MAX_NEW_TOKENS = 32;
const TRAINING_ROWS = 64;
const REVIEW_PROMPTS = 10;
const QUESTIONS = [
  'What is the capital of France?', 'Name three colours of the rainbow.', 'Why is the sky blue?', 'Write one sentence about the sea.', 'What does a baker do?',
  'Give a short definition of gravity.', 'How many legs does a spider have?', 'Tell me about the moon.', 'What is a good breakfast?', 'Explain what a database is.',
];

const ask = (input: string): ChatMessage[] => [{ role: 'user', content: `Review: ${input}\nSentiment:` }];

async function readRows(assets: Assets): Promise<readonly { readonly input: string; readonly gold: string }[]> {
  const text = readFileSync(await assets.dataset('catalogue:hutto-reviews-gold'), 'utf8');
  return text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as { input: string; gold: string });
}

/** Ten reviews and ten open questions. */
export async function readPrompts(assets: Assets): Promise<readonly (readonly ChatMessage[])[]> {
  const rows = await readRows(assets);
  return [...rows.slice(TRAINING_ROWS, TRAINING_ROWS + REVIEW_PROMPTS).map(({ input }) => ask(input)), ...QUESTIONS.map((content): ChatMessage[] => [{ role: 'user', content }])];
}

/** Trains a LoRA on reviews, every linear layer of the model among its targets, and writes it as a PEFT folder. Returns the dataset's hash. */
export async function trainAdapter(assets: Assets, cache: string, work: string, adapter: string, student: LocalStudentSpec = { model: MODEL }): Promise<string> {
  const rows = await readRows(assets);
  const store = createFileStore(join(work, 'store'));
  const dataset = await putRows(store, 'dataset', rows.slice(0, TRAINING_ROWS).map(({ input, gold }, i): Sample => ({
    id: `row-${i}`, input, output: gold, messages: [...ask(input), { role: 'assistant', content: gold }], round: 1, origin: `gold:${i}`, requestId: `request-${i}`,
  })));
  const trainer = createOnnxTrainer({ store, assets, cache });
  const training = campaignSpecSchema.shape.training.parse({
    epochs: 1, batchSize: 8, learningRate: 5e-4, lora: { r: 16, alpha: 32, targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] },
  });
  const { checkpoint } = await trainer.trainEpoch({ student, training, seed: 5, epoch: 0, dataset }, {});
  await trainer.studentOf(checkpoint, student, adapter);
  return dataset.sha256;
}

/** Tokens of each answer, end token left out. `path`: a model or an exported file of one. */
export async function greedyAnswers(path: string, cache: string, prompts: readonly (readonly ChatMessage[])[], adapterPath?: string, choice: LayerChoice = {}): Promise<readonly (readonly number[])[]> {
  const model = await loadModel({ path, cache, ...choice });
  await using engine = await createEngine({ config: model.config, weights: model.weights, threads: 2, ...(adapterPath === undefined ? {} : { adapter: readAdapter(adapterPath) }) });
  const texts = await generate(engine, model.tokenizer, { prompts: prompts.map((messages) => ({ messages })), maxNewTokens: MAX_NEW_TOKENS, temperature: 0 });
  return texts.map(({ tokens }) => tokens);
}
