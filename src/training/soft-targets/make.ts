/**
 * A teacher's distributions of a dataset's answers, made once and kept in files that are named by what they are made of:
 * so many rows each, so that a run that was killed goes on where it was, and rows that a later dataset begins with as well
 * are not read again. C learned rows of a chunk; other letters as in src/lm/model.ts.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type InferenceSession, Tensor } from 'onnxruntime-node';
import { writeDurably } from '../../assets/files.ts';
import { StillhouseError } from '../../contracts/errors.ts';
import { Graph } from '../../graph/graph.ts';
import { toOnnx } from '../../graph/serialize.ts';
import { createSession } from '../../lm/session.ts';
import type { SessionOptions } from '../../lm/session.ts';
import { packRow, splitBatch } from '../packing.ts';
import type { TrainingSample } from '../packing.ts';
import { rowFeeds } from '../row-feeds.ts';
import { openTeacher, TEACHER_ROWS, teacherHead } from '../white-box-teacher.ts';
import type { TeacherModel, WhiteBoxTeacher } from '../white-box-teacher.ts';
import { readSoftTargets, SoftTargetsWriter } from './file.ts';
import type { SoftTargetsRow } from './file.ts';
import { requireFitting, targetValues } from './stored.ts';
import type { StoredTargets } from './stored.ts';
import { topK } from './top-k.ts';
import type { TopK } from './top-k.ts';
import { vocabularySha256 } from './vocabulary.ts';
import type { Vocabulary } from './vocabulary.ts';

const PART_ROWS = 64;

export interface SoftTargetsJob extends Pick<SessionOptions, 'threads' | 'executionProviders'> {
  readonly teacher: TeacherModel;
  readonly vocabulary: Vocabulary;
  readonly samples: readonly TrainingSample[];
  /** Tokens that both vocabularies have. */
  readonly vocabularySize: number;
  readonly k: number;
  readonly maxRowTokens: number;
  /** Where the files are kept. */
  readonly folder: string;
}

/** Makes what is not there yet; `onPart` is told after each file. */
export async function makeSoftTargets(job: SoftTargetsJob, onPart: (done: { readonly rows: number; readonly of: number }) => void): Promise<StoredTargets> {
  const { samples, folder } = job;
  mkdirSync(folder, { recursive: true });
  await using writer = new PartWriter(job);
  const parts = Array.from({ length: Math.ceil(samples.length / PART_ROWS) }, (_, i) => samples.slice(i * PART_ROWS, (i + 1) * PART_ROWS));
  const rows = new Map<TrainingSample, () => SoftTargetsRow>();
  for (const [i, part] of parts.entries()) {
    const key = partKey(job, part);
    const path = join(folder, `${key}.softtargets`);
    if (!existsSync(path)) {
      await writeDurably(path, await writer.write(part, key));
      onPart({ rows: i * PART_ROWS + part.length, of: samples.length });
    }
    const stored = readSoftTargets(readFileSync(path));
    part.forEach((sample, index) => rows.set(sample, () => stored.row(index)));
  }
  const k = Math.min(job.k, job.vocabularySize);
  return {
    k,
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

/** What decides the bytes of a part. */
function partKey({ teacher, vocabularySize, k, maxRowTokens }: SoftTargetsJob, samples: readonly TrainingSample[]): string {
  const hash = createHash('sha256').update(`soft targets 1\n${teacher.sha256}\n${vocabularySize} ${k} ${maxRowTokens}\n`);
  for (const { ids, responseStart } of samples) hash.update(`${responseStart} ${ids.join(' ')}\n`);
  return hash.digest('hex');
}

/** The teacher is opened when the first part is missing. */
class PartWriter implements AsyncDisposable {
  readonly #job: SoftTargetsJob;
  #opened: { readonly teacher: WhiteBoxTeacher; readonly head: InferenceSession } | undefined;

  constructor(job: SoftTargetsJob) {
    this.#job = job;
  }

  async write(samples: readonly TrainingSample[], datasetSha256: string): Promise<Buffer> {
    const { k, vocabularySize, vocabulary, maxRowTokens } = this.#job;
    const writer = new SoftTargetsWriter({ k, vocabularySize, vocabularySha256: vocabularySha256(vocabulary), teacher: vocabulary.name, datasetSha256 });
    for (const group of splitBatch(samples, maxRowTokens)) for (const row of await this.#read(group)) writer.add(row);
    return writer.finish();
  }

  /** Samples of one packed row. */
  async #read(samples: readonly TrainingSample[]): Promise<readonly SoftTargetsRow[]> {
    const { k, vocabularySize } = this.#job;
    const { teacher, head } = (this.#opened ??= await this.#open());
    const read = samples.map(({ ids, responseStart }) => ({ tokens: Uint32Array.from(ids.slice(responseStart)), positions: [] as TopK[] }));
    // Packing changes the order of samples, not that of one sample's tokens.
    const packed = packRow(samples.map((sample, i) => ({ ...sample, values: { sample: { shape: [], data: new Float32Array(sample.ids.length - sample.responseStart).fill(i) } } })));
    const { model } = rowFeeds(packed, vocabularySize);
    const observed = (await teacher.observe(model, packed.samples))[TEACHER_ROWS] as Tensor; // (N, C, Ht)
    const [, size, width] = observed.dims as [number, number, number];
    const hidden = observed.data as Float32Array;
    for (let from = 0; from < packed.rows.length; from += size) {
      const results = await head.run({ rows: new Tensor('float32', hidden.slice(from * width, (from + size) * width), [size, width]) });
      const logits = (results['logits'] as Tensor).data as Float32Array; // (C, V)
      for (let at = from; at < Math.min(from + size, packed.rows.length); at += 1) {
        const i = packed.values['sample']?.data[at] as number;
        const row = read[i] as (typeof read)[number];
        row.positions.push(topK(logits.subarray((at - from) * vocabularySize, (at - from + 1) * vocabularySize), k, `row ${samples[i]?.id}, position ${row.positions.length}`));
      }
    }
    return read;
  }

  async #open(): Promise<{ readonly teacher: WhiteBoxTeacher; readonly head: InferenceSession }> {
    const { teacher, vocabularySize, maxRowTokens } = this.#job;
    const g = new Graph();
    const rows = g.input('rows', 'float32', ['C', teacher.config.hiddenSize]);
    g.output('logits', g.matMul(rows, teacherHead(g, teacher, vocabularySize), { transB: true }));
    const head = await createSession(toOnnx(g, 'head'), teacher.weights, { ...this.#job, packWeights: false });
    return { head, teacher: await openTeacher(teacher, { rows: true, layers: [] }, maxRowTokens, this.#job) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened?.teacher[Symbol.asyncDispose]();
    await this.#opened?.head.release();
  }
}
