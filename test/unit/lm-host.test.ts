import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { StillhouseError, type ErrorCode } from '../../src/contracts/errors.ts';
import { createModelHost } from '../../src/lm/host.ts';
import { loadModel } from '../../src/lm/load.ts';
import { encodeSafetensors, openSafetensors, type NamedTensor } from '../../src/lm/weights/safetensors.ts';
import { temporaryFolder } from '../support/folder.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();
const cache = join(folder, 'cache');
const tiny = writeTinyLlama(join(folder, 'tiny'));
const host = createModelHost({ assets: { model: (name) => Promise.resolve({ name, path: name, license: 'none' }) }, cache, threads: 1 });

const withCode = (code: ErrorCode, pattern: RegExp) => (error: unknown): boolean => {
  assert.ok(error instanceof StillhouseError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, pattern);
  return true;
};
const alive = (processId: number): boolean => {
  try {
    process.kill(processId, 0);
    return true;
  } catch {
    return false;
  }
};
async function untilGone(processId: number): Promise<void> {
  for (let waited = 0; waited < 5_000 && alive(processId); waited += 20) await sleep(20);
  assert.equal(alive(processId), false, `process ${processId} is still there`);
}

const QUESTION = { messages: [{ role: 'user' as const, content: 'Hi' }] };

test('a model in its process scores, generates and counts; closing it ends the process', async () => {
  const model = await host.open({ model: tiny });
  assert.equal(model.identity.architecture, 'llama');
  assert.match(model.identity.sha256, /^[0-9a-f]{64}$/);
  const [scores] = await model.scoreLabels({ prompts: [QUESTION], labels: ['a', 'bcd'] });
  assert.equal(scores?.logProbs.length, 2);
  assert.ok(scores.logProbs.every((value) => value < 0 && Number.isFinite(value)));
  const [text] = await model.generate({ prompts: [QUESTION], maxNewTokens: 5, temperature: 0 });
  assert.ok((text?.tokens.length ?? 9) <= 5);
  assert.deepEqual(await model.countTokens(['', 'abc']), [0, 3]);
  await model[Symbol.asyncDispose]();
  await untilGone(model.processId ?? 0);
  await assert.rejects(model.countTokens(['a']), withCode('CANCELLED', /closed/));
});

test('the native runtime of a model’s process is told to report nothing', { skip: process.platform !== 'linux' }, async () => {
  await using model = await host.open({ model: tiny });
  assert.ok(readFileSync(`/proc/${model.processId ?? 0}/environ`, 'utf8').split('\0').includes('ORT_DISABLE_TELEMETRY=1'));
});

test('a process that is killed rejects the call that waits and every later one with PROCESS_DIED', async () => {
  await using model = await host.open({ model: tiny });
  const waiting = assert.rejects(model.generate({ prompts: [QUESTION], maxNewTokens: 400, temperature: 1, seed: 3 }), withCode('PROCESS_DIED', /signal SIGKILL/));
  process.kill(model.processId ?? 0, 'SIGKILL');
  await waiting;
  await assert.rejects(model.countTokens(['a']), withCode('PROCESS_DIED', /signal SIGKILL/));
});

test('an abort signal ends the process and its calls with CANCELLED', async () => {
  const controller = new AbortController();
  await using model = await host.open({ model: tiny, signal: controller.signal });
  const waiting = assert.rejects(model.generate({ prompts: [QUESTION], maxNewTokens: 400, temperature: 1, seed: 3 }), withCode('CANCELLED', /caller/));
  controller.abort();
  await waiting;
  await untilGone(model.processId ?? 0);
  await assert.rejects(host.open({ model: tiny, signal: controller.signal }), withCode('CANCELLED', /caller/));
});

test('what a model refuses comes back as its own error and leaves the process usable', async () => {
  await using model = await host.open({ model: tiny });
  await assert.rejects(model.scoreLabels({ prompts: [QUESTION], labels: [] }), withCode('BAD_INPUT', /labels: expected one or more/));
  await assert.rejects(model.scoreLabels({ prefix: 'x', prompts: [QUESTION], labels: ['a'] }), withCode('BAD_INPUT', /got a chat/));
  await assert.rejects(model.scoreLabels({ prompts: [{ text: '' }], labels: ['a'] }), withCode('BAD_INPUT', /expected one token or more/));
  await assert.rejects(model.generate({ prompts: [{ text: 'x'.repeat(600) }], maxNewTokens: 1, temperature: 0 }), withCode('BAD_INPUT', /expected at most 511 tokens, got 600/));
  await assert.rejects(model.generate({ prompts: [QUESTION], maxNewTokens: 1, temperature: -1 }), withCode('BAD_INPUT', /temperature/));
  assert.deepEqual(await model.countTokens(['ab']), [2]);
});

test('a model that is not there, and one that is broken, are told apart', async () => {
  await assert.rejects(host.open({ model: join(folder, 'nothing') }), withCode('NOT_FOUND', /nothing/));
  const broken = writeTinyLlama(join(folder, 'broken'));
  writeFileSync(join(broken, 'model.safetensors'), encodeSafetensors([{ name: 'model.norm.weight', shape: [3], values: new Float32Array(3) }]));
  await assert.rejects(host.open({ model: broken }), withCode('CORRUPT', /model\.embed_tokens\.weight: expected shape \[259, 32\], got no such tensor/));
});

