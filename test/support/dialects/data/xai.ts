/** xAI: an error is a text beside its code, a wrong key a 400, and what a model reasons is counted beside its answer. */
import { dialect } from '../dialect.ts';
import type { Dialect, Json } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, REASONING_TOKENS, refuses, refusesParameters, source } from './envelopes.ts';

const error = (code: string, message: string): Json => ({ code, error: message });
const invalid = 'Client specified an invalid argument';
const reference = source('https://docs.x.ai/developers/rest-api-reference/inference/chat');

export const xai: readonly Dialect[] = [
  dialect({
    name: 'xai-grok-4', model: 'grok-4', basePath: '/v1',
    rules: [
      ...refusesParameters(['stop'], 400, (name) => error(invalid, `Argument not supported on this model: ${name}`), [source('https://github.com/BerriAI/litellm/issues/12635', '{"code":"Client specified an invalid argument","error":"Argument not supported on this model: stop"}')]),
      ...refusesParameters(['presence_penalty', 'frequency_penalty'], 400, (name) => error('invalid-argument', `Model grok-4 does not support parameter ${name === 'presence_penalty' ? 'presencePenalty' : 'frequencyPenalty'}.`), [source('https://github.com/miaoxworld/NativeTavern/issues/83', 'Model xxx does not support parameter presencePenalty.')]),
      refuses('context length', { promptTokensAbove: CONTEXT_TOKENS }, 400, error(invalid, `This model's maximum prompt length is ${CONTEXT_TOKENS} but the request contains {{$promptTokens}} tokens.`), [source('https://github.com/cline/cline/issues/3120', "This model's maximum prompt length is 131072 but the request contains 136973 tokens.")]),
    ],
    failures: [
      failure('wrong key', 'unauthorized', 400, error(invalid, 'Incorrect API key provided: {{$key}}. You can obtain an API key from https://console.x.ai.'), [source('https://github.com/continuedev/continue/issues/10778', 'Incorrect API key provided: na***ys. You can obtain an API key from https://console.x.ai.')]),
      failure('spent credits', 'quota', 429, error('Some resource has been exhausted', 'Your team 16f2151a-40f4-4a80-8ad0-cae00c27e8dd has either used all available credits or reached its monthly spending limit. To continue making API requests, please purchase more credits or raise your spending limit.'), [source('https://github.com/continuedev/continue/issues/10373', 'has either used all available credits or reached its monthly spending limit')]),
      failure('no credits', 'quota', 403, error('The caller does not have permission to execute the specified operation', 'You have run out of credits or need a Grok subscription. Add credits at https://grok.com/?_s=usage or upgrade at https://grok.com/supergrok.'), [source('https://github.com/Wei-Shaw/sub2api/issues/4069', 'You have run out of credits or need a Grok subscription.')]),
    ],
    answer: {
      reasoning: { place: 'hidden', tokens: REASONING_TOKENS, counted: true, inCompletionTokens: false, sources: [source('https://docs.x.ai/docs/guides/reasoning', 'reasoning_tokens')] },
      logprobs: { shape: 'null', sources: [reference] }, message: { refusal: null }, top: { system_fingerprint: 'fp_19e21a36c0' }, sources: [reference],
    },
    can: { softTargets: false, filter: 'none', length: 'rejected' },
  }),
];
