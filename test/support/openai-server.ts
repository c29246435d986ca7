/** The proving ground for everything that talks to a provider: see test/support/openai/server.ts. */
export { logNormalLatency, TEST_KEY } from './openai/options.ts';
export type { ChatCall, Fault, KeyCounts, OpenAIServerCounts, OpenAIServerOptions, ScriptedAnswer } from './openai/options.ts';
export { OpenAIServer, startOpenAIServer } from './openai/server.ts';
