/** OpenAI's own API: a model that writes at once, models that reason before, and models that do so on request. */
import { dialect } from '../dialect.ts';
import type { Dialect } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, openaiError, REASONING_TOKENS, refuses, refusesParameters, source } from './envelopes.ts';
import type { FailureInput, RuleInput } from './envelopes.ts';

const reference = source('https://platform.openai.com/docs/api-reference/chat/object');
const unsupported = (name: string) => openaiError(`Unsupported parameter: '${name}' is not supported with this model.`, { param: name, code: 'unsupported_parameter' });

export const openaiRules: readonly RuleInput[] = [
  refuses('context length', { promptTokensAbove: CONTEXT_TOKENS }, 400, openaiError(`This model's maximum context length is ${CONTEXT_TOKENS} tokens. However, your messages resulted in {{$promptTokens}} tokens. Please reduce the length of the messages.`, { param: 'messages', code: 'context_length_exceeded' }), [
    source('https://github.com/chathub-dev/chathub/issues/126', 'This model\'s maximum context length is 4097 tokens. However, your messages resulted in 4294 tokens. Please reduce the length of the messages.'),
  ]),
  refuses('json_object without the word', { is: { path: 'response_format.type', values: ['json_object'] }, wordMissing: 'json' }, 400, openaiError("'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.", { param: 'messages' }), [
    source('https://github.com/ultimatejimmy/xray.koplugin/issues/33', "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."),
  ]),
  refuses('metadata without store', { has: 'metadata', unless: { is: { path: 'store', values: [true] } } }, 400, openaiError("The 'metadata' parameter is only allowed when 'store' is enabled.", { param: 'metadata' }), [
    source('https://github.com/QwenLM/qwen-code/issues/243', "The 'metadata' parameter is only allowed when 'store' is enabled."),
  ]),
];

export const openaiFailures: readonly FailureInput[] = [
  failure('wrong key', 'unauthorized', 401, openaiError('Incorrect API key provided: {{$key}}. You can find your API key at https://platform.openai.com/account/api-keys.', { code: 'invalid_api_key' }), [source('https://github.com/chatanywhere/GPT_API_free/issues/427', 'Incorrect API key provided')]),
  failure('unknown model', 'not-found', 404, openaiError('The model `{{model}}` does not exist or you do not have access to it.', { code: 'model_not_found' }), [source('https://github.com/jianchang512/pyvideotrans/issues/499', 'The model `gpt-4o` does not exist or you do not have access to it.')]),
];

const filterAnswered: RuleInput = { name: 'refusal', when: { about: 'filter' }, alter: { content: '', message: { content: null, refusal: "I'm sorry, but I can't assist with that request." } }, sources: [source('https://platform.openai.com/docs/guides/structured-outputs#refusals', 'refusal')] };
const reasoningFilter = refuses('flagged prompt', { about: 'filter' }, 400, openaiError('Invalid prompt: your prompt was flagged as potentially violating our usage policy. Please try again with a different prompt: https://platform.openai.com/docs/guides/reasoning#advice-on-prompting', { code: 'invalid_prompt' }), [
  source('https://github.com/alan-turing-institute/t0-1/issues/69', 'Invalid prompt: your prompt was flagged as potentially violating our usage policy.'),
]);

const usageExtra = { prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 } } as const;
const common = { basePath: '/v1', auth: 'bearer', failures: [...openaiFailures] } as const;
const top = { service_tier: 'default', system_fingerprint: 'fp_44709d6fcb' } as const;

const gpt4o = dialect({
  ...common,
  name: 'openai-gpt-4o',
  model: 'gpt-4o',
  rules: [
    ...openaiRules,
    filterAnswered,
  ],
  answer: {
    logprobs: { shape: 'openai', sources: [reference] }, usageExtra: { ...usageExtra, completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0, accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 } },
    model: 'gpt-4o-2024-08-06', top, message: { refusal: null, annotations: [] }, sources: [reference],
  },
  can: { softTargets: true, filter: 'answered', length: 'rejected' },
});

