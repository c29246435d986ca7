/**
 * `npm run bench -- ladder [--json] [--folder PATH] [--match TEXT] [--cells N] [--plot FILE.svg]`: how much of a teacher
 * is left in students of 15 and 10 of its 30 layers, by method. Task: is a sentence of a review positive? The teacher is
 * SmolLM2-135M-Instruct, all weights tuned on 400 human labels. Students begin as its first layers and its last, and learn
 * from its answers to sentences that nobody labelled; they are tested on human labels that no model has learned from.
 * Each seed draws other sentences, the same for all methods. A cell that is computed is kept; `--cells` computes at most
 * so many more.
 */
import { readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createRandom, shuffled } from '../src/dataset/random.ts';
import { CellFolder, computeCells, mean, standardDeviation } from './experiments/cells.ts';
import type { Cell } from './experiments/cells.ts';
import { intervalChart } from './experiments/charts.ts';
import { firstAndLast } from '../src/lm/layers.ts';
import { answers, answersOf, benchFolder, datasetPath, openStudent, trainStudent } from './experiments/students.ts';
import type { Answers, Asking, TrainingFacts } from './experiments/students.ts';

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false }, folder: { type: 'string', default: join(benchFolder, 'ladder') }, match: { type: 'string', default: '' }, cells: { type: 'string', default: 'Infinity' }, plot: { type: 'string' } } });
const say = (line: string): void => void process.stderr.write(`${line}\n`);
const folder = new CellFolder(values.folder);

const BASE = 'smollm2-135m-instruct';
const LABELS = ['negative', 'positive'];
const ASKING: Asking = { system: 'Is the sentence positive or negative?', instruction: '{input}' };
const SEEDS = [1, 2, 3];
const TEACHER_ROWS = 400;
/** Of the sentences that students learn from and are tested on: what a step costs grows with their length. */
const MOST_CHARACTERS = 100;
const POOL_ROWS = 2_000;
const STUDENT_ROWS = 1_536;
const SPEED_ROWS = 64;
const SPEED_TURNS = 5;

interface Row {
  readonly input: string;
  readonly gold?: string;
}
const read = async (name: string): Promise<readonly Row[]> => readFileSync(await datasetPath(name), 'utf8').split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Row);
const short = ({ input }: Row): boolean => input.length <= MOST_CHARACTERS;

const gold = await read('catalogue:hutto-reviews-gold');
const test = gold.slice(TEACHER_ROWS).filter(short);
const pool = (await read('catalogue:hutto-reviews-pool')).filter(short).slice(0, POOL_ROWS);

interface Scores {
  readonly accuracy: number;
  /** Share of the test rows on which it agrees with its teacher, and how far its distribution over the labels lies from the teacher's. */
  readonly agreement: number;
  readonly divergenceNats: number;
}
interface StudentResult extends Scores {
  readonly training: TrainingFacts;
  readonly chosen: readonly number[];
}

const accuracyOf = (chosen: readonly number[]): number => mean(chosen.map((label, i) => (LABELS[label] === test[i]?.gold ? 1 : 0)));

function compare(student: Answers, teacher: Answers): Scores {
  const divergence = (p: readonly number[], q: readonly number[]): number => p.reduce((sum, value, i) => sum + Math.exp(value) * (value - (q[i] as number)), 0);
  return {
    accuracy: accuracyOf(student.chosen),
    agreement: mean(student.chosen.map((label, i) => (label === teacher.chosen[i] ? 1 : 0))),
    divergenceNats: mean(teacher.logProbs.map((row, i) => divergence(row, student.logProbs[i] as readonly number[]))),
  };
}

/** The tuned teacher, its answers to the pool and to the test rows. Its folder stays: students are made of it. */
const TEACHER_TRAINING = { tune: 'full', epochs: 2, batchSize: 16, learningRate: 4e-5, warmupRatio: 0.1, rowTokens: 1_024, checkpointEverySteps: 1_000, checkpointEveryMinutes: 60 };
const teacherSpec = { base: BASE, asking: ASKING, rows: TEACHER_ROWS, training: TEACHER_TRAINING, mostCharacters: MOST_CHARACTERS, pool: POOL_ROWS };
const teacherFolder = join(values.folder, 'teacher', 'run', 'student');
const teacherCell: Cell<{ readonly training: TrainingFacts; readonly accuracy: number; readonly test: Answers; readonly pool: Answers }> = {
  name: 'teacher',
  spec: teacherSpec,
  compute: async () => {
    const rows = gold.slice(0, TEACHER_ROWS).map(({ input, gold: output = '' }) => ({ input, output }));
    const { facts } = await trainStudent({ student: { model: BASE }, ...ASKING, training: TEACHER_TRAINING, seed: 1 }, rows, join(values.folder, 'teacher'));
    const onTest = await answers({ model: teacherFolder }, ASKING, test.map(({ input }) => input), LABELS);
    say(`teacher: accuracy ${accuracyOf(onTest.chosen)}`);
    const onPool = await answers({ model: teacherFolder }, ASKING, pool.map(({ input }) => input), LABELS);
    return { training: facts, accuracy: accuracyOf(onTest.chosen), test: onTest, pool: onPool };
  },
};

