/** A hosted student's export: no weights, which its provider keeps, but a folder that says where they are and how to ask them. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { withWorkFolder } from '../../assets/work-folder.ts';
import type { ExportStudentInput } from '../../contracts/activities.ts';
import type { ArtifactRef } from '../../contracts/artifacts.ts';
import type { CampaignSpec } from '../../contracts/campaign-spec.ts';
import { studentMessages } from '../../dataset/student-prompt.ts';
import { getJson } from '../../store/jsonl.ts';
import type { ArtifactStore } from '../../store/store.ts';
import { retirementDay } from '../../teacher/prices.ts';
import { readHostedModel } from './hosted-model.ts';
import type { HostedModel } from './hosted-model.ts';

export const HOSTED_MODEL_FILE = 'hosted-model.json';

/** The day from which the provider is known not to serve it any more. */
const retirement = ({ provider, model }: HostedModel): string | undefined => retirementDay({ provider: 'openai', baseUrl: provider, model });

async function writeHostedFolder(model: HostedModel, folder: string): Promise<void> {
  const retiresOn = retirement(model);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, HOSTED_MODEL_FILE), `${JSON.stringify({ ...model, ...(retiresOn === undefined ? {} : { retiresOn }) }, null, 2)}\n`);
}

/** The campaign's best student as a folder in the store, with a page that says how to ask it. */
export async function exportHostedStudent({ store }: { readonly store: ArtifactStore }, input: ExportStudentInput): Promise<{ readonly adapter: ArtifactRef }> {
  const spec = await getJson<CampaignSpec>(store, input.spec);
  const model = await readHostedModel(store, input.checkpoint);
  return withWorkFolder('export', async (parent) => {
    const folder = join(parent, 'student');
    await writeHostedFolder(model, folder);
    await writeFile(join(folder, 'README.md'), page(input, spec, model));
    return { adapter: await store.putFolder('adapter', folder) };
  });
}

function page(input: ExportStudentInput, spec: CampaignSpec, model: HostedModel): string {
  const retiresOn = retirement(model);
  const body = JSON.stringify({ model: model.model, temperature: 0, messages: studentMessages(spec.task, '{input}') }, null, 2);
  return [
    `# ${input.campaign}`,
    '',
    spec.task.description,
    '',
    `A model at ${model.provider}, fine-tuned from ${model.baseModel} on answers of ${spec.teacher.model} by Stillhouse. Its weights stay with the provider${retiresOn === undefined ? '' : `, which serves it until ${retiresOn}`}.`,
    '',
    `Ask it with \`POST ${model.provider}/chat/completions\`:`,
    '',
    '```json',
    body,
    '```',
    '',
    `- model: ${model.model}`,
    `- fine-tuning job: ${model.job}, ${model.trainedTokens} trained tokens`,
    `- training file: ${model.trainingFile}, sha256 ${model.trainingSha256}`,
    ...(model.validationFile === undefined ? [] : [`- validation file: ${model.validationFile}${model.validationSha256 === undefined ? '' : `, sha256 ${model.validationSha256}`}`]),
    `- dataset: sha256 ${input.dataset.sha256}`,
    '',
  ].join('\n');
}
