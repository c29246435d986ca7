/** TGI, the gateway to Bedrock, Together, Fireworks, Databricks, Anthropic's layer, DashScope, and gateways that stream unasked or count half. */
import { dialect } from '../dialect.ts';
import type { Dialect, Json } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, REASONING_TOKENS, refuses, source } from './envelopes.ts';

const ofTgi = (file: string, quote?: string) => source(`https://github.com/huggingface/text-generation-inference/blob/db931fcf42da018a3657580c64bf2720f167f9ab/router/src/${file}`, quote);
const validation = (message: string): Json => ({ error: `Input validation error: ${message}`, error_type: 'validation' });

const tgi = dialect({
  name: 'tgi', model: 'tgi', basePath: '/v1', parameters: ['tool_prompt'],
  rules: [
    refuses('too many alternatives', { above: { path: 'top_logprobs', than: 5 } }, 422, validation('`top_n_tokens` must be >= 0 and <= 5. Given: {{top_logprobs}}'), [ofTgi('validation.rs', '`top_n_tokens` must be >= 0 and <= {0}. Given: {1}')]),
    refuses('json_object without a value', { is: { path: 'response_format.type', values: ['json_object'] }, lacks: 'response_format.value' }, 422, 'Failed to deserialize the JSON body into the target type: response_format: missing field `value` at line 1 column 420', [ofTgi('lib.rs', '#[serde(tag = "type", content = "value")]')], 'text/plain; charset=utf-8'),
    refuses('json_schema without a value', { is: { path: 'response_format.type', values: ['json_schema'] }, lacks: 'response_format.value' }, 422, 'Failed to deserialize the JSON body into the target type: response_format: missing field `value` at line 1 column 420', [ofTgi('lib.rs', '#[serde(tag = "type", content = "value")]')], 'text/plain; charset=utf-8'),
    refuses('context length', { totalTokensAbove: CONTEXT_TOKENS }, 422, validation(`\`inputs\` tokens + \`max_new_tokens\` must be <= ${CONTEXT_TOKENS}. Given: {{$promptTokens}} \`inputs\` tokens and {{$maxTokens}} \`max_new_tokens\``), [ofTgi('validation.rs', '`inputs` tokens + `max_new_tokens` must be <= {0}. Given: {1} `inputs` tokens and {2} `max_new_tokens`')]),
  ],
  failures: [failure('overloaded', 'rate-limited', 429, { error: 'Model is overloaded', error_type: 'overloaded' }, [ofTgi('server.rs', 'Model is overloaded')])],
  answer: { logprobs: { shape: 'without-bytes', most: 5, sources: [ofTgi('lib.rs', 'ChatCompletionTopLogprob')] }, top: { system_fingerprint: '3.3.6-sha-db931fc' }, sources: [ofTgi('lib.rs', 'ChatCompletionComplete')] },
  can: { softTargets: true, filter: 'none', length: 'rejected' },
});

const ofBedrock = (file: string, quote?: string) => source(`https://github.com/aws-samples/bedrock-access-gateway/blob/95794585db942cf7ce9660f71edefe63ce6c9910/src/api/${file}`, quote);
const bedrock = dialect({
  name: 'bedrock-gateway', model: 'anthropic.claude-sonnet-4-20250514-v1:0', basePath: '/api/v1', parameters: ['extra_body'],
  rules: [
    refuses('too long', { promptTokensAbove: CONTEXT_TOKENS }, 400, { detail: 'An error occurred (ValidationException) when calling the Converse operation: The model returned the following errors: Input is too long for requested model.' }, [ofBedrock('models/bedrock.py', 'raise HTTPException(status_code=400, detail=str(e))'), source('litellm@1.110.2:litellm/litellm_core_utils/exception_mapping_utils.py', 'Input is too long')]),
    { name: 'filtered', when: { about: 'filter' }, alter: { finish: 'content_filter', content: 'Sorry, the model cannot answer this question.' }, sources: [ofBedrock('models/bedrock.py', '"content_filtered": "content_filter"')] },
  ],
  failures: [
    failure('wrong key', 'unauthorized', 401, { detail: 'Invalid API Key' }, [ofBedrock('auth.py', 'Invalid API Key')]),
    failure('throttled', 'rate-limited', 429, { detail: 'An error occurred (ThrottlingException) when calling the Converse operation (reached max retries: 4): Too many tokens, please wait before trying again.' }, [ofBedrock('models/bedrock.py', 'raise HTTPException(status_code=429, detail=str(e))'), source('https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts', 'Too many tokens, please wait before trying again.')]),
  ],
  answer: {
    reasoning: { place: 'think', tokens: REASONING_TOKENS, sources: [ofBedrock('models/bedrock.py', '<think>{message.reasoning_content}</think>{message.content}')] },
    logprobs: { shape: 'null', sources: [ofBedrock('schema.py', 'class ChatRequest(BaseModel)')] }, top: { system_fingerprint: 'fp' }, sources: [ofBedrock('models/bedrock.py', '_create_response')],
  },
  can: { softTargets: false, filter: 'answered', length: 'rejected' },
});

