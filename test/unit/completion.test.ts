/** What a chat completion says of its tokens, and what is made of what it leaves out. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { completionSchema, messageText, usageOf } from '../../src/teacher/completion.ts';
import type { TokenUsage } from '../../src/contracts/records.ts';

function usageFor(message: object, usage?: object | null): TokenUsage {
  const completion = completionSchema.parse({ choices: [{ message }], ...(usage === undefined ? {} : { usage }) });
  return usageOf(completion, 400, messageText((completion.choices[0] as (typeof completion.choices)[number]).message));
}
const THOUGHT = 'x'.repeat(90);
const INSIDE = { content: `<think>${THOUGHT}</think>0123456789` };
const BESIDE = { content: '0123456789', reasoning_content: THOUGHT };
const counted = (more: object = {}): object => ({ prompt_tokens: 100, completion_tokens: 50, total_tokens: 150, ...more });

describe('tokens for reasoning', () => {
  it('that the server does not count are their share of what was written, in the text or beside it', () => {
    for (const usage of [counted(), counted({ completion_tokens_details: null }), counted({ completion_tokens_details: { reasoning_tokens: 0 } })]) {
      // 90 of 115 characters with the marks, 90 of 100 without.
      assert.equal(usageFor(INSIDE, usage).reasoningTokens, Math.ceil((50 * 90) / 115));
      assert.equal(usageFor(BESIDE, usage).reasoningTokens, 45);
    }
    assert.equal(usageFor({ content: `<think>${THOUGHT}` }, counted()).reasoningTokens, Math.ceil((50 * 90) / 97), 'cut off inside');
    assert.equal(usageFor({ content: null, reasoning: THOUGHT }, counted()).reasoningTokens, 50, 'nothing but reasoning');
  });

  it('that the server counts are as it says, shown or not', () => {
    for (const message of [INSIDE, BESIDE, { content: '0123456789' }]) {
      assert.equal(usageFor(message, counted({ completion_tokens_details: { reasoning_tokens: 30 } })).reasoningTokens, 30);
      assert.equal(usageFor(message, counted({ reasoning_tokens: 31 })).reasoningTokens, 31);
      assert.deepEqual([usageFor(message, counted({ total_tokens: 190 })).reasoningTokens, usageFor(message, counted({ total_tokens: 190 })).completionTokens], [40, 90], 'beside the completion');
    }
  });

  it('are none where nothing was reasoned', () => {
    for (const usage of [undefined, null, {}, counted(), counted({ completion_tokens_details: { reasoning_tokens: 0 } })]) {
      assert.equal('reasoningTokens' in usageFor({ content: '0123456789' }, usage), false);
      assert.equal('reasoningTokens' in usageFor({ content: '' }, usage), false);
      assert.equal('reasoningTokens' in usageFor({ content: '<think></think>yes' }, usage), false);
    }
  });

  it('without any usage are in the estimate once, not twice', () => {
    for (const usage of [undefined, null, {}]) {
      assert.deepEqual(usageFor(INSIDE, usage), { promptTokens: 100, cachedPromptTokens: 0, completionTokens: Math.ceil(115 / 4), reasoningTokens: Math.ceil((29 * 90) / 115) });
      assert.equal(usageFor(BESIDE, usage).completionTokens, 25);
    }
  });
});
