/** `still train`: one student from rows that are there already, without a service. Started again, it goes on where it was. */
import { availableParallelism } from 'node:os';
import { dirname, isAbsolute, resolve } from 'node:path';
import { createAssets } from '../assets/create-assets.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { parseText, validate } from '../contracts/parse-spec.ts';
import { trainSpecSchema } from '../contracts/train-spec.ts';
import type { TrainSpec } from '../contracts/train-spec.ts';
import { tooLongText } from '../training/fitting.ts';
import { readWholeText } from '../dataset/text-file.ts';
import { trainLocally } from '../training/local-run.ts';
import type { LocalRunOptions, LocalRunResult } from '../training/local-run.ts';
import { EXIT, fetchProgress, output, screenOf } from './commands.ts';
import type { CommandContext } from './commands.ts';
import type { Screen } from './follow.ts';
import { duration, percent } from './format.ts';
import { isTree, setAt, withSettings } from './settings.ts';
import type { Tree } from './settings.ts';

export interface TrainOptions {
  readonly student?: string;
  readonly dataset?: string;
  readonly development?: string;
  readonly out?: string;
  readonly hours?: number;
  readonly seed?: number;
  /** `training.epochs=2`: a key's path and its value in YAML. */
  readonly set?: readonly string[];
}

/** Off a terminal a line after so much of the training, and after so long. */
const LINE_EVERY_SHARE = 0.1;
const LINE_EVERY_MS = 30_000;

const datasetPath = (name: unknown, folder: string): unknown => (typeof name !== 'string' || name.startsWith('catalogue:') || isAbsolute(name) ? name : resolve(folder, name));
/** A local model with a slash or the ending .gguf is a path, any other is a name. */
const modelPath = (name: unknown, folder: string): unknown => (typeof name === 'string' && !name.startsWith('hf:') && /[/\\]|\.gguf$/i.test(name) ? resolve(folder, name) : name);

/** The file's paths are relative to the file. */
function withAbsolutePaths(spec: Tree, folder: string): Tree {
  const placed = (tree: unknown): unknown => (isTree(tree) && 'model' in tree ? { ...tree, model: modelPath(tree['model'], folder) } : tree);
  const { student, training } = spec;
  const changed: Tree = {
    ...spec,
    ...(isTree(student) ? { student: placed(student) } : {}),
    ...(isTree(training) && 'teacher' in training ? { training: { ...training, teacher: placed(training['teacher']) } } : {}),
  };
  for (const key of ['dataset', 'development', 'out']) if (key in changed) changed[key] = datasetPath(changed[key], folder);
  return changed;
}

function applyOptions(spec: Tree, { student, hours, seed, set = [], ...paths }: TrainOptions): Tree {
  let changed = withSettings(spec, set, '--set');
  if (student !== undefined) changed = setAt(changed, ['student', 'model'], modelPath(student, process.cwd()));
  for (const key of ['dataset', 'development', 'out'] as const) if (paths[key] !== undefined) changed = { ...changed, [key]: datasetPath(paths[key], process.cwd()) };
  return { ...changed, ...(hours === undefined ? {} : { hours }), ...(seed === undefined ? {} : { seed }) };
}

