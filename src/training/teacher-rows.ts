/**
 * What a teacher's head would see at each learned token, kept in files of float32 before the first step: the teacher reads every
 * row once, not once an epoch, and is gone from memory when the student trains. Ht is its hidden size.
 */
import { closeSync, openSync } from 'node:fs';
import { StillhouseError } from '../contracts/errors.ts';
import { readFully } from '../lm/weights/tensor-file.ts';
import type { TrainingSample } from './packing.ts';
import { makeParts } from './parts.ts';
import type { PartsProgress } from './parts.ts';
import type { StoredTargets } from './soft-targets/stored.ts';
import { TeacherReader } from './teacher-reader.ts';
import type { TeacherReaderOptions } from './teacher-reader.ts';
import { TEACHER_ROWS } from './objective.ts';
import { teacherIdentity } from './white-box-teacher.ts';

/** Of all rows of a dataset; above it the teacher reads each batch beside the student. */
const MOST_BYTES = 2 ** 32;

const learned = ({ ids, responseStart }: TrainingSample): number => ids.length - responseStart;

/** Are the rows of these samples few enough to be kept? By the dataset and the teacher alone, so that a run gives the same bits anywhere. */
export const keepsTeacherRows = (samples: readonly TrainingSample[], hiddenSize: number): boolean => samples.reduce((sum, sample) => sum + 4 * hiddenSize * learned(sample), 0) <= MOST_BYTES;

export async function makeTeacherRows(job: TeacherReaderOptions & { readonly samples: readonly TrainingSample[]; readonly folder: string }, onPart: (done: PartsProgress) => void): Promise<StoredTargets> {
  const { samples, folder, teacher, maxRowTokens } = job;
  const { hiddenSize } = teacher.config;
  await using reader = new TeacherReader(job);
  const parts = await makeParts({
    samples, folder, onPart, ending: 'teacherrows',
    madeOf: `teacher rows 1\n${teacherIdentity(teacher)}\n${maxRowTokens}`,
    write: async (rows) => Buffer.concat((await reader.read(rows)).map(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength))),
  });
  const places = new Map<TrainingSample, { readonly path: string; readonly offsetBytes: number }>();
  for (const { path, samples: rows } of parts) {
    let offsetBytes = 0;
    for (const sample of rows) {
      places.set(sample, { path, offsetBytes });
      offsetBytes += 4 * hiddenSize * learned(sample);
    }
  }
  return {
    source: { kind: 'rows' },
    check: () => undefined, // the reader refuses what is no number
    valuesOf: (sample) => {
      const place = places.get(sample);
      if (place === undefined) throw new StillhouseError('INTERNAL', `teacher rows: expected row ${sample.id} among ${places.size}, got none`);
      const data = new Float32Array(learned(sample) * hiddenSize);
      const descriptor = openSync(place.path, 'r');
      try {
        readFully(descriptor, new Uint8Array(data.buffer), place.offsetBytes, `${place.path}, row ${sample.id}`);
      } finally {
        closeSync(descriptor);
      }
      return { [TEACHER_ROWS]: { shape: [hiddenSize], data } };
    },
  };
}
