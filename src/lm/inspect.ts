/** What can be said of a model from its files, without loading it. */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { openModel, weightPaths } from './load.ts';
import type { ModelConfig } from './config.ts';
import { elementCount } from './weights/tensor-file.ts';

const FLOAT_BYTES = 4;
/** Of the runtime and its process, before any weight. */
const RUNTIME_BYTES = 150e6;
/** Beside the weights in a folder. */
const COMPANIONS = ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'];

export interface InspectedFile {
  readonly name: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

export interface ModelInspection {
  readonly path: string;
  readonly config: ModelConfig;
  readonly parameters: number;
  /** What the model's own files say. */
  readonly license: string | undefined;
  readonly chatTemplate: boolean;
  readonly files: readonly InspectedFile[];
  readonly memory: {
    /** Estimates: weights in float32 as the runtime packs them; keys and values of one token of one row. */
    readonly loadedBytes: number;
    readonly cacheBytesPerToken: number;
  };
}

async function inspectFile(path: string): Promise<InspectedFile> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash);
  return { name: basename(path), sizeBytes: statSync(path).size, sha256: hash.digest('hex') };
}

export async function inspectModel(path: string): Promise<ModelInspection> {
  using opened = openModel(path);
  const { config, tensors, tokenizer, license } = opened;
  const { layers, keyValueHeads, headSize, vocabularySize, hiddenSize, tiedEmbeddings } = config;
  const parameters = [...tensors.values()].reduce((sum, tensor) => sum + elementCount(tensor.shape), 0);
  const companions = statSync(path).isDirectory() ? COMPANIONS.filter((name) => existsSync(join(path, name))).map((name) => join(path, name)) : [];
  const files: InspectedFile[] = [];
  for (const file of [...weightPaths(path), ...companions]) files.push(await inspectFile(file));
  return {
    path,
    config,
    parameters,
    license,
    chatTemplate: tokenizer.hasChatTemplate,
    files,
    memory: {
      // A tied embedding is packed once more, as the head.
      loadedBytes: Math.round(RUNTIME_BYTES + FLOAT_BYTES * (parameters + (tiedEmbeddings ? vocabularySize * hiddenSize : 0))),
      cacheBytesPerToken: FLOAT_BYTES * 2 * layers * keyValueHeads * headSize,
    },
  };
}
