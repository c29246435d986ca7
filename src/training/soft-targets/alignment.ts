/** Two tokenisations of one text, brought together where both have a boundary. */
import { StillhouseError } from '../../contracts/errors.ts';

/** The smallest stretch of text that both tokenisations cut out: half-open ranges of token positions. */
export interface AlignedGroup {
  readonly teacher: { readonly from: number; readonly to: number };
  readonly student: { readonly from: number; readonly to: number };
  /** Bytes of the text before it. */
  readonly startByte: number;
}

/**
 * `teacher` and `student` are the tokens' lengths in bytes of the same text. At the start of each group both
 * models have read the same bytes: their distributions of the next token are about the same thing. A
 * token without bytes (the end of an answer) is a group where both have one at the same place; else it
 * goes with the bytes after it, or with the last group where there are none. BAD_INPUT when the texts
 * differ in length.
 */
export function alignByOffsets(teacher: readonly number[], student: readonly number[], where: string): readonly AlignedGroup[] {
  const bytesOf = (lengths: readonly number[]): number => lengths.reduce((sum, length) => sum + length, 0);
  if (bytesOf(teacher) !== bytesOf(student)) {
    throw new StillhouseError('BAD_INPUT', `${where}: expected two tokenisations of one text, got one of ${bytesOf(teacher)} bytes by the teacher and one of ${bytesOf(student)} by the student`);
  }
  const groups: AlignedGroup[] = [];
  let [t, s, teacherByte, studentByte] = [0, 0, 0, 0];
  const readTeacher = (): number => (teacherByte += teacher[t++] as number);
  const readStudent = (): number => (studentByte += student[s++] as number);
  while (t < teacher.length && s < student.length) {
    const [fromTeacher, fromStudent, startByte] = [t, s, teacherByte];
    readTeacher();
    readStudent();
    // Both have the same bytes in all: whoever is behind has tokens left.
    while (teacherByte !== studentByte) {
      if (teacherByte < studentByte) readTeacher();
      else readStudent();
    }
    groups.push({ teacher: { from: fromTeacher, to: t }, student: { from: fromStudent, to: s }, startByte });
  }
  const last = groups.pop();
  if (last !== undefined) groups.push({ ...last, teacher: { ...last.teacher, to: teacher.length }, student: { ...last.student, to: student.length } });
  return groups;
}
