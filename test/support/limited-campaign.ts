/** A process with campaigns that always have more to ask, until its time is up; tells its parent how many answers each got. */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { EndpointSpec } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { TeacherRequest } from '../../src/contracts/records.ts';
import { createOpenAITeacher } from '../../src/teacher/openai.ts';
import { createSharedLimits } from '../../src/teacher/shared-limits.ts';
import type { SharedLimits } from '../../src/teacher/shared-limits.ts';
import { TEST_KEY } from './openai-server.ts';

export interface LimitedOrder {
  readonly baseUrl: string;
  readonly limitsPath: string;
  readonly campaigns: readonly string[];
  readonly concurrency: number;
}

/** Runs the orders in a process each, all from the moment at which the last is ready; answers of every campaign, in order. */
export async function runLimited(orders: readonly LimitedOrder[], forMs: number): Promise<readonly number[]> {
  const children = orders.map((order) => fork(fileURLToPath(import.meta.url), [JSON.stringify(order)]));
  try {
    await Promise.all(children.map(nextMessage));
    const results = await Promise.all(children.map((child) => {
      child.send(forMs);
      return nextMessage(child) as Promise<readonly number[]>;
    }));
    return results.flat();
  } finally {
    for (const child of children) child.kill();
  }
}

/** Rejects when the process ends before it says something. */
async function nextMessage(child: ChildProcess): Promise<unknown> {
  const ended = new AbortController();
  try {
    return await Promise.race([
      once(child, 'message', { signal: ended.signal }).then(([message]) => message as unknown),
      once(child, 'exit', { signal: ended.signal }).then(([code]) => Promise.reject(new Error(`expected a message of a limited process, got its end with ${code}`))),
    ]);
  } finally {
    ended.abort();
  }
}

/** Answers that one campaign gets until the signal. */
async function campaign({ baseUrl, concurrency }: LimitedOrder, user: string, limits: SharedLimits, signal: AbortSignal): Promise<number> {
  const endpoint = { provider: 'openai', model: 'gpt-4o-mini', baseUrl, apiKeyEnv: 'TEST_KEY', temperature: 0, maxTokens: 16, concurrency } as EndpointSpec;
  const requests = Array.from({ length: 50_000 }, (_, index): TeacherRequest => ({
    id: `${user}-${index}`, purpose: 'train', sampleIndex: 0, task: { kind: 'text', messages: [{ role: 'user', content: `${user} ${index}` }], parameters: { maxTokens: 16, temperature: 0 } },
  }));
  let answered = 0;
  await using teacher = createOpenAITeacher({ endpoint, readKey: () => TEST_KEY, limits });
  try {
    await teacher.ask(requests, { user, signal, onAnswers: async (answers) => void (answered += answers.length) });
  } catch (error) {
    if (!(error instanceof StillhouseError) || error.code !== 'CANCELLED') throw error;
  }
  return answered;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const order = JSON.parse(process.argv[2] ?? '') as LimitedOrder;
  using limits = createSharedLimits(order.limitsPath);
  process.send?.('ready');
  const [forMs] = (await once(process, 'message')) as [number];
  const signal = AbortSignal.timeout(forMs);
  const answered = await Promise.all(order.campaigns.map((user) => campaign(order, user, limits, signal)));
  process.send?.(answered);
  process.disconnect();
}
