/** Sampling: a batch of questions is looked up in the ledger, what is missing is bought, and each answer is durable before it counts. */
import type { SampleBatchInput, SampledBatch } from '../contracts/activities.ts';
import type { CampaignSpec, EndpointSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherRequest } from '../contracts/records.ts';
import { ledgerKey, ledgerRequest } from '../ledger/key.ts';
import type { Ledger, LedgerKey } from '../ledger/ledger.ts';
import { getJson, getRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import type { TeacherDirectory } from './teacher.ts';

export interface SampleDeps {
  readonly store: ArtifactStore;
  readonly ledger: Ledger;
  readonly directory: TeacherDirectory;
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

/** Who answers a request: the judge, or the teacher. */
export function endpointOf(spec: CampaignSpec, purpose: TeacherRequest['purpose']): EndpointSpec {
  if (purpose !== 'judge') return spec.teacher;
  const { scorer } = spec.evaluation;
  if (scorer.kind !== 'judge') throw new StillhouseError('BAD_INPUT', `expected evaluation.scorer.kind judge for requests to a judge, got ${scorer.kind}`);
  return scorer.judge;
}

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

/**
 * Answers requests [from, to). Spending is what this batch has bought over all its attempts, read
 * from the ledger, so that a lost attempt is settled by the next. On a permanent failure what
 * arrived is kept and the failure thrown.
 */
export async function sampleBatch(deps: SampleDeps, input: SampleBatchInput, options: SampleOptions = {}): Promise<SampledBatch> {
  const { ledger } = deps;
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const requests = (await getRows<TeacherRequest>(deps.store, input.requests)).slice(input.from, input.to);
  const first = requests[0];
  const batch = [options.run ?? '', input.campaign, input.requests.sha256, input.from, input.to].join(' ');
  if (first !== undefined) {
    const endpoint = endpointOf(spec, first.purpose);
    const identity = await deps.directory.identify(endpoint);
    const keyed = requests.map((request): KeyedRequest => ({ request, key: ledgerKey(identity, request) }));
    const known = await ledger.lookup(keyed.map(({ key }) => key));
    const done = new Set(known.keys());
    const total = new Set(keyed.map(({ key }) => key)).size;
    options.onProgress?.(done.size, total);
    if (done.size < total) {
      await using teacher = await deps.directory.open(endpoint);
      const missing = missingGroups(keyed, done, teacher.groupSize);
      const keys = new Map(missing.map(({ request, key }) => [request, key]));
      const keyOf = (request: TeacherRequest): LedgerKey => keys.get(request) ?? ledgerKey(identity, request);
      await teacher.ask(missing.map(({ request }) => request), {
        ...(options.signal === undefined ? {} : { signal: options.signal }),
        user: input.campaign,
        onAsk: async (asked) => {
          await ledger.recordIntents(asked.map((request) => ({ key: keyOf(request), ...identity, request: ledgerRequest(request), campaign: input.campaign, batch })));
        },
        onRefused: (refused) => ledger.withdrawIntents(refused.map(keyOf)),
        onAnswers: async (answers) => {
          await ledger.recordAnswers(answers.map(({ request, answer }) => ({ key: keyOf(request), answer })));
          for (const { request } of answers) done.add(keyOf(request));
          options.onProgress?.(done.size, total);
        },
      });
    }
    const bought = await ledger.batchSpending(batch);
    return {
      answered: requests.length,
      spending: { usd: bought.usd, tokens: bought.tokens, callsBought: bought.calls, callsReused: total - bought.calls, callsRepeated: bought.repeated },
    };
  }
  return { answered: 0, spending: { usd: 0, tokens: 0, callsBought: 0, callsReused: 0, callsRepeated: 0 } };
}
