/** vLLM: before and after its errors got an envelope, without and with a reasoning parser, with templates that write the opening tag. */
import { dialect } from '../dialect.ts';
import type { Dialect, DialectInput, Json } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, REASONING_TOKENS, refuses, source } from './envelopes.ts';
import type { RuleInput } from './envelopes.ts';

const old = 'vllm@0.9.2:vllm/entrypoints/openai/protocol.py';
const current = 'vllm@0.33.0:vllm/entrypoints/serve/engine/protocol.py';
type Envelope = (message: string, type: string, code: number) => Json;
const flat: Envelope = (message, type, code) => ({ object: 'error', message, type, param: null, code });
const wrapped: Envelope = (message, type, code) => ({ error: { message, type, param: null, code } });

/** Parameters beside OpenAI's: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#extra-parameters */
const parameters = ['top_k', 'min_p', 'repetition_penalty', 'length_penalty', 'stop_token_ids', 'include_stop_str_in_output', 'ignore_eos', 'min_tokens', 'skip_special_tokens', 'truncate_prompt_tokens', 'prompt_logprobs', 'echo', 'add_generation_prompt', 'chat_template', 'chat_template_kwargs', 'guided_json', 'guided_choice', 'guided_regex', 'structured_outputs', 'priority', 'include_reasoning'];

function rules(envelope: Envelope, length: string, lengthSource: string, limit: string, limitSource: string, when: RuleInput['when']): RuleInput[] {
  return [
    refuses('context length', when, 400, envelope(length, 'BadRequestError', 400), [source(lengthSource)]),
    refuses('too many alternatives', { above: { path: 'top_logprobs', than: 20 } }, 400, envelope(limit, 'BadRequestError', 400), [source(limitSource, 'which is greater than max allowed')]),
  ];
}
const oldRules = rules(flat, `This model's maximum context length is ${CONTEXT_TOKENS} tokens. However, you requested {{$totalTokens}} tokens ({{$promptTokens}} in the messages, {{$maxTokens}} in the completion). Please reduce the length of the messages or completion.`, 'vllm@0.9.2:vllm/entrypoints/openai/serving_engine.py', 'Requested sample logprobs of {{top_logprobs}}, which is greater than max allowed: 20', 'vllm@0.9.2:vllm/v1/engine/processor.py', { totalTokensAbove: CONTEXT_TOKENS });
const newRules = rules(wrapped, `This model's maximum context length is ${CONTEXT_TOKENS} tokens. However, your prompt contains {{$promptTokens}} input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value={{$promptTokens}})`, 'vllm@0.33.0:vllm/renderers/params.py', 'Requested sample logprobs of {{top_logprobs}}, which is greater than max allowed: 20 (parameter=logprobs, value={{top_logprobs}})', 'vllm@0.33.0:vllm/sampling_params.py', { promptTokensAbove: CONTEXT_TOKENS });

const failures = (envelope: Envelope, version: string): DialectInput['failures'] => [
  failure('wrong key', 'unauthorized', 401, { error: 'Unauthorized' }, [source('vllm@0.33.0:vllm/entrypoints/serve/middleware/authenticate.py', '{"error": "Unauthorized"}')]),
  failure('unknown model', 'not-found', 404, envelope('The model `{{model}}` does not exist.', 'NotFoundError', 404), [source(version, 'The model `…` does not exist.')]),
];

const message = { refusal: null, annotations: null, audio: null, function_call: null };
/** Those of all output tokens, whatever a parser makes of them. */
const logprobs = { shape: 'openai', ofReasoning: true, sources: [source('vllm@0.33.0:vllm/entrypoints/openai/chat_completion/serving.py', '_create_chat_logprobs')] } as const;
const can = { softTargets: true, filter: 'none', length: 'rejected' } as const;
const withoutParser = [source('https://github.com/vllm-project/vllm/issues/13375'), source('https://docs.vllm.ai/en/latest/features/reasoning_outputs.html', '--reasoning-parser')];
const templateOpens = [source('https://github.com/deepseek-ai/DeepSeek-R1/issues/352'), source('https://huggingface.co/Qwen/Qwen3-4B-Thinking-2507')];
const choice = { stop_reason: null };

