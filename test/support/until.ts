import { setTimeout as sleep } from 'node:timers/promises';

/** Reads again and again until it holds; fails with what was last read when it does not in time. */
export async function until<T>(read: () => T | Promise<T>, holds: (value: Awaited<T>) => boolean, { limitMs = 15_000, everyMs = 50 } = {}): Promise<Awaited<T>> {
  for (const deadline = Date.now() + limitMs; ; ) {
    const value = await read();
    if (holds(value)) return value;
    if (Date.now() > deadline) throw new Error(`expected it to hold within ${limitMs} ms: ${String(holds)}; last read ${JSON.stringify(value)}`);
    await sleep(everyMs);
  }
}
