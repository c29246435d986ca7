/** What becomes of a training that fails: it goes on from its newest checkpoint, begins anew by other settings, or waits for time. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ApplicationFailure } from '@temporalio/common';
import { createTrainerActivities } from '../../activities/trainer.ts';
import type { TrainerStages } from '../../activities/stages.ts';
import { pauseUpdate, raiseBudgetUpdate, resumeUpdate, setSpecUpdate, setTeacherUpdate, stateQuery } from '../../src/contracts/messages.ts';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import type { CampaignInput } from '../../src/contracts/campaign.ts';
import type { ErrorCode } from '../../src/contracts/errors.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { putJson } from '../../src/store/jsonl.ts';
import type { ArtifactStore } from '../../src/store/store.ts';
import type { EpochJob, EpochResult, Trainer } from '../../src/training/trainer.ts';
import { describeState } from '../../workflows/details.ts';
import { temporaryFolder } from '../support/folder.ts';
import { PLAN, ScriptedActivities, campaignInput, refOf } from '../support/scripted-activities.ts';
import { useTemporal } from '../support/temporal.ts';

type Attempt = (job: EpochJob, progress: (step: number) => Promise<void>) => Promise<void>;

/** The real activity over a trainer whose attempts, in their order, do what a test says, and end well after the last of them. */
class Trainings {
  readonly jobs: EpochJob[] = [];
  readonly #store: ArtifactStore = createFileStore(temporaryFolder());
  readonly #attempts: Attempt[];

  constructor(...attempts: Attempt[]) {
    this.#attempts = attempts;
  }

