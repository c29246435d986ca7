/** After a change of teacher: which of the questions that were planned for an earlier teacher go to the new one. */
import type { PlannedRequests, ReassignRequestsInput } from '../contracts/activities.ts';
import type { CampaignSpec, EndpointSpec } from '../contracts/campaign-spec.ts';
import type { TeacherAnswer, TeacherRequest } from '../contracts/records.ts';
import type { Cost } from '../contracts/state.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { getJson, getRows, putRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { keysOf } from './answers.ts';
import { batchSizeOf, batchUpperBound, boundOf } from './plan.ts';
import { repairOf } from './repair.ts';
import { endpointOf } from './sample.ts';
import type { Teacher, TeacherDirectory } from './teacher.ts';

const isForTeacher = ({ purpose }: TeacherRequest): boolean => purpose !== 'judge' && purpose !== 'student';

export interface ReassignDeps {
  readonly store: ArtifactStore;
  readonly ledger: Ledger;
  readonly directory: TeacherDirectory;
}

/**
 * Writes the assignment down: an answer that the ledger holds stays the answer to its question, and
 * what the ledger learns later about a question that now belongs to another teacher changes nothing.
 * Requests to a judge or to a hosted student stay with it. The bound is that of the answers which are missing.
 */
export async function reassignRequests(deps: ReassignDeps, input: ReassignRequestsInput): Promise<PlannedRequests> {
  const { store, directory } = deps;
  const spec = await getJson<CampaignSpec>(store, input.spec);
  const planned = await getRows<TeacherRequest>(store, input.requests);
  const answered = await answeredOf(deps, spec, planned);
  const teacher = (spec.teachers?.length ?? 1) - 1;
  const requests = planned.map((request) => (teacher === 0 || answered.has(request) || !isForTeacher(request) ? request : { ...request, teacher }));
  await using teachers = new AsyncDisposableStack();
  const batchSize = input.batchSize ?? batchSizeOf(planned.length, spec.sampling.batchSize, teachers.use(await directory.open(spec.teacher)).groupSize);
  const opened = new Map<EndpointSpec, Teacher>();
  const bounds = new Map<TeacherRequest, Cost>();
  for (const [index, request] of requests.entries()) {
    if (answered.has(planned[index] as TeacherRequest)) continue;
    const endpoint = endpointOf(spec, request);
    const asked = opened.get(endpoint) ?? teachers.use(await directory.open(endpoint));
    opened.set(endpoint, asked);
    bounds.set(request, boundOf(asked, request));
  }
  return {
    requests: await putRows(store, 'requests', requests),
    count: requests.length,
    batchSize,
    ...batchUpperBound(requests, batchSize, (request) => bounds.get(request) ?? { usd: 0, tokens: 0 }),
  };
}

/** The requests with an answer. One that has to be repaired is none as long as its repair is missing. */
async function answeredOf({ ledger, directory }: ReassignDeps, spec: CampaignSpec, requests: readonly TeacherRequest[]): Promise<ReadonlySet<TeacherRequest>> {
  const answersTo = async (asked: readonly TeacherRequest[]): Promise<readonly (TeacherAnswer | undefined)[]> => {
    const keys = await keysOf(directory, spec, asked);
    const found = await ledger.lookup(keys);
    return keys.map((key) => found.get(key));
  };
  const answers = await answersTo(requests);
  const answered = new Set(requests.filter((_, index) => answers[index] !== undefined));
  const broken = requests.flatMap((request, index) => {
    const answer = answers[index];
    const repair = answer === undefined ? undefined : repairOf(request, answer);
    return repair === undefined ? [] : [{ request, repair }];
  });
  for (const [index, repaired] of (await answersTo(broken.map(({ repair }) => repair))).entries()) {
    if (repaired === undefined) answered.delete(broken[index]?.request as TeacherRequest);
  }
  return answered;
}
