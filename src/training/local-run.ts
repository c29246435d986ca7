/**
 * A training run without a service: all epochs, in one folder. Its newest checkpoint is a file there that is replaced
 * whole, so that the same run, started again after any end, goes on from it, bitwise as if nothing had happened.
 */
import { existsSync } from 'node:fs';
import { mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionProvider } from '../contracts/execution-providers.ts';
import type { ModelFiles } from '../assets/assets.ts';
import { placeFile, sha256OfFile, writeDurably } from '../assets/files.ts';
import type { TrainSpec } from '../contracts/train-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { readTrainingRows } from '../dataset/training-rows.ts';
import { readJson } from '../lm/weights/json.ts';
import { canonicalJson } from '../store/jsonl.ts';
import { readCheckpointState } from './checkpoint.ts';
import type { LoopState } from './checkpoint.ts';
import { trainedStudent, writeStudentFolder } from './export.ts';
import { decisiveTraining } from './epoch.ts';
import type { RunFacts } from './epoch.ts';
import type { PartsProgress } from './parts.ts';
import { superviseTraining } from './supervise.ts';
import type { EpochProgress } from './trainer.ts';

export interface LocalRunOptions {
  readonly model: ModelFiles;
  /** Of `training.teacher`, where there is one. */
  readonly teacher?: ModelFiles;
  /** Folder below which float32 weights are kept. */
  readonly cache: string;
  readonly threads: number;
  readonly executionProviders: readonly ExecutionProvider[];
  readonly signal?: AbortSignal;
  /** While the teacher's distributions are made: rows that have them. */
  readonly onPrepare?: (done: PartsProgress) => void;
  /** Once an epoch, before its first step. */
  readonly onStart?: (facts: RunFacts & { readonly epoch: number; readonly resumedAt: number }) => void;
  readonly onProgress?: (progress: Omit<EpochProgress, 'checkpoint'> & { readonly epoch: number; readonly checkpointed: boolean }) => void;
}

export interface LocalRunResult {
  readonly kind: 'adapter' | 'model';
  /** The folder of the adapter or model. */
  readonly student: string;
  readonly checkpoint: string;
  readonly lossCurve: string;
  readonly epochs: number;
  readonly steps: number;
  readonly lossFirstNats: number;
  readonly lossLastNats: number;
  /** The development loss ended it before its last epoch. */
  readonly stopped: boolean;
  readonly best?: { readonly step: number; readonly developmentNats: number };
  /** What was stored of the teacher: of so many tokens of answers, in so many bytes. */
  readonly stored?: Pick<PartsProgress, 'tokens' | 'sizeBytes'>;
  /** Steps that an earlier start had done. */
  readonly resumedAt: number;
}

const PLACES = { checkpoint: 'checkpoint.safetensors', 'loss-curve': 'loss-curve.jsonl', batch: 'diverged-batch.json' } as const;

