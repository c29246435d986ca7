/** Planning: which questions a round asks, in an order that the spec's seed decides, and what a batch of them costs at most. */
import type { PlannedRequests, PlanRequestsInput } from '../contracts/activities.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { InputRow, TeacherRequest } from '../contracts/records.ts';
import type { Cost } from '../contracts/state.ts';
import { sourcesOf } from '../contracts/sampling-spec.ts';
import type { DescriptionSource } from '../contracts/sampling-spec.ts';
import type { AnswerFinder } from '../dataset/answers.ts';
import { writtenInputs } from '../dataset/pairs.ts';
import { createRandom, shuffled } from '../dataset/random.ts';
import { shareOut } from '../dataset/shares.ts';
import { getJson, getRows, putRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { attributeValues, combinationsOf } from './attributes.ts';
import { pairsTask, rowTask } from './prompts.ts';
import { dearestRepair } from './repair.ts';
import type { Teacher, TeacherDirectory } from './teacher.ts';

export interface PlanDeps {
  readonly store: ArtifactStore;
  readonly directory: TeacherDirectory;
  /** Recorded answers: a plan of attributes, and what was written in earlier rounds. */
  readonly find: AnswerFinder;
}

/** More batches would only make the campaign's history longer. */
const MAX_BATCHES = 40;
/** Provider's batches take hours each, however small: a stage is one, or as few as can be. */
const WHOLE_FILE = 10_000;
/** Attributes of so many earlier calls, and so many earlier inputs, are shown to the teacher as written already. */
const AVOIDED = 8;

/**
 * Plans a round's requests, or those for the development or test rows. The same input and recorded
 * answers give the same bytes. Where the teacher has to plan the attributes first, that request alone
 * is returned, as preliminary.
 */
export async function planRequests(deps: PlanDeps, input: PlanRequestsInput): Promise<PlannedRequests> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const { planned, preliminary = false } = input.purpose === 'train' ? await trainingRequests(deps, spec, input) : { planned: await heldOutRequests(deps, spec, input) };
  // After a change of teacher the new one is asked; before the first change nothing need be said.
  const teacher = (spec.teachers?.length ?? 1) - 1;
  const requests = teacher === 0 ? planned : planned.map((request) => (isStored(request) ? request : { ...request, teacher }));
  await using endpoint = await deps.directory.open(spec.teacher);
  return { ...(await storePlan(deps.store, endpoint, requests, spec.teacher.batch === undefined ? spec.sampling.batchSize : Math.max(spec.sampling.batchSize, WHOLE_FILE))), ...(preliminary ? { preliminary } : {}) };
}

/** Writes requests down, cut into batches, with what the dearest batch may cost. */
export async function storePlan(store: ArtifactStore, endpoint: Pick<Teacher, 'groupSize' | 'upperBound'>, requests: readonly TeacherRequest[], wantedBatchSize: number): Promise<PlannedRequests> {
  const batchSize = batchSizeOf(requests.length, wantedBatchSize, endpoint.groupSize);
  return { requests: await putRows(store, 'requests', requests), count: requests.length, batchSize, ...batchUpperBound(requests, batchSize, (request) => boundOf(endpoint, request)) };
}

/** A multiple of the teacher's group, so that no group is cut by a batch's edge. */
export function batchSizeOf(count: number, wanted: number, groupSize: number): number {
  return Math.ceil(Math.max(wanted, Math.ceil(count / MAX_BATCHES)) / groupSize) * groupSize;
}

/** The most that a request may cost, with a repair where its answer can need one; a stored completion costs nothing any more. */
export function boundOf(teacher: Pick<Teacher, 'upperBound'>, request: TeacherRequest): Cost {
  if (isStored(request)) return { usd: 0, tokens: 0 };
  const asked = teacher.upperBound(request);
  const repair = dearestRepair(request);
  const repaired = repair === undefined ? { usd: 0, tokens: 0 } : teacher.upperBound(repair);
  return { usd: asked.usd + repaired.usd, tokens: asked.tokens + repaired.tokens };
}

