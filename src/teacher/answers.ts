/** Recorded answers, read for the stages that filter and score them. */
import type { EndpointSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherAnswer } from '../contracts/records.ts';
import type { AnswerReader } from '../dataset/answers.ts';
import { ledgerKey } from '../ledger/key.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { endpointOf } from './sample.ts';
import type { TeacherDirectory, TeacherIdentity } from './teacher.ts';

export interface AnswerReaderDeps {
  readonly ledger: Ledger;
  readonly directory: TeacherDirectory;
}

export function createAnswerReader({ ledger, directory }: AnswerReaderDeps): AnswerReader {
  return async (spec, requests) => {
    const identities = new Map<EndpointSpec, TeacherIdentity>();
    const keys: string[] = [];
    for (const request of requests) {
      const endpoint = endpointOf(spec, request);
      const identity = identities.get(endpoint) ?? (await directory.identify(endpoint));
      identities.set(endpoint, identity);
      keys.push(ledgerKey(identity, request));
    }
    const found = await ledger.lookup(keys);
    const missing = requests.filter((_, index) => !found.has(keys[index] ?? ''));
    if (missing.length > 0) {
      throw new StillhouseError('NOT_FOUND', `expected recorded answers to ${requests.length} requests, but ${missing.length} have none, the first of them ${missing[0]?.id}`);
    }
    return keys.map((key) => found.get(key) as TeacherAnswer);
  };
}
