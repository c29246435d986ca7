/** The filter stage: every answer so far becomes a training sample or a rejected row with its reason. */
import type { BuildDatasetInput, BuiltDataset } from '../contracts/activities.ts';
import type { ArtifactRef } from '../contracts/artifacts.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { Calibration, InputRow, RejectedSample, Sample, TeacherRequest } from '../contracts/records.ts';
import { getJson, getRows, putJson, putRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { agree } from './agreement.ts';
import type { AnswerReader, ReadAnswer } from './answers.ts';
import { measurePrior } from './calibration.ts';
import { candidatesOf } from './candidates.ts';
import type { Candidate, Judged } from './candidates.ts';
import { eachInTurns, inputProblem } from './lengths.ts';
import type { OpenLengths, RowProblem } from './lengths.ts';
import { NearDuplicateIndex } from './near-duplicates.ts';
import { studentMessages } from './student-prompt.ts';
import { countCharacters, normaliseText } from './text.ts';

export interface BuildDeps {
  readonly store: ArtifactStore;
  readonly answers: AnswerReader;
  /** How long samples are for the student; absent: nobody counts. */
  readonly lengths?: OpenLengths;
}

/**
 * Filters the answers of all rounds, in the order of their requests; the first reason that applies is
 * the one given. The same requests and answers give the same bytes. A teacher's prior is measured
 * over the first round alone: later rounds ask about the inputs that the student finds hard, which
 * are no fair sample of the pool. Throws BAD_INPUT, with the reasons counted, when no row is left.
 */
export async function buildDataset(deps: BuildDeps, input: BuildDatasetInput): Promise<BuiltDataset> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const held = [...(await getRows<InputRow>(deps.store, input.data.development)), ...(await getRows<InputRow>(deps.store, input.data.test))];
  const rounds = await answeredRounds(deps, spec, input.requests);
  const calibration = priorOf(spec, rounds[0] ?? []);
  const judged = rounds.flatMap((round, index) => judgeRound(spec, index + 1, round, calibration));
  const { accepted, rejected } = filterCandidates(spec, await withLengths(deps, spec, judged), held);
  const rejectedRef = await putRows(deps.store, 'rejected', rejected);
  if (accepted.length === 0) {
    throw new StillhouseError('BAD_INPUT', `expected at least one of ${judged.length} answers to pass the filters, got none (${countReasons(rejected)}); the rejected rows are artifact ${rejectedRef.sha256}`);
  }
  return {
    dataset: await putRows(deps.store, 'dataset', accepted.map((candidate) => toSample(spec, candidate))),
    rejected: rejectedRef,
    ...(calibration === undefined ? {} : { calibration: await putJson(deps.store, 'calibration', calibration) }),
    accepted: accepted.length,
    rejectedCount: rejected.length,
  };
}

/** Candidates that are too long for the student's training are turned away here, so that no training ends for them. */
async function withLengths({ lengths }: BuildDeps, spec: CampaignSpec, judged: readonly Judged[]): Promise<readonly Judged[]> {
  const counted = await lengths?.(spec);
  if (counted === undefined) return judged;
  return await eachInTurns(judged, (each): Judged => {
    const detail = each.reason === undefined && rowProblem(spec, each.candidate) === undefined ? counted.ofSample(toSample(spec, each.candidate)) : undefined;
    return detail === undefined ? each : { candidate: each.candidate, reason: 'length', detail };
  });
}

interface Answered {
  readonly request: TeacherRequest;
  readonly answer: ReadAnswer;
}

/** What each answer gives, several answers to one input put to a vote. */
function judgeRound(spec: CampaignSpec, round: number, answered: readonly Answered[], calibration: Calibration | undefined): readonly Judged[] {
  const inputs = Map.groupBy(answered, ({ request }) => request.row?.id ?? request.id);
  return [...inputs.values()].flatMap((draws) => {
    const judged = draws.map(({ request, answer }) => candidatesOf(spec, round, request, answer, calibration));
    return judged.length === 1 ? (judged[0] as readonly Judged[]) : [agree(spec, judged.flat())];
  });
}

async function answeredRounds(deps: BuildDeps, spec: CampaignSpec, refs: readonly ArtifactRef[]): Promise<readonly (readonly Answered[])[]> {
  const rounds: Answered[][] = [];
  for (const ref of refs) {
    const requests = await getRows<TeacherRequest>(deps.store, ref);
    const answers = await deps.answers(spec, requests);
    rounds.push(requests.map((request, index) => ({ request, answer: answers[index] as ReadAnswer })));
  }
  return rounds;
}

function priorOf(spec: CampaignSpec, answered: readonly Answered[]): Calibration | undefined {
  if (spec.teacher.calibration !== 'prior' || spec.task.output.kind !== 'label') return undefined;
  return measurePrior(spec.task.output.labels, answered.map(({ answer }) => answer));
}

export interface Filtered {
  readonly accepted: readonly Candidate[];
  readonly rejected: readonly RejectedSample[];
}

