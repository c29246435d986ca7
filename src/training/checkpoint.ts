/**
 * A checkpoint is one safetensors file: the trained tensors, both moments of Adam, those trained tensors that had the
 * lowest development loss where they are others, and in its metadata all state of the loop. It holds no clock, so that
 * equal training gives equal bytes.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { z } from 'zod';
import { StillhouseError } from '../contracts/errors.ts';
import type { LossPoint } from '../contracts/records.ts';
import type { WeightFile } from '../lm/config.ts';
import { openSafetensors, safetensorsHeader } from '../lm/weights/safetensors.ts';
import type { SafetensorsFile } from '../lm/weights/safetensors.ts';
import type { StoredTensor } from '../lm/weights/tensor-file.ts';
import { canonicalJson } from '../store/jsonl.ts';
import type { AdamState } from './optimizer.ts';
import { isProjection } from './objective.ts';
import { tensorView } from './parameters.ts';
import type { ParameterLayout } from './parameters.ts';

export const FORMAT_VERSION = 2;
const STATE_KEY = 'stillhouse.state';
const PARTS = { parameters: '', mean: 'adam.mean.', square: 'adam.square.', best: 'best.' } as const;
type Part = keyof typeof PARTS;

const lossPointSchema = z.strictObject({
  epoch: z.int().min(0),
  step: z.int().min(1),
  lossNats: z.number(),
  learningRate: z.number(),
  tokens: z.int().min(1),
  gradientNorm: z.number(),
  developmentNats: z.number().exactOptional(),
});

const loopStateSchema = z.strictObject({
  version: z.literal(FORMAT_VERSION),
  /** What decides the numbers: a checkpoint goes on only under the same. */
  identity: z.strictObject({ modelSha256: z.string(), datasetSha256: z.string(), developmentSha256: z.string().exactOptional(), teacherSha256: z.string().exactOptional(), seed: z.int(), training: z.string() }),
  /** What the tensors are: an adapter's matrices, or all of the model's. */
  tune: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('lora'), r: z.int().min(1), alpha: z.number(), rankStabilised: z.boolean(), dropout: z.number(), targets: z.array(z.string()).min(1) }),
    z.strictObject({ kind: z.literal('full') }),
  ]),
  /** 0-based. */
  epoch: z.int().min(0),
  /** Steps of this epoch that are done, and of how many. */
  epochStep: z.int().min(0),
  stepsPerEpoch: z.int().min(1),
  curve: z.array(lossPointSchema),
  /** The lowest development loss so far, and after which step it was measured. */
  best: z.strictObject({ step: z.int().min(1), developmentNats: z.number() }).exactOptional(),
  measurementsSinceBest: z.int().min(0),
  /** What the student wrote itself for the steps of this epoch before `until`, by places in the epoch's order. */
  written: z.strictObject({ until: z.int().min(1), answers: z.array(z.strictObject({ place: z.int().min(0), ids: z.array(z.int().min(0)).min(1) })) }).exactOptional(),
  /** Patience ran out: no step follows. */
  stopped: z.boolean(),
});
export type LoopState = Readonly<z.output<typeof loopStateSchema>>;

export interface Checkpoint {
  readonly state: LoopState;
  readonly parameters: Float32Array;
  readonly adam: AdamState;
  /** The parameters of `state.best`. */
  readonly best?: Float32Array;
}

/** Are the best parameters others than the present ones? */
const hasOwnBest = ({ best, curve }: LoopState): boolean => best !== undefined && best.step !== curve.at(-1)?.step;

/** Bytes written at once: what a single call takes is bounded, and a checkpoint of a whole model is larger. */
const WRITE_BYTES = 1 << 26;

function writeAll(descriptor: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.byteLength; ) done += writeSync(descriptor, bytes, done, Math.min(WRITE_BYTES, bytes.byteLength - done));
}

