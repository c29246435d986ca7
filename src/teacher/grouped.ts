/** Group commit: items that arrive while a write is under way are written together by the next one. */
import { setImmediate } from 'node:timers/promises';

export class Grouped<T, Result = void> {
  readonly #write: (items: readonly T[]) => Promise<Result>;
  #pending: T[] = [];
  #flush: Promise<Result> | undefined;
  #previous: Promise<unknown> = Promise.resolve();

  constructor(write: (items: readonly T[]) => Promise<Result>) {
    this.#write = write;
  }

  /** Resolves with the result of the group's write when the group with this item is written; rejects when that write failed. */
  add(item: T): Promise<Result> {
    this.#pending.push(item);
    if (this.#flush !== undefined) return this.#flush;
    const flush = this.#previous
      .then(() => setImmediate())
      .then(async () => {
        const items = this.#pending;
        this.#pending = [];
        this.#flush = undefined;
        return await this.#write(items);
      });
    this.#flush = flush;
    this.#previous = flush.catch(() => undefined);
    return flush;
  }
}