/** The dearest batch. */
export function batchUpperBound(requests: readonly TeacherRequest[], batchSize: number, bound: (request: TeacherRequest) => Cost): Pick<PlannedRequests, 'batchUpperBoundUsd' | 'batchUpperBoundTokens'> {
  let batchUpperBoundUsd = 0;
  let batchUpperBoundTokens = 0;
  for (let from = 0; from < requests.length; from += batchSize) {
    const bounds = requests.slice(from, from + batchSize).map(bound);
    batchUpperBoundUsd = Math.max(batchUpperBoundUsd, bounds.reduce((sum, { usd }) => sum + usd, 0));
    batchUpperBoundTokens = Math.max(batchUpperBoundTokens, bounds.reduce((sum, { tokens }) => sum + tokens, 0));
  }
  return { batchUpperBoundUsd, batchUpperBoundTokens };
}

/** Answered by a completion that the provider has stored. */
export const isStored = ({ task }: TeacherRequest): boolean => task.kind === 'text' && task.completion !== undefined;

async function heldOutRequests(deps: PlanDeps, spec: CampaignSpec, input: PlanRequestsInput): Promise<TeacherRequest[]> {
  const ref = input.purpose === 'development' ? input.data.development : input.data.test;
  const rows = await getRows<InputRow>(deps.store, ref);
  // As often as a training row, so that what is compared with the student is the vote that it learns from.
  return inputRequests(spec, rows, await storedRequests(deps, input), true).map((request, index) => ({ ...request, id: `${input.purpose}-${index}`, purpose: input.purpose }));
}

/** What the parts of a round are planned from. */
interface Round {
  readonly spec: CampaignSpec;
  readonly round: number;
  readonly earlier: readonly TeacherRequest[];
}

async function trainingRequests(deps: PlanDeps, spec: CampaignSpec, input: PlanRequestsInput): Promise<{ readonly planned: TeacherRequest[]; readonly preliminary?: boolean }> {
  const wanted = input.round <= 1 ? spec.sampling.rows : (spec.sampling.rowsPerLaterRound ?? Math.ceil(spec.sampling.rows / 2));
  const earlier = input.earlier === undefined ? [] : await getRows<TeacherRequest>(deps.store, input.earlier);
  const round: Round = { spec, round: input.round, earlier };
  const sources = sourcesOf(spec.sampling.source);
  const written = sources.find(({ source }) => source.kind === 'description')?.source as DescriptionSource | undefined;
  const plan = written === undefined ? { values: {} } : await attributeValues(deps.find, spec, written);
  if ('ask' in plan) return { planned: [plan.ask], preliminary: true };
  const pool = sources.every(({ source }) => source.kind === 'description') ? [] : await freshRows(deps, round, input);
  const poolOf = (index: number): readonly InputRow[] => (sources.length === 1 ? pool : pool.filter((row) => row.source === index));
  const shares = shareOut(wanted, sources.map(({ source, share }, index) => ({ share, most: source.kind === 'description' ? wanted : poolOf(index).length })));
  const stored = await storedRequests(deps, input);
  const parts: TeacherRequest[] = [];
  for (const [index, { source }] of sources.entries()) {
    const count = shares[index] as number;
    if (source.kind === 'description') parts.push(...pairRequests(round, source, combinationsOf(spec.seed, plan.values), await inputsWritten(deps, round), count));
    else parts.push(...inputRequests(spec, poolOf(index).slice(0, count), stored));
  }
  return { planned: parts.map((request, index) => ({ ...request, id: `train-${input.round}-${index}`, round: input.round })) };
}

