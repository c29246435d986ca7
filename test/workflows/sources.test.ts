/** Sources whose rounds need something first: a plan of attributes, or what a provider has stored. Real calls, scripted students. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { CampaignHistory } from '../../src/contracts/activities.ts';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import type { Sample } from '../../src/contracts/records.ts';
import type { CampaignState } from '../../src/contracts/state.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { getJson, getRows } from '../../src/store/jsonl.ts';
import { temporaryFolder } from '../support/folder.ts';
import { startOpenAIServer } from '../support/openai-server.ts';
import type { ChatCall, OpenAIServer, ScriptedAnswer } from '../support/openai-server.ts';
import { ScriptedActivities } from '../support/scripted-activities.ts';
import { Teaching } from '../support/teaching-campaign.ts';
import { useTemporal } from '../support/temporal.ts';

const sentence = (index: number): string => Array.from({ length: 5 }, (_, part) => createRandom(index * 10 + part, 'words')().toString(36).slice(2, 9)).join(' ');
const ATTRIBUTES = { attributes: [{ name: 'topic', values: ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'] }, { name: 'style', values: ['x', 'y'] }] };

function teacher(call: ChatCall, index: number): string | ScriptedAnswer {
  const schema = call.response_format?.json_schema?.name;
  if (schema === 'attributes') return JSON.stringify(ATTRIBUTES);
  if (schema === undefined || schema === 'label') return 'positive';
  const pairs = JSON.stringify({ pairs: [{ input: sentence(index), output: index % 2 === 0 ? 'positive' : 'negative' }] });
  // Every seventh answer is cut short the first time.
  return index % 7 === 3 && call.messages.at(-2)?.role !== 'assistant' ? { content: pairs, fault: 'truncated-json' } : pairs;
}

describe('sources that need something first', () => {
  const temporal = useTemporal();
  const folder = temporaryFolder();

  async function finished(name: string, server: OpenAIServer, change: (baseUrl: string) => Partial<CampaignSpecInput>): Promise<{ readonly state: CampaignState; readonly samples: readonly Sample[] }> {
    await using teaching = new Teaching({ folder: join(folder, name) });
    const input = await teaching.input(teaching.spec(name, server.baseUrl, change(server.baseUrl)));
    return await temporal.work(teaching.activities(new ScriptedActivities()), async () => {
      const state = await (await temporal.start(input)).result();
      const history = await getJson<CampaignHistory>(teaching.store, state.history as NonNullable<CampaignState['history']>);
      const last = history.rounds.at(-1) as CampaignHistory['rounds'][number];
      return { state, samples: await getRows<Sample>(teaching.store, last.dataset) };
    });
  }

  it('a description without attributes has them planned once, in the first round, and broken answers are mended within the batch', async () => {
    await using server = await startOpenAIServer({ answer: teacher });
    const { state, samples } = await finished('planned', server, (baseUrl) => ({
      teacher: { provider: 'openai', model: 'gpt-4o-mini', baseUrl, temperature: 1, maxTokens: 64 },
      sampling: { source: { kind: 'description', pairsPerCall: 1 }, rows: 12, rowsPerLaterRound: 6, batchSize: 6 },
      iterate: { maxRounds: 2, targetRetention: 2, minGain: 0 },
      budget: { usd: 1 },
    }));
    assert.equal(state.status, 'completed');
    assert.equal(server.received.filter((call) => call.response_format?.json_schema?.name === 'attributes').length, 1);
    const repairs = server.received.filter((call) => call.messages.at(-2)?.role === 'assistant').length;
    assert.ok(repairs >= 2, `${repairs}`);
    assert.equal(samples.length, state.round === 2 ? 18 : 12);
    assert.equal(state.spending.callsBought, server.counts.billedCalls);
    assert.equal(state.spending.usd, Math.round(server.counts.usd * 1e9) / 1e9);
  });

  it('stored completions are imported before the rows are split, and cost nothing', async () => {
    await using server = await startOpenAIServer({ answer: teacher });
    await finished('earlier', server, (baseUrl) => ({ teacher: { provider: 'openai', model: 'gpt-4o-mini', baseUrl, store: true } }));
    const before = server.counts.billedCalls;
    const { state, samples } = await finished('imported', server, () => ({
      sampling: { source: { kind: 'stored-completions', metadata: { campaign: 'earlier', round: '1' } }, rows: 40, batchSize: 8 },
    }));
    assert.equal(state.status, 'completed');
    assert.equal(samples.length, 40);
    assert.ok(samples.every(({ origin, output }) => origin.startsWith('stored completion ') && output === 'positive'));
    assert.equal(server.counts.billedCalls - before, 6 + 8, 'only the gold rows of development and test are asked');
  });
});
