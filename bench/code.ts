/**
 * The check of Python code against CPython: valid texts that are refused, broken ones that pass, and how
 * often the line that is named is CPython's. `python3` must be on the path.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { pythonProblem } from '../src/dataset/python.ts';

interface Corpus {
  readonly version: string;
  readonly valid: readonly string[];
  readonly refused: readonly { readonly what: string; readonly code: string; readonly line: number }[];
}

const corpus = JSON.parse(execFileSync('python3', [join(import.meta.dirname, 'peers', 'python_corpus.py')], { encoding: 'utf8', maxBuffer: 1 << 30 })) as Corpus;
const startedMs = performance.now();
const wronglyRefused = corpus.valid.filter((code) => pythonProblem(code) !== undefined).length;
const checked = corpus.refused.map((each) => ({ ...each, problem: pythonProblem(each.code) }));
const seconds = (performance.now() - startedMs) / 1_000;
const lineOf = (problem: string | undefined): number => Number(/^line (\d+)/.exec(problem ?? '')?.[1] ?? Number.NaN);
const passed = Object.fromEntries([...Map.groupBy(checked, ({ what }) => what)].map(([what, all]) => [what, { passed: all.filter(({ problem }) => problem === undefined).length, of: all.length }]));
const result = {
  python: corpus.version,
  valid: corpus.valid.length,
  wronglyRefused,
  broken: checked.length,
  wronglyPassed: checked.filter(({ problem }) => problem === undefined).length,
  lineWithinOne: checked.filter(({ problem, line }) => Math.abs(lineOf(problem) - line) <= 1).length,
  passed,
  seconds,
};
process.stdout.write(process.argv.includes('--json') ? `${JSON.stringify(result, null, 2)}\n` : `CPython ${result.python}: ${wronglyRefused} of ${result.valid} valid texts refused, ${result.wronglyPassed} of ${result.broken} broken ones passed, ${result.lineWithinOne} named within one line of CPython's, ${seconds.toFixed(1)} s\n`);
