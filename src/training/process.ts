/**
 * The process that trains one epoch. A run of the native runtime stops the event loop it was called from,
 * so training never happens in the process that heartbeats. Ends when its parent is gone.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TrainingSpec } from '../contracts/training-spec.ts';
import { loadModel } from '../lm/load.ts';
import type { LoadedModel } from '../lm/load.ts';
import { canonicalJson } from '../store/jsonl.ts';
import { toWireError } from '../lm/protocol.ts';
import { curveJsonl } from './checkpoint.ts';
import { besideStudent, teacherSamples, withTeacherReadings } from './cross-reading.ts';
import { trainEpoch } from './epoch.ts';
import { bothTooLong, fittingRows } from './fitting.ts';
import { commonTokens } from './method.ts';
import { checkMemory, checkTime, estimateReading, secondsPerStep, TIMED_STEPS } from './preflight.ts';
import type { TrainingSample } from './packing.ts';
import type { PartsProgress } from './parts.ts';
import { tokenizeSamples } from './samples.ts';
import { givenTargets } from './soft-targets/given.ts';
import { makeSoftTargets } from './soft-targets/make.ts';
import { DEFAULT_TOP_K } from './soft-targets/stored.ts';
import type { StoredTargets } from './soft-targets/stored.ts';
import { keepsTeacherRows, makeTeacherRows } from './teacher-rows.ts';
import { requireSameReading } from './teacher-check.ts';
import type { Reader } from './teacher-check.ts';
import type { TeacherModel } from './white-box-teacher.ts';
import type { FromTrainer, ModelOrder, ToTrainer, TrainingOrder } from './protocol.ts';

let stopAsked = false;

function send(message: FromTrainer): void {
  process.send?.(message, undefined, undefined, (error) => {
    if (error !== null) process.exit(0); // the parent went away while the message was on its way
  });
}

/** The teacher's distributions, those that are missing made first. A stop ends the process: what is made stays. */
async function storedTargets({ training, cache, threads, executionProviders }: TrainingOrder, model: LoadedModel, { identity, tokenizer, ...loaded }: LoadedModel, samples: readonly TrainingSample[]): Promise<StoredTargets | undefined> {
  const { logit, feature, crossTokenizer, rowTokens, maxTokens } = training;
  const teacher: TeacherModel = { config: loaded.config, weights: loaded.weights, sha256: identity.sha256, precision: training.precision };
  const { config } = teacher;
  if (logit === undefined && crossTokenizer === undefined) return undefined;
  const onPart = (done: PartsProgress): void => {
    if (stopAsked) process.exit(0);
    send({ kind: 'preparing', ...done });
  };
  const refuseTooLarge = (read: readonly TrainingSample[]) => (): void => checkMemory(estimateReading(teacher, training, read));
  const job = {
    teacher,
    samples,
    beforeOpening: refuseTooLarge(samples),
    maxRowTokens: Math.max(rowTokens, maxTokens),
    folder: join(cache, 'soft-targets'),
    threads,
    ...(executionProviders === undefined ? {} : { executionProviders }),
  };
  if (logit?.targets === 'offline') {
    return await makeSoftTargets({ ...job, vocabulary: { name: identity.name, tokens: tokenizer.tokens }, vocabularySize: commonTokens(model.config, config), k: logit.topK ?? DEFAULT_TOP_K }, onPart);
  }
  if (crossTokenizer !== undefined) {
    const read = teacherSamples(samples);
    if (!keepsTeacherRows(read, config.hiddenSize)) return undefined;
    return besideStudent(await makeTeacherRows({ ...job, samples: read, beforeOpening: refuseTooLarge(read) }, onPart), samples, read);
  }
  // Hidden states are asked for at every batch anyway.
  if (feature !== undefined || !keepsTeacherRows(samples, config.hiddenSize)) return undefined;
  return await makeTeacherRows(job, onPart);
}

/** The distributions that came with the rows, where these are what is learned. */
function givenWith(rows: string, samples: readonly TrainingSample[], { tokenizer }: LoadedModel, { logit }: TrainingSpec): StoredTargets | undefined {
  return logit === undefined ? undefined : givenTargets({ rows, samples, tokenizer, topK: logit.topK ?? DEFAULT_TOP_K });
}

/** The samples as teacher and student are compared on them; BAD_INPUT where they cannot be. */
function readBeside(teacher: LoadedModel, student: LoadedModel, { crossTokenizer }: TrainingSpec, rows: string, samples: readonly TrainingSample[]): readonly TrainingSample[] {
  const [ofTeacher, ofStudent] = [teacher, student].map(({ identity, tokenizer }) => ({ name: identity.name, tokenizer })) as [Reader, Reader];
  if (crossTokenizer !== undefined) return withTeacherReadings(ofTeacher, ofStudent, rows, samples);
  requireSameReading(ofTeacher, ofStudent, rows, samples);
  return samples;
}

function developmentSamples(path: string, { tokenizer }: LoadedModel, maxTokens: number): readonly TrainingSample[] {
  const rows = readFileSync(path, 'utf8');
  return fittingRows(rows, tokenizeSamples(rows, tokenizer, {}), maxTokens).samples;
}

