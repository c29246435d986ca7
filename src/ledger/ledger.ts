/** The durable record of every teacher and judge call: write before acknowledging, look up before buying. */
import type { RequestPurpose, TeacherAnswer } from '../contracts/records.ts';
import type { Cost } from '../contracts/state.ts';
import type { FollowerBook } from './followers.ts';
import type { SubmissionBook } from './submissions.ts';

/** 64 hex digits: SHA-256 of the canonical JSON of what decides the answer. See src/ledger/key.ts. */
export type LedgerKey = string;

/** What was bought: answers for a purpose, or a hosted training job. */
export type LedgerPurpose = RequestPurpose | 'fine-tuning';

export interface LedgerCall {
  readonly key: LedgerKey;
  readonly provider: string;
  readonly model: string;
  /** Canonical JSON of the task and parameters, kept so that an answer can be explained later. */
  readonly request: string;
  readonly campaign: string;
  readonly purpose?: LedgerPurpose;
  /** The batch that pays for it: all attempts at one batch share a name and are settled together. */
  readonly batch?: string;
  /** The most that one attempt costs: what an attempt counts for that dies with its process. Absent: nothing. */
  readonly bound?: Cost;
}

/**
 * Whoever asks holds a claim while it does. An open intent belongs to the claim that recorded it last;
 * while that claim lives nobody else asks the same. It lives until it is released, its process is
 * gone, or its lease ran out unrenewed.
 */
export interface Claim extends AsyncDisposable {
  readonly id: number;
}

export interface RecordedIntents {
  /** Keys whose intent had been recorded before without an answer: a call that an earlier process may have paid for already. */
  readonly repeated: readonly LedgerKey[];
  /** Keys that are answered by now, or asked by another living claim: no intent was recorded and they must not be asked. */
  readonly elsewhere: readonly LedgerKey[];
}

/** What one batch bought, over all its attempts: read from the record, so that a lost attempt is still paid for once. */
export interface BatchSpending {
  readonly usd: number;
  readonly tokens: number;
  readonly reasoningTokens: number;
  readonly calls: number;
  readonly repeated: number;
  /** The most that attempts may have cost of which nothing came. */
  readonly lost: Cost;
}

export interface LedgerTotals {
  readonly calls: number;
  /** Intents without an answer: in flight now, or lost with a process. */
  readonly open: number;
  /** The most that those may cost. */
  readonly openUsd: number;
  /** Calls whose intent was recorded more than once: possibly bought twice. */
  readonly repeated: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly costUsd: number;
  /** Answers taken from the record by batches that did not buy them, once for each such batch; and what buying them would have cost. */
  readonly reused: number;
  readonly savedUsd: number;
  /** Attempts of which nothing came and that may have been billed, and the most that they cost. */
  readonly lost: number;
  readonly lostUsd: number;
  /** The part of completionTokens that was spent on reasoning. */
  readonly reasoningTokens: number;
}

/** The totals of one campaign's calls of one purpose to one model. */
export interface LedgerUsage extends LedgerTotals {
  readonly campaign: string;
  readonly model: string;
  /** Absent for calls recorded before purposes were. */
  readonly purpose?: LedgerPurpose;
}

export interface Ledger {
  /** Recorded answers, by key; keys without one are absent. */
  lookup(keys: readonly LedgerKey[]): Promise<ReadonlyMap<LedgerKey, TeacherAnswer>>;
  claim(): Promise<Claim>;
  /** Of these keys, those that are open and that another living claim asks. */
  askedElsewhere(keys: readonly LedgerKey[], claim?: Claim): Promise<ReadonlySet<LedgerKey>>;
  /** Durable before any call is made. Intents without a claim are nobody's: whoever asks next takes them over. */
  recordIntents(calls: readonly LedgerCall[], claim?: Claim): Promise<RecordedIntents>;
  /** Durable when it resolves, all or none; a second answer to a key is ignored. */
  recordAnswers(answers: readonly { readonly key: LedgerKey; readonly answer: TeacherAnswer }[]): Promise<void>;
  /** Attempts at open calls of which nothing came while their process lived; durable when it resolves. They count for who asks now. What died with its process is noted by the next intent, for who had asked. */
  recordLosses(losses: readonly { readonly key: LedgerKey; readonly bound: Cost }[]): Promise<void>;
  /** What an open call may cost is more than its intent says; durable when it resolves. */
  raiseBounds(bounds: readonly { readonly key: LedgerKey; readonly bound: Cost }[]): Promise<void>;
  /** Withdraws the intent of a call that the provider refused without doing it. */
  withdrawIntents(keys: readonly LedgerKey[]): Promise<void>;
  /** Notes which recorded answers a batch took without having bought them: of `keys`, those that another batch paid for. */
  recordReuse(use: { readonly batch: string; readonly campaign: string; readonly keys: readonly { readonly key: LedgerKey; readonly purpose: LedgerPurpose }[] }): Promise<void>;
  batchSpending(batch: string): Promise<BatchSpending>;
  totals(filter?: { readonly campaign?: string }): Promise<LedgerTotals>;
  /** The same by campaign, model and purpose. */
  usage(filter?: { readonly campaign?: string }): Promise<readonly LedgerUsage[]>;
  /** What is at providers' batch services. A question in one is asked by nobody else until it is closed. */
  readonly submissions: SubmissionBook;
  /** Who wants the result of which job at a provider. */
  readonly followers: FollowerBook;
  close(): Promise<void>;
}
