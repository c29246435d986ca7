/** The identity of a call: what decides its answer, and nothing else. */
import { createHash } from 'node:crypto';
import type { TeacherRequest } from '../contracts/records.ts';
import { canonicalJson } from '../store/jsonl.ts';
import type { TeacherIdentity } from '../teacher/teacher.ts';
import type { LedgerKey } from './ledger.ts';

/** Canonical JSON of the question: the task with its parameters, and which of several draws it is. */
export function ledgerRequest(request: TeacherRequest): string {
  return canonicalJson({ sampleIndex: request.sampleIndex, task: request.task });
}

/** Two requests that differ only in id, purpose or row are the same call. */
export function ledgerKey(identity: TeacherIdentity, request: TeacherRequest): LedgerKey {
  return createHash('sha256')
    .update(canonicalJson({ model: identity.model, provider: identity.provider }))
    .update('\n')
    .update(ledgerRequest(request))
    .digest('hex');
}
