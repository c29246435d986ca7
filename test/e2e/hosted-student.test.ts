/** A campaign whose teacher and student both live at a provider, through REST, with every process killed while the provider trains. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { FolderManifest } from '../../src/contracts/artifacts.ts';
import { temporaryFolder, writeRows } from '../support/folder.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';
import { Stack } from '../support/stack.ts';
import { until } from '../support/until.ts';

const LABELS = ['even', 'odd'] as const;
const PATIENCE_MS = 120_000;
const numberIn = (text: string): number => Number(/(\d+)/.exec(text)?.[1]);
const labelOf = (number: number): string => LABELS[number % 2] ?? '';

describe('a student at its provider', () => {
  it('is trained once though everything is killed while it is, and answers the test rows', async (context) => {
    const folder = temporaryFolder();
    const pool = writeRows(join(folder, 'pool.jsonl'), Array.from({ length: 24 }, (_, index) => ({ input: `${1_000 + index * 37}` })));
    const gold = writeRows(join(folder, 'gold.jsonl'), Array.from({ length: 20 }, (_, index) => ({ input: `${5_000 + index * 13}`, gold: labelOf(5_000 + index * 13) })));
    await using server = await startOpenAIServer({
      fineTuning: { runningMs: 20_000 },
      // The untuned student knows one word only.
      answer: ({ model, messages }) => (model.startsWith('ft:') || messages[0]?.role === 'system' ? labelOf(numberIn(messages.at(-1)?.content ?? '')) : 'even'),
    });
    await using stack = new Stack({ home: join(folder, 'home'), environment: { OPENAI_API_KEY: TEST_KEY } });
    const name = 'parity';
    await stack.start();
    await stack.submit({
      name,
      task: { description: 'Is a number even or odd?', instruction: '{input}', output: { kind: 'label', labels: [...LABELS] } },
      teacher: { provider: 'openai', model: 'gpt-4o', baseUrl: server.baseUrl },
      student: { provider: 'openai', model: 'gpt-4o-mini', baseUrl: server.baseUrl, price: { trainingUsdPerMillion: 3, inputUsdPerMillion: 0.15, outputUsdPerMillion: 0.6 } },
      sampling: { source: { kind: 'inputs', dataset: pool }, rows: 24 },
      filter: { nearDuplicateSimilarity: 1 },
      training: { epochs: 2 },
      evaluation: { source: { kind: 'dataset', dataset: gold }, developmentRows: 8, testRows: 12, scorer: { kind: 'label' } },
      budget: { usd: 1 },
    });
    const [job] = await until(() => server.fineTuning.all, ([first]) => first?.status === 'running', { limitMs: PATIENCE_MS, everyMs: 20 });
    assert.ok(job !== undefined);
    await stack.killEverything();
    server.fineTuning.finish(job.id);
    await stack.start();
    const { state, rounds } = await stack.finished(name, PATIENCE_MS);
    assert.equal(server.fineTuning.all.length, 1);
    assert.deepEqual([state?.test?.studentScore, state?.test?.untunedScore], [1, 0.5]);
    assert.equal(state?.spending.usd, Math.round(server.counts.usd * 1e9) / 1e9);
    const exported = JSON.parse((await stack.artifact(name, 'adapter')).text) as FolderManifest;
    assert.deepEqual(exported.files.map(({ path }) => path).sort(), ['README.md', 'hosted-model.json']);
    const checkpoint = JSON.parse((await stack.artifact(name, 'checkpoint')).text) as { readonly model: string };
    assert.equal(checkpoint.model, server.fineTuning.all[0]?.fine_tuned_model);
    context.diagnostic(`${rounds.length} round, ${state?.spending.callsBought} calls with the job, $${state?.spending.usd}`);
  });
});
