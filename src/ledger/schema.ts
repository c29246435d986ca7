/** The ledger's tables, and how an older file becomes a newer one. */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { StillhouseError } from '../contracts/errors.ts';

/** Step n brings a file of version n to n + 1; a step that was released is never changed. */
export const MIGRATIONS: readonly string[] = [
  `CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
  CREATE TABLE calls (
    key BLOB PRIMARY KEY,              -- SHA-256, 32 bytes
    provider INTEGER NOT NULL REFERENCES names,
    model INTEGER NOT NULL REFERENCES names,
    campaign INTEGER NOT NULL REFERENCES names,
    batch INTEGER REFERENCES names,
    request BLOB NOT NULL,             -- canonical JSON, raw deflate
    intents INTEGER NOT NULL,          -- more than one: possibly bought twice
    intendedAtMs INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX callsByCampaign ON calls (campaign);
  CREATE INDEX callsByBatch ON calls (batch);
  CREATE TABLE answers (
    key BLOB PRIMARY KEY REFERENCES calls,
    text TEXT NOT NULL,
    labelLogProbs BLOB,                -- float32, little endian
    finishReason TEXT NOT NULL,
    promptTokens INTEGER NOT NULL,
    cachedPromptTokens INTEGER NOT NULL,
    completionTokens INTEGER NOT NULL,
    costUsd REAL NOT NULL,
    latencyMs REAL NOT NULL,
    model INTEGER NOT NULL REFERENCES names,
    answeredAtMs INTEGER NOT NULL
  ) STRICT;`,
  `CREATE TABLE claims (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    startTicks TEXT,                   -- tells the process from a later one with its number
    aliveUntilMs INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE submissions (
    id TEXT PRIMARY KEY,
    providerId TEXT,                   -- null: intended, perhaps sent
    claim INTEGER,                     -- who sends it
    createdAtMs INTEGER NOT NULL
  ) STRICT;
  ALTER TABLE calls ADD COLUMN purpose INTEGER REFERENCES names;
  ALTER TABLE calls ADD COLUMN claim INTEGER;       -- who asks; a claim that is gone is nobody
  ALTER TABLE calls ADD COLUMN submission TEXT REFERENCES submissions;
  CREATE INDEX callsBySubmission ON calls (submission) WHERE submission IS NOT NULL;
  CREATE TABLE reuses (
    batch INTEGER NOT NULL REFERENCES names,        -- who took the answer without paying
    key BLOB NOT NULL REFERENCES answers,
    campaign INTEGER NOT NULL REFERENCES names,
    purpose INTEGER NOT NULL REFERENCES names,
    PRIMARY KEY (batch, key)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX reusesByCampaign ON reuses (campaign);`,
  // As in src/dataset/soft-targets.ts, without the base64.
  'ALTER TABLE answers ADD COLUMN softTargets BLOB;',
  `CREATE TABLE losses (
    key BLOB NOT NULL,                 -- of a call that may be answered later, or withdrawn
    provider INTEGER NOT NULL REFERENCES names,
    model INTEGER NOT NULL REFERENCES names,
    campaign INTEGER NOT NULL REFERENCES names,
    batch INTEGER REFERENCES names,
    purpose INTEGER REFERENCES names,
    costUsd REAL NOT NULL,             -- the most that the attempt may have cost
    tokens INTEGER NOT NULL,
    lostAtMs INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX lossesByCampaign ON losses (campaign);
  CREATE INDEX lossesByBatch ON losses (batch);
  ALTER TABLE answers ADD COLUMN reasoningTokens INTEGER;
  ALTER TABLE answers ADD COLUMN reasoning TEXT;    -- what the model reasoned before its answer
  ALTER TABLE answers ADD COLUMN note TEXT;         -- what the provider said in place of an answer`,
  `ALTER TABLE calls ADD COLUMN boundUsd REAL;         -- the most that one attempt costs
  ALTER TABLE calls ADD COLUMN boundTokens INTEGER;
  CREATE TABLE followers (           -- who wants the result of a provider's job
    key BLOB NOT NULL,
    batch INTEGER NOT NULL REFERENCES names,
    PRIMARY KEY (key, batch)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE askings (             -- when a batch was first asked: from here its deadline counts
    batch INTEGER PRIMARY KEY REFERENCES names,
    begunAtMs INTEGER NOT NULL
  ) STRICT;`,
];
export const SCHEMA_VERSION = MIGRATIONS.length;

