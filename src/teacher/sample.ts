/** Sampling: a batch of questions is looked up in the ledger, what is missing is bought, and each answer is durable before it counts. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { SampleBatchInput, SampledBatch } from '../contracts/activities.ts';
import { hostedEndpoint } from '../contracts/campaign-spec.ts';
import type { CampaignSpec, EndpointSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherAnswer, TeacherRequest } from '../contracts/records.ts';
import type { Spending } from '../contracts/state.ts';
import { ledgerKey, ledgerRequest } from '../ledger/key.ts';
import type { Claim, Ledger, LedgerCall, LedgerKey } from '../ledger/ledger.ts';
import { getJson, getRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { createOverrun } from './overrun.ts';
import { repairOf } from './repair.ts';
import { askInBatches, BATCH_TIMINGS } from './batch.ts';
import type { BatchTimings } from './batch.ts';
import type { BatchService } from './batch-service.ts';
import type { TeacherDirectory, TeacherIdentity } from './teacher.ts';

export interface SampleDeps {
  readonly store: ArtifactStore;
  readonly ledger: Ledger;
  readonly directory: TeacherDirectory;
  readonly batchTimings?: Partial<BatchTimings>;
}

export interface SampleOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
  /**
   * Names the execution that pays. Attempts with the same name are settled together; without one, an
   * execution that repeats a finished batch is told again what that batch had cost.
   */
  readonly run?: string;
}

/** One object for each hosted student of a spec, as there is one for each teacher: requests are grouped by it. */
const students = new WeakMap<CampaignSpec, Map<string, EndpointSpec>>();

function studentEndpoint(spec: CampaignSpec, tunedModel: string | undefined): EndpointSpec {
  const { student } = spec;
  if (student.provider !== 'openai') throw new StillhouseError('BAD_INPUT', `expected student.provider openai for requests to a student, got ${student.provider}`);
  const model = tunedModel ?? student.model;
  const known = students.get(spec)?.get(model);
  if (known !== undefined) return known;
  const made = hostedEndpoint(student, model);
  students.set(spec, (students.get(spec) ?? new Map<string, EndpointSpec>()).set(model, made));
  return made;
}

/** Who answers a request: the judge, the hosted student, or the teacher that it was planned for. */
export function endpointOf(spec: CampaignSpec, { purpose, teacher = 0, tunedModel }: Pick<TeacherRequest, 'purpose' | 'teacher' | 'tunedModel'>): EndpointSpec {
  if (purpose === 'student') return studentEndpoint(spec, tunedModel);
  if (purpose !== 'judge') {
    const { teachers = [spec.teacher] } = spec;
    const found = teachers[teacher];
    if (found === undefined) throw new StillhouseError('CORRUPT', `expected a request to one of ${teachers.length} teachers, got one to number ${teacher + 1}`);
    return found;
  }
  const { scorer } = spec.evaluation;
  if (scorer.kind !== 'judge') throw new StillhouseError('BAD_INPUT', `expected evaluation.scorer.kind judge for requests to a judge, got ${scorer.kind}`);
  return scorer.judge;
}

/** Between looks at what another campaign is asking: a call takes a second as a rule. */
const FIRST_WAIT_MS = 50;
const MAX_WAIT_MS = 1_000;

interface KeyedRequest {
  readonly request: TeacherRequest;
  readonly key: LedgerKey;
}

/**
 * The requests that must be asked: those without an answer, and with them the whole of their group,
 * since a group's members decide each other's last bits. Groups lie on the positions of the artifact.
 */
export function missingGroups(keyed: readonly KeyedRequest[], answered: ReadonlySet<LedgerKey>, groupSize: number): readonly KeyedRequest[] {
  if (groupSize === 1) {
    // A question that stands twice in a batch is bought once.
    return [...new Map(keyed.filter(({ key }) => !answered.has(key)).map((each) => [each.key, each])).values()];
  }
  const groups = Array.from({ length: Math.ceil(keyed.length / groupSize) }, (_, index) => keyed.slice(index * groupSize, (index + 1) * groupSize));
  return groups.filter((group) => group.some(({ key }) => !answered.has(key))).flat();
}

/** The requests of a batch that one teacher answers, with their keys. */
interface Part {
  readonly endpoint: EndpointSpec;
  readonly identity: TeacherIdentity;
  readonly keyed: readonly KeyedRequest[];
}

async function partsOf({ directory }: SampleDeps, spec: CampaignSpec, requests: readonly TeacherRequest[]): Promise<readonly Part[]> {
  const groups = Map.groupBy(requests, (request) => endpointOf(spec, request));
  return Promise.all([...groups].map(async ([endpoint, members]): Promise<Part> => {
    const identity = await directory.identify(endpoint);
    return { endpoint, identity, keyed: members.map((request) => ({ request, key: ledgerKey(identity, request) })) };
  }));
}

