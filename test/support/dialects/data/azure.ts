/** Azure OpenAI: OpenAI's models with another key header, path and filter. */
import { dialect } from '../dialect.ts';
import type { Dialect } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, openaiError, refuses, source } from './envelopes.ts';

const safe = { filtered: false, severity: 'safe' };
const safety = { hate: safe, self_harm: safe, sexual: safe, violence: safe };
const management = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt and retry. To learn more about our content filtering policies please read our documentation: https://go.microsoft.com/fwlink/?linkid=2198766";
const reference = source('https://learn.microsoft.com/en-us/azure/ai-services/openai/reference');

export const azure: readonly Dialect[] = [
  dialect({
    name: 'azure-gpt-4o', model: 'gpt-4o', basePath: '/openai/deployments/gpt-4o', auth: 'api-key', query: { 'api-version': '2024-10-21' },
    rules: [
      refuses('filtered prompt', { about: 'filter' }, 400, { error: { message: management, type: null, param: 'prompt', code: 'content_filter', status: 400, innererror: { code: 'ResponsibleAIPolicyViolation', content_filter_result: { ...safety, jailbreak: { filtered: false, detected: false }, violence: { filtered: true, severity: 'medium' } } } } }, [
        source('https://github.com/compl-ai/compl-ai/issues/20', 'The response was filtered due to the prompt triggering Azure OpenAI\'s content management policy.'),
      ]),
      refuses('context length', { promptTokensAbove: CONTEXT_TOKENS }, 400, openaiError(`This model's maximum context length is ${CONTEXT_TOKENS} tokens. However, your messages resulted in {{$promptTokens}} tokens. Please reduce the length of the messages.`, { param: 'messages', code: 'context_length_exceeded' }), [source('https://github.com/rahul2002m/ChatPDF/issues/6', 'context_length_exceeded')]),
    ],
    failures: [
      failure('wrong key', 'unauthorized', 401, { error: { code: '401', message: 'Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource.' } }, [source('https://github.com/Azure/co-op-translator', 'Access denied due to invalid subscription key or wrong API endpoint.')]),
      failure('unknown deployment', 'not-found', 404, { error: { code: 'DeploymentNotFound', message: 'The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please wait a moment and try again.' } }, [source('https://github.com/chatboxai/chatbox/issues/646', 'DeploymentNotFound')]),
    ],
    answer: {
      logprobs: { shape: 'openai', sources: [reference] }, model: 'gpt-4o-2024-08-06',
      top: { prompt_filter_results: [{ prompt_index: 0, content_filter_results: safety }], system_fingerprint: 'fp_b705f0c291' }, choice: { content_filter_results: safety }, message: { refusal: null, annotations: [] },
      sources: [reference],
    },
    can: { softTargets: true, filter: 'rejected', length: 'rejected' },
  }),
  dialect({
    name: 'azure-filtered-answer', model: 'gpt-4o', basePath: '/openai/deployments/gpt-4o', auth: 'api-key', query: { 'api-version': '2024-10-21' },
    rules: [
      { name: 'filtered answer', when: { about: 'filter' }, alter: { finish: 'content_filter', content: 'The first', choice: { content_filter_results: { ...safety, violence: { filtered: true, severity: 'medium' } } } }, sources: [source('https://learn.microsoft.com/en-us/azure/ai-services/openai/concepts/content-filter', 'finish_reason')] },
    ],
    answer: { logprobs: { shape: 'openai', sources: [reference] }, choice: { content_filter_results: safety }, sources: [reference] },
    can: { softTargets: true, filter: 'answered', length: 'none' },
  }),
];
