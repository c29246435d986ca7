/** The OpenAI-compatible endpoint of Gemini: errors in a list, no field that it does not know, thoughts that are counted apart. */
import { dialect } from '../dialect.ts';
import type { Dialect, Json } from '../dialect.ts';
import { CONTEXT_TOKENS, failure, REASONING_TOKENS, refuses, source } from './envelopes.ts';

const error = (code: number, message: string, status: string, details: readonly Json[] = []): Json => [{ error: { code, message, status, ...(details.length === 0 ? {} : { details }) } }];
const unknownName = (name: string): Json => error(400, `Invalid JSON payload received. Unknown name "${name}": Cannot find field.`, 'INVALID_ARGUMENT', [{ '@type': 'type.googleapis.com/google.rpc.BadRequest', fieldViolations: [{ description: `Invalid JSON payload received. Unknown name "${name}": Cannot find field.` }] }]);
const strict = [source('https://github.com/Vali-98/ChatterUI/issues/227', 'Invalid JSON payload received. Unknown name \\"seed\\": Cannot find field.'), source('https://github.com/RUC-NLPIR/Arbor/issues/49', 'Unknown name "logprobs": Cannot find field.')];
const compatibility = source('https://ai.google.dev/gemini-api/docs/openai');
/** What its documentation shows or its users have had accepted; whatever else is there is an unknown name. */
const known = ['model', 'messages', 'temperature', 'max_tokens', 'max_completion_tokens', 'top_p', 'n', 'stop', 'stream', 'stream_options', 'tools', 'tool_choice', 'response_format', 'reasoning_effort', 'modalities', 'user', 'extra_body'];

export const gemini: readonly Dialect[] = [
  dialect({
    name: 'gemini', model: 'gemini-2.5-flash', basePath: '/v1beta/openai', auth: 'bearer', parameters: ['extra_body'],
    rules: [
      refuses('unknown name', { keyOutside: known }, 400, unknownName('{{$outsideKey}}'), strict),
      refuses('context length', { promptTokensAbove: CONTEXT_TOKENS }, 400, error(400, `The input token count ({{$promptTokens}}) exceeds the maximum number of tokens allowed (${CONTEXT_TOKENS}).`, 'INVALID_ARGUMENT'), [source('https://github.com/BerriAI/litellm/issues/18282', 'The input token count (2800010) exceeds the maximum number of tokens allowed (1048575).')]),
      { name: 'safety', when: { about: 'filter' }, alter: { finish: 'SAFETY', content: null }, sources: [source('https://github.com/HKUDS/Vibe-Trading/pull/308', 'SAFETY'), source('https://github.com/bespokelabsai/curator/issues/261', 'Gemini returns None messages when content_filter is the finish reason.')] },
    ],
    failures: [
      failure('wrong key', 'unauthorized', 400, error(400, 'API key not valid. Please pass a valid API key.', 'INVALID_ARGUMENT', [{ '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason: 'API_KEY_INVALID', domain: 'googleapis.com', metadata: { service: 'generativelanguage.googleapis.com' } }]), [source('https://github.com/continuedev/continue/issues/10290', 'API key not valid. Please pass a valid API key.')]),
    ],
    answer: {
      reasoning: { place: 'hidden', tokens: REASONING_TOKENS, inCompletionTokens: false, unless: { is: { path: 'reasoning_effort', values: ['none'] } }, sources: [source('https://ai.google.dev/gemini-api/docs/openai', 'reasoning_effort')] },
      logprobs: { shape: 'absent', sources: strict }, sources: [compatibility],
    },
    can: { softTargets: false, filter: 'answered', length: 'rejected' },
  }),
];
