/** Group commit: items that arrive while a write is under way are written together by the next one. */
import { setImmediate } from 'node:timers/promises';

export class Grouped<T> {
  readonly #write: (items: readonly T[]) => Promise<void>;
  #pending: T[] = [];
  #flush: Promise<void> | undefined;
  #previous: Promise<unknown> = Promise.resolve();

  constructor(write: (items: readonly T[]) => Promise<void>) {
    this.#write = write;
  }

  /** Resolves when the group with this item is written; rejects when that write failed. */
  add(item: T): Promise<void> {
    this.#pending.push(item);
    if (this.#flush !== undefined) return this.#flush;
    const flush = this.#previous
      .then(() => setImmediate())
      .then(async () => {
        const items = this.#pending;
        this.#pending = [];
        this.#flush = undefined;
        await this.#write(items);
      });
    this.#flush = flush;
    this.#previous = flush.catch(() => undefined);
    return flush;
  }
}
