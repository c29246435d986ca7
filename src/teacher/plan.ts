/** Planning: which questions a round asks, in an order that the spec's seed decides, and what a batch of them costs at most. */
import type { PlannedRequests, PlanRequestsInput } from '../contracts/activities.ts';
import type { ArtifactRef } from '../contracts/artifacts.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { InputRow, TeacherRequest } from '../contracts/records.ts';
import { createRandom, shuffled } from '../dataset/random.ts';
import { getJson, getRows, putRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { pairsTask, rowTask } from './prompts.ts';
import type { Attributes } from './prompts.ts';
import type { Teacher, TeacherDirectory } from './teacher.ts';

export interface PlanDeps {
  readonly store: ArtifactStore;
  readonly directory: TeacherDirectory;
}

/** More batches would only make the campaign's history longer. */
const MAX_BATCHES = 40;
/** Attributes of so many earlier calls are shown to the teacher as written already. */
const AVOIDED_CALLS = 8;
/** Up to so many combinations are drawn without replacement. */
const MAX_SHUFFLED_COMBINATIONS = 100_000;

/** Plans a round's requests, or those for the development or test rows. The same input gives the same bytes. */
export async function planRequests(deps: PlanDeps, input: PlanRequestsInput): Promise<PlannedRequests> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const planned = input.purpose === 'train' ? await trainingRequests(deps, spec, input) : await heldOutRequests(deps, spec, input);
  // After a change of teacher the new one is asked; before the first change nothing need be said.
  const teacher = (spec.teachers?.length ?? 1) - 1;
  const requests = teacher === 0 ? planned : planned.map((request) => ({ ...request, teacher }));
  await using endpoint = await deps.directory.open(spec.teacher);
  const batchSize = batchSizeOf(requests.length, spec.sampling.batchSize, endpoint.groupSize);
  return {
    requests: await putRows(deps.store, 'requests', requests),
    count: requests.length,
    batchSize,
    ...batchUpperBound(endpoint, requests, batchSize),
  };
}

/** A multiple of the teacher's group, so that no group is cut by a batch's edge. */
export function batchSizeOf(count: number, wanted: number, groupSize: number): number {
  return Math.ceil(Math.max(wanted, Math.ceil(count / MAX_BATCHES)) / groupSize) * groupSize;
}

/** The dearest batch. */
export function batchUpperBound(teacher: Pick<Teacher, 'upperBound'>, requests: readonly TeacherRequest[], batchSize: number): { readonly batchUpperBoundUsd: number; readonly batchUpperBoundTokens: number } {
  let batchUpperBoundUsd = 0;
  let batchUpperBoundTokens = 0;
  for (let from = 0; from < requests.length; from += batchSize) {
    const bounds = requests.slice(from, from + batchSize).map((request) => teacher.upperBound(request));
    batchUpperBoundUsd = Math.max(batchUpperBoundUsd, bounds.reduce((sum, bound) => sum + bound.usd, 0));
    batchUpperBoundTokens = Math.max(batchUpperBoundTokens, bounds.reduce((sum, bound) => sum + bound.tokens, 0));
  }
  return { batchUpperBoundUsd, batchUpperBoundTokens };
}

async function heldOutRequests(deps: PlanDeps, spec: CampaignSpec, input: PlanRequestsInput): Promise<TeacherRequest[]> {
  const ref = input.purpose === 'development' ? input.data.development : input.data.test;
  const rows = await getRows<InputRow>(deps.store, ref);
  return rows.map((row, index) => rowRequest(spec, input, row, index));
}

async function trainingRequests(deps: PlanDeps, spec: CampaignSpec, input: PlanRequestsInput): Promise<TeacherRequest[]> {
  const wanted = input.round <= 1 ? spec.sampling.rows : (spec.sampling.rowsPerLaterRound ?? Math.ceil(spec.sampling.rows / 2));
  const earlier = input.earlier === undefined ? [] : await getRows<TeacherRequest>(deps.store, input.earlier);
  const { source } = spec.sampling;
  if (source.kind === 'description') return pairRequests(spec, input.round, earlier.length, wanted, source);
  const asked = new Set(earlier.flatMap(({ row }) => (row === undefined ? [] : [row.id])));
  const candidates = await candidateRows(deps, spec, input);
  return candidates
    .filter((row) => !asked.has(row.id))
    .slice(0, wanted)
    .map((row, index) => rowRequest(spec, input, row, index));
}

/** A later round's selection in its order of preference, else the pool in an order drawn by the seed. */
async function candidateRows(deps: PlanDeps, spec: CampaignSpec, input: PlanRequestsInput): Promise<readonly InputRow[]> {
  if (input.round > 1 && input.selection !== undefined) return getRows<InputRow>(deps.store, input.selection);
  const pool: ArtifactRef | undefined = input.data.pool;
  if (pool === undefined) {
    throw new StillhouseError('BAD_INPUT', `expected a pool of inputs for sampling.source.kind ${spec.sampling.source.kind}, got none`);
  }
  return shuffled(await getRows<InputRow>(deps.store, pool), createRandom(spec.seed, 'sampling'));
}

function rowRequest(spec: CampaignSpec, { purpose, round }: PlanRequestsInput, row: InputRow, index: number): TeacherRequest {
  // A gold output stays with the held-out rows; no request carries one.
  const { gold: _gold, ...bare } = row;
  return { id: purpose === 'train' ? `train-${round}-${index}` : `${purpose}-${index}`, purpose, task: rowTask(spec, row.input), sampleIndex: 0, row: bare };
}

function pairRequests(
  spec: CampaignSpec,
  round: number,
  alreadyAsked: number,
  wanted: number,
  source: { readonly pairsPerCall: number; readonly attributes: Readonly<Record<string, readonly string[]>> },
): TeacherRequest[] {
  const { combinationAt, combinations } = attributeCombinations(spec.seed, source.attributes);
  return Array.from({ length: wanted }, (_, index) => {
    const position = alreadyAsked + index;
    const others = Array.from({ length: Math.min(AVOIDED_CALLS, position) }, (_unused, back) => combinationAt(position - 1 - back));
    const distinct = [...new Map(others.filter((other) => Object.keys(other).length > 0).map((other) => [JSON.stringify(other), other])).values()];
    return {
      id: `train-${round}-${index}`,
      purpose: 'train',
      task: pairsTask(spec, source.pairsPerCall, combinationAt(position), distinct),
      // Counted up through all rounds: a combination that comes again is a new draw, never a call that was made before.
      sampleIndex: Math.floor(position / combinations),
    };
  });
}

/** All combinations of the attributes' values in an order drawn by the seed; after the last it begins again. */
function attributeCombinations(seed: number, attributes: Readonly<Record<string, readonly string[]>>): { readonly combinations: number; readonly combinationAt: (position: number) => Attributes } {
  const names = Object.keys(attributes).sort();
  const combinations = names.reduce((product, name) => product * (attributes[name]?.length ?? 1), 1);
  const order = combinations <= MAX_SHUFFLED_COMBINATIONS ? shuffled(Array.from({ length: combinations }, (_, index) => index), createRandom(seed, 'attributes')) : undefined;
  const numberAt = (position: number): number => order?.[position % combinations] ?? Math.floor(createRandom(seed, `attributes:${position}`)() * combinations);
  return {
    combinations,
    combinationAt: (position) => {
      let rest = numberAt(position);
      return Object.fromEntries(
        names.map((name) => {
          const values = attributes[name] ?? [];
          const value = values[rest % values.length] ?? '';
          rest = Math.floor(rest / values.length);
          return [name, value];
        }),
      );
    },
  };
}
