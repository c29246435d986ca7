/**
 * `npm run bench -- limits [--json] [--seconds N]`: two campaigns with one key against an enforced limit of
 * 6,000 requests a minute: how much of it they use, how often they are refused, how evenly they share.
 */
import { parseArgs } from 'node:util';
import type { EndpointSpec } from '../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../src/contracts/errors.ts';
import type { TeacherRequest } from '../src/contracts/records.ts';
import { createOpenAITeacher } from '../src/teacher/openai.ts';
import { startOpenAIServer, TEST_KEY } from '../test/support/openai-server.ts';

const REQUESTS_PER_MINUTE = 6_000;
/** The share of the minute over which the server enforces its limit: also the burst that it permits. */
const ENFORCED_OVER_MS = 1_000;

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false }, seconds: { type: 'string', default: '20' } } });
const seconds = Number(values.seconds);
await using server = await startOpenAIServer({ requestsPerMinute: REQUESTS_PER_MINUTE, enforcedOverMs: ENFORCED_OVER_MS, latencyMs: 50, answer: () => 'positive' });
const endpoint: EndpointSpec = { provider: 'openai', model: 'gpt-4o-mini', baseUrl: server.baseUrl, apiKeyEnv: 'TEST_KEY', temperature: 0, maxTokens: 16, concurrency: 32 };
const controller = new AbortController();

/** Answers that one campaign gets until the time is up: it always has more to ask. */
async function campaign(user: string): Promise<number> {
  const requests = Array.from({ length: Math.ceil((REQUESTS_PER_MINUTE / 60) * seconds * 2) }, (_, index): TeacherRequest => ({
    id: `${user}-${index}`, purpose: 'train', sampleIndex: 0, task: { kind: 'text', messages: [{ role: 'user', content: `${user} ${index}` }], parameters: { maxTokens: 16, temperature: 0 } },
  }));
  let answered = 0;
  await using teacher = createOpenAITeacher({ endpoint, readKey: () => TEST_KEY });
  try {
    await teacher.ask(requests, { user, signal: controller.signal, onAnswers: async (answers) => void (answered += answers.length) });
  } catch (error) {
    if (!(error instanceof StillhouseError) || error.code !== 'CANCELLED') throw error;
  }
  return answered;
}

const startedMs = performance.now();
let elapsedMs = 0;
setTimeout(() => {
  elapsedMs = performance.now() - startedMs;
  controller.abort();
}, seconds * 1_000);
const answered = await Promise.all([campaign('one'), campaign('two')]);
const permitted = (REQUESTS_PER_MINUTE / 60_000) * (elapsedMs + ENFORCED_OVER_MS);
const refused = server.counts.statuses.get('429') ?? 0;
const done = answered.reduce((sum, count) => sum + count, 0);
const document = {
  bench: 'limits', requestsPerMinute: REQUESTS_PER_MINUTE, seconds: elapsedMs / 1_000, answered, permitted: Math.round(permitted),
  usedShare: done / permitted, refusedShare: refused / server.counts.calls, difference: Math.abs((answered[0] ?? 0) - (answered[1] ?? 0)) / Math.max(...answered),
};
process.stdout.write(`${JSON.stringify(document, undefined, values.json ? 2 : 0)}\n`);
