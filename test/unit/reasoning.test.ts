/** Reasoning: told from the answer in the text, given room, paid for. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { TeacherAnswer, TeacherRequest } from '../../src/contracts/records.ts';
import { splitReasoning } from '../../src/dataset/reasoning-text.ts';
import { hopefulTraits } from '../../src/teacher/endpoint-traits.ts';
import { chatBody } from '../../src/teacher/openai-chat.ts';
import { createOpenAITeacher } from '../../src/teacher/openai.ts';
import { createTraitBook } from '../../src/teacher/trait-book.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';
import type { OpenAIServerOptions } from '../support/openai-server.ts';

describe('reasoning in the text', () => {
  const cases: readonly (readonly [text: string, answer: string, reasoning?: string])[] = [
    ['plain', 'plain'],
    ['', ''],
    ['<think>a</think>\n\nb', 'b', 'a'],
    ['<THINK>a</THINK>b', 'b', 'a'],
    ['a\n</think>\n\nb', 'b', 'a'],
    ['a\n</think>\nb\n</think>\nc', 'c', 'a\n\nb'],
    ['<think>cut off in the middle', '', 'cut off in the middle'],
    ['<think></think>\n\nb', 'b'],
    ['<think>a</think><think>b</think>c', 'c', 'a\n\nb'],
    ['first\n<think>x</think>\nlast', 'first\n\nlast', 'x'],
    ['<think>```\nopen fence</think>{"a": 1}', '{"a": 1}', '```\nopen fence'],
    ['[THINK]q[/THINK]r', 'r', 'q'],
    ['◁think▷x◁/think▷y', 'y', 'x'],
    ['<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>yes<|return|>', 'yes', 'hm'],
    ['<|channel|>final<|message|>yes', 'yes'],
    // Marks that are spoken of stay.
    ['close it with `</think>`', 'close it with `</think>`'],
    ['The <think> tag opens a block.', 'The <think> tag opens a block.'],
    ['```html\n<think>\n```', '```html\n<think>\n```'],
  ];
  for (const [text, answer, reasoning] of cases) {
    it(JSON.stringify(text), () => {
      assert.deepEqual(splitReasoning(text), { text: answer, ...(reasoning === undefined ? {} : { reasoning }) });
      assert.deepEqual(splitReasoning(answer), { text: answer }, 'what is left has none');
    });
  }
});

it('many marks in one text are taken off, each looked at once', () => {
  assert.equal(splitReasoning(`${'a</think>\n'.repeat(20_000)}b`).text, 'b');
  assert.equal(splitReasoning(`${'<think>a</think>'.repeat(10_000)}b`).text, 'b');
});

describe('room for reasoning', () => {
  const label: TeacherRequest = { id: 'a', purpose: 'train', sampleIndex: 0, task: { kind: 'label', labels: ['no', 'yes'], messages: [{ role: 'user', content: 'Is it?' }], parameters: { maxTokens: 12, temperature: 0 } } };
  const withReasoning = (reasoning: object): TeacherRequest => ({ ...label, task: { ...label.task, parameters: { ...label.task.parameters, reasoning: reasoning as { maxTokens: number } } } });
  const room = (request: TeacherRequest, model: string): unknown => chatBody(model, request, hopefulTraits(model, true)).max_completion_tokens;

  it('is the spec’s, else given to models that are known to reason, and none to others', () => {
    for (const model of ['gpt-5', 'gpt-5-mini-2025-08-07', 'o3', 'o4-mini', 'deepseek-reasoner', 'deepseek-ai/DeepSeek-R1', 'Qwen/Qwen3-8B', 'gpt-oss-120b', 'openai/gpt-oss-20b:free']) assert.equal(room(label, model), 12 + 16 + 4_096, model);
    for (const model of ['gpt-4o', 'gpt-4.1-mini', 'gpt-5-chat-latest', 'Qwen/Qwen3-4B-Instruct-2507', 'llama-3.1-8b', 'mistral-small']) assert.equal(room(label, model), 28, model);
    assert.equal(room(withReasoning({ maxTokens: 100 }), 'gpt-4o'), 128);
    assert.equal(room(withReasoning({ effort: 'none', maxTokens: 100 }), 'gpt-5'), 28);
    assert.equal(chatBody('m', withReasoning({ effort: 'low', maxTokens: 1 }), hopefulTraits('m', true)).reasoning_effort, 'low');
  });

  /** A model that writes `tokens` of reasoning before every answer, whatever room it has. */
  const thinks = (tokens: number): OpenAIServerOptions => ({ answer: (call) => (Number(call['max_completion_tokens'] ?? call['max_tokens']) > tokens ? 'yes' : { content: '', fault: 'truncated-json' }) });

  async function ask(options: OpenAIServerOptions, requests: readonly TeacherRequest[], model = 'gpt-4o-mini') {
    await using server = await startOpenAIServer(options);
    using traits = createTraitBook();
    const endpoint = { provider: 'openai', model, baseUrl: server.baseUrl, apiKeyEnv: 'K', temperature: 0, maxTokens: 512, concurrency: 4 } as const;
    await using teacher = createOpenAITeacher({ endpoint, readKey: () => TEST_KEY, traits });
    const answers: TeacherAnswer[] = [];
    const left: TeacherRequest[] = [];
    let lostUsd = 0;
    await teacher.ask(requests, {
      onAnswers: async (got) => void answers.push(...got.map(({ answer }) => answer)),
      onUncovered: (uncovered) => left.push(...uncovered),
      onLost: async (lost) => void (lostUsd += lost.reduce((sum, { bound }) => sum + bound.usd, 0)),
    });
    return { answers, left, lostUsd, calls: server.counts.billedCalls, billUsd: server.counts.usd, known: traits.of(server.baseUrl, model) };
  }

  it('an empty answer is asked for once more, and both are paid for', async () => {
    const { answers, calls, billUsd, known } = await ask(thinks(1_000), [label]);
    assert.deepEqual([answers[0]?.text, calls, known.reasons], ['yes', 2, true]);
    assert.ok(Math.abs((answers[0]?.costUsd ?? 0) - billUsd) < 1e-12);
  });

  it('a second empty one is an answer with its reason', async () => {
    const { answers, calls } = await ask(thinks(1e9), [label]);
    assert.deepEqual([answers.length, answers[0]?.finishReason, calls], [1, 'length', 2]);
    assert.match(answers[0]?.note ?? '', /^its room of \d+ tokens was used up before anything was written: reasoning\.maxTokens beside the model gives more$/);
  });

  it('where a whole batch turns out to need it, what is not covered is left to be planned again, and stays in the books', async () => {
    const requests = Array.from({ length: 12 }, (_, index): TeacherRequest => ({ ...label, id: `r${index}`, task: { ...label.task, messages: [{ role: 'user', content: `Is it ${index}?` }] } }));
    const { answers, left, lostUsd, billUsd } = await ask(thinks(1_000), requests);
    assert.equal(answers.length + left.length, 12);
    assert.ok(left.length > 0 && answers.every(({ text }) => text === 'yes'));
    assert.ok(answers.reduce((sum, { costUsd }) => sum + costUsd, lostUsd) >= billUsd - 1e-12);
  });
});
