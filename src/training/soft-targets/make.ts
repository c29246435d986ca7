/** A teacher's distributions of a dataset's answers, their likeliest tokens stored in files (file.ts) before the first step. */
import { readFileSync } from 'node:fs';
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import { StillhouseError } from '../../contracts/errors.ts';
import { Graph } from '../../graph/graph.ts';
import { toOnnx } from '../../graph/serialize.ts';
import { createSession } from '../../lm/session.ts';
import { packsWeights } from '../packed-weights.ts';
import type { TrainingSample } from '../packing.ts';
import { makeParts } from '../parts.ts';
import type { PartsProgress } from '../parts.ts';
import { chunkRows } from '../row-loss.ts';
import { TeacherReader } from '../teacher-reader.ts';
import type { TeacherReaderOptions } from '../teacher-reader.ts';
import { teacherHead, teacherIdentity } from '../white-box-teacher.ts';
import { readSoftTargets, SoftTargetsWriter } from './file.ts';
import type { SoftTargetsRow } from './file.ts';
import { requireFitting, targetValues } from './stored.ts';
import type { StoredTargets } from './stored.ts';
import { topK } from './top-k.ts';
import type { TopK } from './top-k.ts';
import { vocabularySha256 } from './vocabulary.ts';
import type { Vocabulary } from './vocabulary.ts';

export interface SoftTargetsJob extends TeacherReaderOptions {
  readonly vocabulary: Vocabulary;
  readonly samples: readonly TrainingSample[];
  /** Tokens that both vocabularies have. */
  readonly vocabularySize: number;
  readonly k: number;
  /** Where the files are kept. */
  readonly folder: string;
}

export async function makeSoftTargets(job: SoftTargetsJob, onPart: (done: PartsProgress) => void): Promise<StoredTargets> {
  const { samples, folder, teacher, vocabularySize, maxRowTokens } = job;
  await using writer = new SoftTargetsPartWriter(job);
  const parts = await makeParts({
    samples, folder, onPart, ending: 'softtargets',
    madeOf: `soft targets 1\n${teacherIdentity(teacher)}\n${vocabularySize} ${job.k} ${maxRowTokens}`,
    write: (rows, key) => writer.write(rows, key),
  });
  const rows = new Map<TrainingSample, () => SoftTargetsRow>();
  for (const part of parts) {
    const stored = readSoftTargets(readFileSync(part.path));
    part.samples.forEach((sample, index) => rows.set(sample, () => stored.row(index)));
  }
  const k = Math.min(job.k, vocabularySize);
  return {
    source: { kind: 'top-k', k },
    check: (minMass) => rows.forEach((row, sample) => {
      const { tokens, positions } = row();
      requireFitting(sample, tokens, positions, minMass);
    }),
    valuesOf: (sample) => {
      const row = rows.get(sample);
      if (row === undefined) throw new StillhouseError('INTERNAL', `soft targets: expected row ${sample.id} among ${rows.size}, got none`);
      return targetValues(row().positions, k);
    },
  };
}

/** C learned rows of a chunk, so that no more of (rows × vocabulary) logits is ever there; opened when the first part is missing. */
class SoftTargetsPartWriter implements AsyncDisposable {
  readonly #job: SoftTargetsJob;
  readonly #reader: TeacherReader;
  #head: InferenceSession | undefined;

  constructor(job: SoftTargetsJob) {
    this.#job = job;
    this.#reader = new TeacherReader(job);
  }

  async write(samples: readonly TrainingSample[], datasetSha256: string): Promise<Buffer> {
    const { k, vocabularySize, vocabulary } = this.#job;
    const head = (this.#head ??= await this.#openHead());
    const writer = new SoftTargetsWriter({ k, vocabularySize, vocabularySha256: vocabularySha256(vocabulary), teacher: vocabulary.name, datasetSha256 });
    const hidden = await this.#reader.read(samples);
    for (const [i, { id, ids, responseStart }] of samples.entries()) {
      writer.add({ tokens: Uint32Array.from(ids.slice(responseStart)), positions: await this.#distributions(head, hidden[i] as Float32Array, id) });
    }
    return writer.finish();
  }

  /** rows: (R, Ht) */
  async #distributions(head: InferenceSession, rows: Float32Array, id: string): Promise<readonly TopK[]> {
    const { k, vocabularySize, teacher } = this.#job;
    const width = teacher.config.hiddenSize;
    const count = rows.length / width;
    const { size } = chunkRows(count, vocabularySize);
    const positions: TopK[] = [];
    for (let from = 0; from < count; from += size) {
      const chunk = rows.slice(from * width, (from + size) * width);
      const results = await head.run({ rows: new Tensor('float32', chunk, [chunk.length / width, width]) });
      const logits = (results['logits'] as Tensor).data as Float32Array; // (C, V)
      for (let at = 0; at < logits.length; at += vocabularySize) positions.push(topK(logits.subarray(at, at + vocabularySize), k, `row ${id}, position ${positions.length}`));
    }
    return positions;
  }

  #openHead(): Promise<InferenceSession> {
    const { teacher, vocabularySize } = this.#job;
    const g = new Graph();
    const rows = g.input('rows', 'float32', ['C', teacher.config.hiddenSize]);
    g.output('logits', g.matMul(rows, teacherHead(g, teacher, vocabularySize), { transB: true }));
    return createSession(toOnnx(g, 'head'), teacher.weights, { ...this.#job, packWeights: packsWeights(teacher.config) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader[Symbol.asyncDispose]();
    await this.#head?.release();
  }
}
