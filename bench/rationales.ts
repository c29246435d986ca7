/**
 * `npm run bench -- rationales [--json] [--folder PATH] [--match TEXT] [--cells N] [--plot FILE.svg]`: accuracy by number of
 * labels, learned from labels alone and step by step, in the same number of optimizer steps. Task: word problems made by a
 * seed, whose labels and rationales are right (src/dataset/counting.ts). A cell that is computed is kept; `--cells`
 * computes at most so many more.
 */
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { COUNTING_LABELS, countingProblems } from '../src/dataset/counting.ts';
import { CellFolder, computeCells, mean, standardDeviation } from './experiments/cells.ts';
import type { Cell } from './experiments/cells.ts';
import { curveChart } from './experiments/charts.ts';
import { answers, benchFolder, trainStudent } from './experiments/students.ts';
import type { Asking, TrainingFacts } from './experiments/students.ts';

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false }, folder: { type: 'string', default: join(benchFolder, 'rationales') }, match: { type: 'string', default: '' }, cells: { type: 'string', default: 'Infinity' }, plot: { type: 'string' } } });
const say = (line: string): void => void process.stderr.write(`${line}\n`);
const folder = new CellFolder(values.folder);

const STUDENT = { model: 'smollm2-135m-instruct' };
const ASKING: Asking = { system: 'Count.', instruction: '{input}' };
/** Changes of the count in one problem. */
const CHANGES: readonly [number, number] = [1, 1];
const TEST_ROWS = 300;
const SEEDS = [1, 2, 3];
const METHODS = ['sft', 'step-by-step'];
/** Of all cells alike: whoever has fewer labels sees each more often. */
const STEPS = 80;
const BATCH_SIZE = 8;
const LABELS = [40, 160, 640];
const LORA = { r: 32, alpha: 64, dropout: 0, targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] };
const TRAINING = { tune: 'lora', lora: LORA, batchSize: BATCH_SIZE, learningRate: 5e-4, warmupRatio: 0.1, rowTokens: 1_024, checkpointEverySteps: 1_000, checkpointEveryMinutes: 60 };

/** The test rows first: no row of any seed is one of them, and more labels of a seed begin with the fewer. */
function problemsOf(seed: number, labels: number) {
  const test = countingProblems({ seed: 0, rows: TEST_ROWS, steps: CHANGES });
  const held = new Set(test.map(({ input }) => input));
  const learned = countingProblems({ seed, rows: Math.max(...LABELS) + TEST_ROWS, steps: CHANGES }).filter(({ input }) => !held.has(input)).slice(0, labels);
  return { test, learned: learned.map(({ input, output, rationale }) => ({ input, output, rationale })) };
}

interface Point {
  readonly method: string;
  readonly labels: number;
  readonly seed: number;
}
interface PointResult {
  readonly accuracy: number;
  readonly training: TrainingFacts;
}

function pointCell({ method, labels, seed }: Point): Cell<PointResult> {
  const epochs = (STEPS * BATCH_SIZE) / labels;
  const training = { ...TRAINING, method, epochs };
  const name = `${method}-${labels}-${seed}`;
  return {
    name,
    spec: { student: STUDENT, asking: ASKING, changes: CHANGES, testRows: TEST_ROWS, labels, training, seed },
    compute: async (work) => {
      const { test, learned } = problemsOf(seed, labels);
      const student = await trainStudent({ student: STUDENT, ...ASKING, training, seed }, learned, work);
      const { chosen } = await answers(student.model, ASKING, test.map(({ input }) => input), COUNTING_LABELS);
      await rm(work, { recursive: true });
      const accuracy = mean(chosen.map((label, i) => (COUNTING_LABELS[label] === test[i]?.output ? 1 : 0)));
      say(`${name}: accuracy ${accuracy.toFixed(4)}`);
      return { accuracy, training: student.facts };
    },
  };
}

const points = SEEDS.flatMap((seed) => LABELS.flatMap((labels) => METHODS.map((method) => ({ method, labels, seed }))));
const progress = await computeCells(folder, points.map(pointCell).filter(({ name }) => new RegExp(values.match).test(name)), { most: Number(values.cells), say });
say(`${progress.done} of ${progress.of} cells are done`);

const series = METHODS.map((method) => ({
  name: method,
  points: LABELS.flatMap((labels) => {
    const results = SEEDS.flatMap((seed) => folder.kept(pointCell({ method, labels, seed })) ?? []);
    return results.length === 0 ? [] : [{ x: labels, values: results.map(({ accuracy }) => accuracy) }];
  }),
}));

const percent = (value: number): string => (100 * value).toFixed(1);
function markdown(): string {
  const cell = (labels: number, name: string): string => {
    const point = series.find((one) => one.name === name)?.points.find(({ x }) => x === labels);
    if (point === undefined) return '';
    // One value has no spread.
    const spread = point.values.length < 2 ? '' : ` ± ${percent(standardDeviation(point.values))}`;
    return `${percent(mean(point.values))}${spread} (${point.values.map(percent).join(', ')})`;
  };
  return [`| labels | ${METHODS.join(' | ')} |`, `|---|${METHODS.map(() => '---|').join('')}`, ...LABELS.map((labels) => `| ${labels} | ${METHODS.map((method) => cell(labels, method)).join(' | ')} |`)].join('\n');
}
if (values.plot !== undefined) await writeFile(values.plot, curveChart({ title: 'Accuracy by number of labels', xName: 'labels', series }));
process.stdout.write(values.json ? `${JSON.stringify({ bench: 'rationales', testRows: TEST_ROWS, steps: STEPS, batchSize: BATCH_SIZE, series }, undefined, 2)}\n` : `${markdown()}\n`);
