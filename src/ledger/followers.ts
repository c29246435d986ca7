/** Which campaigns want the result of a provider's job that trains for all of them: only the last one ends it. */
import type { DatabaseSync } from 'node:sqlite';
import type { LedgerKey } from './ledger.ts';
import { keyBytes } from './rows.ts';

export interface FollowerBook {
  /** Durable: `batch` wants the result of the job until it leaves, whatever becomes of its process. */
  join(key: LedgerKey, batch: string): Promise<void>;
  /** How many others want it still. */
  leave(key: LedgerKey, batch: string): Promise<number>;
}

interface BookParts {
  readonly database: DatabaseSync;
  readonly commit: <T>(work: () => T) => Promise<T>;
  readonly idOf: (name: string) => number;
}

export function createFollowerBook({ database, commit, idOf }: BookParts): FollowerBook {
  const statements = {
    add: database.prepare('INSERT INTO followers (key, batch) VALUES (?, ?) ON CONFLICT DO NOTHING'),
    drop: database.prepare('DELETE FROM followers WHERE key = ? AND batch = ?'),
    count: database.prepare('SELECT COUNT(*) AS others FROM followers WHERE key = ?'),
  };
  return {
    join: async (key, batch) => void (await commit(() => statements.add.run(keyBytes(key), idOf(batch)))),
    leave: (key, batch) =>
      commit(() => {
        statements.drop.run(keyBytes(key), idOf(batch));
        return Number(statements.count.get(keyBytes(key))?.['others']);
      }),
  };
}