const TEACHER_LAYERS = 30;
const SIZES = [15, 10];
const EVENLY = 'sft, layers evenly spaced';
/** The first layers and the last, as `keepLayers` chooses them, but for the students that show why. */
const layersOf = (count: number, method: string): readonly number[] =>
  method === EVENLY ? Array.from({ length: count }, (_, i) => Math.round((i * (TEACHER_LAYERS - 1)) / (count - 1))) : firstAndLast(count, TEACHER_LAYERS);
const LORA = { r: 32, alpha: 64, dropout: 0, targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] };
const STUDENT_TRAINING = { tune: 'lora', lora: LORA, epochs: 2, batchSize: 8, learningRate: 4e-4, warmupRatio: 0.1, rowTokens: 1_024, checkpointEverySteps: 1_000, checkpointEveryMinutes: 60 };
/** The student's last hidden state beside the teacher's last, where the answer is predicted. */
const feature = (layers: number): object => ({ layers: [{ student: layers, teacher: TEACHER_LAYERS }], loss: 'standardised', tokens: 'answer', weight: 0.5 });
/** The 50 likeliest of 49,152 tokens, and all others as one class. */
const OFFLINE = { targets: 'offline', topK: 50 };
const teacherModel = { model: teacherFolder };
const METHODS: Readonly<Record<string, (layers: number) => object>> = {
  sft: () => ({ method: 'sft' }),
  logit: () => ({ method: 'logit', logit: OFFLINE, teacher: teacherModel }),
  feature: (layers) => ({ method: 'feature', feature: feature(layers), teacher: teacherModel }),
  'logit + feature': (layers) => ({ method: 'feature', feature: feature(layers), logit: OFFLINE, teacher: teacherModel }),
};
/** Other layers; stored and whole distributions, softened or not: compared in the larger student alone. */
const COMPARED: typeof METHODS = {
  [EVENLY]: () => ({ method: 'sft' }),
  'logit, T = 1': () => ({ method: 'logit', logit: { ...OFFLINE, temperature: 1 }, teacher: teacherModel }),
  'logit, T = 1, whole distributions': () => ({ method: 'logit', logit: { temperature: 1 }, teacher: teacherModel }),
  'logit, whole distributions': () => ({ method: 'logit', teacher: teacherModel }),
};

interface Student {
  readonly layers: number;
  readonly method: string;
  readonly seed: number;
}
const methodsOf = (layers: number): typeof METHODS => (layers === SIZES[0] ? { ...METHODS, ...COMPARED } : METHODS);
const students: readonly Student[] = SEEDS.flatMap((seed) => SIZES.flatMap((layers) => Object.keys(methodsOf(layers)).map((method) => ({ layers, method, seed }))));

function studentCell({ layers, method, seed }: Student): Cell<StudentResult> {
  const chosen = methodsOf(layers)[method]?.(layers);
  const { teacher: _teacher, ...decisive } = { teacher: undefined, ...chosen };
  const training = { ...STUDENT_TRAINING, ...chosen };
  const name = `student-${layers}-${method.replace(/\W+/g, '-')}-${seed}`;
  return {
    name,
    spec: { teacher: teacherSpec, layers: layersOf(layers, method), rows: STUDENT_ROWS, training: { ...STUDENT_TRAINING, ...decisive }, seed },
    compute: async (work) => {
      const teacher = await folder.get(teacherCell);
      const rows = shuffled(pool.map(({ input }, i) => ({ input, output: LABELS[teacher.pool.chosen[i] as number] as string })), createRandom(seed, 'ladder')).slice(0, STUDENT_ROWS);
      const student = await trainStudent({ student: { model: teacherFolder, layers: layersOf(layers, method) }, ...ASKING, training, seed }, rows, work);
      const onTest = await answers(student.model, ASKING, test.map(({ input }) => input), LABELS);
      await rm(work, { recursive: true });
      const scores = compare(onTest, teacher.test);
      say(`${name}: accuracy ${scores.accuracy.toFixed(4)}, agreement ${scores.agreement.toFixed(4)}, divergence ${scores.divergenceNats.toFixed(4)}`);
      return { ...scores, training: student.facts, chosen: onTest.chosen };
    },
  };
}

