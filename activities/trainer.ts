/** Activities of the trainer queue: one at a time on a device. */
import { log } from '@temporalio/activity';
import { z } from 'zod';
import type { FailureFacts, TrainEpochInput, TrainHeartbeat, TrainedEpoch, TrainerActivities } from '../src/contracts/activities.ts';
import { ARTIFACT_KINDS } from '../src/contracts/artifacts.ts';
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
  step: z.int().min(0).optional(),
  steps: z.int().min(0).optional(),
  lossNats: z.number().optional(),
  checkpoint: z.object({ kind: z.enum(ARTIFACT_KINDS), sha256: z.string().regex(/^[0-9a-f]{64}$/), sizeBytes: z.int().min(0) }).optional(),
  checkpointStep: z.int().min(0).optional(),
});

export function createTrainerActivities(deps: TrainerDeps): TrainerActivities {
  return {
    trainEpoch: (input) => supervised((supervision) => trainEpoch(deps, input, supervision), { keeps: keptCheckpoint }),
    runStudent: (input) => supervised((supervision) => deps.stages.runStudent(input, stageOptions(supervision))),
    measureSpeed: (input) => supervised((supervision) => deps.stages.measureSpeed(input, stageOptions(supervision))),
    exportStudent: (input) => supervised(() => deps.stages.exportStudent(input)),
  };
}

/** Starts from the newest checkpoint that is known to be durable: the one the attempt before named, else the epoch's own start. */
async function trainEpoch({ store, trainer }: TrainerDeps, input: TrainEpochInput, { signal, previousDetails, beat }: Supervision): Promise<TrainedEpoch> {
  const spec = await getJson<CampaignSpec>(store, input.spec);
  const { epochs } = trainingOf(spec);
  let newest = await durableCheckpoint(store, previousDetails);
  const from = newest?.checkpoint ?? input.from;
  return await trainer.trainEpoch(
    { student: localStudentOf(spec), training: trainingOf(spec), seed: spec.seed, epoch: input.epoch, dataset: input.dataset, ...(from === undefined ? {} : { from }), ...(input.hoursLeft === undefined ? {} : { leftSeconds: input.hoursLeft * 3_600 }) },
    {
      signal,
      onProgress: ({ step, steps, lossNats, tokensPerSecond, checkpoint }) => {
        if (checkpoint !== undefined) newest = { checkpoint, checkpointStep: step };
        beat({ step, steps, lossNats, epoch: input.epoch + 1, epochs, tokensPerSecond, ...newest } satisfies TrainHeartbeat);
      },
    },
  );
}

type Newest = Required<Pick<TrainHeartbeat, 'checkpoint'>> & Pick<TrainHeartbeat, 'checkpointStep'>;

/** The checkpoint of a previous attempt's details, when they read as such and the store still has it. */
async function durableCheckpoint(store: ArtifactStore, details: unknown): Promise<Newest | undefined> {
  if (details === undefined || details === null) return undefined;
  const parsed = heartbeatSchema.safeParse(details);
  if (!parsed.success) {
    log.warn('heartbeat details of the previous attempt are not understood: starting from the checkpoint that the workflow names', { details });
    return undefined;
  }
  const { checkpoint, checkpointStep } = parsed.data;
  if (checkpoint === undefined || !(await store.has(checkpoint))) return undefined;
  return { checkpoint, ...(checkpointStep === undefined ? {} : { checkpointStep }) };
}

/** What a failure in the middle of an epoch hands on. */
function keptCheckpoint(details: unknown): FailureFacts | undefined {
  const parsed = heartbeatSchema.safeParse(details);
  if (!parsed.success || parsed.data.checkpoint === undefined) return undefined;
  const { checkpoint, checkpointStep, steps } = parsed.data;
  return { checkpoint, ...(checkpointStep === undefined || steps === undefined ? {} : { checkpointStep, steps }) };
}
