/** A whole campaign whose provider is away for minutes: what it says, when it asks again, and that nothing is lost. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { writeRows } from './folder.ts';
import { startOpenAIServer, TEST_KEY } from './openai-server.ts';
import { Stack } from './stack.ts';
import { writeTinyLlama } from './tiny-llama.ts';

const ROWS = 120;
const HELD_OUT = 10;
const QUESTIONS = ROWS + 2 * HELD_OUT;
const LABELS = ['negative', 'positive'] as const;
const POLL_MS = 250;

export interface OutageSoakResult {
  readonly outageSeconds: number;
  /** From the start of the outage to the pause. */
  readonly pausedAfterSeconds: number;
  readonly pauseReason: string;
  /** How often it asked and found the provider away. */
  readonly probes: number;
  /** From the end of the outage to the campaign running again, and to the first answer. */
  readonly resumedAfterSeconds: number;
  readonly questions: number;
  readonly billedCalls: number;
  readonly boughtByTheBooks: number;
  readonly problems: readonly string[];
}

export async function soakOutage({ folder, minutes, say = () => undefined }: { readonly folder: string; readonly minutes: number; readonly say?: (line: string) => void }): Promise<OutageSoakResult> {
  await using server = await startOpenAIServer({ answer: (_call, index) => LABELS[index % 2] ?? '', latencyMs: 100 });
  await using stack = new Stack({ home: join(folder, 'home'), environment: { OPENAI_API_KEY: TEST_KEY } });
  const spec = specOf(folder, server.baseUrl);
  const state = async () => (await stack.campaign(spec.name))?.state;
  const until = async (what: string, limitMs: number, holds: () => Promise<boolean>): Promise<number> => {
    const startedMs = performance.now();
    while (!(await holds())) {
      if (performance.now() - startedMs > limitMs) throw new Error(`waited ${limitMs / 1_000} s for ${what}\n${stack.log()}`);
      await sleep(POLL_MS);
    }
    return Math.round((performance.now() - startedMs) / 100) / 10;
  };
  await stack.start();
  await stack.submit(spec);
  await until('the first answers', 120_000, async () => server.counts.billedCalls >= 20);
  const downMs = performance.now();
  await server.goDown();
  const pausedAfterSeconds = await until('a pause', 300_000, async () => (await state())?.pauseKind === 'provider');
  const pauseReason = (await state())?.pauseReason ?? '';
  say(`paused after ${pausedAfterSeconds} s: ${pauseReason}`);
  const asked = new Set<number>();
  await until('the end of the outage', minutes * 60_000 + 1_000, async () => {
    const at = (await state())?.resumesAtMs;
    if (at !== undefined && !asked.has(at)) say(`asks again at ${new Date(at).toISOString()}`);
    if (at !== undefined) asked.add(at);
    return performance.now() - downMs >= minutes * 60_000;
  });
  await server.listen();
  const upMs = performance.now();
  const before = server.counts.billedCalls;
  const resumedAfterSeconds = await until('the first answer after the outage', 60 * 60_000, async () => server.counts.billedCalls > before);
  const end = await stack.finished(spec.name, 600_000);
  const problems: string[] = [];
  const billed = server.counts.billedCalls;
  // Calls that were cut when the provider went away are answered by nobody; the server bills what it had begun.
  if (server.counts.billedByQuestion.size !== QUESTIONS) problems.push(`expected ${QUESTIONS} questions answered, got ${server.counts.billedByQuestion.size}`);
  if (end.state?.spending.callsBought !== QUESTIONS) problems.push(`expected ${QUESTIONS} calls in the books, got ${end.state?.spending.callsBought}`);
  return {
    outageSeconds: Math.round((upMs - downMs) / 1_000), pausedAfterSeconds, pauseReason, probes: Math.max(0, asked.size - 1), resumedAfterSeconds,
    questions: QUESTIONS, billedCalls: billed, boughtByTheBooks: end.state?.spending.callsBought ?? 0, problems,
  };
}

function specOf(folder: string, baseUrl: string): CampaignSpecInput {
  mkdirSync(folder, { recursive: true });
  const text = (index: number): string => ((index + 1) * 2_654_435_761).toString(36).repeat(2);
  const pool = writeRows(join(folder, 'pool.jsonl'), Array.from({ length: ROWS + 50 }, (_, index) => ({ input: text(index) })));
  const gold = writeRows(join(folder, 'gold.jsonl'), Array.from({ length: 2 * HELD_OUT + 10 }, (_, index) => ({ input: text(index + 100_000), gold: LABELS[index % 2] })));
  return {
    name: 'outage',
    task: { description: 'Tell good from bad.', instruction: 'Review: {input}\nSentiment:', output: { kind: 'label', labels: [...LABELS] } },
    teacher: { provider: 'openai', model: 'gpt-4o-mini', baseUrl, concurrency: 1, maxTokens: 4 },
    sampling: { source: { kind: 'inputs', dataset: pool }, rows: ROWS, batchSize: 10 },
    filter: { nearDuplicateSimilarity: 1 },
    student: { model: writeTinyLlama(join(folder, 'student')) },
    training: { epochs: 1, batchSize: 8, maxTokens: 256 },
    evaluation: { source: { kind: 'dataset', dataset: gold }, developmentRows: HELD_OUT, testRows: HELD_OUT, scorer: { kind: 'label' }, bootstrapResamples: 100 },
  };
}
