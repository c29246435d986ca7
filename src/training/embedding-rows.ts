/** Rows of an embedding, read from its file for the tokens of a batch: of a mapped file, every page that was ever touched stays in memory. */
import { closeSync, openSync } from 'node:fs';
import { Tensor } from 'onnxruntime-node';
import { StillhouseError } from '../contracts/errors.ts';
import { EMBEDDING } from '../lm/architectures/registry.ts';
import type { ModelConfig, WeightFile } from '../lm/config.ts';
import { readFully } from '../lm/weights/tensor-file.ts';

export class EmbeddingRows implements Disposable {
  readonly #descriptor: number;
  readonly #offsetBytes: number;
  readonly #path: string;
  readonly #config: ModelConfig;
  #values = new Float32Array(0);

  constructor({ path, tensors }: WeightFile, config: ModelConfig) {
    const tensor = tensors.get(EMBEDDING);
    if (tensor === undefined) throw new StillhouseError('NOT_FOUND', `${path}: expected a tensor ${EMBEDDING}, got none`);
    this.#descriptor = openSync(path, 'r');
    this.#offsetBytes = tensor.offsetBytes;
    this.#path = path;
    this.#config = config;
  }

  /** The rows of tokens (B, T), as (B, T, H); valid until the next call. */
  of({ data, dims }: Tensor): Tensor {
    const { hiddenSize: H, vocabularySize: V } = this.#config;
    const ids = data as BigInt64Array;
    if (this.#values.length < ids.length * H) this.#values = new Float32Array(ids.length * H);
    const values = this.#values.subarray(0, ids.length * H);
    const bytes = new Uint8Array(values.buffer, 0, values.byteLength);
    ids.forEach((id, i) => {
      if (id < 0n || id >= BigInt(V)) throw new StillhouseError('BAD_INPUT', `token ${i}: expected an id from 0 to ${V - 1}, got ${id}`);
      readFully(this.#descriptor, bytes.subarray(4 * i * H, 4 * (i + 1) * H), this.#offsetBytes + 4 * Number(id) * H, `${this.#path}, tensor ${EMBEDDING}`);
    });
    return new Tensor('float32', values, [...dims, H]);
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }
}
