/** After a change of teacher: which of the questions that were planned for an earlier teacher go to the new one. */
import type { PlannedRequests, ReassignRequestsInput } from '../contracts/activities.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import type { TeacherRequest } from '../contracts/records.ts';
import { ledgerKey } from '../ledger/key.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { getJson, getRows, putRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { batchUpperBound, boundOf } from './plan.ts';
import { endpointOf } from './sample.ts';
import type { TeacherDirectory } from './teacher.ts';

export interface ReassignDeps {
  readonly store: ArtifactStore;
  readonly ledger: Ledger;
  readonly directory: TeacherDirectory;
}

/**
 * Writes the assignment down: an answer that the ledger holds stays the answer to its question, and
 * what the ledger learns later about a question that now belongs to another teacher changes nothing.
 * A judge's requests stay with the judge. The bound is that of the answers which are missing.
 */
export async function reassignRequests({ store, ledger, directory }: ReassignDeps, input: ReassignRequestsInput): Promise<PlannedRequests> {
  const spec = await getJson<CampaignSpec>(store, input.spec);
  const planned = await getRows<TeacherRequest>(store, input.requests);
  const keys = await Promise.all(planned.map(async (request) => ledgerKey(await directory.identify(endpointOf(spec, request)), request)));
  const answered = await ledger.lookup(keys);
  const teacher = (spec.teachers?.length ?? 1) - 1;
  const isMissing = planned.map((_, index) => !answered.has(keys[index] ?? ''));
  const requests = planned.map((request, index) => (isMissing[index] === true && request.purpose !== 'judge' && teacher > 0 ? { ...request, teacher } : request));
  const missing = new Set(requests.filter((_, index) => isMissing[index]));
  await using teachers = new AsyncDisposableStack();
  const upperBounds = new Map<TeacherRequest, { readonly usd: number; readonly tokens: number }>();
  const opened = new Map<unknown, Awaited<ReturnType<TeacherDirectory['open']>>>();
  for (const request of missing) {
    const endpoint = endpointOf(spec, request);
    const asked = opened.get(endpoint) ?? teachers.use(await directory.open(endpoint));
    opened.set(endpoint, asked);
    upperBounds.set(request, boundOf(asked, request));
  }
  return {
    requests: await putRows(store, 'requests', requests),
    count: requests.length,
    batchSize: input.batchSize,
    ...batchUpperBound(requests, input.batchSize, (request) => upperBounds.get(request) ?? { usd: 0, tokens: 0 }),
  };
}
