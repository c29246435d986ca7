/** The proxy of LiteLLM: every error is wrapped in its own words, and the code is a text. */
import { dialect } from '../dialect.ts';
import type { Dialect, Json } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, REASONING_TOKENS, refuses, source } from './envelopes.ts';
import type { RuleInput } from './envelopes.ts';

const from = (file: string, quote?: string) => source(`litellm@1.110.2:litellm/${file}`, quote);
const error = (message: string, { type = null, param = null, code = '400' }: { readonly type?: string | null; readonly param?: string | null; readonly code?: string } = {}): Json => ({ error: { message, type, param, code } });
const group = 'Received Model Group={{model}}\nAvailable Model Group Fallbacks=None';
const wrapped = source('https://github.com/BrokkAi/brokk-app/issues/540', 'Available Model Group Fallbacks=None","type":null,"param":null,"code":"400"}}');

const length = refuses('context window', { promptTokensAbove: CONTEXT_TOKENS }, 400, error(`litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError: OpenAIException - This model's maximum context length is ${CONTEXT_TOKENS} tokens. However, your messages resulted in {{$promptTokens}} tokens. Please reduce the length of the messages.. ${group}`), [from('litellm_core_utils/exception_mapping_utils.py', 'ContextWindowExceededError: {exception_provider} - {message}'), wrapped]);
const longForAnthropic = refuses('prompt too long', { promptTokensAbove: CONTEXT_TOKENS }, 400, error(`litellm.BadRequestError: litellm.ContextWindowExceededError: AnthropicError - {"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: {{$promptTokens}} tokens > ${CONTEXT_TOKENS} maximum"}}\n${group}`), [source('https://github.com/OpenHands/OpenHands/issues/5350', 'prompt is too long: 209303 tokens > 200000 maximum')]);
const policy = refuses('content policy', { about: 'filter' }, 400, { error: { message: `litellm.BadRequestError: litellm.ContentPolicyViolationError: litellm.ContentPolicyViolationError: AzureException - The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt and retry. To learn more about our content filtering policies please read our documentation: https://go.microsoft.com/fwlink/?linkid=2198766\nmodel={{model}}. content_policy_fallback=None. fallbacks=None.\n\nSet 'content_policy_fallback' - https://docs.litellm.ai/docs/routing#fallbacks. ${group}`, type: null, param: null, code: '400', provider_specific_fields: { innererror: { code: 'ResponsibleAIPolicyViolation', content_filter_result: { violence: { filtered: true, severity: 'high' } } } } } }, [source('https://github.com/BerriAI/litellm/pull/16231', 'litellm.ContentPolicyViolationError: AzureException')]);

/** The provider behind it takes none of these, and the proxy is not told to drop them. */
const unsupported = (provider: string, names: readonly string[]): RuleInput[] =>
  names.map((name) => refuses(`takes no ${name}`, { has: name }, 400, error(`litellm.UnsupportedParamsError: ${provider} does not support parameters: ['${name}'], for model={{model}}. To drop these, set \`litellm.drop_params=True\` or for proxy:\n\n\`litellm_settings:\n drop_params: true\`\n. \n If you want to use these params dynamically send allowed_openai_params=['${name}'] in your request.. ${group}`), [source('https://github.com/BerriAI/litellm/issues/17165', 'ollama_chat does not support parameters'), from('utils.py', 'does not support parameters: {unsupported_params}')]));

const failures = [
  ...[422, 429].map((status) => failure(`budget, ${status}`, 'quota', status, error('Budget has been exceeded! Key=sk-...cdef Current cost: 10.02, Max budget: 10.0', { type: 'budget_exceeded', code: String(status) }), [from('proxy/auth/auth_checks.py', 'Budget has been exceeded! Key={key_descriptor} Current cost: {spend}, Max budget: {valid_token.max_budget}'), from('proxy/_types.py', 'budget_exceeded = "budget_exceeded"'), from('__init__.py', 'budget_exceeded_status_code: int = 422  # set to 429 to restore the pre-422 budget_exceeded response code')])),
  failure('wrong key', 'unauthorized', 401, error('Authentication Error, Invalid proxy server token passed. Received API Key = sk-...cdef, Key Hash (Token) =3b1c. Unable to find token in cache or `LiteLLM_VerificationTokenTable`', { type: 'token_not_found_in_db', param: 'key', code: '401' }), [from('proxy/auth/auth_exception_handler.py', 'Authentication Error, Invalid proxy server token passed.'), from('proxy/_types.py', 'token_not_found_in_db')]),
  failure('unknown model', 'not-found', 400, { error: { message: "{'error': '/chat/completions: Invalid model name passed in model={{model}}. Call `/v1/models` to view available models for your key.'}", type: 'None', param: 'None', code: '400' } }, [from('proxy/route_llm_request.py', 'Invalid model name passed in model=')]),
];
const parameters = ['drop_params', 'allowed_openai_params', 'fallbacks', 'num_retries', 'cache', 'thinking', 'tags', 'timeout'];
const documented = source('https://docs.litellm.ai/docs/completion/output');

export const litellm: readonly Dialect[] = [
  dialect({
    name: 'litellm-azure', model: 'azure-gpt-4o', basePath: '/v1', parameters, rules: [length, policy], failures,
    answer: { logprobs: { shape: 'openai', sources: [documented] }, model: 'gpt-4o-2024-08-06', message: { tool_calls: null, function_call: null }, sources: [documented] },
    can: { softTargets: true, filter: 'rejected', length: 'rejected' },
  }),
  dialect({
    name: 'litellm-ollama', model: 'llama3.1:8b', basePath: '', parameters,
    rules: [...unsupported('ollama_chat', ['logprobs', 'top_logprobs']), length], failures,
    answer: { usage: 'null', logprobs: { shape: 'absent', sources: [source('https://github.com/BerriAI/litellm/issues/17165')] }, sources: [documented, source('https://github.com/maximhq/bifrost/issues/5425', 'null usage')] },
    can: { softTargets: false, filter: 'none', length: 'rejected' },
  }),
  dialect({
    name: 'litellm-anthropic', model: 'claude-sonnet', basePath: '', parameters,
    rules: [...unsupported('anthropic', ['logprobs', 'top_logprobs', 'seed']), longForAnthropic], failures,
    answer: {
      before: '\n\n', reasoning: { place: 'reasoning_content', tokens: REASONING_TOKENS, sources: [source('https://docs.litellm.ai/docs/reasoning_content', 'reasoning_content')] },
      logprobs: { shape: 'absent', sources: [documented] }, message: { tool_calls: null, function_call: null, provider_specific_fields: { refusal: null } }, usageExtra: { cache_creation_input_tokens: 0, cache_read_input_tokens: 0 }, sources: [documented],
    },
    can: { softTargets: false, filter: 'none', length: 'rejected' },
  }),
];
