/**
 * Runs the tests by layer and ends with one line: `N passed, N failed`.
 *
 *   node test/run.ts                 all layers
 *   node test/run.ts unit api        these layers
 *   node test/run.ts test/unit/x.test.ts   these files
 */
import { existsSync, globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { run } from 'node:test';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');

interface Layer {
  readonly name: string;
  /** Files at once. Layers that start servers or train use all cores by themselves. */
  readonly concurrency: number;
  /** Of one file. */
  readonly timeoutMs: number;
}
const LAYERS: readonly Layer[] = [
  { name: 'unit', concurrency: availableParallelism(), timeoutMs: 120_000 },
  { name: 'numerics', concurrency: 1, timeoutMs: 600_000 },
  { name: 'api', concurrency: availableParallelism(), timeoutMs: 120_000 },
  { name: 'replay', concurrency: 1, timeoutMs: 180_000 },
  { name: 'workflows', concurrency: 1, timeoutMs: 300_000 },
  { name: 'e2e', concurrency: 1, timeoutMs: 1_800_000 },
];

interface Tally {
  passed: number;
  failed: number;
  skipped: number;
  readonly failures: string[];
}

type TestEvent = { readonly name: string; readonly file?: string; readonly nesting: number; readonly skip?: string | boolean; readonly todo?: string | boolean; readonly details: { readonly duration_ms: number; readonly type?: string; readonly error?: Error } };

/** node:test wraps what was thrown; the thrown error says what went wrong. */
function describeFailure({ name, file, details }: TestEvent): string {
  const cause = details.error?.cause ?? details.error;
  const text = cause instanceof Error ? (cause.stack ?? cause.message) : inspect(cause);
  return [`✖ ${file === undefined ? '' : `${relative(ROOT, file)}: `}${name}`, ...text.split('\n').map((line) => `    ${line}`)].join('\n');
}

/** A parent fails because a child did: the child alone is counted and shown. */
const isParentOfFailure = ({ details }: TestEvent): boolean => /subtests? failed/.test(details.error?.message ?? '');

function runFiles(files: readonly string[], { concurrency, timeoutMs }: Layer, tally: Tally): Promise<void> {
  return new Promise((resolveRun, reject) => {
    const stream = run({ files: [...files], concurrency, timeout: timeoutMs, isolation: 'process' });
    stream.on('test:pass', (event: TestEvent) => {
      if (event.details.type === 'suite') return;
      if (event.skip !== undefined && event.skip !== false) {
        tally.skipped += 1;
        console.log(`- skipped: ${event.name}${typeof event.skip === 'string' ? ` (${event.skip})` : ''}`);
        return;
      }
      tally.passed += 1;
    });
    stream.on('test:fail', (event: TestEvent) => {
      if (isParentOfFailure(event)) return;
      tally.failed += 1;
      const text = describeFailure(event);
      tally.failures.push(text);
      console.log(text);
    });
    stream.on('test:stderr', ({ message }: { readonly message: string }) => process.stderr.write(message));
    stream.on('error', reject);
    stream.on('end', resolveRun);
    stream.resume();
  });
}

function choose(args: readonly string[]): readonly { readonly layer: Layer; readonly files: readonly string[] }[] {
  const filesOf = (name: string): string[] => globSync(`test/${name}/**/*.test.ts`, { cwd: ROOT }).sort().map((file) => join(ROOT, file));
  const names = args.length === 0 ? LAYERS.map(({ name }) => name) : args;
  return names.map((name) => {
    const layer = LAYERS.find((one) => one.name === name);
    if (layer !== undefined) return { layer, files: filesOf(name) };
    const file = resolve(name);
    const home = LAYERS.find((one) => file.startsWith(join(ROOT, 'test', one.name)));
    if (home === undefined || !existsSync(file)) {
      console.error(`expected one of the layers ${LAYERS.map((one) => one.name).join(', ')} or a test file, got ${name}`);
      process.exit(2);
    }
    return { layer: home, files: [file] };
  });
}

const tally: Tally = { passed: 0, failed: 0, skipped: 0, failures: [] };
for (const { layer, files } of choose(process.argv.slice(2))) {
  if (files.length === 0) continue;
  const before = { ...tally };
  const startedAt = performance.now();
  await runFiles(files, layer, tally);
  console.log(`${layer.name}: ${tally.passed - before.passed} passed, ${tally.failed - before.failed} failed in ${files.length} ${files.length === 1 ? 'file' : 'files'}, ${((performance.now() - startedAt) / 1_000).toFixed(1)} s`);
}
if (tally.failures.length > 0) console.log(`\nfailures\n${tally.failures.join('\n')}\n`);
if (tally.skipped > 0) console.log(`${tally.skipped} skipped`);
console.log(`${tally.passed} passed, ${tally.failed} failed`);
process.exitCode = tally.failed === 0 && tally.passed > 0 ? 0 : 1;