/**
 * Answers requests [from, to), and asks once more about JSON that came broken. Spending is what this
 * batch has bought over all its attempts, read from the ledger, so that a lost attempt is settled by
 * the next. On a permanent failure what arrived is kept and the failure thrown, with what the batch has
 * cost so far as `details.spending`.
 */
export async function sampleBatch(deps: SampleDeps, input: SampleBatchInput, options: SampleOptions = {}): Promise<SampledBatch> {
  const { ledger, store } = deps;
  const spec = await getJson<CampaignSpec>(store, input.spec);
  const requests = (await getRows<TeacherRequest>(store, input.requests)).slice(input.from, input.to);
  const batch = [options.run ?? '', input.campaign, input.requests.sha256, input.from, input.to, ...(input.purchasesBefore === undefined ? [] : [input.purchasesBefore])].join(' ');
  const uses = new Map<LedgerKey, { readonly key: LedgerKey; readonly purpose: TeacherRequest['purpose'] }>();
  const done = new Set<LedgerKey>();
  let left = 0;
  const progressed = (): void => options.onProgress?.(done.size, uses.size);
  const spent = async (): Promise<Spending> => {
    const bought = await ledger.batchSpending(batch);
    return {
      usd: bought.usd, tokens: bought.tokens, ...(bought.reasoningTokens > 0 ? { reasoningTokens: bought.reasoningTokens } : {}), callsBought: bought.calls, callsReused: done.size - bought.calls, callsRepeated: bought.repeated,
      ...(bought.repeated > 0 || bought.lost.usd > 0 || bought.lost.tokens > 0 ? { lost: bought.lost } : {}),
    };
  };
  const answer = async (asked: readonly TeacherRequest[]): Promise<readonly Part[]> => {
    const parts = await partsOf(deps, spec, asked);
    const wanted = parts.flatMap(({ keyed }) => keyed);
    for (const { request, key } of wanted) uses.set(key, { key, purpose: request.purpose });
    for (const key of (await ledger.lookup(wanted.map(({ key }) => key))).keys()) done.add(key);
    progressed();
    for (const part of parts) left += await askMissing(deps, part, { batch, direct: input.direct === true, campaign: input.campaign, done, progressed, signal: options.signal, ...insisting(spec, part.endpoint) });
    return parts;
  };
  try {
    await answer(await brokenOnes(ledger, await answer(requests)));
  } catch (error) {
    throw await withSpending(error, spent);
  }
  await ledger.recordReuse({ batch, campaign: input.campaign, keys: [...uses.values()] });
  return { answered: requests.length - left, ...(left === 0 ? {} : { left }), spending: await spent() };
}

function insisting({ sampling }: CampaignSpec, { model }: EndpointSpec): Pick<Asked, 'refuseMissing'> {
  if (sampling.softTargets?.onMissing !== 'refuse') return {};
  return {
    refuseMissing: (answers) => {
      const without = answers.find(({ request, answer }) => request.task.parameters.topLogProbs !== undefined && answer.softTargets === undefined && answer.text !== '');
      if (without === undefined) return;
      throw new StillhouseError('BAD_INPUT', `sampling.softTargets: expected log-probabilities with the answers of ${model}, got none with ${without.request.id}; set onMissing: continue to go on with the text alone, or name another teacher`);
    },
  };
}

/** Repairs of the answers that are not the JSON that was asked for. */
async function brokenOnes(ledger: Ledger, parts: readonly Part[]): Promise<readonly TeacherRequest[]> {
  const json = parts.flatMap(({ keyed }) => keyed.filter(({ request }) => request.task.kind === 'json'));
  const answers = await ledger.lookup(json.map(({ key }) => key));
  return json.flatMap(({ request, key }) => {
    const answer = answers.get(key);
    return (answer === undefined ? undefined : repairOf(request, answer)) ?? [];
  });
}

interface Asked {
  readonly batch: string;
  /** Not through a batch service. */
  readonly direct: boolean;
  readonly campaign: string;
  /** Grows as answers become durable. */
  readonly done: Set<LedgerKey>;
  readonly progressed: () => void;
  readonly signal: AbortSignal | undefined;
  /** Throws where the spec insists on soft targets and the endpoint gives none; what was bought is recorded by then. */
  readonly refuseMissing?: (answers: readonly { readonly request: TeacherRequest; readonly answer: TeacherAnswer }[]) => void;
}

