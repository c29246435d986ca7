/** A teacher with a vocabulary and a chat template of its own: where in its reading of a chat it has read what the student has. */
import { StillhouseError } from '../contracts/errors.ts';
import type { ChatTokenizer, TrainingChat } from '../lm/tokenizer.ts';
import type { TrainingSample } from './packing.ts';
import { tokenizeSamples } from './samples.ts';
import { alignByOffsets } from './soft-targets/alignment.ts';
import type { StoredTargets } from './soft-targets/stored.ts';
import type { Reader } from './teacher-check.ts';
import { TEACHER_ROWS } from './objective.ts';

/**
 * The samples with the teacher's reading of each. Both models write the same answer: where both have a token that begins
 * at the same byte of it, or its end, their next tokens are compared. `rows`: the dataset as JSONL, `samples`: the same
 * as the student reads it. BAD_INPUT, with the row, where the tokens of the two do not spell one answer.
 */
export function withTeacherReadings(teacher: Reader, student: Reader, rows: string, samples: readonly TrainingSample[]): TrainingSample[] {
  const readings = tokenizeSamples(rows, teacher.tokenizer, {});
  return samples.map((sample, i) => {
    const reading = readings[i];
    if (reading === undefined) throw new StillhouseError('INTERNAL', `dataset: expected ${samples.length} rows, got fewer`);
    const where = `dataset, row ${sample.id}`;
    const [ofTeacher, ofStudent] = spellAlike(answerBytes(reading, teacher.tokenizer), answerBytes(sample, student.tokenizer), where, [teacher.name, student.name]);
    const partners = ofStudent.map(() => -1);
    for (const group of alignByOffsets(ofTeacher, ofStudent, where)) partners[group.student.from] = group.teacher.from;
    return { ...sample, reading: { ids: reading.ids, responseStart: reading.responseStart, partners } };
  });
}

/** What a dataset's teacher reads, as samples of its own; none of them has another's tokens. */
export function teacherSamples(samples: readonly TrainingSample[]): readonly TrainingSample[] {
  return samples.map(({ id, reading }) => {
    if (reading === undefined) throw new StillhouseError('INTERNAL', `row ${id}: expected a teacher's reading, got none`);
    return { id, ids: reading.ids, responseStart: reading.responseStart };
  });
}

/** The stored rows of `teacherSamples`, each beside the student's token that it belongs to: (R, Ht), zeros where there is none, and `partnered` (R). */
export function besideStudent(stored: StoredTargets, samples: readonly TrainingSample[], read: readonly TrainingSample[]): StoredTargets {
  const readBy = new Map(samples.map((sample, i) => [sample, read[i]]));
  return {
    ...stored,
    valuesOf(sample) {
      const [whole, partners = []] = [readBy.get(sample), sample.reading?.partners];
      const rows = whole === undefined ? undefined : stored.valuesOf(whole)[TEACHER_ROWS];
      if (rows === undefined) throw new StillhouseError('INTERNAL', `teacher rows: expected row ${sample.id} among ${samples.length}, got none`);
      const [width = 0] = rows.shape;
      const data = new Float32Array(partners.length * width);
      partners.forEach((partner, i) => {
        if (partner >= 0) data.set((rows.data as Float32Array).subarray(partner * width, (partner + 1) * width), i * width);
      });
      return { [TEACHER_ROWS]: { shape: [width], data }, partnered: { shape: [], data: Float32Array.from(partners, (partner) => (partner < 0 ? 0 : 1)) } };
    },
  };
}

/** Of each learned token; the one that ends the answer has none. */
function answerBytes({ ids, responseStart }: TrainingChat, tokenizer: ChatTokenizer): readonly Uint8Array[] {
  return [...ids.slice(responseStart, -1).map((id) => tokenizer.tokenBytes(id)), new Uint8Array()];
}

const SPACE = 0x20;

/** The lengths of both. A SentencePiece model begins a text with a space that is not there. */
function spellAlike(teacher: readonly Uint8Array[], student: readonly Uint8Array[], where: string, names: readonly [string, string]): readonly [number[], number[]] {
  const texts = [Buffer.concat(teacher), Buffer.concat(student)] as const;
  const lengths = [teacher, student].map((tokens) => tokens.map(({ length }) => length)) as [number[], number[]];
  for (const [i, other] of [[0, 1], [1, 0]] as const) {
    if (texts[i][0] !== SPACE || texts[i].length !== texts[other].length + 1 || !texts[i].subarray(1).equals(texts[other])) continue;
    const first = lengths[i].findIndex((length) => length > 0);
    lengths[i][first] = (lengths[i][first] as number) - 1;
    return lengths;
  }
  if (!texts[0].equals(texts[1])) {
    const shown = (text: Buffer): string => JSON.stringify(text.toString('utf8').slice(0, 80));
    throw new StillhouseError('BAD_INPUT', `${where}: expected tokens of teacher and student that spell the same answer, got ${shown(texts[0])} by ${names[0]} and ${shown(texts[1])} by ${names[1]}`);
  }
  return lengths;
}
