/** What an export says of the model that it began with: its name on the hub, the hash of its weights and how they are stored. */
import type { ModelFiles } from '../../assets/assets.ts';
import { chosenLayers, type LayerChoice } from '../layers.ts';
import { openModel, weightPaths, weightsSha256, type OpenedModel } from '../load.ts';
import { openGguf } from '../weights/gguf.ts';
import { elementCount } from '../weights/tensor-file.ts';
import type { Provenance } from './provenance.ts';

/** The type that most of the model's numbers have. */
function commonType(tensors: OpenedModel['tensors']): string {
  const counts = new Map<string, number>();
  for (const { storedAs, shape } of tensors.values()) counts.set(storedAs, (counts.get(storedAs) ?? 0) + elementCount(shape));
  return [...counts].reduce((most, one) => (one[1] > most[1] ? one : most))[0];
}

/** A GGUF file may name the repository that it was converted from. */
function convertedFrom(path: string): ModelFiles['hub'] {
  if (!/\.gguf$/i.test(path)) return undefined;
  using file = openGguf(path);
  const url = file.metadata.get('general.base_model.0.repo_url');
  const repository = typeof url === 'string' ? /^https:\/\/huggingface\.co\/([\w.-]+\/[\w.-]+)\/?$/.exec(url)?.[1] : undefined;
  return repository === undefined ? undefined : { repository };
}

/** Reads the weights once, for their hash. */
export async function baseFacts({ path, hub }: Pick<ModelFiles, 'path' | 'hub'>, choice: LayerChoice = {}): Promise<Pick<Provenance, 'base' | 'keptLayers'>> {
  using model = openModel(path);
  const keptLayers = chosenLayers(choice, model.config.layers, path);
  return {
    base: { ...(convertedFrom(path) ?? hub), weightsSha256: await weightsSha256(weightPaths(path)), weightsType: commonType(model.tensors) },
    ...(keptLayers === undefined ? {} : { keptLayers: [...keptLayers] }),
  };
}
