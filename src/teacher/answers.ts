/** Recorded answers, read for the stages that filter and score them. */
import type { CampaignSpec, EndpointSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherAnswer, TeacherRequest } from '../contracts/records.ts';
import { readAnswer } from '../dataset/answers.ts';
import type { AnswerFinder, AnswerReader, ReadAnswer } from '../dataset/answers.ts';
import { ledgerKey } from '../ledger/key.ts';
import type { Ledger, LedgerKey } from '../ledger/ledger.ts';
import { repairOf } from './repair.ts';
import { endpointOf } from './sample.ts';
import type { TeacherDirectory, TeacherIdentity } from './teacher.ts';

export interface AnswerReaderDeps {
  readonly ledger: Ledger;
  readonly directory: TeacherDirectory;
}

/** Looks answers up; a broken JSON answer is read together with its repair. */
export function createAnswerFinder({ ledger, directory }: AnswerReaderDeps): AnswerFinder {
  return async (spec, requests) => {
    const keys = await keysOf(directory, spec, requests);
    const found = await ledger.lookup(keys);
    const broken = requests.flatMap((request, index) => {
      const answer = found.get(keys[index] ?? '');
      const repair = answer === undefined ? undefined : repairOf(request, answer);
      return repair === undefined ? [] : [{ request, repair }];
    });
    const repairKeys = await keysOf(directory, spec, broken.map(({ repair }) => repair));
    const answered = await ledger.lookup(repairKeys);
    const repairs = new Map(broken.map(({ request }, index): readonly [TeacherRequest, TeacherAnswer | undefined] => [request, answered.get(repairKeys[index] ?? '')]));
    return requests.map((request, index) => {
      const answer = found.get(keys[index] ?? '');
      return answer === undefined ? undefined : readAnswer(request, answer, repairs.get(request));
    });
  };
}

export function createAnswerReader(deps: AnswerReaderDeps): AnswerReader {
  const find = createAnswerFinder(deps);
  return async (spec, requests) => {
    const found = await find(spec, requests);
    const missing = requests.filter((_, index) => found[index] === undefined);
    if (missing.length > 0) {
      throw new StillhouseError('NOT_FOUND', `expected recorded answers to ${requests.length} requests, but ${missing.length} have none, the first of them ${missing[0]?.id}`);
    }
    return found as readonly ReadAnswer[];
  };
}

/** Under which keys the ledger has the answers of whoever each request was planned for. */
export async function keysOf(directory: TeacherDirectory, spec: CampaignSpec, requests: readonly TeacherRequest[]): Promise<readonly LedgerKey[]> {
  const identities = new Map<EndpointSpec, TeacherIdentity>();
  const keys: LedgerKey[] = [];
  for (const request of requests) {
    const endpoint = endpointOf(spec, request);
    const identity = identities.get(endpoint) ?? (await directory.identify(endpoint));
    identities.set(endpoint, identity);
    keys.push(ledgerKey(identity, request));
  }
  return keys;
}
