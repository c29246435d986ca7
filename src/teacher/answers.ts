/** Recorded answers, read for the stages that filter and score them. */
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
    const identities = new Map<'judge' | 'teacher', TeacherIdentity>();
    const keys: string[] = [];
    for (const request of requests) {
      const who = request.purpose === 'judge' ? 'judge' : 'teacher';
      const identity = identities.get(who) ?? (await directory.identify(endpointOf(spec, request.purpose)));
      identities.set(who, identity);
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
