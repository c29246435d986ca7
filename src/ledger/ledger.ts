/** The durable record of every teacher and judge call: write before acknowledging, look up before buying. */
import type { TeacherAnswer } from '../contracts/records.ts';

/** 64 hex digits: SHA-256 of the canonical JSON of what decides the answer. See src/ledger/key.ts. */
export type LedgerKey = string;

export interface LedgerCall {
  readonly key: LedgerKey;
  readonly provider: string;
  readonly model: string;
  /** Canonical JSON of the task and parameters, kept so that an answer can be explained later. */
  readonly request: string;
  readonly campaign: string;
  /** The batch that pays for it: all attempts at one batch share a name and are settled together. */
  readonly batch?: string;
}

/** What one batch bought, over all its attempts: read from the record, so that a lost attempt is still paid for once. */
export interface BatchSpending {
  readonly usd: number;
  readonly tokens: number;
  readonly calls: number;
  readonly repeated: number;
}

export interface LedgerTotals {
  readonly calls: number;
  /** Intents without an answer: in flight now, or lost with a process. */
  readonly open: number;
  /** Calls whose intent was recorded more than once: possibly bought twice. */
  readonly repeated: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly costUsd: number;
}

export interface Ledger {
  /** Recorded answers, by key; keys without one are absent. */
  lookup(keys: readonly LedgerKey[]): Promise<ReadonlyMap<LedgerKey, TeacherAnswer>>;
  /**
   * Durable before any call is made. Returns the keys whose intent had been recorded before without
   * an answer: a call that an earlier process may have paid for already.
   */
  recordIntents(calls: readonly LedgerCall[]): Promise<readonly LedgerKey[]>;
  /** Durable when it resolves, all or none; a second answer to a key is ignored. */
  recordAnswers(answers: readonly { readonly key: LedgerKey; readonly answer: TeacherAnswer }[]): Promise<void>;
  /** Withdraws the intent of a call that the provider refused without doing it. */
  withdrawIntents(keys: readonly LedgerKey[]): Promise<void>;
  batchSpending(batch: string): Promise<BatchSpending>;
  totals(filter?: { readonly campaign?: string }): Promise<LedgerTotals>;
  close(): Promise<void>;
}
