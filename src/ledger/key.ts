/** The identity of a call: what decides its answer, and nothing else. */
import { createHash } from 'node:crypto';
import type { TeacherRequest } from '../contracts/records.ts';
import { canonicalJson } from '../store/jsonl.ts';
import { SHOT_END } from '../teacher/prompts.ts';
import type { TeacherIdentity } from '../teacher/teacher.ts';
import type { LedgerKey } from './ledger.ts';

/** Canonical JSON of the question: the task with its parameters, and which of several draws it is. */
export function ledgerRequest(request: TeacherRequest): string {
  return canonicalJson({ sampleIndex: request.sampleIndex, task: request.task });
}

/** A local model compares the labels after a few-shot prompt with what ends them: that decides its answer beside the question. */
const decidesToo = ({ provider }: TeacherIdentity, { task }: TeacherRequest): object =>
  provider === 'local' && task.kind === 'label' && task.completionPrompt !== undefined ? { labelEnd: SHOT_END } : {};

/** Two requests that differ only in id, purpose or row are the same call. */
export function ledgerKey(identity: TeacherIdentity, request: TeacherRequest): LedgerKey {
  return createHash('sha256')
    .update(canonicalJson({ model: identity.model, provider: identity.provider, ...decidesToo(identity, request) }))
    .update('\n')
    .update(ledgerRequest(request))
    .digest('hex');
}
