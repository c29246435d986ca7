/**
 * A tournament of four methods as a campaign through REST, twice on one stack: undisturbed, and with SIGKILL of the
 * workers, of a training process and of the Temporal server. The teacher's words are scripted, the models are tiny; everything else is real.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import type { CampaignState, ContestantState } from '../../src/contracts/state.ts';
import { temporaryFolder, writeRows } from '../support/folder.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';
import type { ChatCall } from '../support/openai-server.ts';
import { killHard } from '../support/processes.ts';
import { Stack } from '../support/stack.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const CAMPAIGN_TIMEOUT_MS = 300_000;
const OPINIONS = { a: ['good', 'great', 'fine', 'sweet', 'warm', 'lovely'], b: ['bad', 'poor', 'weak', 'sour', 'cold', 'awful'] } as const;
const THINGS = ['plot', 'film', 'song', 'phone', 'dish', 'room', 'book', 'game', 'walk', 'show', 'idea', 'joke'];

/** Every thing with every opinion, in an order that mixes both labels. */
const ROWS = THINGS.flatMap((thing) => [0, 1, 2, 3, 4, 5].flatMap((index) => (['a', 'b'] as const).map((gold) => ({ input: `a ${OPINIONS[gold][index]} ${thing}`, gold }))));

function teacher({ messages }: ChatCall): string {
  const asked = messages.at(-1)?.content ?? '';
  const word = OPINIONS.a.find((each) => asked.includes(` ${each} `)) ?? OPINIONS.b.find((each) => asked.includes(` ${each} `)) ?? 'no';
  const label = (OPINIONS.a as readonly string[]).includes(word) ? 'a' : 'b';
  return JSON.stringify({ rationale: `${word} is ${label}`, answer: label });
}

describe('a tournament of four methods', () => {
  const folder = temporaryFolder();

  function spec(name: string, baseUrl: string): CampaignSpecInput {
    const [student, learnedFrom] = [writeTinyLlama(join(folder, 'student')), writeTinyLlama(join(folder, 'teacher'), 8)];
    return {
      name,
      task: { description: 'Tell praise (a) from blame (b).', instruction: '{input}', output: { kind: 'label', labels: ['a', 'b'] } },
      teacher: { provider: 'openai', model: 'gpt-4o-mini', baseUrl, maxTokens: 64 },
      sampling: { source: { kind: 'inputs', dataset: writeRows(join(folder, 'pool.jsonl'), ROWS.slice(0, 96).map(({ input }) => ({ input }))) }, rows: 80, batchSize: 40, rationale: true },
      filter: { nearDuplicateSimilarity: 1 },
      student: { model: student },
      training: { tune: 'full', epochs: 3, batchSize: 8, learningRate: 5e-3, checkpointEverySteps: 2 },
      tournament: {
        contestants: [
          { name: 'sft' },
          { name: 'step-by-step', training: { method: 'step-by-step' } },
          { name: 'logit', training: { method: 'logit', teacher: { model: learnedFrom } } },
          { name: 'feature', training: { method: 'feature', teacher: { model: learnedFrom }, epochs: 2 }, student: { keepLayers: 1 } },
        ],
      },
      evaluation: { source: { kind: 'dataset', dataset: writeRows(join(folder, 'gold.jsonl'), ROWS.slice(96)) }, developmentRows: 24, testRows: 24, scorer: { kind: 'label' }, bootstrapResamples: 200 },
      iterate: { maxRounds: 1 },
      budget: { usd: 1, hours: 1 },
    };
  }

  it('ends the same after kill -9 of the workers, of a training process and of Temporal, with a report that names the winner and why', async (context) => {
    await using server = await startOpenAIServer({ answer: teacher });
    await using stack = new Stack({ home: join(folder, 'home'), environment: { OPENAI_API_KEY: TEST_KEY } });
    const find = (what: RegExp): number[] => stack.processes().filter(({ command }) => what.test(command)).map(({ pid }) => pid);
    const training = async (): Promise<void> => {
      for (const deadline = Date.now() + 60_000; find(/training\/process/).length === 0; await sleep(20)) assert.ok(Date.now() < deadline, 'expected a training process within a minute, got none');
    };
    const kill = (what: RegExp): void => {
      const killed = find(what).filter((pid) => killHard(pid));
      assert.ok(killed.length > 0, `expected a process like ${what}, got ${stack.processes().map(({ command }) => command).join('\n')}`);
    };
    const trained = (name: string, epochs: number) =>
      stack.watch(name, CAMPAIGN_TIMEOUT_MS, ({ state }) => (state?.tournament?.contestants.reduce((sum, each) => sum + each.trained, 0) ?? 0) >= epochs);
    const ended = async (name: string): Promise<CampaignState> => (await stack.finished(name, CAMPAIGN_TIMEOUT_MS)).state as CampaignState;
    await stack.start();
    let at = performance.now();
    const took = (what: string): void => {
      context.diagnostic(`${what}: ${((performance.now() - at) / 1_000).toFixed(1)} s`);
      at = performance.now();
    };
    await stack.submit(spec('calm', server.baseUrl));
    const calm = await ended('calm');
    took('undisturbed');

    await stack.submit(spec('killed', server.baseUrl));
    await training();
    kill(/worker\/main/);
    took('killed the workers');
    await trained('killed', 2);
    await training();
    kill(/training\/process/);
    took('killed a training process');
    await trained('killed', 4);
    kill(/temporal.* server start-dev/);
    took('killed the Temporal server');
    const killed = await ended('killed');
    took('ended');

    const outcome = ({ tournament }: CampaignState) =>
      tournament?.contestants.map(({ name, status, trained: epochs, measured, best, ended: end }: ContestantState) => ({ name, status, epochs, measured, checkpoint: best?.checkpoint.sha256, evaluation: best?.evaluation.sha256, end }));
    // Scores, and every contestant's best student: the bytes of its checkpoint.
    assert.deepEqual(outcome(killed), outcome(calm));
    const contestants = killed.tournament?.contestants ?? [];
    const winner = contestants.find(({ status }) => status === 'winner') as ContestantState;
    assert.equal(contestants.filter(({ status }) => status === 'stopped').length, 3);
    assert.ok(contestants.reduce((sum, each) => sum + each.trained, 0) <= 7, 'losers are stopped early');
    assert.ok(contestants.every(({ best }) => (best?.score.mean ?? 2) <= (winner.best?.score.mean ?? -1)));
    const { text: report } = await stack.artifact('killed', 'report');
    assert.ok(report.includes(`<b>${winner.name}</b>`) && report.includes(`won: ${winner.ended?.reason}`), `expected the winner and why on the page, got ${winner.name}: ${winner.ended?.reason}`);
    for (const { name, ended: end } of contestants) assert.ok(end !== undefined && report.includes(end.reason), `expected why ${name} ended on the page, got none`);
    assert.equal(killed.test?.rows, 24);
    for (const { name, status, best, trained: epochs, ended: end } of contestants) context.diagnostic(`${name}: ${status} after ${epochs} epochs, ${best?.score.mean} after ${best?.epoch}; ${end?.reason}`);
    context.diagnostic(`test: student ${killed.test?.studentScore}, untuned ${killed.test?.untunedScore}`);
  });
});
