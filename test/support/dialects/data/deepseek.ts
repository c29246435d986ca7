/** DeepSeek's API: its chat model, and the one that shows what it reasons. */
import { dialect } from '../dialect.ts';
import type { Dialect, Json } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, REASONING_TOKENS, refuses, refusesParameters, source } from './envelopes.ts';
import type { RuleInput } from './envelopes.ts';

const error = (message: string, type = 'invalid_request_error'): Json => ({ error: { message, type, param: null, code: 'invalid_request_error' } });
const reference = source('https://api-docs.deepseek.com/api/create-chat-completion');
const reasoningModel = source('https://api-docs.deepseek.com/zh-cn/guides/reasoning_model', 'reasoning_content');
const rules: readonly RuleInput[] = [
  refuses('json_schema', { is: { path: 'response_format.type', values: ['json_schema'] } }, 400, error('This response_format type is unavailable now'), [source('https://github.com/llm-exe/llm-exe/issues/662', 'This response_format type is unavailable now')]),
  refuses('risk', { about: 'filter' }, 400, error('Content Exists Risk'), [source('https://github.com/666ghj/BettaFish/issues/108', 'Content Exists Risk')]),
  refuses('context length', { totalTokensAbove: CONTEXT_TOKENS }, 400, error(`This model's maximum context length is ${CONTEXT_TOKENS} tokens. However, you requested {{$totalTokens}} tokens ({{$promptTokens}} in the messages, {{$maxTokens}} in the completion). Please reduce the length of the messages or completion.`), [source('https://github.com/evalstate/fast-agent/issues/621', "This model's maximum context length is 131072 tokens. However, you requested 131134 tokens (122942 in the messages, 8192 in the completion).")]),
  { name: 'no resources', when: { about: 'outage' }, calls: 1, alter: { finish: 'insufficient_system_resource', content: 'The text' }, sources: [reference] },
];
const failures = [
  failure('empty account', 'quota', 402, error('Insufficient Balance', 'unknown_error'), [source('https://github.com/Aider-AI/aider/issues/4851', '"message":"Insufficient Balance","type":"unknown_error"'), source('https://github.com/continuedev/continue/issues/9942', '402 Insufficient Balance')]),
  failure('wrong key', 'unauthorized', 401, { error: { message: 'Authentication Fails (no such user)', type: 'authentication_error', param: null, code: 'invalid_request_error' } }, [source('https://github.com/deepseek-ai/DeepSeek-V2/issues/9', '401 Authentication Fails (no such user)')]),
] as const;
const usageExtra = { prompt_cache_hit_tokens: 0, prompt_cache_miss_tokens: '{{$promptTokens}}', prompt_tokens_details: { cached_tokens: 0 } };

export const deepseek: readonly Dialect[] = [
  dialect({
    name: 'deepseek-chat', model: 'deepseek-chat', basePath: '/v1', rules, failures,
    answer: { before: '\n\n\n', logprobs: { shape: 'openai', sources: [reference] }, usageExtra, top: { system_fingerprint: 'fp_3a5770e1b4' }, sources: [reference, source('https://api-docs.deepseek.com/quick_start/rate_limit', 'Non-streaming requests: Continuously return empty lines')] },
    can: { softTargets: true, filter: 'rejected', length: 'rejected' },
  }),
  dialect({
    name: 'deepseek-reasoner', model: 'deepseek-reasoner', basePath: '/v1',
    rules: [
      ...refusesParameters(['logprobs', 'top_logprobs'], 400, (name) => error(`deepseek-reasoner does not support the parameter \`${name}\``), [source('https://api-docs.deepseek.com/zh-cn/guides/reasoning_model', 'logprobs、top_logprobs会报错'), source('https://github.com/lollipopkit/flutter_gpt_box/issues/213', 'deepseek-reasoner does not support the parameter `presence_penalty`')]),
      ...rules,
    ],
    failures,
    answer: { before: '\n\n\n', reasoning: { place: 'reasoning_content', tokens: REASONING_TOKENS, counted: true, sources: [reasoningModel] }, logprobs: { shape: 'null', sources: [reasoningModel] }, usageExtra, sources: [reference] },
    can: { softTargets: false, filter: 'rejected', length: 'rejected' },
  }),
  dialect({
    name: 'deepseek-reasoner-2025-03', model: 'deepseek-reasoner', basePath: '/v1',
    rules: [
      ...refusesParameters(['logprobs', 'top_logprobs'], 400, (name) => error(`deepseek-reasoner does not support the parameter \`${name}\``), [source('https://github.com/lollipopkit/flutter_gpt_box/issues/213', 'deepseek-reasoner does not support the parameter `presence_penalty`')]),
      refuses('JSON', { has: 'response_format' }, 400, error('deepseek-reasoner does not support Json Output.'), [source('https://github.com/gomate-community/TrustRAG/issues/140', 'deepseek-reasoner does not support Json Output.')]),
      ...rules,
    ],
    failures,
    answer: { reasoning: { place: 'reasoning_content', tokens: REASONING_TOKENS, counted: true, sources: [reasoningModel] }, logprobs: { shape: 'absent', sources: [reasoningModel] }, usageExtra, sources: [reference] },
    can: { softTargets: false, filter: 'rejected', length: 'rejected' },
  }),
];
