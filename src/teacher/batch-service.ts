/** The port of a provider's batch service: files of questions that are answered within a day, for less. */
import type { StillhouseError } from '../contracts/errors.ts';
import type { TeacherAnswer } from '../contracts/records.ts';
import type { Cost } from '../contracts/state.ts';
import type { LedgerKey } from '../ledger/ledger.ts';
import type { RecordedQuestion } from '../ledger/submissions.ts';

export type BatchState =
  | { readonly kind: 'running'; readonly done: number; readonly total: number; readonly cancelling: boolean }
  /** Over, whether all was answered, the window closed before, or it was cancelled. */
  | { readonly kind: 'ended' }
  /** The whole file was turned away. */
  | { readonly kind: 'refused'; readonly error: StillhouseError };

export type BatchLine =
  | { readonly key: LedgerKey; readonly answer: TeacherAnswer; /** The most that it may have cost, where the line does not say. */ readonly lost?: Cost }
  /** Not answered, and not billed: it can be asked again. */
  | { readonly key: LedgerKey; readonly unanswered: true };

export interface BatchService {
  /** Hands in a file; the provider's name for the batch. */
  submit(id: string, questions: ReadonlyMap<LedgerKey, RecordedQuestion>): Promise<string>;
  /** The batch that carries our id, when there is one that was made since. */
  find(id: string, sinceMs: number): Promise<string | undefined>;
  poll(providerId: string): Promise<BatchState>;
  cancel(providerId: string): Promise<void>;
  /** What became of each question. Throws, after the last line, when a question failed in a way that asking again cannot cure. */
  collect(providerId: string, questions: ReadonlyMap<LedgerKey, RecordedQuestion>, onLines: (lines: readonly BatchLine[]) => Promise<void>): Promise<void>;
}

