/** SmolLM2-135M-Instruct (Q4_1) against transformers and tokenizers; fixtures/smollm2_reference.py wrote the numbers. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { createAssets } from '../../src/assets/create-assets.ts';
import { readConfig } from '../../src/config.ts';
import { createEngine, type Engine } from '../../src/lm/engine.ts';
import { generate } from '../../src/lm/generation.ts';
import { loadModel, type LoadedModel } from '../../src/lm/load.ts';
import { scoreTexts } from '../../src/lm/log-probs.ts';
import { PrefixCache, scoreLabels } from '../../src/lm/scoring.ts';
import { logitsOf } from '../support/logits.ts';

interface Reference {
  readonly columns: readonly number[];
  readonly encodings: readonly { readonly text: string; readonly ids: readonly number[] }[];
  readonly runs: readonly {
    readonly prompt: string;
    readonly ids: readonly number[];
    readonly logits: readonly (readonly number[])[];
    readonly logSumExp: readonly number[];
    readonly greedy: readonly number[];
    readonly greedyText: string;
  }[];
  /** 64 tokens after each of 20 prompts; the least lead of a chosen token over the next is `leastMargin`. */
  readonly greedy: readonly { readonly prompt: string; readonly tokens: readonly number[]; readonly leastMargin: number }[];
}
const reference = JSON.parse(readFileSync(new URL('./fixtures/smollm2-reference.json', import.meta.url), 'utf8')) as Reference;

/** Two float32 implementations that sum in different orders over 30 layers: 7e-5 was measured. */
const LOGIT_TOLERANCE = 1e-3;

let model: LoadedModel;
let engine: Engine;
before(async () => {
  const { cache, hub } = readConfig();
  const { path, license } = await createAssets({ cache, hub }).model('smollm2-135m-instruct');
  model = await loadModel({ path, license, cache });
  engine = await createEngine({ config: model.config, weights: model.weights, threads: 2 });
});
after(() => engine[Symbol.asyncDispose]());

/** log softmax(row)[id] in double precision. */
function logProb(logits: Float32Array, row: number, id: number): number {
  const { vocabularySize: V } = model.config;
  const values = logits.subarray(row * V, (row + 1) * V);
  const largest = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return (values[id] ?? NaN) - largest - Math.log(values.reduce((sum, value) => sum + Math.exp(value - largest), 0));
}

const near = (actual: number, wanted: number, tolerance: number, what: string): void =>
  assert.ok(Math.abs(actual - wanted) <= tolerance, `${what}: expected ${wanted} ± ${tolerance}, got ${actual}`);

test('the tokenizer rebuilt from GGUF metadata gives the ids of the Python library', () => {
  for (const { text, ids } of reference.encodings) assert.deepEqual(model.tokenizer.encode(text), ids, JSON.stringify(text));
  for (const { text } of reference.encodings.filter(({ text }) => !text.includes('<|'))) assert.equal(model.tokenizer.decode(model.tokenizer.encode(text)), text);
});

test('logits equal those of transformers at every position', async () => {
  for (const run of reference.runs) {
    const logits = await logitsOf(engine, run.ids);
    run.logits.forEach((row, position) => {
      reference.columns.forEach((column, index) => {
        near(logits[position * model.config.vocabularySize + column] ?? NaN, row[index] ?? NaN, LOGIT_TOLERANCE, `${run.prompt} position ${position} token ${column}`);
      });
      const id = run.ids[0] ?? 0;
      const own = (logits[position * model.config.vocabularySize + id] ?? NaN) - logProb(logits, position, id);
      near(own, run.logSumExp[position] ?? NaN, LOGIT_TOLERANCE, `${run.prompt} position ${position} normaliser`);
    });
  }
});

test('greedy text equals that of transformers, decoded together or alone', async () => {
  const prompts = reference.runs.map(({ prompt }) => ({ text: prompt }));
  const together = await generate(engine, model.tokenizer, { prompts, maxNewTokens: 24, temperature: 0 });
  for (const [index, run] of reference.runs.entries()) {
    const ended = run.greedy.includes(model.tokenizer.endId);
    assert.deepEqual(together[index]?.tokens, run.greedy.filter((id) => id !== model.tokenizer.endId), run.prompt);
    assert.equal(together[index]?.text, run.greedyText);
    assert.equal(together[index]?.finishReason, ended ? 'stop' : 'length');
    const [alone] = await generate(engine, model.tokenizer, { prompts: [{ text: run.prompt }], maxNewTokens: 24, temperature: 0 });
    assert.equal(alone?.text, run.greedyText);
  }
});

test('64 greedy tokens after each of 20 prompts equal those of transformers', async () => {
  const { greedy } = reference;
  assert.equal(greedy.length, 20);
  const texts = await generate(engine, model.tokenizer, { prompts: greedy.map(({ prompt }) => ({ text: prompt })), maxNewTokens: 64, temperature: 0 });
  greedy.forEach(({ prompt, tokens, leastMargin }, index) => {
    assert.ok(leastMargin > 2 * LOGIT_TOLERANCE, `${prompt}: a tie of ${leastMargin} proves nothing`);
    assert.deepEqual(texts[index]?.tokens, tokens.filter((id) => id !== model.tokenizer.endId), prompt);
  });
});

