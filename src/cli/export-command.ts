/** `still export`: a campaign's student, or a model and adapter of one's own, in the format of another ecosystem. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Option } from 'commander';
import type { Command } from 'commander';
import type { ModelFiles } from '../assets/assets.ts';
import { createAssets } from '../assets/create-assets.ts';
import { withWorkFolder } from '../assets/work-folder.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { baseFacts } from '../lm/export/base-model.ts';
import { ADAPTER_CONFIG, EXPORT_FORMATS, EXPORT_TYPES, exportModel, exportType, type ExportFormat } from '../lm/export/export-model.ts';
import { writeFolder, type WrittenFile } from '../lm/export/output-folder.ts';
import { PROVENANCE_FILE, readProvenance, type Provenance } from '../lm/export/provenance.ts';
import type { ApiClient } from './api-client.ts';
import { EXIT, fetchProgress, output, screenOf, withStack } from './commands.ts';
import type { CommandContext } from './commands.ts';
import { megabytes } from './format.ts';
import type { Act } from './model-options.ts';

export interface ExportOptions {
  readonly format?: ExportFormat;
  readonly type?: string;
  /** A model without a campaign. */
  readonly model?: string;
  readonly adapter?: string;
}

/** The student's folder as the campaign stored it, each file checked against its hash. */
async function fetchStudent(api: ApiClient, campaign: string, target: string): Promise<readonly WrittenFile[]> {
  const { files } = await api.adapter(campaign);
  return writeFolder(target, async (folder) => {
    for (const { path, sha256 } of files) {
      if (!/^\w[\w.-]*$/.test(path)) throw new StillhouseError('CORRUPT', `student of ${campaign}: expected plain file names, got ${JSON.stringify(path)}`);
      const written = await folder.file(path, async (file) => {
        for await (const chunk of await api.adapterFile(campaign, path)) await file.write(chunk);
      });
      if (written.sha256 !== sha256) throw new StillhouseError('CORRUPT', `student of ${campaign}, ${path}: expected SHA-256 ${sha256}, got ${written.sha256}`);
    }
  });
}

/** What an adapter's folder, else the model's, says of itself; of a folder that Stillhouse did not write, what the model's files say. */
async function provenanceOf(files: ModelFiles, adapter: string | undefined): Promise<Provenance> {
  const path = join(adapter ?? files.path, PROVENANCE_FILE);
  const said = existsSync(path) ? readProvenance(path) : undefined;
  if (said !== undefined && adapter === undefined) return said;
  // A path means something where it is absolute.
  return { baseModel: files.hub === undefined ? files.path : files.name, license: files.license, ...(await baseFacts(files)), ...said };
}

/** A model of one's own, with an adapter where there is one. */
async function exportLocal(context: CommandContext, target: string, { format, type, model, adapter }: ExportOptions): Promise<readonly WrittenFile[]> {
  if (model === undefined) throw new StillhouseError('BAD_INPUT', 'export: expected a campaign and a folder, or --model and a folder, got a folder alone');
  const files = await createAssets(context.config).model(model, { signal: context.signal, onProgress: fetchProgress(screenOf(context)) });
  const provenance = await provenanceOf(files, adapter);
  return exportModel({ format: format ?? (adapter === undefined ? 'safetensors' : 'peft'), path: files.path, provenance, ...(type === undefined ? {} : { type }), ...(adapter === undefined ? {} : { adapterPath: adapter }) }, target);
}

/** A campaign's student: as it is stored, unless another format is asked for. */
async function exportCampaign(context: CommandContext, campaign: string, target: string, options: ExportOptions): Promise<readonly WrittenFile[]> {
  const { format, type, model, adapter } = options;
  if (model !== undefined || adapter !== undefined) throw new StillhouseError('BAD_INPUT', 'export: expected a campaign or --model and --adapter, got both');
  if (format !== undefined) exportType(format, type);
  else if (type !== undefined) throw new StillhouseError('BAD_INPUT', 'export: expected --format beside --type, got --type alone');
  if (format === undefined) return withStack(context, ({ api }) => fetchStudent(api, campaign, target));
  return withWorkFolder('export', async (parent) => {
    const student = join(parent, 'student');
    await withStack(context, ({ api }) => fetchStudent(api, campaign, student));
    const provenancePath = join(student, PROVENANCE_FILE);
    if (!existsSync(provenancePath)) throw new StillhouseError('BAD_INPUT', `export of ${campaign}: expected a student that was trained here and says where it comes from (${PROVENANCE_FILE}), got a folder without it; leave --format out to have it as it is`);
    const provenance = readProvenance(provenancePath);
    const request = { format, provenance, ...(type === undefined ? {} : { type }) };
    if (!existsSync(join(student, ADAPTER_CONFIG))) return await exportModel({ ...request, path: student }, target);
    const base = await createAssets(context.config).model(provenance.baseModel, { signal: context.signal, onProgress: fetchProgress(screenOf(context)) });
    return await exportModel({ ...request, provenance: { ...(await baseFacts(base)), ...provenance }, path: base.path, adapterPath: student }, target);
  });
}

export async function exportCommand(context: CommandContext, names: readonly string[], options: ExportOptions): Promise<number> {
  const [first, second] = names;
  if (first === undefined) throw new StillhouseError('BAD_INPUT', 'export: expected a folder, got nothing');
  const folder = resolve(second ?? first);
  const files = second === undefined ? await exportLocal(context, folder, options) : await exportCampaign(context, first, folder, options);
  output(context, { folder, files }, () => `${folder}: ${files.map(({ path, sizeBytes }) => `${path} (${megabytes(sizeBytes)})`).join(', ')}`);
  return EXIT.done;
}

export function addExportCommand(add: (name: string, description: string) => Command, act: Act): void {
  const types = EXPORT_FORMATS.map((format) => `${format}: ${EXPORT_TYPES[format].join(', ')}`).join('; ');
  add('export <campaign-or-folder> [folder]', 'write a campaign\'s student, or with --model a model of your own, to a new folder')
    .addOption(new Option('--format <format>', 'default: as it was trained').choices(EXPORT_FORMATS))
    .option('--type <type>', `number format, the first by default (${types})`)
    .option('--model <model>', 'without a campaign: a catalogue name, hf:org/name@revision, a GGUF file or a Hugging Face folder')
    .option('--adapter <folder>', 'a PEFT LoRA adapter for --model')
    .action(act((context, first: string, second: string | undefined, options: ExportOptions) => exportCommand(context, second === undefined ? [first] : [first, second], options)));
}
