/** A Hugging Face folder: its configuration, and its tensors by the names that a model of text alone has. */
import { join } from 'node:path';
import { StillhouseError } from '../../contracts/errors.ts';
import { ARCHITECTURES } from '../architectures/registry.ts';
import type { ModelConfig } from '../config.ts';
import { readJson } from './json.ts';

const fieldOf = (value: unknown, key: string): unknown => (typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>)[key] : undefined);

/** BAD_INPUT for an architecture that is not computed, and for settings of a known one that are not. */
export function huggingFaceConfig(folder: string): ModelConfig {
  const path = join(folder, 'config.json');
  const whole = readJson(path);
  // A model of text and images holds the text model's configuration inside.
  const raw = fieldOf(whole, 'text_config') ?? whole;
  const type = fieldOf(raw, 'model_type');
  const architecture = Object.values(ARCHITECTURES).find(({ modelTypes }) => typeof type === 'string' && modelTypes.includes(type));
  if (architecture === undefined) {
    const known = Object.values(ARCHITECTURES).flatMap(({ modelTypes }) => modelTypes).join(', ');
    throw new StillhouseError('BAD_INPUT', `${path}, model_type: expected ${known}, got ${JSON.stringify(type)?.slice(0, 80) ?? 'nothing'}`);
  }
  return architecture.fromHuggingFace(raw, path);
}

/** The name that a model of text alone gives a tensor: models of text and images put theirs below `language_model`. */
export const textModelName = (name: string): string => name.replace(/^(?:model\.)?language_model\.(?:model\.)?(?!lm_head)/, 'model.').replace(/^(?:model\.)?language_model\.lm_head/, 'lm_head');

/** Buffers of old checkpoints that hold what the configuration says. */
const DERIVED = /\.rotary_emb\.inv_freq$/;

/** A tensor below `model.layers` that `known` lacks changes the sums: BAD_INPUT, as far as it belongs to one of the model's layers. */
export function refuseUnknownTensors(names: Iterable<string>, known: ReadonlySet<string>, layers: number, where: string): void {
  for (const name of names) {
    const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
    if (layer === undefined || Number(layer) >= layers || known.has(name) || DERIVED.test(name)) continue;
    throw new StillhouseError('BAD_INPUT', `${where}: expected the tensors of a plain model, got ${name}`);
  }
}