/** Asks what has no answer; what somebody else is asking is waited for, and asked here when nobody does any more. How many were left for want of money set aside. */
async function askMissing({ ledger, directory, batchTimings }: SampleDeps, { endpoint, identity, keyed }: Part, asked: Asked): Promise<number> {
  const { batch, direct, campaign, done, progressed, signal, refuseMissing } = asked;
  const complete = keyed.every(({ key }) => done.has(key));
  if (complete && !direct) return 0;
  await using teacher = await directory.open(endpoint);
  // First questions are to tell whether the next can be asked, though the ledger answers them.
  if (direct) teacher.ready?.();
  if (complete) return 0;
  await using claim = await ledger.claim();
  const keys = new Map(keyed.map(({ request, key }) => [request, key]));
  const keyOf = (request: TeacherRequest): LedgerKey => keys.get(request) ?? ledgerKey(identity, request);
  const callOf = (request: TeacherRequest): LedgerCall => ({ key: keyOf(request), ...identity, request: ledgerRequest(request), campaign, batch, purpose: request.purpose, bound: teacher.upperBound(request) });
  const answered = (answers: readonly { readonly request: TeacherRequest; readonly answer: TeacherAnswer }[]): void => {
    for (const { request } of answers) done.add(keyOf(request));
    progressed();
    refuseMissing?.(answers);
  };
  const byKey = new Map(keyed.map(({ request, key }) => [key, request]));
  let service: BatchService | undefined;
  for (;;) {
    if (teacher.batches !== undefined && !direct) {
      await askInBatches({
        ledger, claim, batch, signal,
        service: () => (service ??= teacher.batches?.(signal) as BatchService),
        timings: { ...BATCH_TIMINGS, ...batchTimings },
        deadlineHours: endpoint.batch?.deadlineHours,
        missing: () => missingGroups(keyed, done, 1).map(({ request }) => callOf(request)),
        onAnswered: (answers) => answered(answers.flatMap(({ key, answer }) => (byKey.has(key) ? [{ request: byKey.get(key) as TeacherRequest, answer }] : []))),
      });
    }
    const missing = missingGroups(keyed, done, teacher.groupSize);
    if (missing.length === 0) return 0;
    const uncovered = new Set<TeacherRequest>();
    const overrun = createOverrun(new Map(missing.map(({ request }) => [request, teacher.upperBound(request)])), endpoint.concurrency, identity.model);
    await teacher.ask(missing.map(({ request }) => request), {
      ...(signal === undefined ? {} : { signal }),
      user: campaign,
      ...(endpoint.store === true ? { metadata: (request: TeacherRequest) => ({ campaign, round: String(request.round ?? 0), sample: request.id }) } : {}),
      onAsk: async (requests) => {
        const { elsewhere } = await ledger.recordIntents(requests.map(callOf), claim);
        if (elsewhere.length === 0) return undefined;
        const others = new Set(elsewhere);
        return new Set(requests.filter((request) => others.has(keyOf(request))));
      },
      answeredBefore: keyed.length - missing.length,
      onUncovered: (requests) => requests.forEach((request) => uncovered.add(request)),
      onRefused: (refused) => ledger.withdrawIntents(refused.map(keyOf)),
      onDearer: (dearer) => ledger.raiseBounds(dearer.map(({ request, bound }) => ({ key: keyOf(request), bound }))),
      onLost: async (lost) => {
        await ledger.recordLosses(lost.map(({ request, bound }) => ({ key: keyOf(request), bound })));
        for (const { request, bound, reason } of lost) overrun.lost(request, bound, reason);
      },
      onAnswers: async (answers) => {
        await ledger.recordAnswers(answers.map(({ request, answer }) => ({ key: keyOf(request), answer })));
        for (const { request, answer: { costUsd, usage } } of answers) overrun.answered(request, { usd: costUsd, tokens: usage.promptTokens + usage.completionTokens });
        answered(answers);
      },
    });
    if (uncovered.size > 0) return uncovered.size;
    await awaitOthers(ledger, missing.map(({ key }) => key), claim, asked);
  }
}

/** Returns when one of the keys is nobody's, so that it can be asked here, or when all are answered. */
async function awaitOthers(ledger: Ledger, keys: readonly LedgerKey[], claim: Claim, { done, progressed, signal }: Asked): Promise<void> {
  for (let pauseMs = FIRST_WAIT_MS; ; pauseMs = Math.min(2 * pauseMs, MAX_WAIT_MS)) {
    const open = keys.filter((key) => !done.has(key));
    for (const key of (await ledger.lookup(open)).keys()) done.add(key);
    progressed();
    const left = open.filter((key) => !done.has(key));
    if (left.length === 0 || (await ledger.askedElsewhere(left, claim)).size < left.length) return;
    // What is at a provider's batch service is for whoever needs it to fetch: its campaign may be over.
    if ((await ledger.submissions.holding(left)).length > 0) return;
    await sleep(pauseMs, undefined, signal === undefined ? {} : { signal }).catch(() => {
      throw new StillhouseError('CANCELLED', 'stopped while waiting for answers that another campaign asks for');
    });
  }
}

/** The same failure with what the batch has cost so far; without it where the ledger itself is what failed. */
async function withSpending(error: unknown, spent: () => Promise<Spending>): Promise<unknown> {
  if (!(error instanceof StillhouseError)) return error;
  const { code, message, retryAfterMs, details, cause } = error;
  const spending = await spent().catch(() => undefined);
  return spending === undefined ? error : new StillhouseError(code, message, { cause, details: { ...details, spending }, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
}
