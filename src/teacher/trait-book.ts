/** What endpoints turned out to take, kept for the processes of a home: a refusal is met once, not once a process. */
import type { DatabaseSync } from 'node:sqlite';
import { asLedgerError, inTransaction, openShared } from '../ledger/schema.ts';
import { hopefulTraits, joinChanges } from './endpoint-traits.ts';
import type { EndpointTraits, TraitChange } from './endpoint-traits.ts';
import { OPENAI_BASE_URL } from './openai-client.ts';
import type { TeacherIdentity } from './teacher.ts';

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS traits (
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    learned TEXT NOT NULL,             -- JSON: Learned
    PRIMARY KEY (provider, model)
  ) STRICT`;

export interface Lesson {
  readonly change: TraitChange;
  /** The endpoint's own words, where it had some. */
  readonly words: string;
}

/** Of one model at one endpoint. */
export interface Learned {
  readonly changes: TraitChange;
  /** By feature: what was said, and when (epoch milliseconds). */
  readonly reasons: Readonly<Record<string, { readonly words: string; readonly atMs: number }>>;
}

export interface LearnedTraits extends Learned {
  readonly provider: string;
  readonly model: string;
}

export interface TraitBook extends Disposable {
  of(provider: string, model: string): TraitChange;
  learn(provider: string, model: string, lessons: readonly Lesson[]): void;
  list(): readonly LearnedTraits[];
  /** Everything is hoped for again; how many models that concerns. */
  forget(provider: string, model?: string): number;
}

/** What an endpoint's model is taken for now. */
export function traitsOf({ provider, model }: TeacherIdentity, book: Pick<TraitBook, 'of'> | undefined): EndpointTraits {
  return { ...hopefulTraits(model, provider === OPENAI_BASE_URL), ...book?.of(provider, model) };
}

const NOTHING: Learned = { changes: {}, reasons: {} };
const MAX_WORDS = 300;

class SqliteTraitBook implements TraitBook {
  readonly #path: string;
  readonly #database: DatabaseSync;
  readonly #statements;

  constructor(path: string) {
    this.#path = path;
    this.#database = openShared(path);
    this.#database.exec(SCHEMA);
    this.#statements = {
      read: this.#database.prepare('SELECT learned FROM traits WHERE provider = ? AND model = ?'),
      write: this.#database.prepare('INSERT INTO traits VALUES (?, ?, ?) ON CONFLICT (provider, model) DO UPDATE SET learned = excluded.learned'),
      all: this.#database.prepare('SELECT * FROM traits ORDER BY provider, model'),
      forget: this.#database.prepare('DELETE FROM traits WHERE provider = ? AND (model = ? OR ? IS NULL)'),
    };
  }

  of(provider: string, model: string): TraitChange {
    return this.#guarded(() => this.#read(provider, model).changes);
  }

  learn(provider: string, model: string, lessons: readonly Lesson[]): void {
    if (lessons.length === 0) return;
    this.#guarded(() =>
      inTransaction(this.#database, () => {
        let { changes, reasons } = this.#read(provider, model);
        for (const { change, words } of lessons) {
          changes = joinChanges(changes, change);
          reasons = { ...reasons, ...Object.fromEntries(Object.keys(change).map((key) => [key, { words: words.slice(0, MAX_WORDS), atMs: Date.now() }])) };
        }
        this.#statements.write.run(provider, model, JSON.stringify({ changes, reasons } satisfies Learned));
      }),
    );
  }

  list(): readonly LearnedTraits[] {
    return this.#guarded(() => this.#statements.all.all().map((row) => ({ provider: String(row['provider']), model: String(row['model']), ...(JSON.parse(String(row['learned'])) as Learned) })));
  }

  forget(provider: string, model?: string): number {
    return this.#guarded(() => Number(this.#statements.forget.run(provider, model ?? null, model ?? null).changes));
  }

  [Symbol.dispose](): void {
    if (this.#database.isOpen) this.#database.close();
  }

  #read(provider: string, model: string): Learned {
    const learned = this.#statements.read.get(provider, model)?.['learned'];
    return typeof learned === 'string' ? (JSON.parse(learned) as Learned) : NOTHING;
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw asLedgerError(error, this.#path);
    }
  }
}

/** Opens the book at `path`, made when absent; without a path it is this process's own. */
export function createTraitBook(path = ':memory:'): TraitBook {
  try {
    return new SqliteTraitBook(path);
  } catch (error) {
    throw asLedgerError(error, path);
  }
}
