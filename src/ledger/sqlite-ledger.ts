/**
 * The ledger in one SQLite file. Write-ahead log with synchronous=FULL: a commit is on the disk when it
 * returns. Several processes read and write it; each write is one short transaction.
 */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { SQLOutputValue, StatementSync } from 'node:sqlite';
import { deflateRawSync } from 'node:zlib';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherAnswer } from '../contracts/records.ts';
import type { BatchSpending, Ledger, LedgerCall, LedgerKey, LedgerTotals } from './ledger.ts';

const SCHEMA_VERSION = 1;
/** How long a writer waits for another process's transaction, which takes milliseconds. */
const BUSY_TIMEOUT_MS = 20_000;

const SCHEMA = `
  CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
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
  ) STRICT;
  PRAGMA user_version = ${SCHEMA_VERSION};
`;

const keyBytes = (key: LedgerKey): Buffer => Buffer.from(key, 'hex');

function packLogProbs(values: readonly number[] | undefined): Uint8Array | null {
  if (values === undefined) return null;
  const bytes = Buffer.alloc(values.length * 4);
  values.forEach((value, index) => bytes.writeFloatLE(value, index * 4));
  return bytes;
}

function unpackLogProbs(bytes: SQLOutputValue): number[] | undefined {
  if (!(bytes instanceof Uint8Array)) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / 4 }, (_, index) => view.getFloat32(index * 4, true));
}

type Row = Record<string, SQLOutputValue>;

function answerOf(row: Row): TeacherAnswer {
  const labelLogProbs = unpackLogProbs(row['labelLogProbs'] ?? null);
  return {
    text: String(row['text']),
    ...(labelLogProbs === undefined ? {} : { labelLogProbs }),
    finishReason: String(row['finishReason']) as TeacherAnswer['finishReason'],
    usage: {
      promptTokens: Number(row['promptTokens']),
      cachedPromptTokens: Number(row['cachedPromptTokens']),
      completionTokens: Number(row['completionTokens']),
    },
    costUsd: Number(row['costUsd']),
    latencyMs: Number(row['latencyMs']),
    model: String(row['model']),
  };
}

