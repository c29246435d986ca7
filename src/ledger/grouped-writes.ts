/**
 * What is written in one turn of the event loop is one transaction: a commit costs a write to the disk,
 * however much is in it.
 */
import type { DatabaseSync } from 'node:sqlite';
import { StillhouseError } from '../contracts/errors.ts';
import { asLedgerError, inTransaction } from './schema.ts';
import type { SpareSpace } from './spare-space.ts';

interface Job {
  readonly run: () => unknown;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export class GroupedWrites {
  readonly #database: DatabaseSync;
  readonly #path: string;
  readonly #spare: SpareSpace;
  readonly #onTakenBack: () => void;
  #jobs: Job[] = [];

  constructor(database: DatabaseSync, path: string, spare: SpareSpace, onTakenBack: () => void) {
    this.#database = database;
    this.#path = path;
    this.#spare = spare;
    this.#onTakenBack = onTakenBack;
  }

  /** Runs `run` in the next transaction, with all else that comes before it; resolves when that is durable. */
  add<T>(run: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#jobs.push({ run, resolve: resolve as (value: unknown) => void, reject });
      if (this.#jobs.length === 1) setImmediate(() => this.flush());
    });
  }

  flush(): void {
    const jobs = this.#jobs;
    this.#jobs = [];
    if (jobs.length === 0) return;
    try {
      const results = this.#roomy(() => this.#transaction(() => jobs.map(({ run }) => run())));
      jobs.forEach(({ resolve }, index) => resolve(results[index]));
    } catch (error) {
      for (const { reject } of jobs) reject(error);
    }
  }

  /** Where the disk is full the spare space is given up for what has to be written now; nothing is bought until it is back. */
  #roomy<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof StillhouseError) || error.code !== 'DISK_FULL' || !this.#spare.release()) throw error;
      return work();
    }
  }

  #transaction<T>(work: () => T): T {
    try {
      return inTransaction(this.#database, work);
    } catch (error) {
      this.#onTakenBack();
      throw asLedgerError(error, this.#path);
    }
  }
}
