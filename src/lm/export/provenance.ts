/** Where a model comes from, in the words that every export carries. */
import { z } from 'zod';
import { StillhouseError } from '../../contracts/errors.ts';
import { readJson } from '../weights/json.ts';

export const provenanceSchema = z.strictObject({
  /** The base model's name as users know it. */
  baseModel: z.string().min(1),
  /** SPDX identifier or name of the base model's licence. */
  license: z.string().min(1),
  campaign: z.string().optional(),
  /** What the campaign's task says. */
  description: z.string().optional(),
  teacher: z.string().optional(),
  datasetSha256: z.string().optional(),
  checkpointSha256: z.string().optional(),
});
export type Provenance = z.output<typeof provenanceSchema>;

/** Beside the model's files in every export folder; later exports of that folder read it. */
export const PROVENANCE_FILE = 'stillhouse.json';

const PREFIX = 'stillhouse.';
const KEYS = {
  baseModel: 'base_model',
  license: 'license',
  campaign: 'campaign',
  teacher: 'teacher',
  datasetSha256: 'dataset_sha256',
  checkpointSha256: 'checkpoint_sha256',
} as const satisfies Partial<Record<keyof Provenance, string>>;

/** As key and value, for formats that keep texts beside the tensors: `stillhouse.base_model` … */
export function provenanceTexts(provenance: Provenance): Readonly<Record<string, string>> {
  const texts: Record<string, string> = {};
  for (const [field, key] of Object.entries(KEYS) as [keyof typeof KEYS, string][]) {
    const value = provenance[field];
    if (value !== undefined) texts[`${PREFIX}${key}`] = value;
  }
  return texts;
}

export function readProvenance(path: string): Provenance {
  const parsed = provenanceSchema.safeParse(readJson(path));
  if (!parsed.success) throw new StillhouseError('BAD_INPUT', `${path}: ${parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')}`);
  return parsed.data;
}

/** The licence in lower case, as model cards of the hub spell SPDX identifiers. */
export const cardLicense = (license: string): string => license.toLowerCase();
