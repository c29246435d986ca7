/**
 * A step of learning from a teacher of another vocabulary against PyTorch and the tokenizers library
 * (fixtures/cross_tokenizer_reference.py): two readings of each chat, which of their tokens pair up, packed rows of both,
 * sorted probabilities chunk by chunk, and the gradient of every weight. Float32 against float64 leaves about 1e-6 of a norm.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { loadModel } from '../../src/lm/load.ts';
import type { LoadedModel } from '../../src/lm/load.ts';
import { withTeacherReadings } from '../../src/training/cross-reading.ts';
import type { TrainingSample } from '../../src/training/packing.ts';
import { tokenizeSamples } from '../../src/training/samples.ts';
import { temporaryFolder } from '../support/folder.ts';
import { writeFolderModel } from '../support/recipe.ts';
import type { FolderReference } from '../support/recipe.ts';
import { gradientError } from '../support/training-parity.ts';
import type { FirstStep } from '../support/training-parity.ts';
import { trainingSpec } from '../support/training-runs.ts';

type Kind = 'student' | 'teacher';
interface Reference {
  readonly chats: readonly (readonly [string, string])[];
  readonly models: Readonly<Record<Kind, { readonly config: FolderReference['config']; readonly tensors: FolderReference['huggingFace']['tensors']; readonly tokenizer: object; readonly endToken: string; readonly chatTemplate: string }>>;
  readonly partners: readonly (readonly number[])[];
  readonly cases: readonly { readonly weight: number; readonly temperature: number; readonly ranks?: number; readonly first: FirstStep }[];
}
const { chats, models, partners, cases } = JSON.parse(readFileSync(new URL('fixtures/cross-tokenizer-reference.json', import.meta.url), 'utf8')) as Reference;
const TOLERANCE = 1e-5;

const folder = temporaryFolder();

function load(kind: Kind): Promise<LoadedModel> {
  const { config, tensors, tokenizer, endToken, chatTemplate } = models[kind];
  const path = writeFolderModel(join(folder, kind), { config, huggingFace: { tensors } }, 'F32');
  writeFileSync(join(path, 'tokenizer.json'), JSON.stringify(tokenizer));
  writeFileSync(join(path, 'tokenizer_config.json'), JSON.stringify({ eos_token: endToken, chat_template: chatTemplate }));
  return loadModel({ path, name: kind, cache: join(folder, 'cache') });
}

let student: LoadedModel;
let teacher: LoadedModel;
let samples: readonly TrainingSample[];
before(async () => {
  [student, teacher] = await Promise.all([load('student'), load('teacher')]);
  const rows = chats.map(([input, output], i) => JSON.stringify({ id: `row-${i}`, messages: [{ role: 'user', content: input }, { role: 'assistant', content: output }] })).join('\n');
  samples = withTeacherReadings({ name: 'teacher', tokenizer: teacher.tokenizer }, { name: 'student', tokenizer: student.tokenizer }, rows, tokenizeSamples(rows, student.tokenizer, {}));
});

test("the tokens of two tokenizers pair up where the library's own offsets do", () => {
  assert.deepEqual(samples.map(({ reading }) => reading?.partners), partners);
});

for (const { first, ...crossTokenizer } of cases) {
  test(`weight ${crossTokenizer.weight}, temperature ${crossTokenizer.temperature}, ${crossTokenizer.ranks ?? 'all'} ranks: loss and gradients are PyTorch's`, async (t) => {
    const training = trainingSpec({ batchSize: chats.length, tune: 'full', method: 'cross-tokenizer', crossTokenizer });
    const { config, weights, identity } = teacher;
    const error = await gradientError({ config: student.config, weights: student.weights, training, samples, seed: 1, teacher: { config, weights, sha256: identity.sha256 } }, first);
    t.diagnostic(`largest relative error of a gradient ${error.toExponential(1)}`);
    assert.ok(error < TOLERANCE, `relative error ${error}`);
  });
}
