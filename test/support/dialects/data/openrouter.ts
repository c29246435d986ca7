/** OpenRouter: an error of whoever it asked can stand in a 200, at the top or in a choice. */
import { dialect } from '../dialect.ts';
import type { Dialect, Json } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, REASONING_TOKENS, refuses, source } from './envelopes.ts';

const error = (code: number, message: string, metadata?: { readonly [key: string]: Json }): Json => ({ error: { message, code, ...(metadata === undefined ? {} : { metadata }) } });
const errors = source('https://openrouter.ai/docs/api/reference/errors-and-debugging', 'the returned HTTP response status will be 200 and any error occurred while the LLM is producing the output will be emitted in the response body');
const overview = source('https://openrouter.ai/docs/api/reference/overview', 'native_finish_reason');
const length = refuses('context length', { totalTokensAbove: CONTEXT_TOKENS }, 400, error(400, `This endpoint's maximum context length is ${CONTEXT_TOKENS} tokens. However, you requested about {{$totalTokens}} tokens ({{$promptTokens}} of text input, {{$maxTokens}} in the output). Please reduce the length of either one, or use the "middle-out" transform to compress your prompt automatically.`), [source('https://github.com/refly-ai/refly/issues/1177', "This endpoint's maximum context length is 32768 tokens. However, you requested about 42832 tokens")]);
const moderation = refuses('moderation', { about: 'filter' }, 403, error(403, 'Your chosen model requires moderation and your input was flagged', { reasons: ['violence'], flagged_input: 'a day', provider_name: 'OpenAI', model_slug: '{{model}}' }), [source('https://openrouter.ai/docs/errors', '403: Your chosen model requires moderation and your input was flagged')]);
const failures = [
  failure('no credits', 'quota', 402, error(402, 'Insufficient credits. Add more using https://openrouter.ai/settings/credits'), [source('https://openrouter.ai/docs/errors', '402: Your account or API key has insufficient credits. Add more credits and retry the request.')]),
  failure('wrong key', 'unauthorized', 401, error(401, 'No auth credentials found'), [source('https://openrouter.ai/docs/errors', '401: Invalid credentials (OAuth session expired, disabled/invalid API key)')]),
  failure('limited upstream', 'rate-limited', 429, error(429, 'Provider returned error', { raw: 'z-ai/glm-5.3-flash is temporarily rate-limited upstream. Please retry shortly, or add your own key to accumulate your rate limits: …', provider_name: 'BaseTen', limit_source: 'upstream_provider_shared_pool', remedy_hint: 'Retry shortly, add your own provider key, or route to another provider' }), [source('https://github.com/open-webui/computer/issues/293', 'Provider returned error')]),
  failure('limited upstream, in a 200', 'rate-limited', 200, error(429, 'Provider returned error', { raw: 'temporarily rate-limited upstream', provider_name: 'BaseTen' }), [errors]),
  failure('failed upstream, in a 200', 'unavailable', 200, error(502, 'Provider returned error', { raw: 'upstream connect error', provider_name: 'BaseTen' }), [errors]),
] as const;
const answer = { top: { provider: 'DeepInfra', system_fingerprint: '' }, message: { refusal: null } };

export const openrouter: readonly Dialect[] = [
  dialect({
    name: 'openrouter', model: 'openai/gpt-4o-mini', basePath: '/api/v1', parameters: ['transforms', 'models', 'route', 'provider', 'plugins', 'top_k', 'min_p', 'top_a', 'repetition_penalty', 'reasoning', 'include_reasoning', 'usage', 'structured_outputs'],
    rules: [length, moderation, { name: 'error in a 200', when: { about: 'outage' }, calls: 1, reply: { status: 200, body: error(502, 'Provider returned error', { raw: 'upstream connect error', provider_name: 'DeepInfra' }) }, sources: [errors] }],
    failures,
    answer: { before: '\n         \n\n         \n', logprobs: { shape: 'openai', sources: [source('https://openrouter.ai/docs/api/reference/parameters', 'top_logprobs')] }, choice: { native_finish_reason: 'stop' }, ...answer, sources: [overview] },
    can: { softTargets: true, filter: 'rejected', length: 'rejected' },
  }),
  dialect({
    name: 'openrouter-error-in-choice', model: 'deepseek/deepseek-r1', basePath: '/api/v1', parameters: ['transforms', 'models', 'route', 'provider', 'plugins', 'reasoning', 'include_reasoning', 'usage'],
    rules: [length, moderation, { name: 'error beside half a text', when: { about: 'outage' }, calls: 1, alter: { finish: 'error', content: 'The text', choice: { error: { code: 502, message: 'Provider returned error' }, native_finish_reason: 'error' } }, sources: [source('https://github.com/maximhq/bifrost/issues/5425', 'finish_reason: "error"')] }],
    failures,
    answer: { reasoning: { place: 'reasoning', tokens: REASONING_TOKENS, counted: true, sources: [source('https://openrouter.ai/docs/use-cases/reasoning-tokens', 'reasoning')] }, logprobs: { shape: 'null', sources: [overview] }, choice: { native_finish_reason: 'stop' }, ...answer, sources: [overview] },
    can: { softTargets: false, filter: 'rejected', length: 'rejected' },
  }),
];
