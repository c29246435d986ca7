/** `npm run bench -- NAME [options]`: measurements of one stage each, in a file of its own. With --json one document on standard output. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** Each bench is a program: its processes and its memory are its own. */
const names = readdirSync(import.meta.dirname).filter((file) => file.endsWith('.ts') && !['run.ts', 'soak.ts'].includes(file)).map((file) => file.slice(0, -3));
const [name = '', ...rest] = process.argv.slice(2);
const file = join(import.meta.dirname, `${name}.ts`);
if (!names.includes(name) || !existsSync(file)) {
  process.stderr.write(`bench: expected one of ${names.join(', ')}, got ${name === '' ? 'nothing' : name}\n`);
  process.exit(2);
}
const child = spawn(process.execPath, [file, ...rest], { stdio: 'inherit' });
const [code] = (await once(child, 'exit')) as [number | null];
process.exitCode = code ?? 1;
