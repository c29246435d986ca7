/** Teachers behind endpoints alone. */
import type { Assets } from '../../src/assets/assets.ts';
import { createTeacherDirectory } from '../../src/teacher/directory.ts';
import type { TeacherDirectoryDeps } from '../../src/teacher/directory.ts';
import { TEST_KEY } from './openai-server.ts';

const unused = (): never => {
  throw new Error('a hosted teacher needs no model of this machine');
};

export const noModels: Pick<Assets, 'model'> = { model: unused };

export function hostedDirectory(options: Partial<Pick<TeacherDirectoryDeps, 'readSecret' | 'timings'>> = {}): ReturnType<typeof createTeacherDirectory> {
  return createTeacherDirectory({ host: { open: unused }, assets: noModels, readSecret: () => TEST_KEY, ...options });
}
