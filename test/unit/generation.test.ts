/** Sampling, stop strings, streaming and batches, on a tiny random model whose tokens are bytes. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { AnswerText } from '../../src/lm/answer-text.ts';
import { createEngine, type Engine } from '../../src/lm/engine.ts';
import { generate } from '../../src/lm/generation.ts';
import { loadModel, type LoadedModel } from '../../src/lm/load.ts';
import type { GenerationRequest, SamplingSettings } from '../../src/lm/model.ts';
import { checkSampling, createSampler } from '../../src/lm/sampling.ts';
import { temporaryFolder } from '../support/folder.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();
let model: LoadedModel;
let engine: Engine;
before(async () => {
  model = await loadModel({ path: writeTinyLlama(join(folder, 'tiny')), cache: join(folder, 'cache') });
  engine = await createEngine({ config: model.config, weights: model.weights, threads: 1 });
});
after(async () => {
  await engine[Symbol.asyncDispose]();
});
const ask = (request: Partial<GenerationRequest> & Pick<GenerationRequest, 'prompts'>) => generate(engine, model.tokenizer, { maxNewTokens: 24, temperature: 0, ...request });

describe('the sampler', () => {
  const logits = Float32Array.from([0.7, 0.1, 0.15, 0.05], Math.log);
  const shares = (settings: SamplingSettings): readonly number[] => {
    const counts = [0, 0, 0, 0];
    const sampler = createSampler(settings, 0);
    for (let step = 0; step < 20_000; step += 1) counts[sampler(logits, step)] = (counts[sampler(logits, step)] ?? 0) + 1;
    return counts.map((count) => count / 20_000);
  };
  const near = (got: readonly number[], wanted: readonly number[]): void => got.forEach((share, i) => assert.ok(Math.abs(share - (wanted[i] ?? NaN)) < 0.012, `${got.join(' ')} against ${wanted.join(' ')}`));

  test('draws by the softmax of the logits, sharpened by the temperature', () => {
    near(shares({ temperature: 1, seed: 3 }), [0.7, 0.1, 0.15, 0.05]);
    const squared = [0.49, 0.01, 0.0225, 0.0025].map((value) => value / 0.525);
    near(shares({ temperature: 0.5, seed: 3 }), squared);
  });
  test('top-k, top-p and min-p keep the most probable alone', () => {
    near(shares({ temperature: 1, topK: 2 }), [0.7 / 0.85, 0, 0.15 / 0.85, 0]);
    near(shares({ temperature: 1, topP: 0.8 }), [0.7 / 0.85, 0, 0.15 / 0.85, 0]);
    near(shares({ temperature: 1, topP: 0.5 }), [1, 0, 0, 0]);
    near(shares({ temperature: 1, minP: 0.12 }), [0.7 / 0.95, 0.1 / 0.95, 0.15 / 0.95, 0]);
  });
  test('is greedy at temperature 0, and takes the first of equals', () => assert.equal(createSampler({ temperature: 0 }, 0)(Float32Array.of(1, 3, 3), 0), 1));
  test('refuses what is out of range by name', () => {
    for (const [settings, name] of [[{ temperature: -1 }, /temperature/], [{ temperature: NaN }, /temperature/], [{ temperature: 1, topP: 0 }, /topP/], [{ temperature: 1, topK: 1.5 }, /topK/], [{ temperature: 1, minP: 2 }, /minP/], [{ temperature: 1, seed: -1 }, /seed/]] as const) {
      assert.throws(() => checkSampling(settings), name);
    }
  });
});

describe('text of an answer', () => {
  const bytes = { decode: (ids: readonly number[]) => Buffer.from(ids).toString('utf8') };
  const feed = (text: string, stops: readonly string[]): { readonly pieces: readonly string[]; readonly text: string; readonly used: number } => {
    const pieces: string[] = [];
    const answer = new AnswerText(bytes, stops, (piece) => pieces.push(piece));
    let used = 0;
    for (const byte of Buffer.from(text)) {
      used += 1;
      if (answer.add(byte)) break;
    }
    return { text: answer.end(), pieces, used };
  };
  test('characters of several tokens are told whole', () => {
    const text = 'naïve 天地 👩‍👩‍👧‍👦, and on it goes for more than a window of tokens 🙂';
    const told = feed(text, []);
    assert.equal(told.text, text);
    assert.equal(told.pieces.join(''), text);
    assert.ok(told.pieces.length > 20 && told.pieces.every((piece) => !piece.includes('\uFFFD')));
  });
  test('a stop string that comes token by token ends the text before it, and nothing of it is told', () => {
    const { pieces, text, used } = feed('one\ntwo\n\nUser: three', ['\n\nUser:', 'never']);
    assert.equal(text, 'one\ntwo');
    assert.equal(pieces.join(''), 'one\ntwo');
    assert.equal(used, 'one\ntwo\n\nUser:'.length);
  });
  test('what only began like a stop string is told in the end', () => assert.equal(feed('a\n\nUse', ['\n\nUser:']).pieces.join(''), 'a\n\nUse'));
});

describe('batches', () => {
  // More prompts than are decoded together, of different lengths, with and without a common beginning.
  const prompts = Array.from({ length: 21 }, (_, i) => ({ text: `${'x'.repeat((i * 7) % 30)}Prompt ${i}` }));
  const sharing = prompts.map(({ text }) => ({ text: `A beginning that all have. ${text}` }));
  test('rows that run together give what each gives alone', async () => {
    for (const some of [prompts, sharing]) {
      const together = await ask({ prompts: some });
      assert.equal(together.length, some.length);
      for (const [i, prompt] of some.entries()) assert.deepEqual((await ask({ prompts: [prompt] }))[0], together[i], `prompt ${i}`);
    }
  });
  test('the same seed draws the same text, whatever runs beside it', async () => {
    const settings = { temperature: 1, topP: 0.95, seed: 11 };
    const together = await ask({ prompts, ...settings });
    assert.deepEqual(await ask({ prompts, ...settings }), together);
    assert.deepEqual((await ask({ prompts: prompts.slice(0, 3), ...settings })).map(({ text }) => text), together.slice(0, 3).map(({ text }) => text));
    assert.notDeepEqual(await ask({ prompts, ...settings, seed: 12 }), together);
    const [one, two] = await ask({ prompts: [{ text: 'same' }, { text: 'same' }], ...settings });
    assert.notEqual(one?.text, two?.text);
  });
  test('pieces of every row make up its text', async () => {
    const told = prompts.map(() => '');
    const request = { prompts, maxNewTokens: 24, temperature: 1, seed: 5 };
    const texts = await generate(engine, model.tokenizer, request, (index, piece) => (told[index] += piece));
    assert.deepEqual(told, texts.map(({ text }) => text));
  });
  test('a row stops at its limit and at the end of the context', async () => {
    const [short] = await ask({ prompts: [{ text: 'ab' }], maxNewTokens: 3, temperature: 1, seed: 2 });
    assert.ok((short?.tokens.length ?? 9) <= 3);
    const [long] = await ask({ prompts: [{ text: 'y'.repeat(508) }], maxNewTokens: 100, temperature: 0.01 });
    assert.ok((long?.tokens.length ?? 9) <= 4);
  });
  test('an empty stop string is refused', () => assert.rejects(ask({ prompts: [{ text: 'a' }], stop: [''] }), /stop\[0\]: expected text/));
});