  spec(changes: object = {}): Promise<ArtifactRef> {
    return putJson(this.#store, 'spec', { student: { model: 'm' }, teacher: { provider: 'openai', model: 't' }, training: { epochs: 2 }, seed: 5, ...changes });
  }

  async input(campaign: string, plan: Partial<CampaignInput['plan']> = {}, budget: CampaignInput['budget'] = {}): Promise<CampaignInput> {
    return { ...campaignInput(campaign, { maxRounds: 1, epochs: 2, concurrentBatches: 1, ...plan }, budget), spec: await this.spec() };
  }

  get from(): readonly (string | undefined)[] {
    return this.jobs.map(({ from }) => from?.sha256.slice(0, 8));
  }

  checkpoint(epoch: number, step: number): Promise<ArtifactRef> {
    return this.#store.put('checkpoint', `epoch ${epoch}, step ${step}`);
  }

  async named(epoch: number, step: number): Promise<string> {
    return (await this.checkpoint(epoch, step)).sha256.slice(0, 8);
  }

  activities(script: ScriptedActivities): object {
    const trainer: Pick<Trainer, 'trainEpoch'> = {
      trainEpoch: async (job, { onProgress }) => {
        this.jobs.push(job);
        await this.#attempts.shift()?.(job, async (step) => {
          onProgress?.({ step, steps: 1_000, lossNats: 1, tokensPerSecond: 10, checkpoint: await this.checkpoint(job.epoch, step) });
          onProgress?.({ step: step + 1, steps: 1_000, lossNats: 1, tokensPerSecond: 10 });
        });
        return { checkpoint: await this.checkpoint(job.epoch, 1_000), lossCurve: refOf('loss-curve', job.epoch), steps: 1_000, tokens: 10, lossFirstNats: 2, lossLastNats: 1, seconds: 1, stopped: false } satisfies EpochResult;
      },
    };
    const { trainEpoch } = createTrainerActivities({ store: this.#store, trainer: trainer as Trainer, stages: {} as TrainerStages });
    return { ...script.activities, trainEpoch };
  }
}

const fails = (code: ErrorCode, at?: number, details: object = {}): Attempt => async (_job, progress) => {
  if (at !== undefined) await progress(at);
  throw new StillhouseError(code, `${code} in mid-epoch`, { details: { ...details } });
};
const ends: Attempt = () => Promise.resolve();

describe('a training that fails', () => {
  const temporal = useTemporal();

  for (const code of ['DISK_FULL', 'TOO_LARGE', 'BAD_INPUT'] as const) {
    it(`goes on from its newest checkpoint after ${code}, in the first epoch and in a later one, and says so`, async () => {
      const trainings = new Trainings(fails(code, 900), fails(code, 950), fails(code), ends, fails(code, 20));
      await temporal.work(trainings.activities(new ScriptedActivities()), async () => {
        const handle = await temporal.start(await trainings.input(`kept-${code.toLowerCase().replace('_', '-')}`));
        const first = await temporal.paused(handle, 'failure');
        assert.deepEqual([first.kept?.epoch, first.kept?.step, first.kept?.steps, first.kept?.checkpoint.sha256], [1, 900, 1_000, (await trainings.checkpoint(0, 900)).sha256]);
        assert.match(describeState(first), /- Kept: epoch 1 goes on after step 900 of 1000, from checkpoint /);
        assert.equal(first.pauseCode, code);
        await handle.executeUpdate(resumeUpdate);
        await temporal.reaches(handle, ({ kept, status }) => status === 'paused' && kept?.step === 950);
        await handle.executeUpdate(resumeUpdate);
        await temporal.reaches(handle, ({ status }) => status === 'paused' && trainings.jobs.length === 3);
        // A person pauses and resumes as well: it is not lost by that.
        await handle.executeUpdate(resumeUpdate);
        const second = await temporal.reaches(handle, ({ kept, status }) => status === 'paused' && kept?.epoch === 2);
        assert.equal(second.kept?.step, 20);
        await handle.executeUpdate(resumeUpdate);
        assert.equal((await handle.result()).kept, undefined);
        assert.deepEqual(trainings.jobs.map(({ epoch }) => epoch), [0, 0, 0, 0, 1, 1]);
        assert.deepEqual(trainings.from, [undefined, await trainings.named(0, 900), await trainings.named(0, 950), await trainings.named(0, 950), await trainings.named(0, 1_000), await trainings.named(1, 20)]);
      });
    });
  }

  it('is held up by a person as long as the person says, whatever fails meanwhile', async () => {
    const script = new ScriptedActivities();
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    const trainings = new Trainings(async (_job, progress) => {
      await progress(10);
      await held;
      throw new StillhouseError('DISK_FULL', 'the disk is full');
    });
    await temporal.work(trainings.activities(script), async () => {
      const handle = await temporal.start(await trainings.input('held'));
      await temporal.reaches(handle, ({ stage }) => stage === 'training' && trainings.jobs.length === 1);
      await handle.executeUpdate(pauseUpdate, { args: [{ reason: 'holiday', by: 'ada' }] });
      release();
      const state = await temporal.reaches(handle, ({ kept }) => kept !== undefined);
      assert.deepEqual([state.pauseKind, state.pauseReason, state.pausedBy, state.kept?.step], ['user', 'holiday', 'ada', 10]);
      assert.deepEqual(state.remedies?.map(({ command }) => command), ['still resume held']);
      await handle.executeUpdate(resumeUpdate);
      await handle.result();
      assert.equal(trainings.from[1], await trainings.named(0, 10));
    });
  });

  it('begins anew, on the dataset filtered anew, where other settings make its checkpoint useless, and never refuses it for ever', async () => {
    const script = new ScriptedActivities();
    const trainings = new Trainings(ends, fails('DISK_FULL', 30), fails('STALE'), fails('DISK_FULL', 5));
    await temporal.work(trainings.activities(script), async () => {
      const input = await trainings.input('anew');
      const handle = await temporal.start(input);
      await temporal.paused(handle, 'failure');
      const teacher = await trainings.spec({ teacher: { provider: 'local', model: 'other' } });
      const goesOn = await handle.executeUpdate(setTeacherUpdate, { args: [{ spec: teacher, replaces: input.spec.sha256 }] });
      assert.equal(goesOn.status, 'running');
      const state = await temporal.reaches(handle, ({ status, kept }) => status === 'paused' && kept?.step === 5);
      assert.match(state.trainedAnew ?? '', /STALE in mid-epoch/);
      assert.match(describeState(state), /Trained anew from the first epoch: STALE/);
      await handle.executeUpdate(resumeUpdate);
      assert.equal((await handle.result()).trainedAnew, undefined);
      assert.deepEqual(trainings.jobs.map(({ epoch }) => epoch), [0, 1, 1, 0, 0, 1]);
      assert.equal(script.count('buildDataset'), 2);
      assert.equal(script.inputs('buildDataset')[1]?.spec.sha256, teacher.sha256);
    });
  });

  it('takes up settings that are changed before its first step, and those that outdate its last epoch', async () => {
    const script = new ScriptedActivities();
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    const trainings = new Trainings(fails('BAD_INPUT'), () => held);
    await temporal.work(trainings.activities(script), async () => {
      const input = await trainings.input('settings', { epochs: 1 });
      const handle = await temporal.start(input);
      const paused = await temporal.paused(handle, 'failure');
      assert.deepEqual(paused.remedies?.map(({ command }) => command.split(' ').slice(0, 3).join(' ')), ['still set settings', 'still resume settings']);
      const [second, third] = [await trainings.spec({ training: { epochs: 1, maxTokens: 1_024 } }), await trainings.spec({ training: { epochs: 2, maxTokens: 1_024 } })];
      const plan = { ...PLAN, maxRounds: 1, epochs: 1 };
      assert.equal((await handle.executeUpdate(setSpecUpdate, { args: [{ spec: second, replaces: input.spec.sha256, plan }] })).status, 'running');
      await temporal.reaches(handle, () => trainings.jobs.length === 2);
      await handle.executeUpdate(setSpecUpdate, { args: [{ spec: third, replaces: second.sha256, plan: { ...plan, epochs: 2 }, outdates: 'training.epochs was changed' }] });
      release();
      await handle.result();
      assert.deepEqual(script.inputs('buildDataset').map(({ spec }) => spec.sha256), [input.spec.sha256, second.sha256, third.sha256]);
      // One epoch by the old settings, whose checkpoint the trainer would refuse: here it does not, so that training goes on to the second.
      assert.deepEqual(trainings.jobs.map(({ epoch }) => epoch), [0, 0, 1, 0, 1]);
    });
  });

  it('waits for more hours where too few are left, and goes on by itself when they are given', async () => {
    const trainings = new Trainings(fails('TOO_LARGE', 3, { hoursNeeded: 5.5 }));
    await temporal.work(trainings.activities(new ScriptedActivities()), async () => {
      const handle = await temporal.start(await trainings.input('time', {}, { hours: 2 }));
      const state = await temporal.paused(handle);
      assert.deepEqual([state.pauseKind, state.needs], ['budget', { hours: 7 }]);
      assert.match(state.pauseReason ?? '', /^Training, epoch 1: TOO_LARGE in mid-epoch\. Budget: the next step takes about 5\.50 hours and [12]\.\d\d of 2 are left\. To go on, raise it to 7 hours\.$/);
      assert.deepEqual(state.remedies?.map(({ command }) => command), ['still budget time --hours 7']);
      assert.equal((await handle.executeUpdate(raiseBudgetUpdate, { args: [{ hours: 4 }] })).status, 'paused', 'still too little');
      assert.equal((await handle.executeUpdate(raiseBudgetUpdate, { args: [{ hours: 7 }] })).status, 'running');
      await handle.result();
      assert.equal(trainings.from[1], await trainings.named(0, 3));
    });
  });

  it('in a tournament: goes on where it was, begins anew, and waits for time by no fault of its own', async () => {
    const script = new ScriptedActivities({ requests: [10], contestants: [{ name: 'a', scores: [0.8, 0.9] }, { name: 'b', scores: [0.7, 0.8] }] });
    const trainings = new Trainings(fails('DISK_FULL', 40), fails('TOO_LARGE', 60, { hoursNeeded: 3 }));
    const base = trainings.activities(script) as { trainEpoch: (input: object) => Promise<object> };
    const spec = await trainings.spec();
    // The trainer reads one spec; which contestant it is does not matter to it.
    const trainEpoch = (input: object) => base.trainEpoch({ ...input, spec });
    await temporal.work({ ...base, trainEpoch }, async () => {
      const handle = await temporal.start(campaignInput('contest', { maxRounds: 1, tournament: { firstRung: 1, reductionFactor: 2, concurrent: 1 } }, { hours: 2 }));
      const full = await temporal.paused(handle, 'failure');
      assert.deepEqual([full.pauseReason, full.tournament?.contestants[0]?.kept?.step], ['Contestant a: DISK_FULL in mid-epoch', 40]);
      await handle.executeUpdate(resumeUpdate);
      const late = await temporal.paused(handle, 'budget');
      assert.deepEqual([late.needs, late.tournament?.contestants.map(({ status, kept }) => [status, kept?.step])], [{ hours: 5 }, [['competing', 60], ['competing', undefined]]]);
      await handle.executeUpdate(raiseBudgetUpdate, { args: [{ hours: 9 }] });
      const done = await handle.result();
      assert.equal(done.status, 'completed');
      assert.deepEqual(trainings.from.slice(0, 3), [undefined, await trainings.named(0, 40), await trainings.named(0, 60)]);
      assert.equal(done.tournament?.contestants[0]?.kept, undefined);
    });
  });

  it('keeps the whole sentence of its failure, with the file and the line', async () => {
    const script = new ScriptedActivities();
    const sentence = '/data/pool.jsonl:61: expected one JSON object a line, got {"input": "a row whose quote is missing, "gold": "x"}';
    const prepareCampaign = (): never => {
      throw ApplicationFailure.create({ type: 'Stillhouse:BAD_INPUT', message: sentence, nonRetryable: true, cause: new SyntaxError("Expected ',' or '}' after property value in JSON at position 48") });
    };
    await temporal.work({ ...script.activities, prepareCampaign }, async () => {
      const handle = await temporal.start(campaignInput('sentence'));
      const state = await temporal.paused(handle, 'failure');
      assert.equal(state.pauseReason, `Preparing the data: ${sentence}`);
      assert.ok((state.pausedAtMs ?? 0) > Date.now() - 60_000);
      assert.equal((await handle.query(stateQuery)).pausedBy, 'failure');
      await handle.terminate();
    });
  });
});
