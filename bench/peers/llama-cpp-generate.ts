/** llama.cpp's greedy answers in turns (turns.ts), a prompt at a time: argv = a file of GenerationTask. */
import { readFileSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { llamaCpp } from './llama-cpp.ts';
import type { GenerationTask, GenerationTurn } from './turns.ts';

const CONTEXT_TOKENS = 1_024;
const task = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as GenerationTask;
const { getLlama } = await llamaCpp((line) => process.stderr.write(`${line}\n`));
const llama = await getLlama({ gpu: false, build: 'never', maxThreads: task.threads, logLevel: 'error' });
const model = await llama.loadModel({ modelPath: task.modelPath });
const context = await model.createContext({ contextSize: CONTEXT_TOKENS, threads: task.threads });
const sequence = context.getSequence();

async function greedy(ids: readonly number[]): Promise<readonly number[]> {
  await sequence.clearHistory();
  const tokens: number[] = [];
  for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
    tokens.push(token);
    if (tokens.length >= task.newTokens) break;
  }
  return tokens;
}

for await (const line of createInterface({ input: process.stdin })) {
  const rows = task.turns[Number(line)] ?? [];
  const startedMs = performance.now();
  const answers: (readonly number[])[] = [];
  for (const row of rows) answers.push(await greedy([...task.prefixIds, ...row]));
  const turn: GenerationTurn = { seconds: (performance.now() - startedMs) / 1_000, peakRssBytes: process.resourceUsage().maxRSS * 1_024, answers };
  writeSync(1, `${JSON.stringify(turn)}\n`);
}
// The runtime's threads would keep the process.
process.exit(0);
