/** Logits of every position of one row, for comparisons. */
import type { Engine } from '../../src/lm/engine.ts';

/** (T, V); with `chunk`, run in parts of that many tokens after a growing cache. */
export async function logitsOf(engine: Engine, ids: readonly number[], chunk = ids.length): Promise<Float32Array> {
  const { vocabularySize: V } = engine.config;
  const out = new Float32Array(ids.length * V);
  const cache = engine.createCache();
  for (let from = 0; from < ids.length; from += chunk) {
    const part = BigInt64Array.from(ids.slice(from, from + chunk), BigInt);
    const { logits } = await engine.run({ batch: 1, tokens: part.length, ids: part, cache, logitRows: Array.from(part.keys()) }, { logits: true, keep: true });
    out.set(logits, from * V);
  }
  return out;
}
