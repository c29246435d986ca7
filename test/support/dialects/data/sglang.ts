/** SGLang: the flat errors that vLLM had, in words of its own. */
import { dialect } from '../dialect.ts';
import type { Dialect, Json } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, REASONING_TOKENS, refuses, source } from './envelopes.ts';
import type { RuleInput } from './envelopes.ts';

const from = (file: string, quote?: string) => source(`sglang@0.5.23:sglang/srt/${file}`, quote);
const flat = (message: string, type = 'BadRequestError', code = 400): Json => ({ object: 'error', message, type, param: null, code });
const rules: readonly RuleInput[] = [
  refuses('input length', { promptTokensAbove: CONTEXT_TOKENS }, 400, flat(`The input ({{$promptTokens}} tokens) is longer than the model's context length (${CONTEXT_TOKENS} tokens).`), [from('managers/tokenizer_manager.py', "The input ({input_token_num} tokens) is longer than the model's context length ({self.context_len} tokens).")]),
  refuses('total length', { totalTokensAbove: CONTEXT_TOKENS }, 400, flat(`Requested token count exceeds the model's maximum context length of ${CONTEXT_TOKENS} tokens. You requested a total of {{$totalTokens}} tokens: {{$promptTokens}} tokens from the input messages and {{$maxTokens}} tokens for the completion. Please reduce the number of tokens in the input messages or the completion to fit within the limit.`), [from('managers/tokenizer_manager.py', "Requested token count exceeds the model's maximum context length")]),
];
const failures = [failure('wrong key', 'unauthorized', 401, { error: 'Unauthorized' }, [from('utils/auth.py', 'Unauthorized')])];
const parameters = ['top_k', 'min_p', 'min_tokens', 'regex', 'ebnf', 'repetition_penalty', 'stop_token_ids', 'no_stop_trim', 'ignore_eos', 'continue_final_message', 'skip_special_tokens', 'separate_reasoning', 'stream_reasoning', 'chat_template_kwargs', 'return_hidden_states', 'rid'];
const logprobs = { shape: 'openai' as const, ofReasoning: true, sources: [from('entrypoints/openai/serving_chat.py', '_process_response_logprobs')] };
const answer = [from('entrypoints/openai/protocol.py')];
const can = { softTargets: true, filter: 'none', length: 'rejected' } as const;
const choice = { matched_stop: null };

export const sglang: readonly Dialect[] = [
  dialect({ name: 'sglang', model: 'Qwen/Qwen2.5-7B-Instruct', basePath: '/v1', parameters, rules, failures, answer: { logprobs, usageExtra: { prompt_tokens_details: null, reasoning_tokens: 0 }, message: { reasoning_content: null, tool_calls: null }, choice, top: { metadata: { weight_version: 'default' } }, sources: answer }, can }),
  dialect({
    name: 'sglang-reasoning-parser', model: 'Qwen/Qwen3-8B', basePath: '/v1', parameters, rules, failures,
    answer: { reasoning: { place: 'reasoning_content', tokens: REASONING_TOKENS, sources: [from('entrypoints/openai/protocol.py', 'reasoning_content: Optional[str] = None')] }, logprobs, usageExtra: { prompt_tokens_details: null }, message: { tool_calls: null }, choice, sources: answer }, can,
  }),
];