export async function trainLocally(spec: TrainSpec, options: LocalRunOptions): Promise<LocalRunResult> {
  const { out, training } = spec;
  const work = join(out, 'unfinished');
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true });
  const checkpoint = join(out, PLACES.checkpoint);
  try {
    const dataset = await writeRows(spec, spec.dataset, join(work, 'dataset.jsonl'));
    const development = spec.development === undefined ? undefined : await writeRows(spec, spec.development, join(work, 'development.jsonl'));
    await claim(out, { student: spec.student, dataset: dataset.sha256, development: development?.sha256 ?? null, training: decisiveTraining(training), seed: spec.seed });
    let state = existsSync(checkpoint) ? readCheckpointState(checkpoint) : undefined;
    const resumedAt = state?.curve.length ?? 0;
    let stored: LocalRunResult['stored'];
    while (state === undefined || !isOver(state, training.epochs)) {
      const epoch: number = state === undefined ? 0 : state.epochStep === state.stepsPerEpoch ? state.epoch + 1 : state.epoch;
      const at = state?.epoch === epoch ? state.epochStep : 0;
      await superviseTraining(
        {
          modelPath: options.model.path, modelName: options.model.name, layers: spec.student.layers, keepLayers: spec.student.keepLayers,
          cache: options.cache, threads: options.threads, executionProviders: options.executionProviders, training, seed: spec.seed, epoch,
          datasetPath: dataset.path, datasetSha256: dataset.sha256, outFolder: work,
          ...(options.teacher === undefined ? {} : { teacher: { modelPath: options.teacher.path, modelName: options.teacher.name, layers: training.teacher?.layers, keepLayers: training.teacher?.keepLayers } }),
          ...(development === undefined ? {} : { development }),
          ...(state === undefined ? {} : { fromPath: checkpoint }),
          ...(spec.hours === undefined ? {} : { leftSeconds: spec.hours * 3_600 }),
        },
        {
          signal: options.signal,
          keep: async (kind, path) => {
            const target = join(out, PLACES[kind]);
            await placeFile(path, target);
            return target;
          },
          named: (path) => path,
          onPrepare: (done) => {
            stored = { tokens: done.tokens, sizeBytes: done.sizeBytes };
            options.onPrepare?.(done);
          },
          onStart: (facts) => options.onStart?.({ ...facts, epoch, resumedAt: at }),
          onProgress: ({ checkpoint: written, ...progress }) => options.onProgress?.({ ...progress, epoch, checkpointed: written !== undefined }),
        },
      );
      state = readCheckpointState(checkpoint);
    }
    return { ...(await writeStudent(spec, options.model, checkpoint, dataset.sha256)), checkpoint, lossCurve: join(out, PLACES['loss-curve']), ...summary(state), ...(stored === undefined ? {} : { stored }), resumedAt };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

const isOver = ({ stopped, epoch, epochStep, stepsPerEpoch }: LoopState, epochs: number): boolean => stopped || (epoch === epochs - 1 && epochStep === stepsPerEpoch);

function summary({ curve, stopped, best, epoch }: LoopState) {
  return {
    epochs: epoch + 1,
    steps: curve.length,
    lossFirstNats: curve[0]?.lossNats ?? 0,
    lossLastNats: curve.at(-1)?.lossNats ?? 0,
    stopped,
    ...(best === undefined ? {} : { best }),
  };
}

/** Says in the folder which run it belongs to. A folder of another run is not trained over: BAD_INPUT names what differs. */
async function claim(out: string, run: Readonly<Record<string, unknown>>): Promise<void> {
  const path = join(out, 'run.json');
  const before = existsSync(path) ? (readJson(path) as Readonly<Record<string, unknown>>) : undefined;
  const other = before === undefined ? undefined : Object.keys(run).find((key) => canonicalJson(before[key]) !== canonicalJson(run[key]));
  if (other !== undefined) throw new StillhouseError('BAD_INPUT', `${out}: expected a new folder or one of the same run, got one whose ${other} was ${canonicalJson(before?.[other]).slice(0, 200)}`);
  if (before === undefined) await writeDurably(path, `${canonicalJson(run)}\n`);
}

/** The rows as the trainer reads them, and their hash. */
async function writeRows({ instruction, system }: TrainSpec, from: string, path: string): Promise<{ readonly path: string; readonly sha256: string }> {
  const file = await open(path, 'w');
  try {
    for await (const row of readTrainingRows(from, { instruction, system })) await file.write(`${canonicalJson(row)}\n`);
  } finally {
    await file.close();
  }
  return { path, sha256: await sha256OfFile(path) };
}

async function writeStudent({ student, out }: TrainSpec, model: ModelFiles, checkpoint: string, datasetSha256: string): Promise<Pick<LocalRunResult, 'kind' | 'student'>> {
  const folder = join(out, 'student');
  await rm(folder, { recursive: true, force: true });
  const trained = await trainedStudent(checkpoint, student.model, join(out, 'unfinished', 'adapter'));
  const provenance = { baseModel: student.model, license: model.license, datasetSha256, checkpointSha256: await sha256OfFile(checkpoint) };
  return { kind: await writeStudentFolder({ model, student, trained, provenance }, folder), student: folder };
}
