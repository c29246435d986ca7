/** Makes a work folder, prints its path and works until its input ends: a process to be killed. */
import { once } from 'node:events';
import { withWorkFolder } from '../../src/assets/work-folder.ts';

await withWorkFolder('train', async (folder) => {
  process.stdout.write(`${folder}\n`);
  process.stdin.resume();
  await once(process.stdin, 'end');
});
