/** A teacher that reads whole samples before the first step: what its head would see at each learned token. Ht is its hidden size. */
import type { Tensor } from 'onnxruntime-node';
import type { SessionOptions } from '../lm/session.ts';
import { packsWeights } from './packed-weights.ts';
import { packRow, splitBatch } from './packing.ts';
import type { TrainingSample } from './packing.ts';
import { rowFeeds } from './row-feeds.ts';
import { TEACHER_ROWS } from './objective.ts';
import { openTeacher } from './white-box-teacher.ts';
import type { TeacherModel, WhiteBoxTeacher } from './white-box-teacher.ts';

export interface TeacherReaderOptions extends Pick<SessionOptions, 'threads' | 'executionProviders'> {
  readonly teacher: TeacherModel;
  readonly maxRowTokens: number;
  /** Asked before the teacher is opened, which it is when something is missing: may refuse. */
  readonly beforeOpening?: () => void;
}

export class TeacherReader implements AsyncDisposable {
  readonly #options: TeacherReaderOptions;
  #opened: WhiteBoxTeacher | undefined;

  constructor(options: TeacherReaderOptions) {
    this.#options = options;
  }

  /** For each sample, in its order, (learned tokens, Ht). The teacher is opened when it is first asked. */
  async read(samples: readonly TrainingSample[]): Promise<readonly Float32Array[]> {
    const { teacher, maxRowTokens } = this.#options;
    if (this.#opened === undefined) this.#options.beforeOpening?.();
    this.#opened ??= await openTeacher(teacher, { rows: true, layers: [] }, maxRowTokens, { ...this.#options, packWeights: packsWeights(teacher.config) });
    const read: Float32Array[] = [];
    for (const group of splitBatch(samples, maxRowTokens)) read.push(...(await this.#readGroup(this.#opened, group)));
    return read;
  }

  /** What is wrong with one sample can spoil a whole row: the refusal is the sample's own. */
  async #readGroup(opened: WhiteBoxTeacher, samples: readonly TrainingSample[]): Promise<readonly Float32Array[]> {
    try {
      return await this.#readRow(opened, samples);
    } catch (error) {
      for (const sample of samples) await this.#readRow(opened, [sample]);
      throw error;
    }
  }

  async #readRow(opened: WhiteBoxTeacher, samples: readonly TrainingSample[]): Promise<readonly Float32Array[]> {
    const { hiddenSize, vocabularySize } = this.#options.teacher.config;
    const read = samples.map(({ ids, responseStart }) => ({ rows: new Float32Array((ids.length - responseStart) * hiddenSize), at: 0 }));
    // Packing changes the order of samples, not that of one sample's tokens.
    const packed = packRow(samples.map((sample, i) => ({ ...sample, values: { sample: { shape: [], data: new Float32Array(sample.ids.length - sample.responseStart).fill(i) } } })));
    const observed = (await opened.observe(rowFeeds(packed, vocabularySize).model, packed.samples))[TEACHER_ROWS] as Tensor; // (N, C, Ht), rows of no sample at the end
    packed.values['sample']?.data.forEach((i: number | bigint, row: number) => {
      const into = read[Number(i)] as (typeof read)[number];
      into.rows.set((observed.data as Float32Array).subarray(row * hiddenSize, (row + 1) * hiddenSize), into.at);
      into.at += hiddenSize;
    });
    return read.map(({ rows }) => rows);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened?.[Symbol.asyncDispose]();
  }
}
