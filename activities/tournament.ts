/** The contestants of a campaign's tournament, each as a spec that every stage takes like a campaign's own. */
import type { CampaignContext, PlannedTournament } from '../src/contracts/activities.ts';
import { contestantsOf } from '../src/contracts/campaign-spec.ts';
import type { CampaignSpec } from '../src/contracts/campaign-spec.ts';
import { getJson, putJson } from '../src/store/jsonl.ts';
import type { ArtifactStore } from '../src/store/store.ts';

export async function planTournament(store: ArtifactStore, input: CampaignContext): Promise<PlannedTournament> {
  const contestants = contestantsOf(await getJson<CampaignSpec>(store, input.spec));
  return { contestants: await Promise.all(contestants.map(async ({ name, spec }) => ({ name, spec: await putJson(store, 'spec', spec), epochs: spec.training.epochs }))) };
}
