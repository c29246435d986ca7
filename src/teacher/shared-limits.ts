/**
 * The accounts of all provider keys of a home, in a small SQLite file that every worker process reads
 * and writes. Nothing in it is worth a disk write: a crash of the machine may lose the last seconds.
 */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite';
import { asLedgerError, inTransaction, openShared } from '../ledger/schema.ts';
import { admit, isLimited, learn, limitOf, newAccount, refund } from './rate-account.ts';
import type { Account, Admission, Bucket, Demand, Drawer, Stamp } from './rate-account.ts';
import type { RateFeedback } from './rate-headers.ts';

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS accounts (
    id TEXT PRIMARY KEY,               -- a digest of provider and key: the key itself is not kept
    provider TEXT NOT NULL,
    keyName TEXT NOT NULL,
    state TEXT NOT NULL                -- JSON
  ) STRICT`;

export interface KeyAccount {
  /** Digest of the key. */
  readonly id: string;
  readonly provider: string;
  /** The name of the environment variable that holds the key. */
  readonly keyName: string;
}

export interface Returned {
  readonly feedback: RateFeedback;
  readonly stamp?: Stamp | undefined;
  readonly inFlight: Stamp;
}

/** What a process brings to an account, and asks of it. */
export interface Visit {
  readonly returned?: Returned | undefined;
  /** Tokens of each grant that led to no call. */
  readonly refunds?: readonly number[];
  readonly demands: readonly Demand[];
  /** Calls that the process would make now, of all demands together. */
  readonly atMost: number;
}
export interface Visited extends Admission {
  readonly limited: boolean;
  readonly pausedUntilMs: number;
  readonly stamp: Stamp;
}

export interface AccountState extends KeyAccount {
  readonly requestsPerMinute: { readonly learned?: number; readonly set?: number; readonly effective?: number };
  readonly tokensPerMinute: { readonly learned?: number; readonly set?: number; readonly effective?: number };
  readonly granted: { readonly requests: number; readonly tokens: number };
  readonly waiting: readonly string[];
  readonly pausedUntilMs?: number;
}

export interface SharedLimits extends Disposable {
  visit(account: KeyAccount, visit: Visit): Visited;
  list(): readonly AccountState[];
  /** Sets what a person allows the keys of a provider, null to lift it; the number of keys that this concerns. */
  set(filter: { readonly provider: string; readonly keyName?: string }, rates: { readonly requestsPerMinute?: number | null; readonly tokensPerMinute?: number | null }): number;
}

type Stored = Omit<Account, 'drawers'> & { readonly drawers: readonly (readonly [string, Drawer])[] };

/** JSON has no Infinity; nothing else of an account is null that may not be. */
const encode = (account: Account): string => JSON.stringify({ ...account, drawers: [...account.drawers] });
function decode(text: SQLOutputValue | undefined, nowMs: number): Account {
  if (typeof text !== 'string') return newAccount(nowMs);
  const stored = JSON.parse(text) as Stored;
  const bucket = (from: Bucket): Bucket => ({ ...from, available: (from.available as number | null) ?? Infinity });
  return { ...stored, requests: bucket(stored.requests), tokens: bucket(stored.tokens), drawers: new Map(stored.drawers) };
}

/** Campaigns that are long over leave no trace. */
const FORGET_AFTER_MS = 600_000;

class SqliteLimits implements SharedLimits {
  readonly #path: string;
  readonly #database: DatabaseSync;
  readonly #statements;

  constructor(path: string) {
    this.#path = path;
    this.#database = openShared(path);
    this.#database.exec(`PRAGMA synchronous = OFF; ${SCHEMA}`);
    this.#statements = {
      read: this.#database.prepare('SELECT state FROM accounts WHERE id = ?'),
      write: this.#database.prepare('INSERT INTO accounts VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state, keyName = excluded.keyName'),
      all: this.#database.prepare('SELECT * FROM accounts ORDER BY provider, keyName'),
    };
  }

  visit(key: KeyAccount, { returned, refunds = [], demands, atMost }: Visit): Visited {
    return this.#transaction(() => {
      const nowMs = Date.now();
      const account = decode(this.#statements.read.get(key.id)?.['state'], nowMs);
      for (const tokens of refunds) refund(account, tokens);
      if (returned !== undefined) learn(account, returned.feedback, returned.stamp, returned.inFlight, nowMs);
      const admission = admit(account, demands, atMost, nowMs);
      for (const [user, { limitsUntilMs }] of account.drawers) if (limitsUntilMs + FORGET_AFTER_MS < nowMs) account.drawers.delete(user);
      this.#statements.write.run(key.id, key.provider, key.keyName, encode(account));
      return { ...admission, limited: isLimited(account, nowMs), pausedUntilMs: account.pausedUntilMs, stamp: { requests: account.requests.granted, tokens: account.tokens.granted, atMs: nowMs } };
    });
  }

  list(): readonly AccountState[] {
    const nowMs = Date.now();
    return this.#transaction(() => this.#statements.all.all()).map((row) => {
      const account = decode(row['state'], nowMs);
      const rates = (what: 'requests' | 'tokens'): AccountState['requestsPerMinute'] => {
        const { learned, set } = account[what];
        const effective = limitOf(account, what, nowMs);
        return { ...(learned === null ? {} : { learned }), ...(set === null ? {} : { set }), ...(effective === Infinity ? {} : { effective }) };
      };
      return {
        id: String(row['id']), provider: String(row['provider']), keyName: String(row['keyName']),
        requestsPerMinute: rates('requests'), tokensPerMinute: rates('tokens'),
        granted: { requests: account.requests.granted, tokens: account.tokens.granted },
        waiting: [...account.drawers].flatMap(([user, { waitingUntilMs }]) => (waitingUntilMs > nowMs ? [user] : [])),
        ...(account.pausedUntilMs > nowMs ? { pausedUntilMs: account.pausedUntilMs } : {}),
      };
    });
  }

  set({ provider, keyName }: Parameters<SharedLimits['set']>[0], { requestsPerMinute, tokensPerMinute }: Parameters<SharedLimits['set']>[1]): number {
    return this.#transaction(() => {
      const nowMs = Date.now();
      const rows = this.#statements.all.all().filter((row) => row['provider'] === provider && (keyName === undefined || row['keyName'] === keyName));
      for (const row of rows) {
        const account = decode(row['state'], nowMs);
        if (requestsPerMinute !== undefined) account.requests.set = requestsPerMinute;
        if (tokensPerMinute !== undefined) account.tokens.set = tokensPerMinute;
        for (const bucket of [account.requests, account.tokens]) if (bucket.available === Infinity && bucket.set !== null) bucket.available = 0;
        this.#statements.write.run(String(row['id']), String(row['provider']), String(row['keyName']), encode(account));
      }
      return rows.length;
    });
  }

  [Symbol.dispose](): void {
    if (this.#database.isOpen) this.#database.close();
  }

  #transaction<T>(work: () => T): T {
    try {
      return inTransaction(this.#database, work);
    } catch (error) {
      throw asLedgerError(error, this.#path);
    }
  }
}

/** Opens the accounts at `path`, made when absent; without a path they are this process's own. */
export function createSharedLimits(path = ':memory:'): SharedLimits {
  try {
    return new SqliteLimits(path);
  } catch (error) {
    throw asLedgerError(error, path);
  }
}
