/** Campaigns that begin with another's rounds, counted by the server that would bill them. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { forkOf } from '../../src/api/change-spec.ts';
import type { CampaignHistory } from '../../src/contracts/activities.ts';
import type { CampaignInput } from '../../src/contracts/campaign.ts';
import type { CampaignSpec } from '../../src/contracts/campaign-spec.ts';
import type { Sample } from '../../src/contracts/records.ts';
import type { CampaignState } from '../../src/contracts/state.ts';
import { getJson, getRows } from '../../src/store/jsonl.ts';
import { temporaryFolder } from '../support/folder.ts';
import { startOpenAIServer } from '../support/openai-server.ts';
import type { OpenAIServer } from '../support/openai-server.ts';
import { ScriptedActivities } from '../support/scripted-activities.ts';
import { Teaching } from '../support/teaching-campaign.ts';
import { useTemporal } from '../support/temporal.ts';

describe('a campaign forked from another', () => {
  const temporal = useTemporal();
  const folder = temporaryFolder();
  let server: OpenAIServer;
  let teaching: Teaching;
  let spec: CampaignSpec;
  let parent: CampaignState;

  before(async () => {
    server = await startOpenAIServer({ answer: (call) => ((call.messages.at(-1)?.content.length ?? 0) % 3 === 0 ? 'negative' : 'positive') });
    teaching = new Teaching({ folder });
    spec = teaching.spec('parent', server.baseUrl, { iterate: { maxRounds: 3, minGain: 0 } });
    parent = (await run(await teaching.input(spec))).state;
  });
  after(async () => {
    await teaching[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });

  interface Outcome {
    readonly state: CampaignState;
    readonly history: CampaignHistory;
    /** By the server's own count. */
    readonly billed: number;
    readonly epochs: readonly number[];
  }

  async function run(input: CampaignInput): Promise<Outcome> {
    const script = new ScriptedActivities();
    const billedBefore = server.counts.billedCalls;
    return temporal.work(teaching.activities(script), async () => {
      const state = await (await temporal.start(input)).result();
      return {
        state, billed: server.counts.billedCalls - billedBefore, epochs: script.inputs('trainEpoch').map(({ round }) => round),
        history: await getJson<CampaignHistory>(teaching.store, state.history ?? assert.fail('expected a history')),
      };
    });
  }

  async function fork(name: string, round: number, given?: CampaignSpec): Promise<Outcome> {
    const description = { campaign: 'parent', status: 'completed', specSha256: (await teaching.input(spec)).spec.sha256, state: parent, startedAtMs: 0 } as const;
    const { spec: own, from } = await forkOf(teaching.store, description, name, round, given);
    return run({ ...(await teaching.input(own)), fork: from });
  }
  const parentHistory = (): Promise<CampaignHistory> => getJson<CampaignHistory>(teaching.store, parent.history ?? assert.fail());

  it('buys nothing for the rounds it takes over, whatever filter or training it has, and builds their dataset anew', async () => {
    assert.equal(server.counts.billedCalls, 40 + 20 + 20 + 6 + 8);
    const rounds = (await parentHistory()).rounds;
    const same = await fork('same', 3);
    assert.equal(same.billed, 0);
    assert.deepEqual(same.epochs, [3, 3, 3]);
    assert.equal(same.state.spending.callsBought, 0);
    assert.equal(same.state.forkedFrom?.round, 3);
    assert.equal(same.history.rounds.at(-1)?.dataset.sha256, rounds[2]?.dataset.sha256, 'the same settings give the same dataset');
    assert.deepEqual(same.history.rounds.map(({ round, requests }) => [round, requests]), [[1, 40], [2, 60], [3, 80]]);

    const filtered = await fork('filtered', 3, { ...spec, filter: { ...spec.filter, maxClassRatio: 1 } });
    assert.equal(filtered.billed, 0);
    const samples = await getRows<Sample>(teaching.store, filtered.history.rounds.at(-1)?.dataset ?? assert.fail());
    assert.ok(samples.length > 0 && samples.length < (rounds[2]?.accepted ?? 0), `${samples.length} of ${rounds[2]?.accepted} rows`);
    const trained = await fork('trained', 3, { ...spec, training: { ...spec.training, epochs: 1, learningRate: 1e-3 } });
    assert.equal(trained.billed, 0);
    assert.deepEqual(trained.epochs, [3]);
  });

  it('goes on from the round it was forked at and buys only what nobody has asked before', async () => {
    // Round 2 and 3 of the parent asked about the same pool rows: this fork asks nothing new until it wants more of them.
    const again = await fork('from-1', 1);
    assert.equal(again.billed, 0);
    assert.deepEqual(again.epochs, [1, 1, 1, 2, 2, 2, 3, 3, 3]);
    const more = await fork('from-2-more', 2, { ...spec, sampling: { ...spec.sampling, rowsPerLaterRound: 30 } });
    assert.equal(more.billed, 10, 'round 3 asks about 30 rows, 20 of which the parent had asked about');
    const prompt = await fork('other-prompt', 2, { ...spec, task: { ...spec.task, instruction: 'Opinion: {input}\nSentiment:' }, iterate: { ...spec.iterate, maxRounds: 2 } });
    assert.equal(prompt.billed, 8, 'another prompt: the inherited rounds and development rows are kept, the test rows are asked anew');
  });

  it('with another teacher keeps the answers of the one before for the rounds it takes over', async () => {
    const { teacher } = spec;
    const other = await fork('other-teacher', 2, { ...spec, teacher: { ...teacher, model: 'gpt-4o' } });
    assert.equal(other.billed, 20 + 8, 'round 3 and the test rows');
    assert.ok(server.received.slice(-28).every(({ model }) => model === 'gpt-4o'));
  });

  it('refuses a round that is not finished', async () => {
    await assert.rejects(fork('too-far', 4), { code: 'BAD_INPUT', message: /expected one of the 3 finished rounds of parent, got 4/ });
  });
});
