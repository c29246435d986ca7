/** The artifact in which a campaign's finished rounds are kept, so that no list of them travels in a payload. */
import type { CampaignHistory, PlanCandidatesInput, PlannedCandidates, RecordRoundInput, RecordedRound } from '../src/contracts/activities.ts';
import type { ArtifactRef } from '../src/contracts/artifacts.ts';
import type { InputRow, TeacherRequest } from '../src/contracts/records.ts';
import { getJson, getRows, putJson, putRows } from '../src/store/jsonl.ts';
import type { ArtifactStore } from '../src/store/store.ts';

const NO_ROUNDS: CampaignHistory = { rounds: [], requests: [], developmentEvaluations: [] };

export async function readHistory(store: ArtifactStore, ref: ArtifactRef | undefined): Promise<CampaignHistory> {
  return ref === undefined ? NO_ROUNDS : await getJson<CampaignHistory>(store, ref);
}

/** Recording the same round on the same history again gives the same artifact. */
export async function recordRound(store: ArtifactStore, input: RecordRoundInput): Promise<RecordedRound> {
  const before = await readHistory(store, input.history);
  const after: CampaignHistory = {
    rounds: [...before.rounds, input.summary],
    requests: [...before.requests, input.requests],
    developmentEvaluations: [...before.developmentEvaluations, input.evaluation],
    ...(input.development === undefined ? {} : { development: input.development }),
  };
  return { history: await putJson(store, 'history', after) };
}

/** All requests of the finished rounds as one artifact, or nothing before the first. */
export async function earlierRequests(store: ArtifactStore, history: CampaignHistory): Promise<{ readonly earlier?: ArtifactRef }> {
  if (history.requests.length === 0) return {};
  if (history.requests.length === 1) return { earlier: history.requests[0] as ArtifactRef };
  const rounds = await Promise.all(history.requests.map((ref) => getRows<TeacherRequest>(store, ref)));
  return { earlier: await putRows(store, 'requests', rounds.flat()) };
}

export async function planCandidates(store: ArtifactStore, input: PlanCandidatesInput): Promise<PlannedCandidates> {
  const history = await readHistory(store, input.history);
  const asked = new Set<string>();
  for (const ref of history.requests) {
    for (const request of await getRows<TeacherRequest>(store, ref)) if (request.row !== undefined) asked.add(request.row.id);
  }
  const pool = await getRows<InputRow>(store, input.pool);
  const rows = pool.filter((row) => !asked.has(row.id)).slice(0, input.limit);
  return { rows: await putRows(store, 'rows', rows), count: rows.length };
}
