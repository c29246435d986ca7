/**
 * Whole steps of learning from a teacher against PyTorch (fixtures/distillation_training_reference.py): packed rows with a
 * shared prefix against padded ones, the teacher's forward pass, the loss, and the gradient of everything that is trained.
 * Float32 against float64 leaves about 1e-6 of a norm.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import { loadModel } from '../../src/lm/load.ts';
import type { LoadedModel } from '../../src/lm/load.ts';
import { temporaryFolder } from '../support/folder.ts';
import { readReference, writeFolderModel } from '../support/recipe.ts';
import type { FolderReference } from '../support/recipe.ts';
import { gradientError } from '../support/training-parity.ts';
import type { FirstStep } from '../support/training-parity.ts';

interface Case {
  readonly student: string;
  readonly teacher: string;
  readonly tune: 'lora' | 'full';
  readonly logit: object | null;
  readonly feature: object | null;
  readonly first: FirstStep;
}
interface DistillationReference {
  readonly wide: { readonly config: FolderReference['config']; readonly tensors: FolderReference['huggingFace']['tensors'] };
  readonly cases: readonly Case[];
}

const { settings, samples, architectures } = readReference();
const { wide, cases } = JSON.parse(readFileSync(new URL('fixtures/distillation-training-reference.json', import.meta.url), 'utf8')) as DistillationReference;
const targets = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];
const TOLERANCE = 1e-5;

const folder = temporaryFolder();

function load(name: string): Promise<LoadedModel> {
  const reference = name === 'wide' ? { config: wide.config, huggingFace: { tensors: wide.tensors } } : architectures[name];
  assert.ok(reference !== undefined, name);
  return loadModel({ path: writeFolderModel(join(folder, name), reference, 'F32'), cache: join(folder, 'cache') });
}

for (const { student, teacher, tune, logit, feature, first } of cases) {
  const learned = [...(logit === null ? [] : [JSON.stringify(logit)]), ...(feature === null ? [] : [JSON.stringify(feature)])].join(' and ');
  test(`${tune === 'lora' ? 'adapters' : 'all weights'} of ${student} from ${teacher}, ${learned}: loss and gradients are PyTorch's`, async (t) => {
    const training = campaignSpecSchema.shape.training.parse({
      batchSize: settings.batchSize,
      tune,
      ...(tune === 'lora' ? { lora: { r: settings.r, alpha: settings.alpha, dropout: 0, targets } } : {}),
      method: feature === null ? 'logit' : 'feature',
      ...(logit === null ? {} : { logit }),
      ...(feature === null ? {} : { feature }),
    });
    const { config, weights } = await load(student);
    const { identity, ...model } = await load(teacher);
    const error = await gradientError({ config, weights, training, samples, seed: settings.seed, teacher: { config: model.config, weights: model.weights, sha256: identity.sha256 } }, first);
    t.diagnostic(`largest relative error of a gradient ${error.toExponential(1)}`);
    assert.ok(error < TOLERANCE, `relative error ${error}`);
  });
}
