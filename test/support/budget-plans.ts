/** Random campaigns for the soak of limits: their prices, limits and sizes, and the files that they read. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { addUsd } from '../../src/contracts/money.ts';
import type { Budget } from '../../src/contracts/state.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { writeRows } from './folder.ts';
import { writeTinyLlama } from './tiny-llama.ts';

const LABELS = ['negative', 'positive'] as const;
/** Calls of a batch in flight. */
export const CONCURRENCY = 2;
/** What is not answered by then was cut off, and is asked again. */
const TIMEOUT_SECONDS = 2;

export interface BudgetPlan {
  readonly name: string;
  readonly key: string;
  readonly keyName: string;
  readonly model: string;
  readonly price: { readonly input: number; readonly output: number };
  /** After so many billed calls it is cancelled. */
  readonly cancelAfter?: number;
  readonly spec: (baseUrl: string) => CampaignSpecInput;
}

export interface PlanOptions {
  readonly seed: number;
  /** The share of campaigns that are cancelled while they ask. Default: a tenth. */
  readonly cancelledShare?: number;
}

interface BudgetFiles {
  readonly pool: string;
  readonly gold: string;
  readonly student: string;
}

export function budgetPlan(index: number, { seed, cancelledShare = 0.1 }: PlanOptions, files: BudgetFiles): BudgetPlan {
  const random = createRandom(seed, `campaign ${index}`);
  const between = (low: number, high: number): number => low + Math.floor(random() * (high - low + 1));
  const name = `budget-${index}`;
  const price = { input: between(1, 50_000) / 1_000, output: between(1, 150_000) / 1_000 };
  const rows = between(8, 24);
  const rounds = random() < 0.25 ? 2 : 1;
  // About what a question and its answer cost; the limit is a share of the whole.
  const expectedUsd = ((rows * (1 + (rounds - 1) / 2) + 8) * (70 * price.input + 2 * price.output)) / 1e6;
  const budget: Budget = { usd: addUsd(expectedUsd * (0.1 + 0.6 * random())), ...(random() < 0.3 ? { tokens: between(1_000, 3_000) } : {}) };
  const model = `m-${index}`;
  const keyName = `SOAK_KEY_${index}`;
  const spec = (baseUrl: string): CampaignSpecInput => ({
    name,
    task: { description: `Tell good from bad, number ${index}.`, instruction: `Review ${index}: {input}\nSentiment:`, output: { kind: 'label', labels: [...LABELS] } },
    teacher: {
      provider: 'openai', model, baseUrl, apiKeyEnv: keyName, concurrency: CONCURRENCY, maxTokens: between(2, 12), timeoutSeconds: TIMEOUT_SECONDS,
      price: { inputUsdPerMillion: price.input, outputUsdPerMillion: price.output },
    },
    sampling: { source: { kind: 'inputs', dataset: files.pool }, rows, batchSize: between(2, 8) },
    filter: { nearDuplicateSimilarity: 1 },
    student: { model: files.student },
    training: { epochs: 1, batchSize: 8, maxTokens: 256 },
    evaluation: { source: { kind: 'dataset', dataset: files.gold }, developmentRows: 4, testRows: 4, scorer: { kind: 'label' }, bootstrapResamples: 100 },
    iterate: { maxRounds: rounds, minGain: 0, candidates: 40 },
    budget,
    seed: seed + index,
  });
  const cancelAfter = random() < cancelledShare ? between(1, rows) : undefined;
  return { name, ...(cancelAfter === undefined ? {} : { cancelAfter }), key: `sk-soak-${index}-0123456789`, keyName, model, price, spec };
}

const word = (random: () => number): string => Array.from({ length: 8 }, () => String.fromCharCode(97 + Math.floor(random() * 26))).join('');

export function budgetFiles(folder: string, seed: number): BudgetFiles {
  mkdirSync(folder, { recursive: true });
  const random = createRandom(seed, 'rows');
  const pool = writeRows(join(folder, 'pool.jsonl'), Array.from({ length: 80 }, () => ({ input: `${word(random)} ${word(random)} ${word(random)}` })));
  const gold = writeRows(join(folder, 'gold.jsonl'), Array.from({ length: 12 }, (_, index) => ({ input: `${word(random)} ${word(random)}`, gold: LABELS[index % 2] })));
  return { pool, gold, student: writeTinyLlama(join(folder, 'student')) };
}
