/** A model on disk, made ready for graphs: configuration, float32 weights, tokenizer, identity. */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { StillhouseError } from '../contracts/errors.ts';
import { modelTensors } from './architectures/registry.ts';
import type { ModelConfig, WeightFile } from './config.ts';
import { chosenLayers, keepLayersOf, keepTensors, keptName } from './layers.ts';
import type { LayerChoice } from './layers.ts';
import type { ModelIdentity } from './model.ts';
import { type ChatTokenizer, tokenizerFromFolder, tokenizerFromGguf } from './tokenizer.ts';
import { ggufConfig, ggufTensors } from './weights/gguf-model.ts';
import { openGguf } from './weights/gguf.ts';
import { huggingFaceConfig, refuseUnknownTensors, textModelName } from './weights/hugging-face-model.ts';
import { materializeWeights } from './weights/materialize.ts';
import { openSafetensors, safetensorsPaths } from './weights/safetensors.ts';
import { elementCount, type StoredTensor } from './weights/tensor-file.ts';

export interface LoadedModel {
  readonly identity: ModelIdentity;
  readonly config: ModelConfig;
  readonly weights: WeightFile;
  readonly tokenizer: ChatTokenizer;
}

/** Without a choice all layers are kept. */
export interface LoadModelInput extends LayerChoice {
  /** A GGUF file, or a folder with config.json, tokenizer.json and safetensors. */
  readonly path: string;
  /** The name it was asked for by. Default: the path. */
  readonly name?: string;
  /** The licence as the catalogue knows it. Default: what the model's own files say. */
  readonly license?: string;
  /** Folder below which float32 weights are kept. */
  readonly cache: string;
}

async function fileSha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** The file's own hash; of several files, the hash of the list of theirs. */
export async function weightsSha256(paths: readonly string[]): Promise<string> {
  const hashes: string[] = [];
  for (const path of paths) hashes.push(await fileSha256(path));
  return hashes.length === 1 ? (hashes[0] ?? '') : createHash('sha256').update(hashes.join('\n')).digest('hex');
}

const nothingThere = (path: string): StillhouseError => new StillhouseError('NOT_FOUND', `${path}: expected a GGUF file or a Hugging Face folder, got nothing there`);

/** The weight files of a model path; NOT_FOUND when there is nothing there. */
export function weightPaths(path: string): readonly string[] {
  if (!existsSync(path)) throw nothingThere(path);
  return statSync(path).isDirectory() ? safetensorsPaths(path) : [path];
}

/** A tensor under the name that its model knows it by, which what is written from it carries; its file may have another. */
const named = (tensor: StoredTensor, name: string): StoredTensor => (tensor.name === name ? tensor : { ...tensor, name });

/** The tensors that the configuration calls for, in its order; CORRUPT names the first that is missing or of another shape. */
export function selectTensors(config: ModelConfig, stored: ReadonlyMap<string, StoredTensor>, path: string): ReadonlyMap<string, StoredTensor> {
  const selected = new Map<string, StoredTensor>();
  for (const { name, shape } of modelTensors(config)) {
    const tensor = stored.get(name);
    if (tensor === undefined || tensor.shape.length !== shape.length || tensor.shape.some((size, axis) => size !== shape[axis])) {
      throw new StillhouseError('CORRUPT', `${path}, tensor ${name}: expected shape [${shape.join(', ')}], got ${tensor === undefined ? 'no such tensor' : `[${tensor.shape.join(', ')}]`}`);
    }
    selected.set(name, named(tensor, name));
  }
  refuseUnknownTensors(stored.keys(), new Set(selected.keys()), config.layers, path);
  return selected;
}

/** The licence in the front matter of a model card. */
function cardLicense(folder: string): string | undefined {
  const card = join(folder, 'README.md');
  return existsSync(card) ? /^---\n[\s\S]*?^license:\s*(\S+)\s*$/m.exec(readFileSync(card, 'utf8'))?.[1] : undefined;
}

/** A model whose tensors are read when asked for. */
export interface OpenedModel extends Disposable {
  readonly config: ModelConfig;
  /** Those that the configuration calls for, by their Hugging Face names, in its order. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly tokenizer: ChatTokenizer;
  /** What the model's own files say. */
  readonly license: string | undefined;
}