const together = dialect({
  name: 'together', model: 'Qwen/Qwen2.5-7B-Instruct-Turbo', basePath: '/v1', parameters: ['top_k', 'min_p', 'repetition_penalty', 'echo', 'safety_model', 'context_length_exceeded_behavior'],
  rules: [
    refuses('log-probabilities of others', { has: 'top_logprobs' }, 400, { error: { message: "{{top_logprobs}} is greater than the maximum of 1 - 'logprobs'", type: 'invalid_request_error', param: 'logprobs', code: null } }, [source('https://github.com/stanford-crfm/helm/pull/2325', '{"error":{"message":"5 is greater than the maximum of 1 - \'logprobs\'","type":"invalid_request_error","param":"logprobs","code":null}}')]),
    refuses('context length', { totalTokensAbove: CONTEXT_TOKENS }, 422, { error: { message: `Input validation error: \`inputs\` tokens + \`max_new_tokens\` must be <= ${CONTEXT_TOKENS}. Given: {{$promptTokens}} \`inputs\` tokens and {{$maxTokens}} \`max_new_tokens\``, type: 'invalid_request_error', param: null, code: null } }, [source('https://github.com/SWE-agent/SWE-agent/issues/135', 'Input validation error: `inputs`')]),
  ],
  answer: { logprobs: { shape: 'absent', sources: [source('https://github.com/stanford-crfm/helm/pull/2325')] }, finish: { stop: 'eos', length: 'length' }, message: { tool_calls: [] }, sources: [source('https://docs.together.ai/reference/chat-completions', 'eos')] },
  can: { softTargets: false, filter: 'none', length: 'rejected' },
});

const knownToFireworks = ['model', 'messages', 'tools', 'tool_choice', 'max_tokens', 'max_completion_tokens', 'temperature', 'top_p', 'top_k', 'min_p', 'frequency_penalty', 'presence_penalty', 'repetition_penalty', 'n', 'stop', 'response_format', 'stream', 'context_length_exceeded_behavior', 'user', 'logprobs', 'top_logprobs', 'reasoning_effort', 'seed', 'logit_bias', 'metadata', 'prompt_truncate_len', 'perf_metrics_in_response', 'echo', 'ignore_eos', 'raw_output'];
const fireworksReference = source('https://docs.fireworks.ai/api-reference/post-chatcompletions');
const fireworks = dialect({
  name: 'fireworks', model: 'accounts/fireworks/models/qwen3-8b', basePath: '/inference/v1', parameters: ['top_k', 'min_p', 'repetition_penalty', 'context_length_exceeded_behavior', 'prompt_truncate_len', 'perf_metrics_in_response', 'echo', 'ignore_eos', 'raw_output'],
  rules: [
    refuses('extra input', { keyOutside: knownToFireworks }, 400, { error: { object: 'error', type: 'invalid_request_error', code: 'invalid_request_error', message: "Extra inputs are not permitted, field: '{{$outsideKey}}', value: {{$outsideValue}}" } }, [source('https://github.com/web-infra-dev/midscene/issues/1322', "Extra inputs are not permitted, field: 'vl_high_resolution_images', value: True"), fireworksReference]),
    refuses('too many alternatives', { above: { path: 'top_logprobs', than: 5 } }, 400, { error: { object: 'error', type: 'invalid_request_error', code: 'invalid_request_error', message: "Input should be less than or equal to 5, field: 'top_logprobs', value: {{top_logprobs}}" } }, [fireworksReference, source('https://github.com/web-infra-dev/midscene/issues/1322', "field: 'vl_high_resolution_images', value: True")]),
  ],
  answer: { reasoning: { place: 'think', tokens: REASONING_TOKENS, sources: [source('https://docs.fireworks.ai/guides/reasoning', 'reasoning_content')] }, logprobs: { shape: 'openai', most: 5, ofReasoning: true, sources: [fireworksReference] }, sources: [fireworksReference] },
  can: { softTargets: true, filter: 'none', length: 'none' },
});

const knownToDatabricks = ['model', 'messages', 'max_tokens', 'temperature', 'top_p', 'top_k', 'stop', 'n', 'stream', 'stream_options', 'tools', 'tool_choice', 'response_format', 'logprobs', 'top_logprobs', 'reasoning_effort'];
const badRequest = (message: string): Json => ({ error_code: 'BAD_REQUEST', message });
const databricks = dialect({
  name: 'databricks', model: 'databricks-meta-llama-3-3-70b-instruct', basePath: '/serving-endpoints', parameters: ['top_k'],
  rules: [
    refuses('unknown field', { keyOutside: knownToDatabricks }, 400, badRequest('Bad request: json: unknown field "{{$outsideKey}}"\n'), [source('https://github.com/databricks/databricks-sdk-py/issues/1263', 'Bad request: json: unknown field "inputs"'), source('https://github.com/OpenHands/software-agent-sdk/pull/2128', 'max_completion_tokens'), source('https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference')]),
    refuses('long answers', { above: { path: 'max_tokens', than: 8_192 } }, 400, badRequest('Bad request: rpc error: code = InvalidArgument desc = max_tokens ({{max_tokens}}) cannot exceed 8192. Please reduce the length of max output tokens generated.\n'), [source('https://github.com/databricks/databricks-sdk-go/issues/1183', 'max_tokens (10000) cannot exceed 8192. Please reduce the length of max output tokens generated.')]),
  ],
  answer: { logprobs: { shape: 'openai', sources: [source('https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference', 'top_logprobs')] }, sources: [source('https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference')] },
  can: { softTargets: true, filter: 'none', length: 'none' },
});

