/** A model exported as a Hugging Face folder reads back as the same model, and appears whole or not at all. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { exportSafetensors } from '../../src/lm/export/export-model.ts';
import { mergeAdapter } from '../../src/lm/export/merge.ts';
import { writeFolder } from '../../src/lm/export/output-folder.ts';
import { writeSafetensors } from '../../src/lm/export/safetensors-writer.ts';
import { openExportSource } from '../../src/lm/export/source.ts';
import { openModel } from '../../src/lm/load.ts';
import { ENCODERS } from '../../src/lm/weights/encode.ts';
import { openSafetensors, safetensorsPaths } from '../../src/lm/weights/safetensors.ts';
import { rowsTensor, wholeTensor, type StoredTensor } from '../../src/lm/weights/tensor-file.ts';
import { temporaryFolder } from '../support/folder.ts';
import { readReference, writeFolderModel, writeGgufModel } from '../support/recipe.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();

const provenance = { baseModel: 'org/base', license: 'Apache-2.0', campaign: 'reviews', teacher: 'gpt-4o', datasetSha256: 'ab'.repeat(32) };
const refused = (code: string, pattern: RegExp) => (error: unknown): boolean => error instanceof StillhouseError && error.code === code && pattern.test(error.message);

function assertSameTensors(a: ReadonlyMap<string, StoredTensor>, b: ReadonlyMap<string, StoredTensor>): void {
  assert.deepEqual([...a.keys()].toSorted(), [...b.keys()].toSorted());
  for (const [name, tensor] of a) assert.deepEqual(b.get(name)?.read(), tensor.read(), name);
}

const { architectures } = readReference();
describe('a folder written from', () => {
  for (const [name, reference] of Object.entries(architectures)) {
    for (const [kind, path] of [
      ['a folder', writeFolderModel(join(folder, `${name}-source`), reference, 'F32')],
      ['a GGUF file', writeGgufModel(join(folder, `${name}.gguf`), name, reference, 'F32')],
    ] as const) {
      test(`${kind} of ${name} has the configuration, every weight, the tokenizer and the end tokens`, async () => {
        const written = join(folder, `${name}-${kind.at(-1)}-written`);
        using source = openExportSource({ path, provenance });
        await exportSafetensors(source, written, 'f32');
        using model = openModel(path);
        using again = openModel(written);
        if (name === 'llama' && kind === 'a GGUF file') assert.equal(again.config.rotary.scaling?.kind, 'llama3', 'found from the divisors');
        else assert.deepEqual(again.config, model.config);
        assertSameTensors(model.tensors, again.tensors);
        assert.deepEqual(again.tokenizer.endIds, model.tokenizer.endIds);
        assert.deepEqual(again.tokenizer.encode('abba'), model.tokenizer.encode('abba'));
      });
    }
  }
});

test('an export names base model, licence, teacher, dataset and campaign, in the weights and in the card', async () => {
  const path = writeTinyLlama(join(folder, 'tiny'));
  const written = join(folder, 'named');
  using source = openExportSource({ path, provenance });
  const files = await exportSafetensors(source, written, 'bf16');
  assert.deepEqual(files.map((file) => file.path), ['README.md', 'config.json', 'generation_config.json', 'model.safetensors', 'stillhouse.json', 'tokenizer.json', 'tokenizer_config.json']);
  using weights = openSafetensors(join(written, 'model.safetensors'));
  assert.deepEqual(weights.metadata, {
    format: 'pt', 'stillhouse.base_model': 'org/base', 'stillhouse.license': 'Apache-2.0', 'stillhouse.campaign': 'reviews', 'stillhouse.teacher': 'gpt-4o', 'stillhouse.dataset_sha256': 'ab'.repeat(32),
  });
  const card = readFileSync(join(written, 'README.md'), 'utf8');
  assert.match(card, /^---\nbase_model: org\/base\nlibrary_name: transformers\nlicense: apache-2\.0\n/);
  assert.match(card, /# reviews\n[\s\S]*gpt-4o[\s\S]*dataset: sha256 abab/);
  assert.deepEqual(JSON.parse(readFileSync(join(written, 'stillhouse.json'), 'utf8')), provenance);
  using model = openModel(written);
  assert.equal(model.license, 'apache-2.0');
  assert.equal(model.tensors.get('model.norm.weight')?.storedAs, 'BF16');
});

test('weights over the size of a shard are written in shards that an index names', async () => {
  const path = writeTinyLlama(join(folder, 'tiny-sharded'));
  using model = openModel(path);
  const written = join(folder, 'shards');
  await writeFolder(written, (output) => writeSafetensors(output, model.tensors.values(), { encoder: ENCODERS.f32, metadata: {}, shardBytes: 20_000 }));
  const paths = safetensorsPaths(written);
  assert.ok(paths.length > 2, String(paths.length));
  assert.ok(paths.every((shard, i) => shard.endsWith(`model-0000${i + 1}-of-0000${paths.length}.safetensors`)));
  for (const name of ['config.json', 'tokenizer.json', 'tokenizer_config.json']) writeFileSync(join(written, name), readFileSync(join(path, name)));
  using again = openModel(written);
  assertSameTensors(model.tensors, again.tensors);
});

test('an adapter is added row by row: W + scale · B·A', () => {
  const values = Float32Array.from({ length: 12 }, (_, i) => i);
  const weight = rowsTensor({ name: 'w', shape: [4, 3], storedAs: 'F32' }, (first, count) => values.slice(first * 3, (first + count) * 3));
  const other = wholeTensor({ name: 'v', shape: [3], storedAs: 'F32' }, () => Float32Array.of(1, 2, 3));
  const pair = { a: { shape: [2, 3], values: Float32Array.of(1, 0, 2, 0, 1, 1) }, b: { shape: [4, 2], values: Float32Array.of(1, 0, 0, 1, 1, 1, 0, 0) } };
  const tensors = new Map([['w', weight], ['v', other]]);
  const merged = mergeAdapter(tensors, { scale: 2, pairs: new Map([['w', pair]]) });
  const expected = [0 + 2, 1, 2 + 4, 3, 4 + 2, 5 + 2, 6 + 2, 7 + 2, 8 + 6, 9, 10, 11];
  assert.deepEqual([...(merged.get('w')?.read() ?? [])], expected);
  assert.deepEqual([...(merged.get('w')?.blocks() ?? [])].flatMap((block) => [...block]), expected);
  assert.equal(merged.get('v'), other);
  assert.throws(() => mergeAdapter(tensors, { scale: 2, pairs: new Map([['x', pair]]) }), refused('BAD_INPUT', /adapter, x: expected a weight of the model/));
  assert.throws(() => mergeAdapter(tensors, { scale: 2, pairs: new Map([['v', pair]]) }), refused('BAD_INPUT', /adapter, v: expected matrices for \[3\], got \[4, 3\]/));
});

describe('an export that cannot be finished', () => {
  const leftovers = (): string[] => readdirSync(folder).filter((name) => name.includes('.tmp'));

  test('leaves nothing when a write fails in the middle', async () => {
    const target = join(folder, 'failed');
    await assert.rejects(
      writeFolder(target, async (output) => {
        await output.text('one', 'written');
        throw new Error('in the middle');
      }),
      /in the middle/,
    );
    assert.deepEqual([readdirSync(folder).includes('failed'), leftovers()], [false, []]);
  });

  test('is refused before anything is written where a folder holds something', async () => {
    const target = join(folder, 'occupied');
    mkdirSync(target);
    writeFileSync(join(target, 'mine.txt'), 'keep');
    await assert.rejects(writeFolder(target, (output) => output.text('one', 'x')), refused('BAD_INPUT', /occupied: expected a new or empty folder, got one with mine\.txt/));
    assert.deepEqual(readdirSync(target), ['mine.txt']);
  });

  test('leaves nothing when the disk takes no more, and says so', () => {
    // A limit on the size of files stands for the full disk: the same call fails at the same place.
    const script = `
      import { writeFolder } from '${new URL('../../src/lm/export/output-folder.ts', import.meta.url).href}';
      await writeFolder(process.argv[1], async (output) => {
        await output.text('small', 'x');
        await output.file('large', async (file) => { for (let i = 0; i < 64; i += 1) await file.write(new Uint8Array(1 << 16)); });
      }).catch((error) => { console.log(JSON.stringify({ code: error.code, message: error.message })); });`;
    const target = join(folder, 'full');
    const run = spawnSync('bash', ['-c', 'trap "" XFSZ; ulimit -f 1024; exec "$@"', 'bash', process.execPath, '--input-type=module', '-e', script, target], { encoding: 'utf8' });
    const said = JSON.parse(run.stdout) as { code: string; message: string };
    assert.equal(said.code, 'DISK_FULL', run.stderr);
    assert.match(said.message, /full: expected room for the export, got .*nothing of it was kept/);
    assert.deepEqual([readdirSync(folder).includes('full'), leftovers()], [false, []]);
  });
});
