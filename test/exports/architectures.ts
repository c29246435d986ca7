/** Small random models of every architecture, exported for transformers and llama.cpp, with our greedy answers after one prompt. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createEngine } from '../../src/lm/engine.ts';
import { exportModel } from '../../src/lm/export/export-model.ts';
import { loadModel } from '../../src/lm/load.ts';
import { logitsOf } from '../support/logits.ts';
import { readReference, writeGgufModel } from '../support/recipe.ts';

const NEW_TOKENS = 12;

export interface ArchitectureAnswer {
  readonly ids: readonly number[];
  readonly answer: readonly number[];
}

async function greedy(path: string, cache: string, ids: readonly number[]): Promise<readonly number[]> {
  const { config, weights } = await loadModel({ path, cache });
  await using engine = await createEngine({ config, weights, threads: 2 });
  const answer: number[] = [];
  while (answer.length < NEW_TOKENS) {
    const logits = await logitsOf(engine, [...ids, ...answer]);
    const last = logits.subarray(logits.length - config.vocabularySize);
    answer.push(last.indexOf(last.reduce((a, b) => Math.max(a, b), -Infinity)));
  }
  return answer;
}

/** Writes `NAME-gguf` and `NAME-safetensors` below `folder`. */
export async function exportArchitectures(folder: string): Promise<Readonly<Record<string, ArchitectureAnswer>>> {
  const { ids, architectures } = readReference();
  mkdirSync(folder, { recursive: true });
  const answers: Record<string, ArchitectureAnswer> = {};
  for (const [name, reference] of Object.entries(architectures)) {
    const path = writeGgufModel(join(folder, `${name}.gguf`), name, reference, 'F32');
    const provenance = { baseModel: name, license: 'Apache-2.0' };
    await exportModel({ format: 'gguf', type: 'f32', path, provenance }, join(folder, `${name}-gguf`));
    await exportModel({ format: 'safetensors', path, provenance }, join(folder, `${name}-safetensors`));
    answers[name] = { ids, answer: await greedy(path, join(folder, 'cache'), ids) };
  }
  return answers;
}