const streams = dialect({
  name: 'streams-unasked', model: 'gpt-4o', basePath: '/v1', rules: [],
  answer: { form: 'event-stream', usage: 'missing', logprobs: { shape: 'openai', sources: [source('https://platform.openai.com/docs/api-reference/chat-streaming')] }, sources: [source('https://github.com/decolua/9router/issues/3492'), source('https://platform.openai.com/docs/api-reference/chat-streaming')] },
  can: { softTargets: true, filter: 'none', length: 'none' },
});
const usageInPart = dialect({
  name: 'usage-in-part', model: 'gpt-4o', basePath: '/v1', rules: [],
  answer: { contentType: 'text/plain; charset=utf-8', usage: 'without-completion', logprobs: { shape: 'empty', sources: [source('https://github.com/stanford-crfm/helm/issues/2140')] }, sources: [source('https://github.com/modelscope/evalscope/issues/1432'), source('https://github.com/agentgateway/agentgateway/issues/1465')] },
  can: { softTargets: false, filter: 'none', length: 'none' },
});

const layer = source('https://platform.claude.com/docs/en/api/openai-sdk');
const ignored = source('https://docs.anthropic.com/ko/api/openai-sdk', 'response_format | 무시됨');
const anthropic = dialect({
  name: 'anthropic-layer', model: 'claude-opus-4-6', basePath: '/v1',
  rules: [refuses('prompt too long', { promptTokensAbove: CONTEXT_TOKENS }, 400, { error: { code: 'invalid_request_error', message: `prompt is too long: {{$promptTokens}} tokens > ${CONTEXT_TOKENS} maximum`, type: 'invalid_request_error', param: null } }, [source('https://github.com/stackblitz/bolt.new/issues/1748', 'prompt is too long: 202128 tokens > 200000 maximum')])],
  answer: { fencesJson: true, logprobs: { shape: 'absent', sources: [ignored] }, sources: [layer, ignored] },
  can: { softTargets: false, filter: 'none', length: 'rejected' },
});

const algorithm = (code: string, message: string, type: string): Json => ({ error: { code, message: `<400> InternalError.Algo.${message}`, param: null, type }, request_id: '81a373d6-28bd-9968-8335-e22a2127c41b' });
const dashscope = dialect({
  name: 'dashscope', model: 'qwen-plus', basePath: '/compatible-mode/v1', parameters: ['top_k', 'enable_thinking', 'thinking_budget', 'enable_search', 'repetition_penalty'],
  rules: [
    refuses('input length', { promptTokensAbove: CONTEXT_TOKENS }, 400, algorithm('invalid_parameter_error', `InvalidParameter: Range of input length should be [1, ${CONTEXT_TOKENS}]`, 'invalid_request_error'), [source('https://github.com/agentscope-ai/QwenPaw/issues/6255', '<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 983616]')]),
    refuses('inspection', { about: 'filter' }, 400, algorithm('data_inspection_failed', 'DataInspectionFailed: Input text data may contain inappropriate content.', 'data_inspection_failed'), [source('https://github.com/QwenLM/qwen-code/issues/3145', '<400> InternalError.Algo.DataInspectionFailed: Input text data may contain inappropriate content.')]),
  ],
  answer: { logprobs: { shape: 'openai', most: 5, sources: [source('https://help.aliyun.com/zh/model-studio/qwen-api-reference', 'top_logprobs')] }, sources: [source('https://help.aliyun.com/zh/model-studio/qwen-api-reference')] },
  can: { softTargets: true, filter: 'rejected', length: 'rejected' },
});

const usageEmpty = dialect({
  name: 'usage-empty', model: 'gpt-4o', basePath: '/v1', rules: [],
  answer: { usage: 'empty', logprobs: { shape: 'null', sources: [source('https://github.com/agentgateway/agentgateway/issues/1465')] }, finish: { stop: null, length: 'length' }, sources: [source('https://github.com/agentgateway/agentgateway/issues/1465')] },
  can: { softTargets: false, filter: 'none', length: 'none' },
});

export const others: readonly Dialect[] = [tgi, bedrock, together, fireworks, databricks, anthropic, dashscope, streams, usageInPart, usageEmpty];