async function readTrainSpec(file: string | undefined, options: TrainOptions): Promise<TrainSpec> {
  if (file === undefined) return validate(trainSpecSchema, applyOptions({}, options), 'options');
  const text = await readWholeText(file).catch((cause: unknown) => {
    throw new StillhouseError('BAD_INPUT', `expected a training file, got ${JSON.stringify(file)}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  });
  const { value, lineOf } = parseText(text, file);
  if (!isTree(value)) return validate(trainSpecSchema, value, file, lineOf);
  return validate(trainSpecSchema, applyOptions(withAbsolutePaths(value, dirname(resolve(file))), options), file, lineOf);
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

/** Lines about a run: what it will take, how far it is, each development loss. */
function reporter(screen: Screen, { epochs, maxTokens }: TrainSpec['training']): Pick<LocalRunOptions, 'onPrepare' | 'onStart' | 'onProgress'> {
  let lastLineMs = performance.now();
  let lastLineShare = 0;
  let startedMs = 0;
  let startedAt = 0;
  let prepared = false;
  return {
    onPrepare: ({ rows, of, tokens, sizeBytes }) => {
      const text = `the teacher has read ${rows} of ${of} rows, ${percent(rows / of)}`;
      screen.live(text);
      if (rows < of && performance.now() - lastLineMs >= LINE_EVERY_MS) {
        lastLineMs = performance.now();
        screen.plain(text);
      }
      if (rows === of && !prepared) screen.line(`the teacher has read ${of} rows: ${tokens} tokens of answers, ${(sizeBytes / tokens).toFixed(1)} bytes a token are stored`);
      prepared = rows === of;
    },
    onStart: ({ epoch, resumedAt, steps, learnedRows, developmentRows, trainedNumbers, memory, free, tooLong }) => {
      // The clock and the share go through all epochs of this start.
      if (startedMs !== 0) return;
      [startedMs, startedAt] = [performance.now(), epoch * steps + resumedAt];
      lastLineShare = startedAt / (epochs * steps);
      screen.line(`${learnedRows} rows${developmentRows === 0 ? '' : `, ${developmentRows} more for the development loss`}; ${steps} steps an epoch, ${epochs} epochs; ${(trainedNumbers / 1e6).toFixed(1)} million numbers are trained`);
      if (tooLong !== undefined) screen.line(`left out, longer than training.maxTokens = ${maxTokens}: ${tooLongText(tooLong)}`);
      screen.line(`memory: about ${gigabytes(memory.neededBytes)} of the ${gigabytes(free.freeBytes)} that ${free.of === 'container' ? "the container's limit leaves" : 'are free'}`);
      if (startedAt > 0) screen.line(`going on after step ${startedAt}`);
    },
    onProgress: ({ epoch, step, steps, lossNats, tokensPerSecond, developmentNats, checkpointed }) => {
      const at = epoch * steps + step;
      const share = at / (epochs * steps);
      const done = at - startedAt;
      const leftMs = done > 0 ? ((performance.now() - startedMs) / done) * (epochs * steps - at) : undefined;
      const text = `epoch ${epoch + 1} of ${epochs}, step ${step} of ${steps}, ${percent(share)}: loss ${lossNats.toFixed(4)}, ${Math.round(tokensPerSecond)} tokens/s${leftMs === undefined ? '' : `, about ${duration(leftMs)} left`}`;
      screen.live(text);
      if (developmentNats !== undefined) screen.line(`step ${epoch * steps + step}: development loss ${developmentNats.toFixed(4)}`);
      if (checkpointed || share >= lastLineShare + LINE_EVERY_SHARE || performance.now() - lastLineMs >= LINE_EVERY_MS) {
        [lastLineMs, lastLineShare] = [performance.now(), share];
        screen.plain(`${text}${checkpointed ? '; checkpoint' : ''}`);
      }
    },
  };
}

function resultText(spec: TrainSpec, result: LocalRunResult, ms: number): string {
  const { kind, student, steps, epochs, lossFirstNats, lossLastNats, best, stopped } = result;
  return [
    `${steps} steps in ${epochs} ${epochs === 1 ? 'epoch' : 'epochs'}, ${duration(ms)}: loss ${lossFirstNats.toFixed(4)} to ${lossLastNats.toFixed(4)}`,
    ...(best === undefined ? [] : [`lowest development loss ${best.developmentNats.toFixed(4)} after step ${best.step}: those weights are the student${stopped ? '; training ended early' : ''}`]),
    `${kind === 'adapter' ? `adapter of ${spec.student.model}` : 'model'}: ${student}`,
    `checkpoint: ${result.checkpoint}`,
    `loss curve: ${result.lossCurve}`,
  ].join('\n');
}

export async function train(context: CommandContext, file: string | undefined, options: TrainOptions): Promise<number> {
  const spec = await readTrainSpec(file, options);
  const { config, signal } = context;
  const screen = screenOf(context);
  const assets = createAssets(config);
  const fetching = { onProgress: fetchProgress(screen), signal };
  const model = await assets.model(spec.student.model, fetching);
  const { teacher: chosen } = spec.training;
  const teacher = chosen === undefined ? {} : { teacher: await assets.model(chosen.model, fetching) };
  const dataset = await assets.dataset(spec.dataset, fetching);
  const development = spec.development === undefined ? {} : { development: await assets.dataset(spec.development, fetching) };
  const startedMs = performance.now();
  try {
    const result = await trainLocally(
      { ...spec, dataset, ...development },
      { model, ...teacher, cache: config.cache, threads: config.threads ?? availableParallelism(), executionProviders: config.executionProviders, signal, ...reporter(screen, spec.training) },
    );
    screen.live('');
    output(context, { out: spec.out, ...result, ms: Math.round(performance.now() - startedMs) }, () => resultText(spec, result, performance.now() - startedMs));
    return EXIT.done;
  } catch (error) {
    if (!(error instanceof StillhouseError) || error.code !== 'CANCELLED') throw error;
    screen.live('');
    screen.line(`stopped; the checkpoint is in ${spec.out}, the same command goes on from it`);
    return EXIT.failed;
  }
}