test('two processes that open the same new model at once agree', async () => {
  const fresh = createModelHost({ assets: { model: (name) => Promise.resolve({ name, path: name, license: 'none' }) }, cache: join(folder, 'fresh'), threads: 1 });
  await using stack = new AsyncDisposableStack();
  const models = (await Promise.all([fresh.open({ model: tiny }), fresh.open({ model: tiny })])).map((model) => stack.use(model));
  const [one, two] = await Promise.all(models.map((model) => model.scoreLabels({ prompts: [QUESTION], labels: ['yes', 'no'] })));
  assert.deepEqual(one, two);
});

/** B (out, r) · A (r, in) · scale added to a weight, in double precision. */
function merged(base: NamedTensor, a: NamedTensor, b: NamedTensor, scale: number): NamedTensor {
  const [outSize = 0, inSize = 0] = base.shape;
  const r = a.shape[0] ?? 0;
  const values = Float32Array.from(base.values, (value, at) => {
    const [row, column] = [Math.floor(at / inSize), at % inSize];
    let sum = 0;
    for (let k = 0; k < r; k += 1) sum += (b.values[row * r + k] ?? 0) * (a.values[k * inSize + column] ?? 0);
    return value + scale * sum;
  });
  return { name: base.name, shape: [outSize, inSize], values };
}

test('an adapter is the same as its product added to the weights; another model’s is refused', async () => {
  using file = openSafetensors(join(tiny, 'model.safetensors'));
  const tensors = [...file.tensors.values()].map(({ name, shape, read }) => ({ name, shape, values: read() }));
  const wave = (name: string, shape: readonly [number, number], step: number): NamedTensor => ({ name, shape, values: Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => Math.sin(i * step) / 3) });
  const adapterTensors: NamedTensor[] = [];
  const byHand = tensors.map((base) => {
    const module = base.name.replace(/\.weight$/, '');
    if (!/\.(q_proj|down_proj)$/.test(module)) return base;
    const a = wave(`base_model.model.${module}.lora_A.weight`, [4, base.shape[1] ?? 0], 0.7);
    const b = wave(`base_model.model.${module}.lora_B.weight`, [base.shape[0] ?? 0, 4], 1.3);
    adapterTensors.push(a, b);
    return merged(base, a, b, 8 / 4);
  });
  const adapterPath = join(folder, 'adapter');
  mkdirSync(adapterPath);
  const config = { peft_type: 'LORA', r: 4, lora_alpha: 8, target_modules: ['q_proj', 'down_proj'], bias: 'none' };
  writeFileSync(join(adapterPath, 'adapter_config.json'), JSON.stringify(config));
  writeFileSync(join(adapterPath, 'adapter_model.safetensors'), encodeSafetensors(adapterTensors));
  const mergedPath = writeTinyLlama(join(folder, 'merged'));
  writeFileSync(join(mergedPath, 'model.safetensors'), encodeSafetensors(byHand));

  await using base = await host.open({ model: tiny });
  await using adapted = await host.open({ model: tiny, adapterPath });
  await using wanted = await host.open({ model: mergedPath });
  const request = { prompts: [QUESTION, { text: 'Another one' }], labels: ['yes', 'no'] };
  const [plain, got, expected] = await Promise.all([base.scoreLabels(request), adapted.scoreLabels(request), wanted.scoreLabels(request)]);
  got.forEach(({ logProbs }, row) => {
    logProbs.forEach((value, label) => {
      assert.ok(Math.abs(value - (expected[row]?.logProbs[label] ?? NaN)) < 1e-4, `row ${row}: expected ${expected[row]?.logProbs[label]}, got ${value}`);
      assert.ok(Math.abs(value - (plain[row]?.logProbs[label] ?? NaN)) > 1e-3, 'the adapter changed nothing');
    });
  });
  writeFileSync(join(adapterPath, 'adapter_config.json'), JSON.stringify({ ...config, use_dora: true }));
  await assert.rejects(host.open({ model: tiny, adapterPath }), withCode('BAD_INPUT', /use_dora/));
});

test('the tokenizer of a folder learns the last answer and its end token alone', async () => {
  const { tokenizer } = await loadModel({ path: tiny, cache });
  const chat = [...QUESTION.messages, { role: 'assistant' as const, content: 'yes' }];
  const { ids, responseStart } = tokenizer.encodeForTraining(chat);
  assert.deepEqual(ids.slice(0, responseStart), tokenizer.encodeChat(QUESTION.messages, { openAssistantTurn: true }));
  assert.deepEqual(ids.slice(responseStart), [...tokenizer.encode('yes'), tokenizer.endId]);
  assert.equal(tokenizer.renderChat(chat, { openAssistantTurn: false }), '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n');
  assert.throws(() => tokenizer.encodeForTraining(QUESTION.messages), withCode('BAD_INPUT', /expected an assistant's message at the end, got user/));
});
