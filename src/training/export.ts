/** The trained adapter in the form that PEFT (0.21) and everything that reads its folders expects. */
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Assets, ModelFiles } from '../assets/assets.ts';
import { withWorkFolder } from '../assets/work-folder.ts';
import type { ExportStudentInput } from '../contracts/activities.ts';
import type { ArtifactRef } from '../contracts/artifacts.ts';
import { localStudentOf } from '../contracts/campaign-spec.ts';
import type { CampaignSpec, LocalStudentSpec } from '../contracts/campaign-spec.ts';
import { readAdapter } from '../lm/adapter.ts';
import { baseFacts } from '../lm/export/base-model.ts';
import { exportPeft, exportSafetensors } from '../lm/export/export-model.ts';
import type { Provenance } from '../lm/export/provenance.ts';
import { openExportSource } from '../lm/export/source.ts';
import { encodeSafetensors } from '../lm/weights/safetensors.ts';
import { getJson } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { readAdapterMatrices, readCheckpointState, studentWeights } from './checkpoint.ts';
import type { TrainedStudent, Trainer } from './trainer.ts';

const ADAPTER_FILE = 'adapter_model.safetensors';

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
  await writeFile(join(folder, ADAPTER_FILE), encodeSafetensors(tensors.map((tensor) => ({ ...tensor, name: `base_model.model.${tensor.name}` }))));
}

/** What a checkpoint holds, in the form in which a model is opened: an adapter is written below `folder`, whole models stay where they are. */
export async function trainedStudent(checkpointPath: string, model: string, folder: string): Promise<TrainedStudent> {
  if (readCheckpointState(checkpointPath).tune.kind === 'lora') {
    await writeAdapterFolder(checkpointPath, model, folder);
    return { kind: 'adapter', adapterPath: folder, sizeBytes: (await stat(join(folder, ADAPTER_FILE))).size };
  }
  const weights = studentWeights(checkpointPath);
  return { kind: 'full', weights, sizeBytes: [...weights.tensors.values()].reduce((sum, { lengthBytes }) => sum + lengthBytes, 0) };
}

/**
 * The campaign's best checkpoint as a folder in the store, with a card that says where it came from: a PEFT adapter of the
 * student's model, or where all weights were trained or layers left out, the whole model.
 */
export async function exportStudent(
  deps: { readonly store: ArtifactStore; readonly trainer: Trainer; readonly assets: Pick<Assets, 'model'> },
  input: ExportStudentInput,
): Promise<{ readonly adapter: ArtifactRef }> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const student = localStudentOf(spec);
  const model = await deps.assets.model(student.model);
  return withWorkFolder('export', async (parent) => {
    const trained = await deps.trainer.studentOf(input.checkpoint, student, join(parent, 'adapter'));
    const folder = join(parent, 'student');
    const kind = await writeStudentFolder({ model, student, trained, provenance: provenanceOf(input, spec, model.license) }, folder);
    return { adapter: await deps.store.putFolder(kind, folder) };
  });
}

export interface StudentFolderInput {
  readonly model: Pick<ModelFiles, 'path' | 'hub'>;
  readonly student: LocalStudentSpec;
  readonly trained: TrainedStudent;
  /** Without what the model's own files say. */
  readonly provenance: Provenance;
}

/**
 * The student as one folder: an adapter of a model that everyone has, else the whole model, which transformers loads: its
 * layers, its weights, an adapter merged into them.
 */
export async function writeStudentFolder({ model, student, trained, provenance: known }: StudentFolderInput, target: string): Promise<'adapter' | 'model'> {
  const provenance = { ...known, ...(await baseFacts(model, student)) };
  const leavesLayersOut = student.layers !== undefined || student.keepLayers !== undefined;
  if (trained.kind === 'adapter' && !leavesLayersOut) {
    await exportPeft({ adapterPath: trained.adapterPath, provenance }, target);
    return 'adapter';
  }
  const change = trained.kind === 'adapter' ? { adapter: readAdapter(trained.adapterPath) } : { weights: trained.weights };
  using source = openExportSource({ path: model.path, choice: student, provenance, ...change });
  await exportSafetensors(source, target, 'f32');
  return 'model';
}

function provenanceOf(input: ExportStudentInput, { student, teacher, task }: CampaignSpec, license: string): Provenance {
  return {
    baseModel: student.model,
    license,
    campaign: input.campaign,
    description: task.description,
    teacher: teacher.model,
    datasetSha256: input.dataset.sha256,
    checkpointSha256: input.checkpoint.sha256,
  };
}
