/** Ollama's /v1: today's, with log-probabilities, and the one of before, which dropped the wish for them. */
import { dialect } from '../dialect.ts';
import type { Dialect, Json } from '../dialect.ts';
import { failure, REASONING_TOKENS, source } from './envelopes.ts';

const code = (file: string, quote?: string) => source(`https://github.com/ollama/ollama/blob/fb30760996871fa9460115c753afd2c60d4ab0f7/${file}`, quote);
const error = (message: string, type: string): Json => ({ error: { message, type, param: null, code: null } });
const failures = [failure('unknown model', 'not-found', 404, error("model '{{model}}' not found", 'not_found_error'), [code('server/routes.go', "model '%s' not found"), code('openai/openai.go', 'not_found_error')])];
const top = { system_fingerprint: 'fp_ollama' };
/** A prompt that is too long is cut, and nothing is said. */
const can = { filter: 'none', length: 'none' } as const;
const answer = code('openai/openai.go', 'Reasoning  string     `json:"reasoning,omitempty"`');

export const ollama: readonly Dialect[] = [
  dialect({
    name: 'ollama', model: 'qwen3:8b', basePath: '/v1', auth: 'none', parameters: ['reasoning'], rules: [], failures,
    answer: { reasoning: { place: 'reasoning', tokens: REASONING_TOKENS, unless: { is: { path: 'reasoning_effort', values: ['none'] } }, sources: [answer] }, logprobs: { shape: 'openai', sources: [code('openai/openai.go', 'ChoiceLogprobs{Content: r.Logprobs}')] }, top, sources: [answer] },
    can: { ...can, softTargets: true },
  }),
  dialect({
    name: 'ollama-without-logprobs', model: 'llama3.1:8b', basePath: '/v1', auth: 'none', parameters: ['reasoning'], rules: [], failures,
    answer: { logprobs: { shape: 'absent', sources: [source('https://github.com/ollama/ollama/issues/16117', 'That layer currently silently drops the `logprobs` and `top_logprobs` request fields')] }, top, sources: [answer] },
    can: { ...can, softTargets: false },
  }),
];
