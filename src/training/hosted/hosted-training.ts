/** From a campaign's spec to the training of its hosted student: whose it is, what it may cost. */
import type { BuiltDataset, CampaignContext, FineTuneInput } from '../../contracts/activities.ts';
import type { CampaignSpec } from '../../contracts/campaign-spec.ts';
import { StillhouseError } from '../../contracts/errors.ts';
import { roundUsdUp } from '../../contracts/money.ts';
import type { Sample } from '../../contracts/records.ts';
import { getJson, getRows } from '../../store/jsonl.ts';
import type { ArtifactStore } from '../../store/store.ts';
import { createHostedTrainer, isHosted, trainingUpperBound } from './hosted-trainer.ts';
import type { HostedJob, HostedTrainer, HostedTrainerDeps } from './hosted-trainer.ts';

/** `run` names the workflow run that pays: what all attempts under one name have bought is settled together. */
export async function openHostedTraining(deps: HostedTrainerDeps, input: FineTuneInput, run: string): Promise<{ readonly trainer: HostedTrainer; readonly job: HostedJob }> {
  const { campaign, round, dataset, development } = input;
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  if (!isHosted(spec)) throw new StillhouseError('BAD_INPUT', `expected student.provider openai for training at a provider, got ${spec.student.provider}`);
  return {
    trainer: createHostedTrainer(deps, { spec, campaign, round, development, run }),
    job: { training: spec.training, seed: spec.seed, epoch: 0, dataset },
  };
}

/** The dataset with the most that a hosted student's training on it may cost; of a local student nothing is added. */
export async function withTrainingBound(store: ArtifactStore, { spec: ref }: CampaignContext, built: BuiltDataset): Promise<BuiltDataset> {
  const spec = await getJson<CampaignSpec>(store, ref);
  if (!isHosted(spec)) return built;
  const { usd, tokens } = trainingUpperBound(spec, await getRows<Sample>(store, built.dataset));
  return { ...built, trainingUpperBound: { usd: roundUsdUp(usd), tokens } };
}