/** Applies the filters of the spec, in the order of REJECTION_REASONS' meaning: form, length, confidence, duplicates, held-out rows, balance. */
export function filterCandidates(spec: CampaignSpec, judged: readonly Judged[], held: readonly InputRow[]): Filtered {
  const rejected: { readonly position: number; readonly row: RejectedSample }[] = [];
  const duplicates = duplicateFilter(spec.filter.nearDuplicateSimilarity, held);
  const passed: { readonly position: number; readonly candidate: Candidate }[] = [];
  judged.forEach(({ candidate, reason, detail }, position) => {
    const problem = reason === undefined ? (rowProblem(spec, candidate) ?? duplicates(candidate)) : { reason, detail: detail ?? '' };
    if (problem === undefined) passed.push({ position, candidate });
    else rejected.push({ position, row: toRejected(candidate, problem) });
  });
  const surplus = spec.task.output.kind === 'label' && spec.filter.maxClassRatio !== undefined ? surplusOf(passed.map(({ candidate }) => candidate), spec.filter.maxClassRatio) : new Map<Candidate, string>();
  for (const { position, candidate } of passed) {
    const detail = surplus.get(candidate);
    if (detail !== undefined) rejected.push({ position, row: toRejected(candidate, { reason: 'class-balance', detail }) });
  }
  return {
    accepted: passed.filter(({ candidate }) => !surplus.has(candidate)).map(({ candidate }) => candidate),
    rejected: rejected.sort((a, b) => a.position - b.position).map(({ row }) => row),
  };
}

/** Problems of one row alone. A confidence is held to the minimum where there is one; endpoints without log-probabilities give none. */
function rowProblem(spec: CampaignSpec, candidate: Candidate): RowProblem | undefined {
  const { minConfidence, maxOutputCharacters } = spec.filter;
  const asked = inputProblem(spec.filter, candidate.input);
  if (asked?.reason === 'empty') return asked;
  if (candidate.output === '') return { reason: 'empty', detail: 'expected an output, got none' };
  if (asked !== undefined) return asked;
  const outputLength = countCharacters(candidate.output);
  if (outputLength > maxOutputCharacters) return { reason: 'length', detail: `output of ${outputLength} characters, expected at most ${maxOutputCharacters}` };
  if (candidate.confidence !== undefined && candidate.confidence < minConfidence) {
    return { reason: 'low-confidence', detail: `confidence ${candidate.confidence.toFixed(3)}, expected at least ${minConfidence}` };
  }
  return undefined;
}

/** Compares each row with the held-out rows and with the rows that passed before it. */
function duplicateFilter(similarity: number, held: readonly InputRow[]): (candidate: Candidate) => RowProblem | undefined {
  const heldTexts = new Map(held.map((row) => [normaliseText(row.input), row.id]));
  const heldNear = new NearDuplicateIndex(similarity);
  for (const row of held) heldNear.add(row.id, row.input);
  const seenTexts = new Map<string, string>();
  const seenNear = new NearDuplicateIndex(similarity);
  return ({ id, input }) => {
    const text = normaliseText(input);
    const twin = seenTexts.get(text);
    if (twin !== undefined) return { reason: 'exact-duplicate', detail: `the same input as ${twin}` };
    const heldTwin = heldTexts.get(text);
    if (heldTwin !== undefined) return { reason: 'held-out', detail: `the same input as held-out ${heldTwin}` };
    const heldMatch = heldNear.find(input);
    if (heldMatch !== undefined) return { reason: 'near-held-out', detail: `similarity ${heldMatch.similarity.toFixed(3)} to held-out ${heldMatch.id}` };
    const match = seenNear.addIfNew(id, input);
    if (match !== undefined) return { reason: 'near-duplicate', detail: `similarity ${match.similarity.toFixed(3)} to ${match.id}` };
    seenTexts.set(text, id);
    return undefined;
  };
}

/** The rows by which a class exceeds `ratio` times the smallest class that occurs: the least sure go first, of equals the latest. */
function surplusOf(candidates: readonly Candidate[], ratio: number): ReadonlyMap<Candidate, string> {
  const classes = Map.groupBy(candidates, (candidate) => candidate.output);
  const smallest = Math.min(...[...classes.values()].map((members) => members.length));
  const limit = Math.floor(smallest * ratio);
  const surplus = new Map<Candidate, string>();
  for (const [label, members] of classes) {
    const ranked = members.map((candidate, index) => ({ candidate, index })).sort((a, b) => (b.candidate.confidence ?? 0) - (a.candidate.confidence ?? 0) || a.index - b.index);
    for (const { candidate } of ranked.slice(limit)) {
      surplus.set(candidate, `${members.length} rows of ${label}, expected at most ${limit} (${ratio} × ${smallest})`);
    }
  }
  return surplus;
}

function toRejected(candidate: Candidate, problem: RowProblem): RejectedSample {
  const { id, input, output, round, requestId } = candidate;
  return { id, input, output, reason: problem.reason, detail: problem.detail, round, requestId };
}

function toSample(spec: CampaignSpec, candidate: Candidate): Sample {
  return { ...candidate, messages: [...studentMessages(spec.task, candidate.input), { role: 'assistant', content: candidate.output }] };
}

function countReasons(rejected: readonly RejectedSample[]): string {
  const counts = Map.groupBy(rejected, (row) => row.reason);
  return [...counts].map(([reason, rows]) => `${rows.length} ${reason}`).join(', ');
}
