/** Does training still learn? Where it does not it ends, and what it was learning is kept to be looked at. */
import { StillhouseError } from '../contracts/errors.ts';
import type { LossPoint } from '../contracts/records.ts';
import type { TrainingSpec } from '../contracts/training-spec.ts';
import { packRow } from './packing.ts';
import type { TrainingSample } from './packing.ts';
import type { TrainingStep } from './step.ts';

/** Steps in a row whose losses are all but one number, though their rows differ. */
const FLAT_STEPS = 50;
const FLAT_RANGE = 1e-6;
/** Of a loss that is learned already there is little left to change. */
const LEARNED_NATS = 1e-3;
/** Steps in a row without any gradient. */
const IDLE_STEPS = 5;

/** What was measured at a step, by what it is called in messages. */
export type Measured = Readonly<Record<string, number>>;

/** The rows of a step that was the last. */
export interface StoppedBatch {
  readonly why: string;
  readonly epoch: number;
  readonly step: number;
  /** A number that JSON cannot hold is written out: "NaN", "Infinity". */
  readonly measured: Readonly<Record<string, number | string>>;
  readonly rows: readonly { readonly id: string; readonly ids: readonly number[]; readonly responseStart: number; readonly lossNats: number | string }[];
}

/** What is wrong with a step's numbers and with what led to them; undefined where nothing is. */
export function whatIsWrong(measured: Measured, curve: readonly LossPoint[], { learningRate, precision }: Pick<TrainingSpec, 'learningRate'> & Partial<Pick<TrainingSpec, 'precision'>>): string | undefined {
  if (!Object.values(measured).every((value) => Number.isFinite(value))) {
    return `expected finite numbers, got ${Object.entries(measured).map(([what, value]) => `${what} ${value}`).join(' and ')}; lower learningRate (${learningRate})${precision === 'float16' ? ', or train in precision float32: float16 holds numbers up to 65,504' : ''}`;
  }
  const idle = curve.slice(-IDLE_STEPS);
  if (idle.length === IDLE_STEPS && idle.every(({ gradientNorm }) => gradientNorm === 0)) return `expected a gradient, got none in ${IDLE_STEPS} steps: nothing that is trained decides the loss`;
  const losses = curve.slice(-FLAT_STEPS).map(({ lossNats }) => lossNats);
  const [least, most] = [Math.min(...losses), Math.max(...losses)];
  if (losses.length === FLAT_STEPS && least > LEARNED_NATS && most - least <= FLAT_RANGE * most) return `expected a loss that changes, got ${most} through ${FLAT_STEPS} steps; raise learningRate (${learningRate}), and see whether the rows differ`;
  return undefined;
}

const written = (value: number): number | string => (Number.isFinite(value) ? value : String(value));

/** The batch with the cross-entropy of each row's answer, in nats a token, as the student is after the step before. */
export async function stoppedBatch(step: TrainingStep, parameters: Float32Array, rows: readonly TrainingSample[], about: Omit<StoppedBatch, 'rows' | 'measured'> & { readonly measured: Measured }): Promise<StoppedBatch> {
  const looked: StoppedBatch['rows'][number][] = [];
  for (const { id, ids, responseStart } of rows) {
    const row = packRow([{ id, ids, responseStart }]);
    looked.push({ id, ids, responseStart, lossNats: written((await step.loss(row, parameters)) / row.labels.length) });
  }
  return { ...about, measured: Object.fromEntries(Object.entries(about.measured).map(([what, value]) => [what, written(value)])), rows: looked };
}

/** DIVERGED, with the ids of the rows. */
export const diverged = ({ why, epoch, step }: Pick<StoppedBatch, 'why' | 'epoch' | 'step'>, rows: readonly TrainingSample[]): StillhouseError =>
  new StillhouseError('DIVERGED', `training, epoch ${epoch}, step ${step}: ${why}`, { details: { epoch, step, ids: rows.slice(0, 100).map((sample) => sample.id) } });
