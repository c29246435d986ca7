/** The first question of each kind, asked before all others. Real calls over a socket, a scripted student. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { resumeUpdate, stateQuery } from '../../src/contracts/messages.ts';
import type { CampaignState } from '../../src/contracts/state.ts';
import { temporaryFolder } from '../support/folder.ts';
import { startOpenAIServer } from '../support/openai-server.ts';
import type { ChatCall, OpenAIServer, OpenAIServerOptions } from '../support/openai-server.ts';
import { ScriptedActivities } from '../support/scripted-activities.ts';
import { Teaching } from '../support/teaching-campaign.ts';
import { useTemporal } from '../support/temporal.ts';

describe('first questions', () => {
  const temporal = useTemporal();
  const folder = temporaryFolder();

  async function withCampaign<T>(name: string, options: OpenAIServerOptions, change: (baseUrl: string) => Partial<CampaignSpecInput>, use: (server: OpenAIServer, state: () => Promise<CampaignState>, resume: () => Promise<CampaignState>) => Promise<T>): Promise<T> {
    await using server = await startOpenAIServer(options);
    await using teaching = new Teaching({ folder: join(folder, name) });
    const input = await teaching.input(teaching.spec(name, server.baseUrl, change(server.baseUrl)));
    return await temporal.work(teaching.activities(new ScriptedActivities()), async () => {
      const handle = await temporal.start(input);
      return await use(server, () => handle.query(stateQuery), () => handle.executeUpdate(resumeUpdate));
    });
  }
  const until = async (state: () => Promise<CampaignState>, wanted: (state: CampaignState) => boolean): Promise<CampaignState> => {
    for (let waits = 0; ; waits += 1) {
      const now = await state();
      if (wanted(now)) return now;
      assert.ok(waits < 200, `expected the campaign to get there, got ${now.status}, ${now.stage}: ${now.pauseReason ?? ''}`);
      await sleep(100);
    }
  };

  it('are among those that the campaign asks anyway, are shown with what they cost, and teach what the endpoint does not take', async () => {
    await withCampaign('usable', { without: ['logprobs', 'json_schema'], answer: () => 'positive' }, () => ({ budget: { usd: 1 } }), async (server, state) => {
      const done = await until(state, ({ status }) => status === 'completed');
      const [answer] = done.firstAnswers?.answers ?? [];
      assert.deepEqual([answer?.who, answer?.answer, answer?.problem], ['teacher: label', '"positive"', undefined]);
      assert.ok((answer?.usd ?? 0) > 0 && (answer?.promptTokens ?? 0) > 0);
      assert.equal(done.spending.callsBought, server.counts.billedCalls, 'in the books');
      const bodies = server.received.map((call: ChatCall) => JSON.stringify(call.messages));
      assert.equal(new Set(bodies.slice(2)).size, bodies.length - 2, 'nothing is asked twice but in the forms that were refused');
      assert.ok(server.received.slice(3).every((call) => call.response_format === undefined && call['logprobs'] === undefined), 'refused once each, before the first batch');
    });
  });

  it('that cannot be used pause the campaign with one message before anything else is bought; three rows are tried, three others after resume', async () => {
    await withCampaign('useless', { answer: () => 'I would rather talk about the weather today' }, () => ({ budget: { usd: 1 } }), async (server, state, resume) => {
      const paused = await until(state, ({ status }) => status === 'paused');
      assert.equal(paused.pauseKind, 'failure');
      assert.match(paused.pauseReason ?? '', /^The first questions, 3 rows: teacher: label \(gpt-4o-mini\): expected an answer that can be used, got "I would rather talk about the weather today": unknown-label/);
      assert.equal(server.counts.billedCalls, 3);
      await resume();
      await until(state, ({ status }) => status === 'paused' );
      await until(async () => ({ ...(await state()) }), () => server.counts.billedCalls === 6);
    });
  });

  it('to a model that does not exist buy nothing', async () => {
    await withCampaign('unknown', { models: {}, answer: () => 'positive' }, () => ({ budget: { usd: 1 } }), async (server, state) => {
      const paused = await until(state, ({ status }) => status === 'paused');
      assert.match(paused.pauseReason ?? '', /^The first questions: expected the model gpt-4o-mini at http:\S+, got 404: /);
      assert.equal(server.counts.billedCalls, 0);
    });
  });
});