/** Rows that no earlier round asked about: a later round's selection in its order of preference, else the pool in an order drawn by the seed. */
async function freshRows(deps: PlanDeps, { spec, earlier }: Round, input: PlanRequestsInput): Promise<readonly InputRow[]> {
  const asked = new Set(earlier.flatMap(({ row }) => (row === undefined ? [] : [row.id])));
  const { pool } = input.data;
  if (pool === undefined) {
    throw new StillhouseError('BAD_INPUT', `expected a pool of inputs for sampling.source.kind ${spec.sampling.source.kind}, got none`);
  }
  const selected = input.round > 1 && input.selection !== undefined;
  const rows = selected ? await getRows<InputRow>(deps.store, input.selection) : shuffled(await getRows<InputRow>(deps.store, pool), createRandom(spec.seed, 'sampling'));
  return rows.filter((row) => !asked.has(row.id));
}

/** Every input once, then every input again, and so on: draws of one number can run together on a local model. */
function inputRequests(spec: CampaignSpec, rows: readonly InputRow[], stored: ReadonlyMap<string, TeacherRequest>, heldOut = false): TeacherRequest[] {
  return Array.from({ length: spec.sampling.answersPerInput }, (_, draw) => draw)
    .flatMap((draw) => rows.filter((row) => draw === 0 || !stored.has(row.id)).map((row) => rowRequest(spec, row, stored, draw, heldOut)));
}

/** The question about one row, or the stored completion that answered it. */
function rowRequest(spec: CampaignSpec, row: InputRow, stored: ReadonlyMap<string, TeacherRequest>, sampleIndex: number, heldOut: boolean): TeacherRequest {
  // A gold output stays with the held-out rows; no request carries one.
  const { gold: _gold, ...bare } = row;
  const task = stored.get(row.id)?.task ?? rowTask(spec, row.input, sampleIndex, heldOut);
  return { id: '', purpose: 'train', task, sampleIndex, row: bare };
}

/** The requests that stored completions answered, by the id of their row. */
async function storedRequests(deps: PlanDeps, { data }: PlanRequestsInput): Promise<ReadonlyMap<string, TeacherRequest>> {
  const requests = data.completions === undefined ? [] : await getRows<TeacherRequest>(deps.store, data.completions);
  // Of several completions for one input the first is the row's; the others were left out at import.
  return new Map(requests.toReversed().map((request) => [request.row?.id ?? request.id, request]));
}

/** The inputs that the teacher wrote in earlier rounds. */
async function inputsWritten(deps: PlanDeps, { spec, earlier }: Round): Promise<readonly string[]> {
  const asked = earlier.filter(({ row }) => row === undefined);
  const answers = await deps.find(spec, asked);
  return answers.flatMap((answer) => (answer === undefined ? [] : writtenInputs(answer.text)));
}

function pairRequests({ spec, round, earlier }: Round, source: DescriptionSource, combinations: ReturnType<typeof combinationsOf>, written: readonly string[], wanted: number): TeacherRequest[] {
  const alreadyAsked = earlier.filter(({ row }) => row === undefined).length;
  return Array.from({ length: wanted }, (_, index) => {
    const position = alreadyAsked + index;
    const others = Array.from({ length: Math.min(AVOIDED, position) }, (_unused, back) => combinations.at(position - 1 - back));
    const distinct = [...new Map(others.filter((other) => Object.keys(other).length > 0).map((other) => [JSON.stringify(other), other])).values()];
    // Counted up through all rounds: a combination that comes again is a new draw, never a call that was made before.
    const sampleIndex = Math.floor(position / combinations.count);
    const random = createRandom(spec.seed, `written:${round}:${index}`);
    const avoid = { attributes: distinct, inputs: Array.from({ length: Math.min(AVOIDED, written.length) }, () => written[Math.floor(random() * written.length)] as string) };
    return { id: '', purpose: 'train', task: pairsTask(spec, source.pairsPerCall, combinations.at(position), avoid, sampleIndex), sampleIndex };
  });
}
