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
  /** What is known of the base model's weights. */
  base: z.strictObject({ repository: z.string().exactOptional(), revision: z.string().exactOptional(), weightsSha256: z.string(), weightsType: z.string() }).exactOptional(),
  /** Which of the base model's layers the model has, counted from 0. Absent: all. */
  keptLayers: z.array(z.int().min(0)).exactOptional(),
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
const BASE_KEYS = { repository: 'base_repository', revision: 'base_revision', weightsSha256: 'base_weights_sha256', weightsType: 'base_weights_type' } as const;

/** The base model as its own ecosystem names it: ORGANISATION/NAME of the hub where that is known. */
export const baseName = ({ base, baseModel }: Provenance): string => base?.repository ?? /^hf:([^/@]+\/[^/@]+)/.exec(baseModel)?.[1] ?? baseModel;

const FLOATS: readonly string[] = ['F64', 'F32', 'F16', 'BF16'];

/** A sentence where the base weights were not plain floats: what is trained on them knows their rounding. */
export function quantisedBase(provenance: Provenance, what: 'adapter' | 'model'): string | undefined {
  const { base } = provenance;
  if (base === undefined || FLOATS.includes(base.weightsType)) return undefined;
  const weights = `dequantised ${base.weightsType} weights of ${baseName(provenance)} (sha256 ${base.weightsSha256})`;
  return what === 'model' ? `Made from ${weights}.` : `Trained on ${weights}; with the original float weights answers may differ slightly.`;
}

/** As key and value, for formats that keep texts beside the tensors: `stillhouse.base_model` … */
export function provenanceTexts(provenance: Provenance): Readonly<Record<string, string>> {
  const texts: Record<string, string> = {};
  for (const [field, key] of Object.entries(KEYS) as [keyof typeof KEYS, string][]) {
    const value = provenance[field];
    if (value !== undefined) texts[`${PREFIX}${key}`] = value;
  }
  for (const [field, key] of Object.entries(BASE_KEYS) as [keyof typeof BASE_KEYS, string][]) {
    const value = provenance.base?.[field];
    if (value !== undefined) texts[`${PREFIX}${key}`] = value;
  }
  if (provenance.keptLayers !== undefined) texts[`${PREFIX}kept_layers`] = provenance.keptLayers.join(' ');
  return texts;
}

export function readProvenance(path: string): Provenance {
  const parsed = provenanceSchema.safeParse(readJson(path));
  if (!parsed.success) throw new StillhouseError('BAD_INPUT', `${path}: ${parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')}`);
  return parsed.data;
}

/** The licence in lower case, as model cards of the hub spell SPDX identifiers. */
export const cardLicense = (license: string): string => license.toLowerCase();