const takesOneTemperature = refuses('temperature', { isNot: { path: 'temperature', values: [1] } }, 400, openaiError("Unsupported value: 'temperature' does not support {{temperature}} with this model. Only the default (1) value is supported.", { param: 'temperature', code: 'unsupported_value' }), [
  source('https://github.com/owndev/Open-WebUI-Functions/issues/98', "Unsupported value: 'temperature' does not support 0.01 with this model. Only the default (1) value is supported."),
]);
const takesNoMaxTokens = refuses('max_tokens', { has: 'max_tokens' }, 400, openaiError("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", { param: 'max_tokens', code: 'unsupported_parameter' }), [
  source('https://github.com/fish2018/YPrompt/issues/26', "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."),
]);
const takesNoStop = refusesParameters(['stop'], 400, unsupported, [source('https://github.com/huggingface/smolagents/issues/1671', "Unsupported parameter: 'stop' is not supported with this model.")]);
const noSampling = [source('https://github.com/sashabaranov/go-openai/pull/1061', "Unsupported parameter: 'logprobs' is not supported with this model."), source('https://community.openai.com/t/gpt-5-removed-parameters-logprob-top-p-temperature/1345768')];
const reasoningSource = [source('https://platform.openai.com/docs/guides/reasoning'), source('https://github.com/langchain-ai/langchain/issues/32477')];

const gpt5 = dialect({
  ...common,
  name: 'openai-gpt-5',
  model: 'gpt-5-mini',
  rules: [
    takesNoMaxTokens, takesOneTemperature, ...takesNoStop,
    ...refusesParameters(['logprobs', 'top_logprobs', 'top_p', 'presence_penalty', 'frequency_penalty'], 400, unsupported, noSampling),
    ...openaiRules, reasoningFilter,
  ],
  answer: {
    reasoning: { place: 'hidden', tokens: REASONING_TOKENS, counted: true, sources: reasoningSource },
    logprobs: { shape: 'absent', sources: noSampling }, usageExtra, model: 'gpt-5-mini-2025-08-07', top, message: { refusal: null, annotations: [] }, sources: [reference],
  },
  can: { softTargets: false, filter: 'rejected', length: 'rejected' },
});

/** Models that can be told not to reason: only then do they take what other models take. */
const withoutEffort = { is: { path: 'reasoning_effort', values: ['none'] } };
const compatibility = [
  source('https://github.com/tmc/langchaingo/issues/1497', 'https://developers.openai.com/api/docs/guides/latest-model#gpt-54-parameter-compatibility'),
  source('https://github.com/langgenius/dify-official-plugins/pull/2821', 'temperature, top_p, and logprobs are only supported when reasoning_effort is set to "none"'),
];
const priceMap = (quote: string) => source('litellm@1.110.2:litellm/model_prices_and_context_window_backup.json', quote);

interface Optional {
  readonly name: string;
  readonly model: string;
  readonly snapshot: string;
  /** How a request says that the model is to reason. */
  readonly reasons: { readonly sampling: RuleInput['when']; readonly temperature: RuleInput['when']; readonly not: RuleInput['when'] };
  readonly sources: RuleInput['sources'];
  readonly softTargets: boolean;
}
const optional = ({ name, model, snapshot, reasons, sources, softTargets }: Optional): Dialect => dialect({
  ...common,
  name,
  model,
  rules: [
    takesNoMaxTokens,
    { ...takesOneTemperature, when: { ...takesOneTemperature.when, ...reasons.temperature }, sources },
    ...takesNoStop,
    ...refusesParameters(['logprobs', 'top_logprobs', 'top_p'], 400, unsupported, sources, reasons.sampling),
    ...openaiRules, reasoningFilter,
  ],
  answer: {
    reasoning: { place: 'hidden', tokens: REASONING_TOKENS, counted: true, unless: reasons.not, sources: reasoningSource },
    logprobs: { shape: 'openai', sources }, usageExtra, model: snapshot, top, message: { refusal: null, annotations: [] }, sources: [reference],
  },
  can: { softTargets, filter: 'rejected', length: 'rejected' },
});
const effortGiven = { isNot: { path: 'reasoning_effort', values: ['none'] } };

export const openai: readonly Dialect[] = [
  gpt4o, gpt5,
  optional({ name: 'openai-gpt-5.4', model: 'gpt-5.4', snapshot: 'gpt-5.4-2026-03-05', reasons: { sampling: effortGiven, temperature: { has: 'reasoning_effort', unless: withoutEffort }, not: { unless: effortGiven } }, sources: [...compatibility, priceMap('"default_reasoning_effort": "none"')], softTargets: true }),
  optional({ name: 'openai-gpt-5.6', model: 'gpt-5.6', snapshot: 'gpt-5.6', reasons: { sampling: { unless: withoutEffort }, temperature: { unless: withoutEffort }, not: withoutEffort }, sources: [source('https://github.com/itzcrazykns/vane/issues/1173', 'GPT 5.6 models require temperature to be set to 1'), priceMap('"supports_none_reasoning_effort": true')], softTargets: false }),
];
