/** Groq: schemas of some models alone, no log-probabilities, a request that is too large for a minute's tokens. */
import { dialect } from '../dialect.ts';
import type { Dialect, Json } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, REASONING_TOKENS, refuses, refusesParameters, source } from './envelopes.ts';
import type { RuleInput } from './envelopes.ts';

const error = (message: string, more: { readonly type?: string; readonly code?: string } = {}): Json => ({ error: { message, type: 'invalid_request_error', ...more } });
const compatibility = source('https://console.groq.com/docs/openai');
const noLogprobs = source('https://github.com/groq/groq-python/issues/25', '`logprobs` is not supported with this model');
const rules: readonly RuleInput[] = [
  ...refusesParameters(['logprobs', 'top_logprobs'], 400, (name) => error(`\`${name}\` is not supported with this model`), [noLogprobs]),
  refuses('store', { has: 'store' }, 400, error("property 'store' is unsupported, did you mean 'stop'?"), [source('https://github.com/fanenr/chatbot/issues/21', "property 'store' is unsupported, did you mean 'stop'?")]),
  refuses('metadata', { has: 'metadata' }, 400, error("property 'metadata' is unsupported"), [source('https://github.com/CherryHQ/cherry-studio/issues/11435', "property 'verbosity' is unsupported")]),
  refuses('json_object without the word', { is: { path: 'response_format.type', values: ['json_object'] }, wordMissing: 'json' }, 400, error("'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."), [source('https://github.com/vercel/ai/pull/7508', "'messages' must contain the word 'json' in some form")]),
];
const tooLarge = refuses('too large for a minute', { promptTokensAbove: CONTEXT_TOKENS }, 413, error(`Request too large for model \`{{model}}\` in organization \`org_01kgg5588eftc8k70aes4864eb\` service tier \`on_demand\` on tokens per minute (TPM): Limit ${CONTEXT_TOKENS}, Requested {{$totalTokens}}, please reduce your message size and try again. Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing`, { type: 'tokens', code: 'rate_limit_exceeded' }), [
  source('https://github.com/HunorLaczko/ha-groq-cloud-api/issues/27', 'please reduce your message size and try again'),
]);
const contextLength = refuses('context length', { promptTokensAbove: CONTEXT_TOKENS }, 400, error('Please reduce the length of the messages or completion.', { code: 'context_length_exceeded' }), [source('https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts', 'reduce the length of the messages')]);
const failures = [
  failure('rate limit', 'rate-limited', 429, error('Rate limit reached for model `llama-3.1-8b-instant` in organization `org_01j5b4pz9jff492fq686vypsx6` service tier `on_demand` on tokens per minute (TPM): Limit 6000, Used 5034, Requested 1443. Please try again in 0.77s. Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing', { type: 'tokens', code: 'rate_limit_exceeded' }), [source('https://github.com/elizaOS/eliza/issues/4040', 'Please try again in 4.77s')]),
] as const;
const usageExtra = { queue_time: 0.02, prompt_time: 0.003, completion_time: 0.04, total_time: 0.05 };
const top = { system_fingerprint: 'fp_2a26d6f1b2', x_groq: { id: 'req_01kesv2tbve84sxnd0eks0nejr' } };
const absent = { shape: 'absent' as const, sources: [noLogprobs] };
const can = { softTargets: false, filter: 'none', length: 'rejected' } as const;
const reasoning = source('https://console.groq.com/docs/reasoning', 'reasoning_format');
const parameters = ['reasoning_format', 'include_reasoning', 'documents', 'search_settings', 'citation_options', 'compound_custom'];

export const groq: readonly Dialect[] = [
  dialect({
    name: 'groq-llama', model: 'llama-3.3-70b-versatile', basePath: '/openai/v1', parameters,
    rules: [refuses('json_schema', { is: { path: 'response_format.type', values: ['json_schema'] } }, 400, error('This model does not support response format `json_schema`.'), [source('https://github.com/ItzCrazyKns/Vane/issues/980'), source('https://console.groq.com/docs/structured-outputs')]), ...rules, tooLarge],
    failures, answer: { logprobs: absent, usageExtra, top, sources: [compatibility] }, can,
  }),
  dialect({
    name: 'groq-gpt-oss', model: 'openai/gpt-oss-20b', basePath: '/openai/v1', parameters,
    rules: [
      ...['minItems', 'maxItems'].map((keyword) => refuses(`schema with ${keyword}`, { schemaKeyword: keyword }, 400, error(`invalid schema for response format: response_format/json_schema/next_step: ${keyword} is not supported`), [source('https://github.com/i-am-bee/beeai-framework/issues/1215', 'minItems is not supported')])),
      ...rules, contextLength,
    ],
    failures, answer: { reasoning: { place: 'reasoning', tokens: REASONING_TOKENS, counted: true, sources: [reasoning] }, logprobs: absent, usageExtra, top, sources: [compatibility] }, can,
  }),
  dialect({
    name: 'groq-raw-think', model: 'qwen/qwen3-32b', basePath: '/openai/v1', parameters,
    rules: [
      refuses('json_schema', { is: { path: 'response_format.type', values: ['json_schema'] } }, 400, error('This model does not support response format `json_schema`.'), [source('https://github.com/ItzCrazyKns/Vane/issues/980'), source('https://console.groq.com/docs/structured-outputs')]),
      ...rules, contextLength,
    ],
    failures, answer: { reasoning: { place: 'think', tokens: REASONING_TOKENS, sources: [reasoning] }, logprobs: absent, usageExtra, top, sources: [compatibility] }, can,
  }),
];
