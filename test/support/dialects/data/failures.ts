/** Refusals of every call that belong to no one server's dialect, or come from what stands before it. */
import { z } from 'zod';
import { failureSchema } from '../dialect.ts';
import type { Failure, Json } from '../dialect.ts';
import { failure, openaiError, source } from './envelopes.ts';
import type { FailureInput } from './envelopes.ts';

const html = 'text/html; charset=utf-8';
const nginx = (title: string): string => `<html>\r\n<head><title>${title}</title></head>\r\n<body>\r\n<center><h1>${title}</h1></center>\r\n<hr><center>nginx/1.27.4</center>\r\n</body>\r\n</html>\r\n`;
const nginxSource = source('https://github.com/nginx/nginx/blob/master/src/http/ngx_http_special_response.c', '<center><h1>502 Bad Gateway</h1></center>');
const cloudflare = (status: number, title: string): string => `<!DOCTYPE html>\n<!--[if lt IE 7]> <html class="no-js ie6 oldie" lang="en-US"> <![endif]-->\n<html class="no-js" lang="en-US">\n<head>\n<title>api.openai.com | ${status}: ${title}</title>\n<meta charset="UTF-8" />\n</head>\n<body>\n<div id="cf-wrapper"><h1><span class="inline-block">${title}</span> <span class="code-label">Error code ${status}</span></h1></div>\n</body>\n</html>\n`;
const cloudflareSource = source('https://github.com/acheong08/ChatGPT/issues/447', '524: A timeout occurred');
const retryAfter = source('https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3', 'Retry-After = HTTP-date / delay-seconds');
const limited = openaiError('Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29500, Requested 1200. Please try again in 1.4s. Visit https://platform.openai.com/account/rate-limits to learn more.', { type: 'tokens', code: 'rate_limit_exceeded' });
const limitedSource = source('https://platform.openai.com/docs/guides/rate-limits');
const quotaWords = 'You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.';
const google = (code: number, message: string, status: string, details: readonly Json[]): Json => [{ error: { code, message, status, ...(details.length === 0 ? {} : { details }) } }];

