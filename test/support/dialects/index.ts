/** All dialects, and the server that speaks them: see dialect.ts for what a dialect is. */
import type { Dialect } from './dialect.ts';
import { azure } from './data/azure.ts';
import { deepseek } from './data/deepseek.ts';
import { gemini } from './data/gemini.ts';
import { groq } from './data/groq.ts';
import { litellm } from './data/litellm.ts';
import { llamaCpp } from './data/llama-cpp.ts';
import { mistral } from './data/mistral.ts';
import { ollama } from './data/ollama.ts';
import { openai } from './data/openai.ts';
import { openrouter } from './data/openrouter.ts';
import { others } from './data/others.ts';
import { sglang } from './data/sglang.ts';
import { vllm } from './data/vllm.ts';
import { xai } from './data/xai.ts';

export const DIALECTS: readonly Dialect[] = [...openai, ...azure, ...vllm, ...sglang, ...ollama, ...llamaCpp, ...gemini, ...mistral, ...deepseek, ...xai, ...groq, ...openrouter, ...litellm, ...others];
export { FAILURES } from './data/failures.ts';
export { DIALECT_KEY, DIALECT_PRICE, DialectServer, startDialectServer } from './server.ts';
export type { DialectServerOptions, Say } from './server.ts';
export { SUBJECTS } from './dialect.ts';
export type { Dialect, Failure } from './dialect.ts';
