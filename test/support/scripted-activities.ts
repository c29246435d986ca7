/**
 * Activities that follow a script instead of doing work, for tests of what the workflow decides:
 * every answer follows from its input, so that two runs give the same history.
 */
import { createHash } from 'node:crypto';
import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';
import type { OrchestratorActivities, TeacherActivities, TrainerActivities } from '../../src/contracts/activities.ts';
import type { ArtifactKind, ArtifactRef } from '../../src/contracts/artifacts.ts';
import type { CampaignInput, CampaignPlan } from '../../src/contracts/campaign.ts';
import { failureType } from '../../src/contracts/names.ts';
import type { Budget } from '../../src/contracts/state.ts';
import { canonicalJson } from '../../src/store/jsonl.ts';

type Everything = OrchestratorActivities & TeacherActivities & TrainerActivities;
export type ActivityName = keyof Everything;

export interface RoundScript {
  readonly teacherScore: number;
  readonly studentScore: number;
  /** Lower bound of retention. */
  readonly low: number;
}

export interface Script {
  /** Requests of each round; beyond its end there are no inputs left. */
  readonly requests: readonly number[];
  readonly batchSize: number;
  readonly batchUpperBoundUsd: number;
  /** What a batch truly costs. */
  readonly batchUsd: number;
  readonly rounds: readonly RoundScript[];
  /** The development loss ends training in this epoch, counted from 0. */
  readonly lastEpoch?: number;
  /** Of a tournament: the development score after each epoch, one for each epoch that there is. */
  readonly contestants: readonly { readonly name: string; readonly scores: readonly number[] }[];
}

export const SCRIPT: Script = {
  requests: [40, 20, 20, 20, 20, 20, 20],
  batchSize: 10,
  batchUpperBoundUsd: 0.2,
  batchUsd: 0.1,
  contestants: [
    { name: 'sft', scores: [0.8, 0.82, 0.83] },
    { name: 'step-by-step', scores: [0.7, 0.9, 0.9] },
    { name: 'full', scores: [0.81, 0.85, 0.84] },
    { name: 'half', scores: [0.6, 0.9, 0.9] },
  ],
  rounds: [
    { teacherScore: 0.9, studentScore: 0.8, low: 0.8 },
    { teacherScore: 0.9, studentScore: 0.85, low: 0.9 },
    { teacherScore: 0.9, studentScore: 0.87, low: 0.92 },
    { teacherScore: 0.9, studentScore: 0.88, low: 0.93 },
    { teacherScore: 0.9, studentScore: 0.89, low: 0.94 },
    { teacherScore: 0.9, studentScore: 0.9, low: 0.95 },
  ],
};

export const refOf = (kind: ArtifactKind, value: unknown): ArtifactRef => ({
  kind,
  sha256: createHash('sha256').update(canonicalJson(value)).digest('hex'),
  sizeBytes: canonicalJson(value).length,
});

/** A point at which every call of an activity waits until it is released or cancelled. */
interface Hold {
  readonly reached: Promise<void>;
  release(): void;
}

export class ScriptedActivities {
  readonly calls: { readonly name: ActivityName; readonly input: unknown }[] = [];
  readonly activities: Everything;
  private readonly script: Script;
  private readonly failures = new Map<ActivityName, Error[]>();
  private readonly holds = new Map<ActivityName, { reached: () => void; readonly released: Promise<void> }>();
  /** Round of a checkpoint or of predictions, by hash. */
  private readonly roundOf = new Map<string, number>();

  constructor(script: Partial<Script> = {}) {
    this.script = { ...SCRIPT, ...script };
    const steps = this.steps();
    this.activities = Object.fromEntries(
      Object.entries(steps).map(([name, step]) => [name, (input: never) => this.call(name as ActivityName, step as (input: never) => unknown, input)]),
    ) as unknown as Everything;
  }

  get contestants(): Script['contestants'] {
    return this.script.contestants;
  }

  count(name: ActivityName): number {
    return this.calls.filter((call) => call.name === name).length;
  }

