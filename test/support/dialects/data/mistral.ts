/** Mistral: pydantic's own words for what it does not know, and content in parts where a model thinks. */
import { dialect } from '../dialect.ts';
import type { Dialect, Json } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, REASONING_TOKENS, refuses, source } from './envelopes.ts';
import type { RuleInput } from './envelopes.ts';

const flat = (message: Json, { type = 'invalid_request_error', code = null }: { readonly type?: string; readonly code?: Json } = {}): Json => ({ object: 'error', message, type, param: null, code });
/** https://docs.mistral.ai/api/endpoint/chat: all of its body. */
const known = ['model', 'messages', 'temperature', 'top_p', 'max_tokens', 'stream', 'stop', 'random_seed', 'metadata', 'response_format', 'tools', 'tool_choice', 'presence_penalty', 'frequency_penalty', 'n', 'prediction', 'parallel_tool_calls', 'prompt_mode', 'safe_prompt', 'reasoning_effort'];
const documented = source('https://docs.mistral.ai/api/endpoint/chat');
const forbidden = source('https://github.com/editor-code-assistant/eca/issues/231', '{"type":"extra_forbidden","loc":["body","max_completion_tokens"],"msg":"Extra inputs are not permitted","input":32000}');
const extra: RuleInput = refuses('extra input', { keyOutside: known }, 422, flat({ detail: [{ type: 'extra_forbidden', loc: ['body', '{{$outsideKey}}'], msg: 'Extra inputs are not permitted', input: '{{$outsideValue}}' }] }), [forbidden, documented]);
const length = refuses('context length', { promptTokensAbove: CONTEXT_TOKENS }, 400, flat(`Prompt contains {{$promptTokens}} tokens, too large for model with ${CONTEXT_TOKENS} maximum context length`), [source('https://github.com/earendil-works/pi/blob/main/packages/ai/src/utils/overflow.ts', 'too large for model with')]);
const parameters = ['random_seed', 'prompt_mode', 'safe_prompt'];
const failures = [
  failure('wrong key', 'unauthorized', 401, { detail: 'Unauthorized' }, [source('https://github.com/agent0ai/agent-zero/issues/539', '{"detail":"Unauthorized"}')]),
  failure('wrong key, gateway', 'unauthorized', 401, { message: 'Unauthorized', request_id: '933f233947ff6d346065bb297e4a4d56' }, [source('https://github.com/coolcline/CoolCline/issues/36', '"message":"Unauthorized"')]),
  failure('rate limit', 'rate-limited', 429, { object: 'error', message: 'Rate limit exceeded', type: 'rate_limited', param: null, code: '1300', raw_status_code: 429 }, [source('https://github.com/raycast/extensions/issues/31107', 'Rate limit exceeded')]),
  failure('capacity', 'rate-limited', 429, flat('Service tier capacity exceeded for this model.'), [source('https://github.com/continuedev/continue/issues/6185', 'Service tier capacity exceeded for this model.')]),
] as const;
const noLogprobs = { shape: 'absent' as const, sources: [documented] };
const can = { softTargets: false, filter: 'none', length: 'rejected' } as const;

export const mistral: readonly Dialect[] = [
  dialect({ name: 'mistral', model: 'mistral-small-latest', basePath: '/v1', parameters, rules: [extra, length], failures, answer: { logprobs: noLogprobs, message: { tool_calls: null }, sources: [documented] }, can }),
  dialect({
    name: 'mistral-magistral', model: 'magistral-small-latest', basePath: '/v1', parameters, rules: [extra, length], failures,
    answer: { reasoning: { place: 'part', tokens: REASONING_TOKENS, sources: [source('https://github.com/langchain4j/langchain4j/pull/4474', '{"type": "thinking", "thinking": [{"type": "text", "text": "Let me reason..."}]}')] }, content: 'parts', logprobs: noLogprobs, message: { tool_calls: null }, sources: [documented] },
    can,
  }),
];
