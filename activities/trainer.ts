/** Activities of the trainer queue: one at a time on a device. */
import { log } from '@temporalio/activity';
import { z } from 'zod';
import type { TrainEpochInput, TrainHeartbeat, TrainedEpoch, TrainerActivities } from '../src/contracts/activities.ts';
import { ARTIFACT_KINDS } from '../src/contracts/artifacts.ts';
import type { ArtifactRef } from '../src/contracts/artifacts.ts';
import { localStudentOf, trainingOf } from '../src/contracts/campaign-spec.ts';
import type { CampaignSpec } from '../src/contracts/campaign-spec.ts';
import { getJson } from '../src/store/jsonl.ts';
import type { ArtifactStore } from '../src/store/store.ts';
import type { Trainer } from '../src/training/trainer.ts';
import { supervised } from './heartbeat.ts';
import type { Supervision } from './heartbeat.ts';
import { stageOptions } from './orchestrator.ts';
import type { TrainerStages } from './stages.ts';

export interface TrainerDeps {
  readonly store: ArtifactStore;
  readonly trainer: Trainer;
  readonly stages: TrainerStages;
}

const heartbeatSchema = z.object({
  step: z.int().min(0),
  steps: z.int().min(0),
  lossNats: z.number().optional(),
  checkpoint: z.object({ kind: z.enum(ARTIFACT_KINDS), sha256: z.string().regex(/^[0-9a-f]{64}$/), sizeBytes: z.int().min(0) }).optional(),
});

export function createTrainerActivities(deps: TrainerDeps): TrainerActivities {
  return {
    trainEpoch: (input) => supervised((supervision) => trainEpoch(deps, input, supervision)),
    runStudent: (input) => supervised((supervision) => deps.stages.runStudent(input, stageOptions(supervision))),
    measureSpeed: (input) => supervised((supervision) => deps.stages.measureSpeed(input, stageOptions(supervision))),
    exportStudent: (input) => supervised(() => deps.stages.exportStudent(input)),
  };
}

/** Starts from the newest checkpoint that is known to be durable: the one the attempt before named, else the epoch's own start. */
async function trainEpoch({ store, trainer }: TrainerDeps, input: TrainEpochInput, { signal, previousDetails, beat }: Supervision): Promise<TrainedEpoch> {
  const spec = await getJson<CampaignSpec>(store, input.spec);
  let checkpoint = await durableCheckpoint(store, previousDetails);
  const from = checkpoint ?? input.from;
  return await trainer.trainEpoch(
    { student: localStudentOf(spec), training: trainingOf(spec), seed: spec.seed, epoch: input.epoch, dataset: input.dataset, ...(from === undefined ? {} : { from }), ...(input.hoursLeft === undefined ? {} : { leftSeconds: input.hoursLeft * 3_600 }) },
    {
      signal,
      onProgress: ({ step, steps, lossNats, checkpoint: newer }) => {
        checkpoint = newer ?? checkpoint;
        beat({ step, steps, lossNats, ...(checkpoint === undefined ? {} : { checkpoint }) } satisfies TrainHeartbeat);
      },
    },
  );
}

/** The checkpoint of a previous attempt's details, when they read as such and the store still has it. */
async function durableCheckpoint(store: ArtifactStore, details: unknown): Promise<ArtifactRef | undefined> {
  if (details === undefined || details === null) return undefined;
  const parsed = heartbeatSchema.safeParse(details);
  if (!parsed.success) {
    log.warn('heartbeat details of the previous attempt are not understood: starting the epoch again', { details });
    return undefined;
  }
  const { checkpoint } = parsed.data;
  return checkpoint !== undefined && (await store.has(checkpoint)) ? checkpoint : undefined;
}