  inputs<Name extends ActivityName>(name: Name): readonly Parameters<Everything[Name]>[0][] {
    return this.calls.filter((call) => call.name === name).map((call) => call.input as Parameters<Everything[Name]>[0]);
  }

  /** The next call of `name` fails in a way that retrying cannot cure. */
  failNext(name: ActivityName, message: string, code = 'DISK_FULL'): void {
    const failure = ApplicationFailure.create({ type: failureType(code), message, nonRetryable: true });
    this.failures.set(name, [...(this.failures.get(name) ?? []), failure]);
  }

  hold(name: ActivityName): Hold {
    let release = (): void => undefined;
    let markReached = (): void => undefined;
    const released = new Promise<void>((resolve) => (release = resolve));
    const reached = new Promise<void>((resolve) => (markReached = resolve));
    this.holds.set(name, { reached: markReached, released });
    return {
      reached,
      release: () => {
        this.holds.delete(name);
        release();
      },
    };
  }

  private async call(name: ActivityName, step: (input: never) => unknown, input: never): Promise<unknown> {
    this.calls.push({ name, input });
    const hold = this.holds.get(name);
    if (hold !== undefined) {
      hold.reached();
      const context = Context.current();
      const beat = setInterval(() => context.heartbeat(), 100);
      await Promise.race([hold.released, context.cancelled]).finally(() => clearInterval(beat));
    }
    const failure = this.failures.get(name)?.shift();
    if (failure !== undefined) throw failure;
    return step(input);
  }

