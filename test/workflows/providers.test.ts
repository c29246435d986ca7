/** Providers that fail, against a real server: paused with the reason, resumed by itself or by one command, nothing lost. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { CampaignHistory } from '../../src/contracts/activities.ts';
import type { CampaignSpec } from '../../src/contracts/campaign-spec.ts';
import { cancelUpdate, pauseUpdate, resumeUpdate, setTeacherUpdate, stateQuery } from '../../src/contracts/messages.ts';
import type { Sample, TeacherRequest } from '../../src/contracts/records.ts';
import type { CampaignState } from '../../src/contracts/state.ts';
import { getJson, getRows, putJson } from '../../src/store/jsonl.ts';
import { temporaryFolder } from '../support/folder.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';
import type { OpenAIServer } from '../support/openai-server.ts';
import { ScriptedActivities } from '../support/scripted-activities.ts';
import { Teaching } from '../support/teaching-campaign.ts';
import { useTemporal } from '../support/temporal.ts';
import type { CampaignHandle } from '../support/temporal.ts';
import { until } from '../support/until.ts';

/** 40 training rows, 6 development rows, 8 test rows, each asked once. */
const QUESTIONS = 54;

describe('a provider that fails', () => {
  const temporal = useTemporal();
  const folder = temporaryFolder();

  interface Scene {
    readonly teaching: Teaching;
    readonly server: OpenAIServer;
    readonly handle: CampaignHandle;
    readonly spec: CampaignSpec;
  }

  /** A campaign on a server of its own, whose first `answers` questions are answered before `trouble`. */
  async function scene(name: string, act: (scene: Scene) => Promise<void>, options: { readonly answersBefore?: number; readonly trouble?: (server: OpenAIServer) => void; readonly latencyMs?: number } = {}): Promise<void> {
    await using server = await startOpenAIServer({
      latencyMs: options.latencyMs ?? 0,
      answer: (_call, index) => {
        if (index === options.answersBefore) options.trouble?.(server);
        return 'positive';
      },
    });
    await using teaching = new Teaching({ folder: join(folder, name) });
    const spec = teaching.spec(name, server.baseUrl);
    const input = await teaching.input(spec);
    await temporal.work(teaching.activities(new ScriptedActivities()), async () => {
      const handle = await temporal.start(input);
      await act({ teaching, server, handle, spec });
    });
  }

  const assertNothingLost = (state: CampaignState, { counts }: OpenAIServer): void => {
    assert.equal(state.status, 'completed');
    assert.equal(state.spending.callsBought, QUESTIONS);
    assert.equal(counts.billedByQuestion.size, QUESTIONS);
    assert.equal(counts.billedCalls, QUESTIONS, 'no question was bought twice');
    assert.equal(state.spending.usd, Math.round(counts.usd * 1e9) / 1e9);
    assert.equal(state.inFlight, undefined);
  };

  it('down for a while: paused with the reason, asked again by one call at a time, resumed by itself', async () => {
    await scene('down', async ({ handle, server }) => {
      await until(() => server.counts.billedCalls, (calls) => calls >= 8);
      await server.goDown();
      const billedBefore = server.counts.billedCalls;
      const state = await temporal.paused(handle, 'provider');
      assert.match(state.pauseReason ?? '', /expected an answer of gpt-4o-mini from http:.*got ECONN/);
      assert.ok((state.resumesAtMs ?? 0) > Date.now() - 1_000);
      assert.ok(billedBefore < QUESTIONS, 'the outage came in the middle');
      // Three times away in a row: the intervals grow, and the pause comes back after each question.
      await temporal.reaches(handle, ({ resumesAtMs }) => (resumesAtMs ?? 0) > (state.resumesAtMs ?? 0) + 800);
      await server.listen();
      const done = await handle.result();
      assert.equal(done.status, 'completed');
      assert.equal(server.counts.billedByQuestion.size, QUESTIONS);
      assert.ok(server.counts.billedCalls - QUESTIONS <= 16, `bought twice: ${server.counts.billedCalls - QUESTIONS}, at most the calls that were cut`);
    });
  });

  it('down: a person may tell it not to come back by itself, and a command brings it back at once', async () => {
    await scene('down-held', async ({ handle, server }) => {
      await temporal.paused(handle, 'provider');
      const held = await handle.executeUpdate(pauseUpdate, { args: [{ reason: 'wait for the provider to say so' }] });
      assert.deepEqual([held.status, held.pauseKind], ['paused', 'user']);
      server.options = { ...server.options, faults: {} };
      await new Promise((resolve) => setTimeout(resolve, 600));
      assert.equal((await handle.query(stateQuery)).pauseKind, 'user', 'it stays so beyond the interval');
      await handle.executeUpdate(resumeUpdate);
      assertNothingLost(await handle.result(), server);
    }, { answersBefore: 10, trouble: (server) => (server.options = { ...server.options, faults: { 503: 1 } }) });
  });

  it('a wrong key and an exhausted quota: paused with the reason, resumed by one command, nothing lost', async () => {
    const other = 'sk-other-key-of-the-same-account';
    await scene('key', async ({ handle, server, teaching }) => {
      const refused = await temporal.paused(handle, 'failure');
      assert.match(refused.pauseReason ?? '', /to accept the key in OPENAI_API_KEY/);
      assert.ok(refused.spending.callsBought > 0, 'what was bought before is in the books while it is paused');
      assert.equal(refused.spending.callsBought, server.counts.billedCalls);
      server.options = { ...server.options, exhaustedKeys: [other] };
      teaching.key = other;
      await handle.executeUpdate(resumeUpdate);
      const exhausted = await temporal.reaches(handle, ({ pauseReason }) => /quota/.test(pauseReason ?? ''));
      assert.equal(exhausted.pauseKind, 'failure');
      server.options = { ...server.options, keys: [TEST_KEY, other], exhaustedKeys: [] };
      await handle.executeUpdate(resumeUpdate);
      assertNothingLost(await handle.result(), server);
    }, { answersBefore: 12, trouble: (server) => (server.options = { ...server.options, keys: ['sk-the-key-was-rotated'] }) });
  });

  it('cancelled in mid-batch: what was bought by then is in the books', async () => {
    await scene('cancelled', async ({ handle, server }) => {
      await until(() => server.counts.billedCalls, (calls) => calls >= 10);
      await handle.executeUpdate(cancelUpdate, { args: [{ reason: 'enough' }] });
      const state = await handle.result();
      assert.equal(state.status, 'cancelled');
      assert.ok(server.counts.billedCalls < 40, 'it was cancelled in the middle');
      assert.equal(state.spending.callsBought, server.counts.billedCalls);
      assert.equal(state.spending.usd, Math.round(server.counts.usd * 1e9) / 1e9);
    }, { latencyMs: 60 });
  });

  it('a model withdrawn: another teacher is set, only what is missing is bought, and the dataset follows from requests and answers alone', async () => {
    await scene('withdrawn', async ({ handle, server, teaching, spec }) => {
      const state = await temporal.paused(handle, 'failure');
      assert.match(state.pauseReason ?? '', /expected the model gpt-4o-mini at .*got 404/);
      const bought = server.counts.billedCalls;
      const next: CampaignSpec['teacher'] = { ...spec.teacher, model: 'gpt-4o' };
      const changed = await putJson(teaching.store, 'spec', { ...spec, teacher: next, teachers: [spec.teacher, next] });
      const before = await putJson(teaching.store, 'spec', spec);
      const resumed = await handle.executeUpdate(setTeacherUpdate, { args: [{ spec: changed, replaces: before.sha256 }] });
      assert.equal(resumed.status, 'running');
      await assert.rejects(handle.executeUpdate(setTeacherUpdate, { args: [{ spec: before, replaces: before.sha256 }] }), (error: Error) => /changed in between/.test(String(error.cause)));
      const done = await handle.result();
      assertNothingLost(done, server);
      const models = server.received.map(({ model }) => model);
      assert.equal(models.filter((model) => model === 'gpt-4o-mini').length, bought);
      assert.equal(models.filter((model) => model === 'gpt-4o').length, QUESTIONS - bought);

      const history = await getJson<CampaignHistory>(teaching.store, done.history ?? assert.fail('expected a history'));
      const requests = await getRows<TeacherRequest>(teaching.store, history.requests[0] ?? assert.fail('expected the requests of round 1'));
      assert.equal(requests.filter(({ teacher }) => teacher === undefined).length, bought);
      assert.equal(requests.filter(({ teacher }) => teacher === 1).length, 40 - bought);
      const samples = await getRows<Sample>(teaching.store, history.rounds[0]?.dataset ?? assert.fail('expected a dataset'));
      assert.equal(samples.length, 40);
      // What the old teacher says later, asked by another campaign, changes nothing.
      server.options = { ...server.options, answer: () => 'negative', withdrawn: [] };
      await (await temporal.start(await teaching.input({ ...spec, name: 'withdrawn-old' }))).result();
      const again = await teaching.rebuild({ campaign: spec.name, spec: changed }, history);
      assert.equal(again.dataset.sha256, history.rounds[0]?.dataset.sha256);
    }, { answersBefore: 15, trouble: (server) => (server.options = { ...server.options, withdrawn: ['gpt-4o-mini'] }) });
  });
});