/** How long a writer waits for another process's transaction, which takes milliseconds. */
const BUSY_TIMEOUT_MS = 20_000;

/** How long it waits between two attempts to change a file to a write-ahead log. */
const WAL_RETRY_MS = 20;

/** The file, made when absent, with a write-ahead log: processes read while one of them writes. */
export function openShared(path: string): DatabaseSync {
  if (path !== ':memory:') mkdirSync(dirname(path), { recursive: true });
  const database = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
  const untilMs = performance.now() + BUSY_TIMEOUT_MS;
  for (;;) {
    try {
      database.exec('PRAGMA journal_mode = WAL');
      return database;
    } catch (error) {
      // Two processes that open a new file at once: for this change SQLite does not wait as it does for a transaction.
      if (!isBusy(error) || performance.now() > untilMs) {
        database.close();
        throw error;
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, WAL_RETRY_MS);
    }
  }
}

/** SQLITE_BUSY, whatever its extended code. */
const isBusy = (error: unknown): boolean => error instanceof Error && 'errcode' in error && typeof error.errcode === 'number' && (error.errcode & 0xff) === 5;

/** Opens the ledger, made when absent and brought to this version when older; with synchronous=FULL a commit is on the disk when it returns. */
export function openDatabase(path: string): DatabaseSync {
  const database = openShared(path);
  try {
    database.exec('PRAGMA synchronous = FULL; BEGIN IMMEDIATE');
    const version = Number(database.prepare('PRAGMA user_version').get()?.['user_version']);
    for (const step of MIGRATIONS.slice(version)) database.exec(step);
    if (version < SCHEMA_VERSION) database.exec(`PRAGMA user_version = ${SCHEMA_VERSION}`);
    database.exec('COMMIT');
    if (version > SCHEMA_VERSION) {
      throw new StillhouseError('CONFLICT', `expected a ledger of version ${SCHEMA_VERSION} or older at ${path}, got version ${version}: it was written by a newer release`);
    }
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

/** All of `work` or nothing of it. What it throws comes through as it is. */
export function inTransaction<T>(database: DatabaseSync, work: () => T): T {
  database.exec('BEGIN IMMEDIATE');
  try {
    const result = work();
    database.exec('COMMIT');
    return result;
  } catch (error) {
    // SQLite has rolled back by itself after a full disk; then there is nothing left to undo.
    if (database.isTransaction) database.exec('ROLLBACK');
    throw error;
  }
}

/** SQLite's primary result codes, https://sqlite.org/rescode.html; the extended code's low byte. */
export function asLedgerError(error: unknown, path: string): unknown {
  if (!(error instanceof Error) || !('errcode' in error) || typeof error.errcode !== 'number') return error;
  const options = { cause: error, details: { errcode: error.errcode } };
  const IOERR_WRITE = 778;
  if ((error.errcode & 0xff) === 13 || error.errcode === IOERR_WRITE) {
    return new StillhouseError('DISK_FULL', `expected free space to write the ledger ${path}, got "${error.message}": free some space and resume`, options);
  }
  switch (error.errcode & 0xff) {
    case 5: // BUSY
    case 6: // LOCKED
    case 10: // IOERR
      return new StillhouseError('UNAVAILABLE', `expected to read and write the ledger ${path}, got "${error.message}"`, options);
    case 11: // CORRUPT
    case 26: // NOTADB
      return new StillhouseError('CORRUPT', `expected a ledger at ${path}, got "${error.message}"`, options);
    case 8: // READONLY
    case 14: // CANTOPEN
      return new StillhouseError('BAD_INPUT', `expected a ledger that can be written at ${path}, got "${error.message}"`, options);
    default:
      return error;
  }
}