interface Speed {
  readonly layers: number;
  readonly parameters: number;
  /** As float32, which is how they are trained and run here. */
  readonly sizeBytes: number;
  /** Prompt tokens a second of each turn, many sentences in one call. */
  readonly tokensPerSecond: readonly number[];
}
/** Teacher and students in turns on the same sentences; what was learned does not change their speed. */
const speedCell: Cell<readonly Speed[]> = {
  name: 'speed',
  spec: { teacher: teacherSpec, sizes: SIZES.map((count) => firstAndLast(count, TEACHER_LAYERS)), rows: SPEED_ROWS, turns: SPEED_TURNS },
  compute: async () => {
    await folder.get(teacherCell);
    await using opened = new AsyncDisposableStack();
    const contenders = [];
    for (const layers of [TEACHER_LAYERS, ...SIZES]) {
      const model = opened.use(await openStudent({ model: teacherFolder, ...(layers === TEACHER_LAYERS ? {} : { layers: firstAndLast(layers, TEACHER_LAYERS) }) }));
      contenders.push({ layers, model, rates: [] as number[] });
    }
    const inputs = test.slice(0, SPEED_ROWS).map(({ input }) => input);
    for (let turn = 0; turn <= SPEED_TURNS; turn += 1) {
      for (const { model, rates } of contenders) {
        const { promptTokens, seconds } = await answersOf(model, ASKING, inputs, LABELS);
        if (turn > 0) rates.push(promptTokens / seconds);
      }
    }
    return contenders.map(({ layers, model: { identity }, rates }) => ({ layers, parameters: identity.parameters, sizeBytes: 4 * identity.parameters, tokensPerSecond: rates }));
  },
};

const cells: readonly Cell<unknown>[] = [teacherCell, ...students.map(studentCell), speedCell];
const progress = await computeCells(folder, cells.filter(({ name }) => new RegExp(values.match).test(name)), { most: Number(values.cells), say });
say(`${progress.done} of ${progress.of} cells are done`);

const teacher = folder.kept(teacherCell);
const spread = (numbers: readonly number[]) => ({ mean: mean(numbers), standardDeviation: standardDeviation(numbers), each: numbers });
const rows = SIZES.flatMap((layers) =>
  Object.keys(methodsOf(layers)).flatMap((method) => {
    const results = SEEDS.flatMap((seed) => folder.kept(studentCell({ layers, method, seed })) ?? []);
    if (results.length === 0 || teacher === undefined) return [];
    const accuracy = spread(results.map((result) => result.accuracy));
    return [{ layers, method, accuracy, retention: accuracy.mean / teacher.accuracy, agreement: spread(results.map((result) => result.agreement)), divergenceNats: spread(results.map((result) => result.divergenceNats)) }];
  }),
);
const percent = (value: number): string => (100 * value).toFixed(1);
const nats = (value: number): string => value.toFixed(3);
/** One value has no spread. */
const range = ({ mean: middle, standardDeviation: deviation, each }: ReturnType<typeof spread>, text: (value: number) => string): string => (each.length < 2 ? text(middle) : `${text(middle)} ± ${text(deviation)}`);
function speedLines(): readonly string[] {
  const speeds = folder.kept(speedCell);
  const whole = speeds?.find(({ layers }) => layers === TEACHER_LAYERS);
  if (speeds === undefined || whole === undefined) return [];
  const lines = speeds.map(({ layers, parameters, sizeBytes, tokensPerSecond }) => {
    const ratios = tokensPerSecond.map((rate, turn) => rate / (whole.tokensPerSecond[turn] ?? NaN)).toSorted((a, b) => a - b);
    const rates = tokensPerSecond.toSorted((a, b) => a - b);
    const middle = (sorted: readonly number[]): number => sorted[Math.floor(sorted.length / 2)] ?? NaN;
    return `| ${layers} | ${(parameters / 1e6).toFixed(1)} M | ${(sizeBytes / 1e6).toFixed(0)} MB | ${middle(rates).toFixed(0)} (${rates[0]?.toFixed(0)}–${rates.at(-1)?.toFixed(0)}) | ${middle(ratios).toFixed(2)} (${ratios[0]?.toFixed(2)}–${ratios.at(-1)?.toFixed(2)}) |`;
  });
  return ['', '| layers | parameters | float32 | prompt tokens a second | to the teacher |', '|---|---|---|---|---|', ...lines];
}
function markdown(): string {
  const lines = rows.map(({ layers, method, accuracy, retention, agreement, divergenceNats }) => `| ${layers} | ${method} | ${range(accuracy, percent)} | ${accuracy.each.map(percent).join(', ')} | ${percent(retention)} | ${range(agreement, percent)} | ${range(divergenceNats, nats)} |`);
  return [`teacher: ${percent(teacher?.accuracy ?? NaN)} % of ${test.length} test rows`, '', '| layers | method | accuracy, % | seeds | of the teacher, % | agreement, % | divergence, nats |', '|---|---|---|---|---|---|---|', ...lines, ...speedLines()].join('\n');
}
if (values.plot !== undefined && teacher !== undefined) {
  const chart = intervalChart({
    title: 'Accuracy of students of 15 and 10 of 30 layers by method, a dot for each seed',
    rows: rows.map(({ layers, method, accuracy }) => ({ name: `${layers} layers, ${method}`, values: accuracy.each })),
    line: { name: 'teacher', value: teacher.accuracy },
  });
  await writeFile(values.plot, chart);
}
const { test: _test, pool: _pool, ...teacherFacts } = teacher ?? { test: undefined, pool: undefined };
process.stdout.write(values.json ? `${JSON.stringify({ bench: 'ladder', testRows: test.length, studentRows: STUDENT_ROWS, teacher: teacherFacts, rows, speed: folder.kept(speedCell) }, undefined, 2)}\n` : `${markdown()}\n`);
