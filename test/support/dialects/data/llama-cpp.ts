/** The server of llama.cpp. */
import { dialect } from '../dialect.ts';
import type { Dialect, Json } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, REASONING_TOKENS, refuses, source } from './envelopes.ts';

const from = (file: string, quote?: string) => source(`llama_cpp_python@0.3.36:vendor/llama.cpp/tools/server/${file}`, quote);
const error = (code: number, message: string, type: string, more: { readonly [key: string]: Json } = {}): Json => ({ error: { code, message, type, ...more } });
/** https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md: those of /completion are taken too. */
const parameters = ['top_k', 'min_p', 'typical_p', 'repeat_penalty', 'repeat_last_n', 'mirostat', 'mirostat_tau', 'mirostat_eta', 'grammar', 'json_schema', 'n_probs', 'n_predict', 'cache_prompt', 'id_slot', 'samplers', 'ignore_eos', 'chat_template_kwargs', 'reasoning_format', 'parse_tool_calls', 'timings_per_token', 'return_progress', 'dynatemp_range', 'dry_multiplier', 'xtc_probability'];
const timings = { cache_n: 0, prompt_n: '{{$promptTokens}}', prompt_ms: 30.9, prompt_per_second: 1161.6, predicted_n: '{{$completionTokens}}', predicted_ms: 661.1, predicted_per_second: 52.9 };

const server = (name: string, reasoning: boolean): Dialect => dialect({
  name, model: 'gpt-oss-20b-Q8_0.gguf', basePath: '/v1', auth: 'bearer', parameters,
  rules: [
    refuses('context length', { promptTokensAbove: CONTEXT_TOKENS }, 400, error(400, `request ({{$promptTokens}} tokens) exceeds the available context size (${CONTEXT_TOKENS} tokens), try increasing it`, 'exceed_context_size_error', { n_prompt_tokens: '{{$promptTokens}}', n_ctx: CONTEXT_TOKENS }), [from('server-context.cpp', 'request (%d tokens) exceeds the available context size (%d tokens), try increasing it'), from('server-common.cpp', 'exceed_context_size_error')]),
    refuses('alternatives alone', { has: 'top_logprobs', unless: { is: { path: 'logprobs', values: [true] } } }, 400, error(400, 'top_logprobs requires logprobs to be set to true', 'invalid_request_error'), [from('server-common.cpp', 'top_logprobs requires logprobs to be set to true')]),
    { name: 'model still loads', when: { about: 'outage' }, calls: 2, reply: { status: 503, body: error(503, 'Loading model', 'unavailable_error') }, sources: [from('README.md', '{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}')] },
  ],
  failures: [
    failure('wrong key', 'unauthorized', 401, { error: { message: 'Invalid API Key', type: 'authentication_error', code: 401 } }, [from('server-http.cpp', 'Invalid API Key')]),
    failure('still loading', 'unavailable', 503, error(503, 'Loading model', 'unavailable_error'), [from('README.md', 'Loading model')]),
  ],
  answer: {
    contentType: 'application/json; charset=utf-8',
    ...(reasoning ? { reasoning: { place: 'reasoning_content', tokens: REASONING_TOKENS, sources: [from('README.md', 'reasoning_content')] } } : {}),
    logprobs: { shape: 'openai', ofReasoning: true, sources: [from('server-task.cpp', 'top_logprobs')] },
    top: { system_fingerprint: 'b6000-llama', timings }, sources: [from('server-task.cpp')],
  },
  can: { softTargets: true, filter: 'none', length: 'rejected' },
});

export const llamaCpp: readonly Dialect[] = [server('llama.cpp', false), server('llama.cpp-reasoning', true)];
