/** Files of questions handed to a provider's batch service: each is in the ledger before it is sent, and found again by whoever comes next. */
import type { DatabaseSync } from 'node:sqlite';
import { inflateRawSync } from 'node:zlib';
import type { TeacherRequest } from '../contracts/records.ts';
import type { Claim, LedgerCall, LedgerKey } from './ledger.ts';
import { keyBytes, keyText } from './rows.ts';
import type { Row } from './rows.ts';

export interface Submission {
  /** Ours, and the provider's metadata carries it: by it a batch is found again whose creation nobody lived to note. */
  readonly id: string;
  /** The provider's name for it, once noted. */
  readonly providerId?: string;
  readonly createdAtMs: number;
}

/** What decided an answer, as it was recorded with its key. */
export type RecordedQuestion = Pick<TeacherRequest, 'task' | 'sampleIndex'>;

export interface SubmissionBook {
  /** Those that hold one of these questions unanswered. */
  holding(keys: readonly LedgerKey[]): Promise<readonly Submission[]>;
  /** Records intents and the submission that they go into, unless they are asked elsewhere; undefined when none is left. */
  open(id: string, calls: readonly LedgerCall[], claim: Claim): Promise<Submission | undefined>;
  /** The questions of a submission that have no answer. */
  questions(id: string): Promise<ReadonlyMap<LedgerKey, RecordedQuestion>>;
  /** Who sends it: undefined while another living claim does; `own` where this claim opened it, so that nobody can have sent it before. */
  take(id: string, claim: Claim): Promise<'own' | 'taken over' | undefined>;
  /** Durable before the provider's batch is waited for. */
  note(id: string, providerId: string): Promise<void>;
  /** Gives its unanswered questions back: they can be asked by anybody. `unbilled` are those that the provider certainly did not answer. */
  close(id: string, unbilled: readonly LedgerKey[]): Promise<void>;
  /** When this batch was first asked, over all its attempts: now, where it was not yet. */
  begunAtMs(batch: string): Promise<number>;
}

export interface BookParts {
  readonly database: DatabaseSync;
  readonly read: <T>(work: () => T) => T;
  readonly commit: <T>(work: () => T) => Promise<T>;
  readonly idOf: (name: string) => number;
  readonly intend: (calls: readonly LedgerCall[], claim: Claim) => () => readonly LedgerKey[];
  readonly lives: (claimId: number, own: Claim) => boolean;
}

const UNANSWERED = 'NOT EXISTS (SELECT 1 FROM answers a WHERE a.key = c.key)';

export function createSubmissionBook({ database, read, commit, idOf, intend, lives }: BookParts): SubmissionBook {
  const statements = {
    ofKey: database.prepare(`SELECT c.submission AS id FROM calls c WHERE c.key = ? AND ${UNANSWERED}`),
    read: database.prepare('SELECT * FROM submissions WHERE id = ?'),
    add: database.prepare('INSERT INTO submissions (id, claim, createdAtMs) VALUES (?, ?, ?)'),
    putInto: database.prepare('UPDATE calls SET submission = ? WHERE key = ?'),
    questions: database.prepare(`SELECT c.key, c.request FROM calls c WHERE c.submission = ? AND ${UNANSWERED}`),
    take: database.prepare('UPDATE submissions SET claim = ? WHERE id = ?'),
    note: database.prepare('UPDATE submissions SET providerId = ? WHERE id = ?'),
    free: database.prepare(`UPDATE calls AS c SET submission = NULL, claim = NULL WHERE c.submission = ? AND ${UNANSWERED}`),
    // The row stays: its submission tells which questions it had. Without an intent it is not open.
    begin: database.prepare('INSERT INTO askings (batch, begunAtMs) VALUES (?, ?) ON CONFLICT DO NOTHING'),
    begun: database.prepare('SELECT begunAtMs FROM askings WHERE batch = ?'),
    unbilled: database.prepare('UPDATE calls SET intents = MAX(0, intents - 1) WHERE key = ? AND submission = ?'),
  };
  const submissionOf = (row: Row): Submission => {
    const { providerId } = row;
    return { id: String(row['id']), createdAtMs: Number(row['createdAtMs']), ...(typeof providerId === 'string' ? { providerId } : {}) };
  };
  const one = (id: string): Submission | undefined => {
    const row = statements.read.get(id);
    return row === undefined ? undefined : submissionOf(row);
  };
  return {
    holding: async (keys) =>
      read(() => {
        const ids = new Set(keys.flatMap((key) => (statements.ofKey.get(keyBytes(key))?.['id'] as string | null | undefined) ?? []));
        return [...ids].flatMap((id) => one(id) ?? []);
      }),
    open: async (id, calls, claim) => {
      const intents = intend(calls, claim);
      return commit(() => {
        const elsewhere = new Set(intents());
        const mine = calls.filter(({ key }) => !elsewhere.has(key));
        if (mine.length === 0) return undefined;
        statements.add.run(id, claim.id, Date.now());
        for (const { key } of mine) statements.putInto.run(id, keyBytes(key));
        return one(id);
      });
    },
    questions: async (id) =>
      read(() => new Map(statements.questions.all(id).map((row) => [keyText(row['key']), JSON.parse(inflateRawSync(row['request'] as Uint8Array).toString('utf8')) as RecordedQuestion]))),
    take: (id, claim) =>
      commit(() => {
        const holder = statements.read.get(id)?.['claim'];
        if (holder === claim.id) return 'own';
        if (typeof holder === 'number' && lives(holder, claim)) return undefined;
        statements.take.run(claim.id, id);
        return 'taken over';
      }),
    note: async (id, providerId) => void (await commit(() => statements.note.run(providerId, id))),
    close: (id, unbilled) =>
      commit(() => {
        for (const key of unbilled) statements.unbilled.run(keyBytes(key), id);
        statements.free.run(id);
      }),
    begunAtMs: (batch) =>
      commit(() => {
        statements.begin.run(idOf(batch), Date.now());
        return Number(statements.begun.get(idOf(batch))?.['begunAtMs']);
      }),
  };
}