const given: readonly FailureInput[] = [
  failure('OpenAI: quota', 'quota', 429, openaiError(quotaWords, { type: 'insufficient_quota', code: 'insufficient_quota' }), [source('https://github.com/anse-app/chatgpt-demo/issues/465', 'insufficient_quota You exceeded your current quota')]),
  failure('OpenAI: quota, by its type alone', 'quota', 429, openaiError(quotaWords, { type: 'insufficient_quota' }), [source('https://github.com/anse-app/chatgpt-demo/issues/465', 'You exceeded your current quota')]),
  failure('Anthropic: credits', 'quota', 400, { type: 'error', error: { type: 'invalid_request_error', message: 'Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.' } }, [source('https://portkey.ai/error-library/insufficient-balance-error-10489', 'Your credit balance is too low'), source('https://github.com/Aider-AI/aider/issues/804')]),
  failure('OpenAI: organization without access', 'unauthorized', 403, openaiError('Country, region, or territory not supported', { type: 'request_forbidden', code: 'unsupported_country_region_territory' }), [source('https://platform.openai.com/docs/guides/error-codes')]),
  failure('FastAPI: no such path', 'not-found', 404, { detail: 'Not Found' }, [source('https://github.com/encode/starlette/blob/master/starlette/exceptions.py', 'http.HTTPStatus(status_code).phrase')]),
  failure('nginx: no such path', 'not-found', 404, nginx('404 Not Found'), [nginxSource], { contentType: 'text/html' }),
  failure('429, seconds', 'rate-limited', 429, limited, [limitedSource, retryAfter], { headers: { 'retry-after': '1' }, waitMs: 1_000 }),
  failure('429, milliseconds', 'rate-limited', 429, limited, [limitedSource, source('openai@6.49.0:client.js', 'retry-after-ms')], { headers: { 'retry-after-ms': '150', 'retry-after': '1' }, waitMs: 150 }),
  failure('429, a date', 'rate-limited', 429, limited, [retryAfter], { headers: { 'retry-after': '{{$inSeconds}}' }, waitMs: 1_000 }),
  failure('Gemini: a minute\'s quota', 'rate-limited', 429, google(429, 'You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. To monitor your current usage, head to: https://ai.dev/rate-limit. \n* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 10, model: gemini-2.5-flash\nPlease retry in 0.863719904s.', 'RESOURCE_EXHAUSTED', [
    { '@type': 'type.googleapis.com/google.rpc.QuotaFailure', violations: [{ quotaMetric: 'generativelanguage.googleapis.com/generate_content_free_tier_requests', quotaId: 'GenerateRequestsPerMinutePerProjectPerModel-FreeTier', quotaDimensions: { location: 'global', model: 'gemini-2.5-flash' } }] },
  ]), [source('https://github.com/continuedev/continue/issues/10085', 'Please retry in 38.863719904s.'), source('https://github.com/google-gemini/gemini-cli/issues/8437', 'GenerateRequestsPerMinutePerProjectPerModel-FreeTier')]),
  failure('Gemini: exhausted', 'rate-limited', 429, google(429, 'Resource has been exhausted (e.g. check quota).', 'RESOURCE_EXHAUSTED', []), [source('https://github.com/continuedev/continue/issues/10560', 'Resource has been exhausted (e.g. check quota).')]),
  failure('429, no header', 'rate-limited', 429, limited, [limitedSource]),
  failure('429, no body', 'rate-limited', 429, '', [retryAfter], { contentType: 'text/plain', headers: { 'retry-after': '1' }, waitMs: 1_000 }),
  failure('429, a page', 'rate-limited', 429, nginx('429 Too Many Requests'), [nginxSource], { contentType: html }),
  failure('nginx: 502', 'unavailable', 502, nginx('502 Bad Gateway'), [nginxSource], { contentType: 'text/html' }),
  failure('nginx: 503', 'unavailable', 503, nginx('503 Service Temporarily Unavailable'), [nginxSource], { contentType: 'text/html', headers: { 'retry-after': '1' }, waitMs: 1_000 }),
  failure('nginx: 504', 'unavailable', 504, nginx('504 Gateway Time-out'), [nginxSource], { contentType: 'text/html' }),
  failure('Cloudflare: 502', 'unavailable', 502, cloudflare(502, 'Bad gateway'), [source('https://github.com/acheong08/ChatGPT/issues/1165', '502: Bad gateway')], { contentType: html }),
  failure('Cloudflare: 524', 'unavailable', 524, cloudflare(524, 'A timeout occurred'), [cloudflareSource], { contentType: html }),
  failure('OpenAI: overloaded', 'unavailable', 503, openaiError('The engine is currently overloaded, please try again later', { type: 'server_error' }), [source('https://platform.openai.com/docs/guides/error-codes', 'The engine is currently overloaded, please try again later')]),
  failure('nginx: 413', 'length', 413, nginx('413 Request Entity Too Large'), [nginxSource], { contentType: 'text/html' }),
  failure('Cerebras: no body', 'length', 413, '', [source('https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts', 'Cerebras: "400/413 status code (no body)"')]),
  failure('MiniMax: context window', 'length', 400, openaiError('invalid params, context window exceeds limit'), [source('https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts', 'invalid params, context window exceeds limit')]),
  failure('Kimi: token limit', 'length', 400, openaiError('Your request exceeded model token limit: 262144 (requested: 300000)'), [source('https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts', 'Your request exceeded model token limit: X (requested: Y)')]),
  failure('Poolside: input length', 'length', 400, { error: { code: 400, message: 'Input length 265330 exceeds the maximum allowed input length of 262144 tokens.' } }, [source('https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts', 'Input length X exceeds the maximum allowed input length of Y tokens.')]),
  failure('OpenAI: context window', 'length', 400, openaiError('Your input exceeds the context window of this model. Please adjust your input and try again.', { param: 'input', code: 'context_length_exceeded' }), [source('https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts', 'Your input exceeds the context window of this model')]),
  failure('vLLM: input length', 'length', 400, { error: { message: "Input length (265330) exceeds model's maximum context length (262144).", type: 'BadRequestError', param: null, code: 400 } }, [source('vllm@0.33.0:vllm/entrypoints/serve/utils/api_utils.py', "Input length ({input_length}) exceeds model's maximum context length")]),
  failure('SGLang: allowed length', 'length', 400, { object: 'error', message: 'Input length (265330 tokens) exceeds the maximum allowed length (262144 tokens). Use a shorter input or enable --allow-auto-truncate.', type: 'BadRequestError', param: null, code: 400 }, [source('sglang@0.5.23:sglang/srt/managers/utils.py', 'exceeds the maximum allowed length')]),
  failure('Ollama: too long', 'length', 400, openaiError('prompt too long; exceeded max context length by 4096 tokens'), [source('https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts', 'prompt too long; exceeded max context length by X tokens')]),
  failure('LM Studio: too long', 'length', 400, { error: 'Trying to keep the first 10136 tokens when context the overflows. However, the model is loaded with context length of only 7866 tokens, which is not enough. Try to load the model with a larger context length, or provide a shorter input.' }, [source('https://github.com/cline/cline/issues/3664', 'Try to load the model with a larger context length, or provide a shorter input.')]),
  failure('Gemini: too long, without numbers', 'length', 400, google(400, 'The input token count exceeds the maximum number of tokens allowed (1048576).', 'INVALID_ARGUMENT', []), [source('https://github.com/BerriAI/litellm/issues/18282', 'The input token count exceeds the maximum number of tokens allowed (1048576).')]),
  failure('DeepSeek of 2024: filter', 'filter', 400, { detail: 'Content Exists Risk' }, [source('https://github.com/deepseek-ai/DeepSeek-V2/issues/30', "{'detail': 'Content Exists Risk'}")]),
  failure('OpenAI: safety system', 'filter', 400, openaiError('Your request was rejected as a result of our safety system. Your prompt may contain text that is not allowed by our safety system.', { code: 'content_policy_violation' }), [source('litellm@1.110.2:litellm/exceptions.py', 'Your request was rejected as a result of our safety system.')]),
];

export const FAILURES: readonly Failure[] = z.array(failureSchema).readonly().parse(given);
