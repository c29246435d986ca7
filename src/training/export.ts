/** The trained adapter in the form that PEFT (0.21) and everything that reads its folders expects. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Assets } from '../assets/assets.ts';
import type { ExportStudentInput } from '../contracts/activities.ts';
import type { ArtifactRef } from '../contracts/artifacts.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { encodeSafetensors } from '../lm/weights/safetensors.ts';
import { getJson } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { readAdapterMatrices } from './checkpoint.ts';
import type { Trainer } from './trainer.ts';

/** `model` is the base model's name as users know it. */
export async function writeAdapterFolder(checkpointPath: string, model: string, folder: string): Promise<void> {
  const { lora, tensors } = readAdapterMatrices(checkpointPath);
  const config = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: model,
    r: lora.r,
    lora_alpha: lora.alpha,
    lora_dropout: lora.dropout,
    target_modules: lora.targets.toSorted(),
    bias: 'none',
    fan_in_fan_out: false,
    use_rslora: lora.rankStabilised,
    use_dora: false,
    inference_mode: true,
    init_lora_weights: true,
    modules_to_save: null,
    rank_pattern: {},
    alpha_pattern: {},
  };
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'adapter_config.json'), `${JSON.stringify(config, null, 2)}\n`);
  await writeFile(join(folder, 'adapter_model.safetensors'), encodeSafetensors(tensors.map((tensor) => ({ ...tensor, name: `base_model.model.${tensor.name}` }))));
}

/** The campaign's best checkpoint as an adapter folder in the store, with a card that says where it came from. */
export async function exportStudent(
  deps: { readonly store: ArtifactStore; readonly trainer: Trainer; readonly assets: Pick<Assets, 'model'> },
  input: ExportStudentInput,
): Promise<{ readonly adapter: ArtifactRef }> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const model = await deps.assets.model(spec.student.model);
  const parent = await mkdtemp(join(tmpdir(), 'stillhouse-export-'));
  try {
    const folder = join(parent, 'adapter');
    await deps.trainer.exportAdapter(input.checkpoint, spec.student.model, folder);
    await writeFile(join(folder, 'README.md'), modelCard(input, spec, model.license));
    return { adapter: await deps.store.putFolder('adapter', folder) };
  } finally {
    await rm(parent, { recursive: true, force: true });
  }
}

function modelCard(input: ExportStudentInput, spec: CampaignSpec, license: string): string {
  return [
    '---',
    `base_model: ${spec.student.model}`,
    'library_name: peft',
    `license: ${license.toLowerCase()}`,
    '---',
    '',
    `# ${input.campaign}`,
    '',
    spec.task.description,
    '',
    `A LoRA adapter for ${spec.student.model} (${license}), distilled from ${spec.teacher.model} by Stillhouse.`,
    '',
    `- dataset: sha256 ${input.dataset.sha256}`,
    `- checkpoint: sha256 ${input.checkpoint.sha256}`,
    '',
  ].join('\n');
}
