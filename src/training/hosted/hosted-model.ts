/** What a hosted training leaves in place of weights: an artifact that says where the model lives and what made it. */
import { z } from 'zod';
import type { ArtifactRef } from '../../contracts/artifacts.ts';
import { StillhouseError } from '../../contracts/errors.ts';
import { canonicalJson } from '../../store/jsonl.ts';
import type { ArtifactStore } from '../../store/store.ts';

const hostedModelSchema = z.strictObject({
  format: z.literal('stillhouse/hosted-model/1'),
  /** Base URL of the endpoint that trained it and serves it. */
  provider: z.string(),
  baseModel: z.string(),
  /** The name to ask for. */
  model: z.string().min(1),
  job: z.string(),
  trainingFile: z.string(),
  validationFile: z.string().optional(),
  /** Of the bytes of each file as it was sent. */
  trainingSha256: z.string(),
  validationSha256: z.string().optional(),
  /** As the provider settled on them. */
  hyperparameters: z.record(z.string(), z.union([z.string(), z.number()])),
  seed: z.int(),
  trainedTokens: z.int().min(0),
  costUsd: z.number().min(0),
});
export type HostedModel = Readonly<z.output<typeof hostedModelSchema>>;

/** Equal jobs give equal bytes: it holds no clock. */
export function putHostedModel(store: ArtifactStore, model: HostedModel): Promise<ArtifactRef> {
  return store.put('checkpoint', canonicalJson(model));
}

/** CORRUPT when the checkpoint is not that of a hosted model. */
export async function readHostedModel(store: ArtifactStore, checkpoint: ArtifactRef): Promise<HostedModel> {
  const bytes = await store.get(checkpoint);
  const parsed = bytes.at(0) === 0x7b ? hostedModelSchema.safeParse(JSON.parse(bytes.toString('utf8'))) : undefined;
  if (parsed?.success === true) return parsed.data;
  throw new StillhouseError('CORRUPT', `checkpoint ${checkpoint.sha256.slice(0, 12)}: expected the description of a hosted model, got ${parsed === undefined ? 'weights' : parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ')}`);
}