test('log-probabilities of a text, the most probable tokens and the normaliser agree with its logits', async () => {
  const text = reference.runs[1]?.prompt ?? '';
  const [scores] = await scoreTexts(engine, model.tokenizer, { texts: [{ text }], top: 5 });
  const logits = await logitsOf(engine, scores?.tokens ?? []);
  scores?.logProbs.forEach((value, at) => near(value, logProb(logits, at, scores.tokens[at + 1] ?? 0), 5e-4, `token ${at + 1}`));
  scores?.top?.ids.forEach((id, i) => {
    const at = Math.floor(i / 5);
    near(scores.top?.logProbs[i] ?? NaN, logProb(logits, at, id), 5e-4, `position ${at}`);
    const row = logits.subarray(at * model.config.vocabularySize, (at + 1) * model.config.vocabularySize);
    const higher = row.reduce((count, value) => count + (value > (row[id] ?? NaN) ? 1 : 0), 0);
    assert.equal(higher, i % 5);
  });
});

test('packed label scores equal the sums over whole sequences, with labels of one and several tokens', async () => {
  const labels = ['positive', 'negative', 'rather mixed, I would say'];
  const texts = ['Review: A joy.\nSentiment: ', 'Review: It stopped working after two weeks and nobody cared.\nSentiment: ', 'Review: Fine.\nSentiment: '];
  const scores = await scoreLabels(engine, model.tokenizer, new PrefixCache(), { prompts: texts.map((text) => ({ text })), labels });
  for (const [index, text] of texts.entries()) {
    const prompt = model.tokenizer.encode(text.trimEnd());
    for (const [which, label] of labels.entries()) {
      const continuation = model.tokenizer.encode(` ${label}`);
      const logits = await logitsOf(engine, [...prompt, ...continuation]);
      const wanted = continuation.reduce((sum, id, at) => sum + logProb(logits, prompt.length - 1 + at, id), 0);
      near(scores[index]?.logProbs[which] ?? NaN, wanted, 5e-4, `${text}${label}`);
    }
  }
});

test('a cached prefix changes nothing but the work; a repeated request gives bitwise the same answer', async () => {
  const prefix = 'Review: The plot makes no sense.\nSentiment: negative\n\nReview: A warm film.\nSentiment: positive\n\n';
  const prompts = Array.from({ length: 20 }, (_, i) => ({ text: `Review: Number ${i} was ${i % 3 === 0 ? 'a bore' : 'great fun'}.\nSentiment: ` }));
  const ask = (cachePrefix: boolean) => scoreLabels(engine, model.tokenizer, new PrefixCache(), { prefix, cachePrefix, prompts, labels: ['negative', 'positive'] });
  const cached = await ask(true);
  const whole = await ask(false);
  const prefixTokens = model.tokenizer.encode(prefix).length;
  cached.forEach((scores, index) => {
    scores.logProbs.forEach((value, label) => near(value, whole[index]?.logProbs[label] ?? NaN, 5e-4, `prompt ${index} label ${label}`));
    assert.equal(scores.promptTokens, whole[index]?.promptTokens);
    assert.equal(scores.cachedPromptTokens, prefixTokens);
  });
  assert.deepEqual(await ask(true), cached);
});

test('a label that begins another loses where the text dictates the longer one', async () => {
  const shots = ['billing refund', 'other', 'billing', 'billing refund'].map((word) => `Repeat: ${word}\nAnswer: ${word}\n\n`).join('');
  const prompts = ['billing refund', 'other'].map((word) => ({ text: `Repeat: ${word}\nAnswer:` }));
  const labels = [' billing', ' billing refund', ' other'];
  const chosen = async (labelEnd: string): Promise<readonly number[]> =>
    (await scoreLabels(engine, model.tokenizer, new PrefixCache(), { prefix: shots, cachePrefix: true, prompts, labels, labelEnd })).map(({ logProbs }) => logProbs.indexOf(Math.max(...logProbs)));
  assert.deepEqual(await chosen('\n\n'), [1, 2]);
  assert.deepEqual(await chosen(''), [0, 2]);
});

test('chat labels are whole turns: the end token is part of the score', async () => {
  const messages = [{ role: 'user' as const, content: 'Name a colour.' }];
  const [scores] = await scoreLabels(engine, model.tokenizer, new PrefixCache(), { prompts: [{ messages }], labels: ['Red'] });
  const prompt = model.tokenizer.encodeChat(messages, { openAssistantTurn: true });
  const turn = [...model.tokenizer.encode('Red'), model.tokenizer.endId];
  const logits = await logitsOf(engine, [...prompt, ...turn]);
  near(scores?.logProbs[0] ?? NaN, turn.reduce((sum, id, at) => sum + logProb(logits, prompt.length - 1 + at, id), 0), 5e-4, 'whole turn');
});

test('sampling follows its seed, and a stop string ends the text before it', async () => {
  const prompts = [{ text: 'Once upon a time' }, { text: 'Once upon a time' }];
  const draw = (seed: number) => generate(engine, model.tokenizer, { prompts, maxNewTokens: 12, temperature: 1, topP: 0.95, topK: 50, seed });
  const first = await draw(7);
  assert.deepEqual(await draw(7), first);
  assert.notEqual(first[0]?.text, first[1]?.text);
  assert.notDeepEqual(await draw(8), first);
  const [stopped] = await generate(engine, model.tokenizer, { prompts: [{ text: reference.runs[0]?.prompt ?? '' }], maxNewTokens: 24, temperature: 0, stop: ['.'] });
  assert.deepEqual([stopped?.text, stopped?.finishReason], [' Paris', 'stop']);
});