/** SQLite's primary result codes, https://sqlite.org/rescode.html; the extended code's low byte. */
function asLedgerError(error: unknown, path: string): unknown {
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

function openDatabase(path: string): DatabaseSync {
  mkdirSync(dirname(path), { recursive: true });
  const database = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
  try {
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN IMMEDIATE');
    const version = Number(database.prepare('PRAGMA user_version').get()?.['user_version']);
    if (version === 0) database.exec(SCHEMA);
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

const STATEMENTS = {
  answer: 'SELECT a.*, n.name AS model FROM answers a JOIN names n ON n.id = a.model WHERE a.key = ?',
  isAnswered: 'SELECT 1 FROM answers WHERE key = ?',
  addName: 'INSERT INTO names (name) VALUES (?) ON CONFLICT DO NOTHING',
  nameId: 'SELECT id FROM names WHERE name = ?',
  // The batch that tries last pays: an earlier one that died without an answer settles nothing for this call.
  addIntent: `INSERT INTO calls (key, provider, model, campaign, batch, request, intents, intendedAtMs) VALUES (?, ?, ?, ?, ?, ?, 1, ?)
    ON CONFLICT (key) DO UPDATE SET intents = intents + 1, campaign = excluded.campaign, batch = excluded.batch RETURNING intents`,
  addAnswer: `INSERT INTO answers (key, text, labelLogProbs, finishReason, promptTokens, cachedPromptTokens, completionTokens, costUsd, latencyMs, model, answeredAtMs)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
  lessIntent: 'UPDATE calls SET intents = intents - 1 WHERE key = ? AND NOT EXISTS (SELECT 1 FROM answers a WHERE a.key = calls.key)',
  dropIntent: 'DELETE FROM calls WHERE key = ? AND intents <= 0',
} as const;

const SUMS = `COUNT(a.key) AS calls, COUNT(*) - COUNT(a.key) AS open, COUNT(*) FILTER (WHERE c.intents > 1) AS repeated,
  TOTAL(a.promptTokens) AS promptTokens, TOTAL(a.completionTokens) AS completionTokens, TOTAL(a.costUsd) AS costUsd
  FROM calls c LEFT JOIN answers a ON a.key = c.key`;

class SqliteLedger implements Ledger {
  readonly #path: string;
  readonly #database: DatabaseSync;
  readonly #statements: Readonly<Record<keyof typeof STATEMENTS, StatementSync>>;

  constructor(path: string, database: DatabaseSync) {
    this.#path = path;
    this.#database = database;
    this.#statements = Object.fromEntries(Object.entries(STATEMENTS).map(([name, sql]) => [name, database.prepare(sql)])) as Record<keyof typeof STATEMENTS, StatementSync>;
  }

  async lookup(keys: readonly LedgerKey[]): Promise<ReadonlyMap<LedgerKey, TeacherAnswer>> {
    return this.#guarded(() => {
      const found = new Map<LedgerKey, TeacherAnswer>();
      for (const key of new Set(keys)) {
        const row = this.#statements.answer.get(keyBytes(key));
        if (row !== undefined) found.set(key, answerOf(row));
      }
      return found;
    });
  }

  async recordIntents(calls: readonly LedgerCall[]): Promise<readonly LedgerKey[]> {
    if (calls.length === 0) return [];
    const requests = calls.map((call) => deflateRawSync(call.request));
    return this.#transaction(() => {
      const repeated: LedgerKey[] = [];
      calls.forEach((call, index) => {
        const key = keyBytes(call.key);
        if (this.#statements.isAnswered.get(key) !== undefined) return;
        const batch = call.batch === undefined ? null : this.#idOf(call.batch);
        const row = this.#statements.addIntent.get(
          key, this.#idOf(call.provider), this.#idOf(call.model), this.#idOf(call.campaign), batch, requests[index] ?? null, Date.now(),
        );
        if (Number(row?.['intents']) > 1) repeated.push(call.key);
      });
      return repeated;
    });
  }

  async recordAnswers(answers: readonly { readonly key: LedgerKey; readonly answer: TeacherAnswer }[]): Promise<void> {
    if (answers.length === 0) return;
    this.#transaction(() => {
      for (const { key, answer } of answers) {
        const { usage } = answer;
        this.#statements.addAnswer.run(
          keyBytes(key), answer.text, packLogProbs(answer.labelLogProbs), answer.finishReason,
          usage.promptTokens, usage.cachedPromptTokens, usage.completionTokens,
          answer.costUsd, answer.latencyMs, this.#idOf(answer.model), Date.now(),
        );
      }
    });
  }

  async withdrawIntents(keys: readonly LedgerKey[]): Promise<void> {
    if (keys.length === 0) return;
    this.#transaction(() => {
      for (const key of keys.map(keyBytes)) {
        this.#statements.lessIntent.run(key);
        this.#statements.dropIntent.run(key);
      }
    });
  }

  async batchSpending(batch: string): Promise<BatchSpending> {
    return this.#guarded(() => {
      const row = this.#database.prepare(`SELECT ${SUMS} WHERE c.batch = (SELECT id FROM names WHERE name = ?)`).get(batch) ?? {};
      return {
        usd: Number(row['costUsd']),
        tokens: Number(row['promptTokens']) + Number(row['completionTokens']),
        calls: Number(row['calls']),
        repeated: Number(row['repeated']),
      };
    });
  }

  async totals(filter: { readonly campaign?: string } = {}): Promise<LedgerTotals> {
    return this.#guarded(() => {
      const row = (filter.campaign === undefined
        ? this.#database.prepare(`SELECT ${SUMS}`).get()
        : this.#database.prepare(`SELECT ${SUMS} WHERE c.campaign = (SELECT id FROM names WHERE name = ?)`).get(filter.campaign)) ?? {};
      return {
        calls: Number(row['calls']),
        open: Number(row['open']),
        repeated: Number(row['repeated']),
        promptTokens: Number(row['promptTokens']),
        completionTokens: Number(row['completionTokens']),
        costUsd: Number(row['costUsd']),
      };
    });
  }

  async close(): Promise<void> {
    if (this.#database.isOpen) this.#database.close();
  }

  #idOf(name: string): number {
    const known = this.#statements.nameId.get(name)?.['id'];
    if (known !== undefined) return Number(known);
    return Number(this.#statements.addName.run(name).lastInsertRowid);
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw asLedgerError(error, this.#path);
    }
  }

  #transaction<T>(work: () => T): T {
    return this.#guarded(() => {
      this.#database.exec('BEGIN IMMEDIATE');
      try {
        const result = work();
        this.#database.exec('COMMIT');
        return result;
      } catch (error) {
        // SQLite has rolled back by itself after a full disk; then there is nothing left to undo.
        if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
        throw error;
      }
    });
  }
}

/** Opens the ledger at `path`, made when absent. `labelLogProbs` are kept as float32. */
export function createLedger(path: string): Ledger {
  try {
    return new SqliteLedger(path, openDatabase(path));
  } catch (error) {
    throw asLedgerError(error, path);
  }
}