/** Trained numbers as they lie in memory. */
export function writeFlat(path: string, values: Float32Array): void {
  const descriptor = openSync(path, 'w');
  try {
    writeAll(descriptor, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  } finally {
    closeSync(descriptor);
  }
}

/** Writes the file tensor by tensor; the one who keeps it makes it durable. */
export function writeCheckpoint(path: string, layout: ParameterLayout, { state, parameters, adam, best }: Checkpoint): void {
  const parts: (readonly [Part, Float32Array])[] = [['parameters', parameters], ['mean', adam.mean], ['square', adam.square]];
  if (best !== undefined && hasOwnBest(state)) parts.push(['best', best]);
  const tensors = parts.flatMap(([part, flat]) =>
    layout.tensors.map((tensor) => ({ name: `${PARTS[part]}${tensor.name}`, shape: tensor.shape, type: 'F32', lengthBytes: 4 * tensor.length, values: tensorView(flat, tensor) })),
  );
  const { bytes, sorted } = safetensorsHeader(tensors, { [STATE_KEY]: canonicalJson(state) });
  const descriptor = openSync(path, 'w');
  try {
    writeAll(descriptor, bytes);
    for (const { values } of sorted) writeAll(descriptor, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  } finally {
    closeSync(descriptor);
  }
}

function readState(file: SafetensorsFile): LoopState {
  const text = file.metadata[STATE_KEY];
  if (text === undefined) throw new StillhouseError('CORRUPT', `${file.path}: expected a checkpoint's state in the metadata, got none`);
  const given: unknown = JSON.parse(text);
  const version: unknown = typeof given === 'object' && given !== null && 'version' in given ? given.version : undefined;
  if (version !== FORMAT_VERSION) throw new StillhouseError('STALE', `${file.path}: expected a checkpoint of format ${FORMAT_VERSION}, got one of format ${JSON.stringify(version) ?? 'none'}, which another release wrote`);
  const parsed = loopStateSchema.safeParse(given);
  if (!parsed.success) throw new StillhouseError('CORRUPT', `${file.path}: ${parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ')}`);
  return parsed.data;
}

export function readCheckpoint(path: string, layout: ParameterLayout): Checkpoint {
  using file = openSafetensors(path);
  const flat = (part: Part): Float32Array => {
    const values = new Float32Array(layout.length);
    for (const tensor of layout.tensors) {
      const stored = file.tensors.get(`${PARTS[part]}${tensor.name}`);
      if (stored === undefined || stored.shape.join() !== tensor.shape.join()) {
        throw new StillhouseError('BAD_INPUT', `${path}: expected ${PARTS[part]}${tensor.name} of shape [${tensor.shape.join(', ')}], got ${stored === undefined ? 'no such tensor' : `[${stored.shape.join(', ')}]`}`);
      }
      values.set(stored.read(), tensor.offset);
    }
    return values;
  };
  const state = readState(file);
  const parameters = flat('parameters');
  const best = hasOwnBest(state) ? flat('best') : state.best === undefined ? undefined : parameters.slice();
  return { state, parameters, adam: { mean: flat('mean'), square: flat('square') }, ...(best === undefined ? {} : { best }) };
}

/** The tensors of the student that a checkpoint holds, by their own names. */
function studentTensors(file: SafetensorsFile, state: LoopState): readonly { readonly name: string; readonly tensor: StoredTensor }[] {
  const prefix = PARTS[hasOwnBest(state) ? 'best' : 'parameters'];
  const others = (Object.keys(PARTS) as Part[]).map((part) => PARTS[part]).filter((other) => other !== prefix && other !== '');
  return [...file.tensors.values()]
    .filter(({ name }) => name.startsWith(prefix) && !others.some((other) => name.startsWith(other)))
    .map((tensor) => ({ name: tensor.name.slice(prefix.length), tensor }))
    .filter(({ name }) => !isProjection(name));
}

/** What a checkpoint holds, read from its header alone. */
export function readCheckpointState(path: string): LoopState {
  using file = openSafetensors(path);
  return readState(file);
}

/** All weights of the student of a fully trained model, where they lie in the checkpoint. */
export function studentWeights(path: string): WeightFile {
  using file = openSafetensors(path);
  const tensors = studentTensors(file, readState(file)).map(({ name, tensor }) => {
    if (tensor.place === undefined) throw new StillhouseError('INTERNAL', `${path}, tensor ${name}: expected a place in the file, got none`);
    return [name, { shape: tensor.shape, ...tensor.place }] as const;
  });
  return { path, tensors: new Map(tensors) };
}

export interface AdapterMatrices {
  readonly lora: Extract<LoopState['tune'], { readonly kind: 'lora' }>;
  /** By the names of LoRA matrices in checkpoints: `model.layers.0.self_attn.q_proj.lora_A.weight`. */
  readonly tensors: readonly { readonly name: string; readonly shape: readonly number[]; readonly values: Float32Array }[];
}

/** The adapter that is the student, without knowledge of the model: the best where a development loss was measured, else the last. */
export function readAdapterMatrices(path: string): AdapterMatrices {
  using file = openSafetensors(path);
  const state = readState(file);
  const { tune } = state;
  if (tune.kind !== 'lora') throw new StillhouseError('BAD_INPUT', `${path}: expected a checkpoint of an adapter, got one of a whole model`);
  return { lora: tune, tensors: studentTensors(file, state).map(({ name, tensor }) => ({ name, shape: tensor.shape, values: tensor.read() })) };
}

export function curveJsonl(curve: readonly LossPoint[]): string {
  return curve.map((point) => `${canonicalJson(point)}\n`).join('');
}
