/** All dialects, and the server that speaks them: see dialect.ts for what a dialect is. */
import type { Dialect } from './dialect.ts';
import { llamaCpp } from './data/llama-cpp.ts';
import { openai } from './data/openai.ts';
import { vllm } from './data/vllm.ts';

export const DIALECTS: readonly Dialect[] = [...openai, ...vllm, ...llamaCpp];
export { DIALECT_KEY, DIALECT_PRICE, DialectServer, startDialectServer } from './server.ts';
export type { DialectServerOptions, Say } from './server.ts';
export { SUBJECTS } from './dialect.ts';
export type { Dialect, Failure } from './dialect.ts';
