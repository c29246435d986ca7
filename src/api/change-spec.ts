/** What a change of a campaign under way makes of its spec: another teacher, or another campaign that goes on from it. */
import type { CampaignHistory } from '../contracts/activities.ts';
import type { ArtifactRef } from '../contracts/artifacts.ts';
import type { ForkedFrom } from '../contracts/campaign.ts';
import type { CampaignSpec, TeacherSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { validateSpec } from '../contracts/parse-spec.ts';
import type { CampaignDescription } from '../client/campaigns.ts';
import { getJson, putJson } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';

/** The spec by which the campaign runs now. The store finds bytes by their hash alone; the size is not kept with the workflow. */
export function currentSpec({ specSha256, state }: Pick<CampaignDescription, 'specSha256' | 'state'>): ArtifactRef {
  return state?.changedSpec ?? { kind: 'spec', sha256: specSha256, sizeBytes: 0 };
}

/** What a user would have written. */
export function writtenSpec({ teachers: _earlier, ...spec }: CampaignSpec): CampaignSpec {
  return spec;
}

/** Who answers: other keys change how it is asked. */
const sameTeacher = (a: TeacherSpec, b: TeacherSpec): boolean => a.provider === b.provider && a.model === b.model && a.baseUrl === b.baseUrl;

/** The spec with `teacher` as the last of all teachers so far. Requests name theirs by position, so that none is moved. */
export function withTeacher(spec: CampaignSpec, teacher: TeacherSpec, { teachers, teacher: only }: CampaignSpec): CampaignSpec {
  const before = teachers ?? [only];
  const last = before.at(-1) ?? only;
  const all = sameTeacher(last, teacher) ? [...before.slice(0, -1), teacher] : [...before, teacher];
  return { ...writtenSpec(spec), teacher, ...(all.length === 1 ? {} : { teachers: all }) };
}

/**
 * The spec with another teacher. A price that the spec gave belongs to the model and address it stood
 * beside: it goes with them unless the change brings one. BAD_INPUT when nothing would change.
 */
export function changeTeacher(spec: CampaignSpec, patch: Readonly<Record<string, unknown>>): CampaignSpec {
  const { price, ...rest } = spec.teacher;
  const moved = (['provider', 'model', 'baseUrl'] as const).some((key) => patch[key] !== undefined && (patch[key] ?? undefined) !== spec.teacher[key]);
  const merged = { ...rest, ...(moved || price === undefined ? {} : { price }), ...patch };
  const teacher = Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== undefined && value !== null));
  const changed = validateSpec({ ...writtenSpec(spec), teacher }, 'teacher');
  if (JSON.stringify(changed.teacher) === JSON.stringify(validateSpec(writtenSpec(spec)).teacher)) {
    throw new StillhouseError('BAD_INPUT', `teacher: expected a change, got the teacher as it is (${spec.teacher.model})`);
  }
  return withTeacher(changed, changed.teacher, spec);
}

export interface Fork {
  readonly spec: CampaignSpec;
  readonly from: ForkedFrom;
}

/**
 * A campaign that begins with rounds 1 to `round` of another: by the other's spec under the name
 * `name`, or by a spec of its own. NOT_FOUND or BAD_INPUT where that round is not finished.
 */
export async function forkOf(store: ArtifactStore, parent: CampaignDescription, name: string, round: number, given?: CampaignSpec): Promise<Fork> {
  const { campaign, state } = parent;
  if (state?.history === undefined) throw new StillhouseError('CONFLICT', `campaign ${campaign}: expected at least one finished round to go on from, got none`);
  const history = await getJson<CampaignHistory>(store, state.history);
  const requests = history.requests[round - 1];
  if (requests === undefined) throw new StillhouseError('BAD_INPUT', `fromRound: expected one of the ${history.requests.length} finished rounds of ${campaign}, got ${round}`);
  const spec = await getJson<CampaignSpec>(store, currentSpec(parent));
  const own = { ...(given ?? writtenSpec(spec)), name };
  const { development } = history;
  const before = round - 1;
  const kept: CampaignHistory = {
    rounds: history.rounds.slice(0, before), requests: history.requests.slice(0, before), developmentEvaluations: history.developmentEvaluations.slice(0, before),
  };
  return {
    spec: withTeacher(own, own.teacher, spec),
    from: {
      campaign, round, requests,
      requestsBefore: history.rounds[before - 1]?.requests ?? 0,
      history: await putJson(store, 'history', kept),
      ...(development === undefined ? {} : { development }),
    },
  };
}
