/**
 * Runs the tests by layer and ends with one line: `N passed, N failed`.
 *
 *   node test/run.ts                 all layers but the slow ones
 *   node test/run.ts unit api        these layers
 *   node test/run.ts test/unit/x.test.ts   these files
 */
import { once } from 'node:events';
import { existsSync, globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { run } from 'node:test';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { killHard, processesWith } from './support/processes.ts';
import type { ProcessInfo } from './support/processes.ts';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');

interface Layer {
  readonly name: string;
  /** Files at once. Layers that start servers or train use all cores by themselves. */
  readonly concurrency: number;
  /** Of one file, from its start to the end of its process; also of each test in it. */
  readonly timeoutMs: number;
  /** Only where it is named: it has a command of its own. */
  readonly slow?: boolean;
}
const LAYERS: readonly Layer[] = [
  { name: 'unit', concurrency: availableParallelism(), timeoutMs: 120_000 },
  { name: 'dialects', concurrency: availableParallelism(), timeoutMs: 120_000 },
  { name: 'numerics', concurrency: 1, timeoutMs: 600_000 },
  { name: 'api', concurrency: availableParallelism(), timeoutMs: 120_000 },
  { name: 'replay', concurrency: 1, timeoutMs: 180_000 },
  { name: 'workflows', concurrency: 1, timeoutMs: 300_000 },
  { name: 'e2e', concurrency: 1, timeoutMs: 900_000 },
  { name: 'campaigns', concurrency: 1, timeoutMs: 900_000, slow: true },
];

/** Tests that take longer are named with their seconds. */
const SLOW_MS = 10_000;
/** A test that timed out is reported by node:test itself, before its file is given up. */
const GRACE_MS = 15_000;
/** What a file has started may need this long to end after it. */
const PARTING_MS = 15_000;

/** Every process of a file has this in its environment, with the file's own value: whoever starts it, and whoever is its parent later. */
const MARK = 'STILLHOUSE_TEST_FILE';
const marks = new Set<string>();

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

const killMarked = (mark: string): readonly ProcessInfo[] => processesWith(MARK, mark).filter(({ pid }) => killHard(pid));

/** What outlives its file; it is killed. */
async function leftBehind(mark: string): Promise<readonly ProcessInfo[]> {
  for (const deadline = Date.now() + PARTING_MS; processesWith(MARK, mark).length > 0 && Date.now() < deadline; ) await sleep(100);
  return killMarked(mark);
}

/** Runs one file in a process of its own: it must end in time, and everything that it has started with it. */
async function runFile(file: string, timeoutMs: number, tally: Tally): Promise<void> {
  const name = relative(ROOT, file);
  const mark = `${process.pid}:${name}`;
  marks.add(mark);
  const fail = (text: string): void => {
    tally.failed += 1;
    tally.failures.push(text);
    console.log(text);
  };
  const stream = run({ files: [file], timeout: timeoutMs, isolation: 'process', env: { ...process.env, [MARK]: mark } });
  stream.on('test:pass', (event: TestEvent) => {
    if (event.details.type === 'suite') return;
    if (event.skip !== undefined && event.skip !== false) {
      tally.skipped += 1;
      console.log(`- skipped: ${event.name}${typeof event.skip === 'string' ? ` (${event.skip})` : ''}`);
      return;
    }
    tally.passed += 1;
    if (event.details.duration_ms > SLOW_MS) console.log(`${(event.details.duration_ms / 1_000).toFixed(1)} s: ${name}: ${event.name}`);
  });
  stream.on('test:fail', (event: TestEvent) => {
    if (!isParentOfFailure(event)) fail(describeFailure(event));
  });
  stream.on('test:stderr', ({ message }: { readonly message: string }) => process.stderr.write(message));
  stream.resume();
  // node:test ends tests that take too long, but waits for as long as their process lives, which something left open makes forever.
  const patience = new AbortController();
  const overdue = async (): Promise<void> => {
    await sleep(timeoutMs + GRACE_MS, undefined, { signal: patience.signal });
    fail(`✖ ${name}: expected its process to end within ${timeoutMs / 1_000} s, got one that goes on: killed with all that it started`);
    killMarked(mark);
    // Whoever has no mark and holds the file's output would hold up the run with it.
    await sleep(GRACE_MS, undefined, { signal: patience.signal });
  };
  await Promise.race([once(stream, 'end'), overdue()]);
  patience.abort();
  const left = await leftBehind(mark);
  if (left.length > 0) fail(`✖ ${name}: expected nothing that it started to outlive it, got ${left.map(({ pid, command }) => `${pid} (${command})`).join(', ')}: killed`);
  marks.delete(mark);
}

async function runFiles(files: readonly string[], { concurrency, timeoutMs }: Layer, tally: Tally): Promise<void> {
  const waiting = [...files];
  const runner = async (): Promise<void> => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) await runFile(file, timeoutMs, tally);
  };
  await Promise.all(Array.from({ length: concurrency }, runner));
}

function choose(args: readonly string[]): readonly { readonly layer: Layer; readonly files: readonly string[] }[] {
  const filesOf = (name: string): string[] => globSync(`test/${name}/**/*.test.ts`, { cwd: ROOT }).sort().map((file) => join(ROOT, file));
  const names = args.length === 0 ? LAYERS.filter(({ slow }) => slow !== true).map(({ name }) => name) : args;
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

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    marks.forEach(killMarked);
    process.exit(1);
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
process.exit(tally.failed === 0 && tally.passed > 0 ? 0 : 1);