async function train(order: TrainingOrder): Promise<void> {
  const load = ({ modelPath, modelName, layers, keepLayers }: ModelOrder): Promise<LoadedModel> => loadModel({ path: modelPath, name: modelName, cache: order.cache, layers, keepLayers });
  const model = await load(order);
  const { maxTokens } = order.training;
  const all = readFileSync(order.datasetPath, 'utf8');
  const own = fittingRows(all, tokenizeSamples(all, model.tokenizer, order.training), maxTokens);
  const teacher = order.teacher === undefined ? undefined : await load(order.teacher);
  const read = fittingRows(own.rows, teacher === undefined ? own.samples : readBeside(teacher, model, order.training, own.rows, own.samples), maxTokens);
  const { rows, samples } = read;
  const tooLong = bothTooLong(own.tooLong, read.tooLong);
  const development = order.development === undefined ? undefined : { samples: developmentSamples(order.development.path, model, maxTokens), sha256: order.development.sha256 };
  const { training, seed, epoch, threads, datasetSha256 } = order;
  const targets = teacher === undefined ? givenWith(rows, samples, model, training) : await storedTargets(order, model, teacher, samples);
  const begun = performance.now();
  let lastStep = begun;
  let lastCheckpoint = begun;
  const stepSeconds: number[] = [];
  let writingSeconds = 0;
  const place = (name: string, write: (path: string) => void): string => {
    const path = join(order.outFolder, name);
    write(path);
    lastCheckpoint = performance.now();
    return path;
  };
  const outcome = await trainEpoch(
    {
      config: model.config,
      weights: model.weights,
      modelSha256: model.identity.sha256,
      samples,
      datasetSha256,
      training,
      seed,
      epoch,
      threads,
      ...(order.executionProviders === undefined ? {} : { executionProviders: order.executionProviders }),
      ...(order.fromPath === undefined ? {} : { from: order.fromPath }),
      ...(development === undefined ? {} : { development }),
      ...(targets === undefined ? {} : { targets }),
      ...(teacher === undefined ? {} : { writing: { tokenizer: model.tokenizer, folder: order.outFolder, vocabularySize: commonTokens(model.config, teacher.config) } }),
      ...(teacher === undefined ? {} : { teacher: { config: teacher.config, weights: teacher.weights, sha256: teacher.identity.sha256, precision: training.precision } }),
    },
    {
      shouldStop: () => stopAsked,
      onDiverged: (batch) => {
        const texts = (ids: readonly number[]): readonly string[] => ids.map((id) => model.tokenizer.tokenText(id));
        const path = join(order.outFolder, 'batch.json');
        writeFileSync(path, `${canonicalJson({ ...batch, rows: batch.rows.map((row) => ({ ...row, tokens: texts(row.ids) })) })}\n`);
        send({ kind: 'diverged', batchPath: path });
      },
      onWritten: () => {
        const now = performance.now();
        writingSeconds = (now - lastStep) / 1000;
        lastStep = now;
      },
      onStart: (facts) => send({ kind: 'started', ...facts, ...(tooLong.count === 0 ? {} : { tooLong }) }),
      afterStep: ({ epochStep, steps, point, checkpointDue, writeCheckpoint }) => {
        const now = performance.now();
        const tokensPerSecond = (point.tokens / (now - lastStep)) * 1000;
        stepSeconds.push((now - lastStep) / 1000);
        lastStep = now;
        if (order.leftSeconds !== undefined && stepSeconds.length === 1 + TIMED_STEPS) {
          checkTime({ secondsPerStep: secondsPerStep(stepSeconds, { writingSeconds, forSteps: Math.min(steps, training.onPolicy?.refreshEverySteps ?? 1) }), steps: steps * training.epochs - point.step }, order.leftSeconds);
        }
        const { lossNats, developmentNats } = point;
        const due = checkpointDue || (epochStep < steps && now - lastCheckpoint >= training.checkpointEveryMinutes * 60_000);
        const written = due ? { checkpointPath: place(`checkpoint-${point.step}`, writeCheckpoint) } : {};
        send({ kind: 'progress', step: epochStep, steps, lossNats, tokensPerSecond, ...(developmentNats === undefined ? {} : { developmentNats }), ...written });
      },
    },
  );
  const { state } = outcome;
  const points = state.curve.filter((point) => point.epoch === epoch);
  send({
    kind: outcome.finished ? 'finished' : 'interrupted',
    step: state.epochStep,
    checkpointPath: place('checkpoint-last', outcome.writeCheckpoint),
    curvePath: place('loss-curve', (path) => writeFileSync(path, curveJsonl(state.curve))),
    steps: state.stepsPerEpoch,
    tokens: points.reduce((sum, point) => sum + point.tokens, 0),
    lossFirstNats: points[0]?.lossNats ?? 0,
    lossLastNats: points.at(-1)?.lossNats ?? 0,
    seconds: (performance.now() - begun) / 1000,
    stopped: state.stopped,
    ...(tooLong.count === 0 ? {} : { tooLongRows: tooLong.count }),
    ...(state.best === undefined ? {} : { best: state.best }),
  });
}

if (process.send !== undefined) {
  process.on('disconnect', () => process.exit(0));
  process.on('message', (message: ToTrainer) => {
    if (message.kind === 'stop') stopAsked = true;
    else train(message.order).catch((error: unknown) => send({ kind: 'failed', error: toWireError(error) }));
  });
}
