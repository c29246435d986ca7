/** A GGUF file read as a Hugging Face checkpoint: names, numbers as they were before conversion, configuration. */
import { StillhouseError } from '../../contracts/errors.ts';
import { ARCHITECTURES, modelTensors } from '../architectures/registry.ts';
import type { ModelConfig } from '../config.ts';
import { GgufMetadata } from './gguf-metadata.ts';
import type { GgufFile } from './gguf.ts';
import { wholeTensor, type StoredTensor } from './tensor-file.ts';

/** Read with the configuration, not as weights. */
const ROTARY_DIVISORS = 'rope_freqs.weight';

/** The tensors of the model by their Hugging Face names. BAD_INPUT for one that this architecture does not have: it would change the sums. */
export function ggufTensors(file: GgufFile, config: ModelConfig): ReadonlyMap<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  for (const { name, ggufName, conversion } of modelTensors(config)) {
    const stored = file.tensors.get(ggufName);
    if (stored === undefined) throw new StillhouseError('CORRUPT', `${file.path}: expected a tensor ${ggufName}, got none`);
    tensors.set(name, conversion === undefined ? { ...stored, name } : wholeTensor({ ...stored, name }, () => conversion.fromGguf(stored.read(), stored.shape)));
  }
  const known = new Set([ROTARY_DIVISORS, ...[...modelTensors(config)].map(({ ggufName }) => ggufName)]);
  const unknown = [...file.tensors.keys()].find((name) => !known.has(name));
  if (unknown !== undefined) throw new StillhouseError('BAD_INPUT', `${file.path}: expected the tensors of a plain ${config.architecture} model, got ${unknown}`);
  return tensors;
}

export function ggufConfig(file: GgufFile): ModelConfig {
  const name = file.metadata.get('general.architecture');
  const architecture = Object.values(ARCHITECTURES).find((one) => one.name === name);
  if (architecture === undefined) {
    throw new StillhouseError('BAD_INPUT', `${file.path}, general.architecture: expected ${Object.keys(ARCHITECTURES).join(', ')}, got ${JSON.stringify(name)?.slice(0, 80) ?? 'nothing'}`);
  }
  return architecture.fromGguf(new GgufMetadata(file, architecture.name));
}
