/** Our answers in turns (turns.ts): argv = a file of GenerationTask. Prompts are tokens; the calls are those of the model's process. */
import { readFileSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { readConfig } from '../../src/config.ts';
import { createEngine } from '../../src/lm/engine.ts';
import { generateFromTokens } from '../../src/lm/generation.ts';
import { loadModel } from '../../src/lm/load.ts';
import { PrefixCache, scoreTokens } from '../../src/lm/scoring.ts';
import type { GenerationTask, GenerationTurn } from './turns.ts';

const task = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as GenerationTask;
const { config, weights } = await loadModel({ path: task.modelPath, cache: readConfig().cache });
const engine = await createEngine({ config, weights, threads: task.threads });
/** No end token: every answer has the same length. */
const endless = { endIds: [], decode: () => '' };

async function answer(rows: readonly (readonly number[])[]): Promise<readonly (readonly number[])[]> {
  if (task.kind === 'greedy') {
    const whole = rows.map((row) => [...task.prefixIds, ...row]);
    return (await generateFromTokens(engine, endless, whole, { maxNewTokens: task.newTokens, temperature: 0 })).map(({ tokens }) => tokens);
  }
  // A new cache each turn: its prefix is part of the work.
  const cache = await new PrefixCache().get(engine, '', task.prefixIds);
  return scoreTokens(engine, cache, rows.map((prompt) => ({ prompt, labels: task.labelIds.map((id) => [id]) })));
}

for await (const line of createInterface({ input: process.stdin })) {
  const rows = task.turns[Number(line)] ?? [];
  const startedMs = performance.now();
  const answers = await answer(rows);
  const turn: GenerationTurn = { seconds: (performance.now() - startedMs) / 1_000, peakRssBytes: process.resourceUsage().maxRSS * 1_024, answers };
  writeSync(1, `${JSON.stringify(turn)}\n`);
}
