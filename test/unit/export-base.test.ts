/** An export names its base model as PEFT and the hub know it, with the hash of the weights and how they were stored. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ModelFiles } from '../../src/assets/assets.ts';
import { MODELS } from '../../src/assets/catalogue.ts';
import { baseFacts } from '../../src/lm/export/base-model.ts';
import { exportModel } from '../../src/lm/export/export-model.ts';
import { readProvenance } from '../../src/lm/export/provenance.ts';
import { openGguf } from '../../src/lm/weights/gguf.ts';
import { openSafetensors } from '../../src/lm/weights/safetensors.ts';
import { writeStudentFolder } from '../../src/training/export.ts';
import { writeAdapterFolder } from '../support/adapter-folder.ts';
import { temporaryFolder } from '../support/folder.ts';
import { readReference, writeGgufModel } from '../support/recipe.ts';
import { TINY, writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();
const { hiddenSize: H } = TINY;
const path = writeTinyLlama(join(folder, 'tiny'));
const adapterPath = writeAdapterFolder(join(folder, 'adapter'), [{ module: 'model.layers.0.self_attn.q_proj', inSize: H, outSize: H }]);
const sha256 = createHash('sha256').update(readFileSync(join(path, 'model.safetensors'))).digest('hex');
const COMMIT = 'ab'.repeat(20);
const trained = { kind: 'adapter', adapterPath, sizeBytes: 0 } as const;
const json = (target: string, name: string): Record<string, unknown> => JSON.parse(readFileSync(join(target, name), 'utf8')) as Record<string, unknown>;

test('every model of the catalogue says of which model of the hub it is a conversion', () => {
  for (const [name, { base }] of Object.entries(MODELS)) assert.match(base.repository, /^[\w.-]+\/[\w.-]+$/, name);
  assert.equal(MODELS['smollm2-135m-instruct']?.base.repository, 'HuggingFaceTB/SmolLM2-135M-Instruct');
});

for (const [what, name, hub, expected] of [
  ['a name of the catalogue', 'small', { repository: 'org/Small-Instruct' }, ['org/Small-Instruct', undefined]],
  ['a name of the hub with a branch', 'hf:org/Small-Instruct@main', { repository: 'org/Small-Instruct', revision: COMMIT }, ['org/Small-Instruct', COMMIT]],
  ['a path', path, undefined, [path, undefined]],
] as const) {
  test(`an adapter for a base model by ${what} is one that PEFT finds the model of`, async () => {
    const target = join(folder, `student ${what}`);
    const model: Pick<ModelFiles, 'path' | 'hub'> = { path, ...(hub === undefined ? {} : { hub }) };
    await writeStudentFolder({ model, student: { model: name }, trained, provenance: { baseModel: name, license: 'MIT' } }, target);
    const config = json(target, 'adapter_config.json');
    assert.deepEqual([config['base_model_name_or_path'], config['revision']], expected);
    const { baseModel, base } = readProvenance(join(target, 'stillhouse.json'));
    assert.deepEqual([baseModel, base], [name, { ...hub, weightsSha256: sha256, weightsType: 'F32' }]);
    const card = readFileSync(join(target, 'README.md'), 'utf8');
    assert.match(card, new RegExp(`^- weights of the base model: F32, sha256 ${sha256}$`, 'm'));
    if (hub !== undefined) assert.match(card, /^---\nbase_model: org\/Small-Instruct\n/);
    assert.doesNotMatch(card, /dequantised/);
    using weights = openSafetensors(join(target, 'adapter_model.safetensors'));
    assert.equal(weights.metadata['stillhouse.base_weights_sha256'], sha256);
  });
}

test('an adapter that was trained on quantised weights says so, beside the model whose float weights PEFT takes', async () => {
  const { architectures } = readReference();
  const quantised = writeGgufModel(join(folder, 'base.gguf'), 'llama', architectures['llama'] as NonNullable<(typeof architectures)[string]>, 'Q4_1');
  const facts = await baseFacts({ path: quantised, hub: { repository: 'org/Small-Instruct' } });
  const hash = createHash('sha256').update(readFileSync(quantised)).digest('hex');
  assert.deepEqual(facts.base, { repository: 'org/Small-Instruct', weightsSha256: hash, weightsType: 'Q4_1' });
  const target = join(folder, 'quantised');
  await exportModel({ format: 'peft', path: quantised, adapterPath, provenance: { baseModel: 'small', license: 'MIT', ...facts } }, target);
  const card = readFileSync(join(target, 'README.md'), 'utf8');
  assert.ok(card.includes(`Trained on dequantised Q4_1 weights of org/Small-Instruct (sha256 ${hash}); with the original float weights answers may differ slightly.`), card);
  assert.match(card, /^- base model: org\/Small-Instruct, named small here$/m);
});

test('a GGUF file of the model names the base as other GGUF files do, and is found by it again', async () => {
  const target = join(folder, 'gguf');
  const facts = await baseFacts({ path, hub: { repository: 'org/Small-Instruct', revision: COMMIT } });
  await exportModel({ format: 'gguf', path, adapterPath, provenance: { baseModel: 'small', license: 'MIT', ...facts } }, target);
  const written = join(target, 'small.F16.gguf');
  using file = openGguf(written);
  assert.deepEqual(
    ['name', 'organization', 'version', 'repo_url'].map((key) => file.metadata.get(`general.base_model.0.${key}`)),
    ['Small-Instruct', 'org', COMMIT, 'https://huggingface.co/org/Small-Instruct'],
  );
  assert.deepEqual([file.metadata.get('stillhouse.base_weights_sha256'), file.metadata.get('stillhouse.base_model')], [sha256, 'small']);
  assert.equal((await baseFacts({ path: written })).base?.repository, 'org/Small-Instruct');
});