function openGgufModel(path: string): OpenedModel {
  const file = openGguf(path);
  try {
    const config = ggufConfig(file);
    const license = file.metadata.get('general.license');
    return {
      config,
      tensors: ggufTensors(file, config),
      tokenizer: tokenizerFromGguf(file),
      license: typeof license === 'string' ? license : undefined,
      [Symbol.dispose]: () => file[Symbol.dispose](),
    };
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

function openFolderModel(folder: string): OpenedModel {
  const paths = safetensorsPaths(folder);
  const config = huggingFaceConfig(folder);
  const tokenizer = tokenizerFromFolder(folder);
  const resources = new DisposableStack();
  try {
    const tensors = new Map<string, StoredTensor>();
    for (const path of paths) for (const tensor of resources.use(openSafetensors(path)).tensors.values()) tensors.set(textModelName(tensor.name), tensor);
    return { config, tensors, tokenizer, license: cardLicense(folder), [Symbol.dispose]: () => resources.dispose() };
  } catch (error) {
    resources.dispose();
    throw error;
  }
}

/** Opens a GGUF file or a Hugging Face folder and checks that it is whole; reads no weights. */
export function openModel(path: string): OpenedModel {
  if (!existsSync(path)) throw nothingThere(path);
  const opened = statSync(path).isDirectory() ? openFolderModel(path) : openGgufModel(path);
  try {
    return { ...opened, tensors: selectTensors(opened.config, opened.tensors, path) };
  } catch (error) {
    opened[Symbol.dispose]();
    throw error;
  }
}

/** The tokenizer of a model, without its tensors. */
export function openTokenizer(path: string): ChatTokenizer {
  if (!existsSync(path)) throw nothingThere(path);
  if (statSync(path).isDirectory()) return tokenizerFromFolder(path);
  using file = openGguf(path);
  return tokenizerFromGguf(file);
}

/** The model of the chosen layers alone. */
export function keepModelLayers<Model extends Pick<OpenedModel, 'config' | 'tensors'>>(model: Model, choice: LayerChoice, name: string): Model {
  const kept = chosenLayers(choice, model.config.layers, name);
  if (kept === undefined) return model;
  const tensors = new Map([...keepTensors(model.tensors, kept)].map(([tensorName, tensor]) => [tensorName, named(tensor, tensorName)]));
  return { ...model, config: keepLayersOf(model.config, kept), tensors };
}

export async function loadModel(input: LoadModelInput): Promise<LoadedModel> {
  const { path, name = path } = input;
  const paths = weightPaths(path);
  const sha256 = await weightsSha256(paths);
  using opened = openModel(path);
  const weights = materializeWeights({ cache: input.cache, sha256, tensors: opened.tensors });
  const identity: ModelIdentity = {
    name,
    sha256,
    architecture: opened.config.architecture,
    parameters: parametersOf(opened.tensors),
    license: input.license ?? opened.license ?? 'unknown',
    sizeBytes: paths.reduce((sum, weightPath) => sum + statSync(weightPath).size, 0),
  };
  const { config, tokenizer } = opened;
  const kept = chosenLayers(input, config.layers, name);
  if (kept === undefined) return { identity, config, weights, tokenizer };
  const smaller = keepModelLayers(opened, input, name);
  return {
    identity: {
      ...identity,
      name: keptName(name, kept, config.layers),
      sha256: createHash('sha256').update(`${sha256}\nlayers ${kept.join(' ')}`).digest('hex'),
      parameters: parametersOf(smaller.tensors),
      sizeBytes: [...smaller.tensors.values()].reduce((sum, { place }) => sum + (place?.lengthBytes ?? 0), 0),
    },
    config: smaller.config,
    weights: { ...weights, tensors: keepTensors(weights.tensors, kept) },
    tokenizer,
  };
}

const parametersOf = (tensors: OpenedModel['tensors']): number => [...tensors.values()].reduce((sum, tensor) => sum + elementCount(tensor.shape), 0);