export const vllm: readonly Dialect[] = [
  dialect({
    name: 'vllm-0.9', model: 'meta-llama/Llama-3.1-8B-Instruct', basePath: '/v1', auth: 'bearer', parameters, rules: oldRules, failures: failures(flat, 'vllm@0.9.2:vllm/entrypoints/openai/serving_engine.py'),
    answer: { logprobs, usageExtra: { prompt_tokens_details: null }, top: { prompt_logprobs: null, kv_transfer_params: null }, message: { reasoning_content: null, tool_calls: [] }, choice, sources: [source(old)] }, can,
  }),
  dialect({
    name: 'vllm-think', model: 'deepseek-ai/DeepSeek-R1-Distill-Qwen-7B', basePath: '/v1', auth: 'bearer', parameters, rules: newRules, failures: failures(wrapped, 'vllm@0.33.0:vllm/entrypoints/serve/engine/serving.py'),
    answer: { reasoning: { place: 'think', tokens: REASONING_TOKENS, sources: withoutParser }, logprobs, usageExtra: { prompt_tokens_details: null }, message, choice, sources: [source(current)] }, can,
  }),
  dialect({
    name: 'vllm-think-unopened', model: 'Qwen/Qwen3-4B-Thinking-2507', basePath: '/v1', auth: 'bearer', parameters, rules: newRules, failures: failures(wrapped, 'vllm@0.33.0:vllm/entrypoints/serve/engine/serving.py'),
    answer: { reasoning: { place: 'think-without-opening', tokens: REASONING_TOKENS, sources: templateOpens }, logprobs, usageExtra: { prompt_tokens_details: null }, message, choice, sources: [source(current)] }, can,
  }),
  dialect({
    name: 'vllm-0.9-reasoning-parser', model: 'Qwen/Qwen3-8B', basePath: '/v1', auth: 'bearer', parameters, rules: oldRules, failures: failures(flat, 'vllm@0.9.2:vllm/entrypoints/openai/serving_engine.py'),
    answer: { reasoning: { place: 'reasoning_content', tokens: REASONING_TOKENS, sources: [source('https://docs.vllm.ai/en/v0.9.2/features/reasoning_outputs.html', 'reasoning_content')] }, logprobs, usageExtra: { prompt_tokens_details: null }, top: { prompt_logprobs: null }, choice, sources: [source(old)] }, can,
  }),
  dialect({
    name: 'vllm-reasoning-parser', model: 'Qwen/Qwen3-8B', basePath: '/v1', auth: 'bearer', parameters,
    rules: [
      refuses('second system message', { laterRole: 'system' }, 400, wrapped('System message must be at the beginning.', 'BadRequestError', 400), [source('https://github.com/vllm-project/vllm/issues/41114', 'System message must be at the beginning.')]),
      ...newRules,
    ],
    failures: failures(wrapped, 'vllm@0.33.0:vllm/entrypoints/serve/engine/serving.py'),
    answer: { reasoning: { place: 'reasoning', tokens: REASONING_TOKENS, sources: [source('vllm@0.33.0:vllm/entrypoints/openai/chat_completion/protocol.py', 'reasoning: str | None = None')] }, logprobs, usageExtra: { prompt_tokens_details: null }, message, choice, sources: [source(current)] }, can,
  }),
  dialect({
    name: 'vllm-gemma-2', model: 'google/gemma-2-9b-it', basePath: '/v1', auth: 'bearer', parameters,
    rules: [refuses('system message', { role: 'system' }, 400, wrapped('System role not supported', 'BadRequestError', 400), [source('https://github.com/vllm-project/vllm/issues/2964', 'System role not supported')]), ...newRules],
    failures: failures(wrapped, 'vllm@0.33.0:vllm/entrypoints/serve/engine/serving.py'),
    answer: { logprobs, usageExtra: { prompt_tokens_details: null }, message, choice, sources: [source(current)] }, can,
  }),
];