  private steps(): { readonly [Name in ActivityName]: (input: Parameters<Everything[Name]>[0]) => Awaited<ReturnType<Everything[Name]>> } {
    const { script, roundOf } = this;
    const remember = (ref: ArtifactRef, round: number): ArtifactRef => {
      roundOf.set(ref.sha256, round);
      return ref;
    };
    const scoreOf = new Map<string, number>();
    const bySpec = new Map<string, Script['contestants'][number]>();
    const own = (spec: string, name: string): ArtifactRef => {
      const ref = refOf('spec', [spec, name]);
      bySpec.set(ref.sha256, script.contestants.find((each) => each.name === name) as Script['contestants'][number]);
      return ref;
    };
    /** What a contestant's checkpoint or predictions score. */
    const scored = (ref: ArtifactRef, score: number | undefined): ArtifactRef => {
      if (score !== undefined) scoreOf.set(ref.sha256, score);
      return ref;
    };
    const planned = (input: unknown, count: number) => ({
      requests: refOf('requests', input),
      count,
      batchSize: script.batchSize,
      batchUpperBoundUsd: script.batchUpperBoundUsd,
      batchUpperBoundTokens: 1_000,
    });
    return {
      prepareCampaign: ({ campaign }) => ({
        pool: refOf('rows', [campaign, 'pool']),
        development: refOf('rows', [campaign, 'development']),
        test: refOf('rows', [campaign, 'test']),
        poolRows: 1_000,
        developmentRows: 20,
        testRows: 20,
      }),
      planRequests: (input) => planned(input, input.purpose === 'train' ? (script.requests[input.round - 1] ?? 0) : 20),
      planJudgements: (input) => planned(input, 20),
      planFirstQuestions: (input) => planned(input, 0),
      readFirstAnswers: () => ({ answers: [], learned: [] }),
      reassignRequests: (input) => planned(input, script.requests[0] ?? 0),
      importCompletions: (input) => ({ completions: refOf('requests', input), count: 20 }),
      sampleBatch: ({ from, to }) => ({
        answered: to - from,
        spending: { usd: script.batchUsd, tokens: 500, callsBought: to - from, callsReused: 0, callsRepeated: 0 },
      }),
      buildDataset: (input) => ({
        dataset: refOf('dataset', input),
        rejected: refOf('rejected', input),
        calibration: refOf('calibration', input),
        accepted: 30 * input.round,
        rejectedCount: 10,
      }),
      trainEpoch: (input) => ({
        checkpoint: scored(remember(refOf('checkpoint', input), input.round), bySpec.get(input.spec.sha256)?.scores[input.epoch]),
        lossCurve: refOf('loss-curve', input),
        steps: 10,
        tokens: 1_000,
        lossFirstNats: 2.123456789,
        lossLastNats: 1.123456789,
        seconds: 12.3456789,
        ...(script.lastEpoch === undefined ? {} : { stopped: input.epoch >= script.lastEpoch, best: { step: 5, developmentNats: 1.2345678 } }),
      }),
      runStudent: (input) => ({
        predictions: scored(remember(refOf('predictions', input), input.checkpoint === undefined ? 0 : (roundOf.get(input.checkpoint.sha256) ?? 0)), scoreOf.get(input.checkpoint?.sha256 ?? '')),
        rows: 20,
        promptTokens: 1_000,
        completionTokens: 20,
        seconds: 3.25,
      }),
      evaluate: (input) => {
        const tried = scoreOf.get(input.student.sha256);
        const scores = tried !== undefined ? { teacherScore: 0.9, studentScore: tried, low: tried } : script.rounds[(roundOf.get(input.student.sha256) ?? 0) - 1] ?? { teacherScore: 0.9, studentScore: 0.5, low: 0.5 };
        const mean = scores.studentScore / scores.teacherScore;
        return {
          evaluation: refOf('evaluation', input),
          rows: 20,
          teacherScore: scores.teacherScore,
          studentScore: scores.studentScore,
          ...(input.untuned === undefined ? {} : { untunedScore: 0.6 }),
          retention: { mean, low: scores.low, high: mean + 0.05 },
        };
      },
      planTournament: ({ spec }) => ({ contestants: script.contestants.map(({ name, scores }) => ({ name, spec: own(spec.sha256, name), epochs: scores.length })) }),
      recordRound: (input) => ({ history: refOf('history', input) }),
      planCandidates: (input) => ({ rows: refOf('rows', input), count: Math.min(input.limit, 500) }),
      selectInputs: (input) => ({ selection: refOf('rows', input), rows: 100 }),
      measureSpeed: () => ({
        rows: (['teacher, prompt not cached', 'teacher, prompt cached', 'student'] as const).map((who) => ({
          who, msMedian: 12.345678901, msP95: 23.456789012, promptTokens: 120, parameters: 134_515_008, sizeBytes: 98_362_432,
        })),
      }),
      exportStudent: (input) => ({ adapter: refOf('adapter', input) }),
      planStudentRequests: (input) => planned(input, 20),
      readStudentAnswers: (input) => ({ predictions: refOf('predictions', input), rows: 20, promptTokens: 1_000, completionTokens: 20, seconds: 3.25 }),
      exportHostedStudent: (input) => ({ adapter: refOf('adapter', input) }),
      fineTune: (input) => ({
        checkpoint: remember(refOf('checkpoint', input), input.round), lossCurve: refOf('loss-curve', input), steps: 10, tokens: 1_000, lossFirstNats: 2, lossLastNats: 1, seconds: 12,
        spending: { usd: 1, tokens: 1_000, callsBought: 1, callsReused: 0, callsRepeated: 0 },
      }),
      cancelFineTuning: () => ({ spending: { usd: 0, tokens: 0, callsBought: 0, callsReused: 0, callsRepeated: 0 } }),
      writeReport: (input) => ({ report: refOf('report', input), manifest: refOf('manifest', input) }),
    };
  }
}

export const PLAN: CampaignPlan = {
  maxRounds: 2, epochs: 2, targetRetention: 1, minGain: 0.002, usesJudge: false, selectsInputs: true, candidates: 100, concurrentBatches: 4,
};

export function campaignInput(campaign: string, plan: Partial<CampaignPlan> = {}, budget: Budget = {}): CampaignInput {
  return { campaign, spec: refOf('spec', campaign), plan: { ...PLAN, ...plan }, budget };
}
