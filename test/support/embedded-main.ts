/** An embedded stack as a process of its own, to be killed; its workers only wait. Prints READY with its addresses. */
import { fileURLToPath } from 'node:url';
import { readConfig } from '../../src/config.ts';
import { startEmbedded } from '../../src/embedded/start.ts';

const stack = await startEmbedded(readConfig(), {
  workerMain: fileURLToPath(new URL('./idle-worker.ts', import.meta.url)),
  say: (line) => console.log(line),
});
process.on('SIGTERM', () => void stack.stop().then(() => process.exit(0)));
console.log(`READY ${stack.apiUrl}`);
