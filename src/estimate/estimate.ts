/**
 * What a campaign will ask and cost, before it starts: the requests themselves are planned, those that
 * the ledger answers cost nothing, and what cannot be known is a range.
 */
import { createHash } from 'node:crypto';
import type { Assets, AssetOptions } from '../assets/assets.ts';
import type { CampaignContext, PlanRequestsInput, PreparedData } from '../contracts/activities.ts';
import type { ArtifactRef } from '../contracts/artifacts.ts';
import { contestantsOf } from '../contracts/campaign-spec.ts';
import type { CampaignSpec, EndpointSpec } from '../contracts/campaign-spec.ts';
import { addUsd, roundUsdUp } from '../contracts/money.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { InputRow, RejectedSample, RejectionReason, TeacherRequest } from '../contracts/records.ts';
import { sourcesOf } from '../contracts/sampling-spec.ts';
import type { Cost } from '../contracts/state.ts';
import type { OpenLengths } from '../dataset/lengths.ts';
import { prepareCampaign } from '../dataset/prepare.ts';
import { comparisonRequests } from '../evaluation/comparison.ts';
import { judgeRequest } from '../evaluation/judge.ts';
import { ledgerKey } from '../ledger/key.ts';
import type { Ledger, LedgerUsage } from '../ledger/ledger.ts';
import { getRows, putJson, putRows } from '../store/jsonl.ts';
import { createMemoryStore } from '../store/memory-store.ts';
import type { ArtifactStore } from '../store/store.ts';
import { boundOf, isStored, planRequests } from '../teacher/plan.ts';
import { baseUrlOf } from '../teacher/openai-client.ts';
import { callUpperBound } from '../teacher/call-bound.ts';
import { hopefulTraits } from '../teacher/endpoint-traits.ts';
import type { EndpointTraits } from '../teacher/endpoint-traits.ts';
import { reasoningRoom } from '../teacher/openai-chat.ts';
import { traitsOf } from '../teacher/trait-book.ts';
import type { TraitBook } from '../teacher/trait-book.ts';
import { batchPrice, costUsd, priceOf, tokenUpperBound, trainingUsdPerMillion } from '../teacher/prices.ts';
import type { Price } from '../teacher/prices.ts';
import { endpointOf } from '../teacher/sample.ts';
import type { Teacher, TeacherDirectory } from '../teacher/teacher.ts';
import { tournamentWork } from './tournament.ts';

/** `low` and `high` are what may be, `expected` what is likely. */
export interface Range {
  readonly low: number;
  readonly expected: number;
  readonly high: number;
}

export interface EstimatedPart {
  readonly what: 'training rows' | 'development rows' | 'test rows' | 'judgements' | 'fine-tuning';
  readonly model: string;
  readonly calls: Range;
  readonly tokens: Range;
  /** Of `tokens`, those that a reasoning model spends before it answers. */
  readonly reasoningTokens: Range;
  readonly usd: Range;
}

export interface Estimate {
  readonly rounds: Range;
  readonly parts: readonly EstimatedPart[];
  readonly calls: Range;
  /** Of the first round's, the development and the test rows' questions, those that the ledger answers: they are in no figure. */
  readonly answeredAlready: number;
  readonly tokens: Range;
  readonly reasoningTokens: Range;
  readonly usd: Range;
  /** Of the calls alone. */
  readonly callHours: Range;
  /** Of training on this machine's processor; absent where the student's size is not known or its provider trains it. */
  readonly trainingHours?: Range;
  /** Rows that the campaign would leave out before it asks about any, by their reason; `example` says of the first what it is. */
  readonly leftOut?: readonly LeftOut[];
  /** What the figures rest on. */
  readonly basis: readonly string[];
}

export interface LeftOut {
  readonly reason: RejectionReason;
  readonly rows: number;
  readonly example: string;
}

export interface EstimateDeps {
  readonly assets: Pick<Assets, 'dataset'>;
  /** Absent: nothing is known. */
  readonly ledger?: Ledger | undefined;
  /** What endpoints turned out to take: whether a model reasons decides how much room its answers have. */
  readonly traits?: Pick<TraitBook, 'of'> | undefined;
  /** How long rows are for the student; absent: nobody counts. */
  readonly lengths?: OpenLengths;
}

/** What is known of the models that are asked. */
interface Basis {
  readonly usage: readonly LedgerUsage[];
  readonly traits: EstimateDeps['traits'];
}

const MS_PER_HOUR = 3_600_000;
/** Seconds of one hosted call where the ledger knows none of the model. */
const CALL_MS: Range = { low: 600, expected: 1_500, high: 6_000 };
/** Milliseconds of one answer of a local model of 135 million parameters on two cores, see docs/log.md; larger ones take longer. */
const LOCAL_CALL_MS: Range = { low: 30, expected: 90, high: 1_000 };

/** Tokens a second that a student of 135 million parameters learns on two cores, see docs/log.md; larger ones are slower in proportion. */
const TRAINED_PER_SECOND: Range = { low: 1_200, expected: 700, high: 250 };

/** More rows than this a provider is not expected to have stored. */
const MAX_PLACEHOLDERS = 10_000;

const NOTHING: Range = { low: 0, expected: 0, high: 0 };
const combine = (ranges: readonly Range[], sum: (values: readonly number[]) => number): Range => ({
  low: sum(ranges.map(({ low }) => low)), expected: sum(ranges.map(({ expected }) => expected)), high: sum(ranges.map(({ high }) => high)),
});
const total = (ranges: readonly Range[]): Range => combine(ranges, (values) => values.reduce((sum, value) => sum + value, 0));
const totalUsd = (ranges: readonly Range[]): Range => combine(ranges, (values) => addUsd(...values));
const times = (range: Range, factor: Range): Range => ({ low: range.low * factor.low, expected: range.expected * factor.expected, high: range.high * factor.high });
const whole = ({ low, expected, high }: Range): Range => ({ low: Math.floor(low), expected: Math.round(expected), high: Math.ceil(high) });

/** Plans what can be planned. Nothing is called, bought or written; datasets that are not here yet are fetched. */
export async function estimateCampaign(deps: EstimateDeps, spec: CampaignSpec, options: AssetOptions = {}): Promise<Estimate> {
  const store = createMemoryStore();
  const planned = await planAll(store, deps, spec, options);
  const known = await knownOf(deps.ledger, spec, planned.all);
  const usage = await deps.ledger?.usage() ?? [];
  const basis: Basis = { usage, traits: deps.traits };
  const measure = (requests: readonly TeacherRequest[]): Measure => measureRequests(spec, requests.filter((request) => !known.has(request)), basis);
  const rounds: Range = { low: 1, expected: Math.ceil((1 + spec.iterate.maxRounds) / 2), high: spec.iterate.maxRounds };
  const first = measure(planned.training);
  // A later round asks about other rows in the same way; none of its questions is known.
  const mean = measureRequests(spec, planned.training, basis);
  const perLater = Math.min(spec.sampling.rowsPerLaterRound ?? Math.ceil(spec.sampling.rows / 2), planned.rowsLeft) / Math.max(1, spec.sampling.rows);
  const later = { low: (rounds.low - 1) * perLater, expected: (rounds.expected - 1) * perLater, high: (rounds.high - 1) * perLater };
  const teacher = spec.teacher.model;
  const parts = [
    partOf('training rows', teacher, plus(first, scale(mean, later))),
    partOf('development rows', teacher, measure(planned.development)),
    partOf('test rows', teacher, measure(planned.test)),
    ...judgements(spec, planned, rounds, basis),
    ...fineTuning(spec, planned.training, rounds),
  ];
  const calls = total(parts.filter(({ what }) => what !== 'fine-tuning').map((part) => part.calls));
  return {
    rounds, parts, calls, answeredAlready: known.size,
    tokens: total(parts.map(({ tokens }) => tokens)),
    reasoningTokens: total(parts.map(({ reasoningTokens }) => reasoningTokens)),
    usd: totalUsd(parts.map(({ usd }) => usd)),
    callHours: callHours(spec, calls),
    ...trainingHours(spec, planned.training, rounds),
    ...(planned.leftOut.length === 0 ? {} : { leftOut: planned.leftOut }),
    basis: [...basisOf(spec, usage, deps.ledger !== undefined), ...(planned.uncounted === undefined ? [] : [`rows that are too long for the student were not counted: ${planned.uncounted}`])],
  };
}

interface Planned {
  readonly training: readonly TeacherRequest[];
  readonly development: readonly TeacherRequest[];
  readonly test: readonly TeacherRequest[];
  readonly all: readonly TeacherRequest[];
  readonly developmentRows: readonly InputRow[];
  readonly testRows: readonly InputRow[];
  /** Pool rows that later rounds may ask about. */
  readonly rowsLeft: number;
  readonly leftOut: readonly LeftOut[];
  /** Why nobody knows how long rows are for the student, where that is so. */
  readonly uncounted?: string;
}

async function planAll(store: ArtifactStore, { assets, lengths }: EstimateDeps, given: CampaignSpec, options: AssetOptions): Promise<Planned> {
  const spec = plannable(given);
  const context: CampaignContext = { campaign: spec.name, spec: await putJson(store, 'spec', spec) };
  const completions = await placeholders(store, spec);
  let uncounted: string | undefined;
  // The student may not be here yet, and an estimate does not wait for its download to end.
  const counted = lengths === undefined ? undefined : await lengths(spec, options).catch((error: unknown) => {
    if (!(error instanceof StillhouseError)) throw error;
    uncounted = error.message;
    return undefined;
  });
  const data: PreparedData = await prepareCampaign({ store, assets, lengths: () => Promise.resolve(counted) }, { ...context, ...(completions === undefined ? {} : { completions }) }, options);
  const plan = async (purpose: PlanRequestsInput['purpose'], round: number): Promise<readonly TeacherRequest[]> => {
    const { requests } = await planRequests({ store, directory: pricing, find: (_spec, asked) => Promise.resolve(asked.map(() => undefined)) }, { ...context, data, purpose, round });
    // What a provider has stored is bought already.
    return (await getRows<TeacherRequest>(store, requests)).filter((request) => !isStored(request));
  };
  const [training, development, test] = [await plan('train', 1), await plan('development', 0), await plan('test', 0)];
  return {
    training, development, test, all: [...training, ...development, ...test],
    developmentRows: await getRows<InputRow>(store, data.development), testRows: await getRows<InputRow>(store, data.test),
    leftOut: data.excluded === undefined ? [] : leftOutOf(await getRows<RejectedSample>(store, data.excluded)),
    ...(uncounted === undefined ? {} : { uncounted }),
    rowsLeft: data.pool === undefined ? Infinity : Math.max(0, data.poolRows - new Set(training.map(({ row }) => row?.id)).size),
  };
}

export function leftOutOf(excluded: readonly RejectedSample[]): readonly LeftOut[] {
  return [...Map.groupBy(excluded, ({ reason }) => reason)].map(([reason, rows]) => ({ reason, rows: rows.length, example: rows[0]?.detail ?? '' }));
}

/** Attributes that the teacher would have to plan first are left out. */
function plannable(spec: CampaignSpec): CampaignSpec {
  const { source } = spec.sampling;
  if (source.kind === 'description') return { ...spec, sampling: { ...spec.sampling, source: { ...source, attributes: source.attributes ?? {} } } };
  if (source.kind !== 'mixed') return spec;
  const sources = source.sources.map((each) => (each.kind === 'description' ? { ...each, attributes: each.attributes ?? {} } : each));
  return { ...spec, sampling: { ...spec.sampling, source: { ...source, sources } } };
}

/** Stands for what a provider has stored, of which an estimate knows nothing but that it costs nothing: as many rows as the campaign can use. */
async function placeholders(store: ArtifactStore, { sampling, evaluation, iterate }: CampaignSpec): Promise<ArtifactRef | undefined> {
  if (sourcesOf(sampling.source).every(({ source }) => source.kind !== 'stored-completions')) return undefined;
  const held = evaluation.source.kind === 'held-out' ? evaluation.source.rows : 0;
  const count = held + sampling.rows + (iterate.maxRounds - 1) * (sampling.rowsPerLaterRound ?? Math.ceil(sampling.rows / 2));
  const requests = Array.from({ length: Math.min(count, MAX_PLACEHOLDERS) }, (_, index): TeacherRequest => {
    const id = createHash('sha256').update(String(index)).digest('hex');
    const task = { kind: 'text' as const, completion: id, messages: [], parameters: { maxTokens: 1, temperature: 0 } };
    return { id, purpose: 'train', sampleIndex: 0, task, row: { id, input: id, origin: 'stored' } };
  });
  return putRows(store, 'requests', requests);
}

/** Teachers that know their price and nothing else. */
const pricing: TeacherDirectory = {
  identify: (endpoint) => Promise.resolve({ provider: baseUrlOf(endpoint), model: endpoint.model }),
  open: (endpoint) => Promise.resolve(priced(endpoint)),
};

function priced(endpoint: EndpointSpec): Teacher {
  return {
    identity: { provider: baseUrlOf(endpoint), model: endpoint.model },
    groupSize: 1,
    upperBound: (request) => callUpperBound(priceFor(endpoint), request, localOr(endpoint, undefined)),
    ask: () => Promise.reject(new Error('an estimate asks nobody')),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

const FREE: Price = { inputUsdPerMillion: 0, cachedInputUsdPerMillion: 0, outputUsdPerMillion: 0 };
/** A local model is asked for no schemas and reasons only in its text. */
const localOr = (endpoint: EndpointSpec, traits: EstimateDeps['traits']): EndpointTraits =>
  endpoint.provider === 'local' ? { ...hopefulTraits('', false), json: 'text' } : traitsOf({ provider: baseUrlOf(endpoint), model: endpoint.model }, traits);
const priceFor = (endpoint: EndpointSpec): Price => (endpoint.provider === 'local' ? FREE : priceOf(endpoint, baseUrlOf(endpoint)));

/** The requests that the ledger answers. A local teacher's keys carry the hash of its weights, which are not read for this. */
async function knownOf(ledger: Ledger | undefined, spec: CampaignSpec, requests: readonly TeacherRequest[]): Promise<ReadonlySet<TeacherRequest>> {
  if (ledger === undefined || spec.teacher.provider === 'local') return new Set();
  const identity = await pricing.identify(spec.teacher);
  const keys = requests.map((request) => ledgerKey(identity, request));
  const found = await ledger.lookup(keys);
  return new Set(requests.filter((_, index) => found.has(keys[index] ?? '')));
}

interface Measure {
  readonly calls: Range;
  readonly tokens: Range;
  readonly reasoning: Range;
  readonly usd: Range;
}

const scale = ({ calls, tokens, reasoning, usd }: Measure, factor: Range): Measure => ({ calls: times(calls, factor), tokens: times(tokens, factor), reasoning: times(reasoning, factor), usd: times(usd, factor) });
const plus = (a: Measure, b: Measure): Measure => ({ calls: total([a.calls, b.calls]), tokens: total([a.tokens, b.tokens]), reasoning: total([a.reasoning, b.reasoning]), usd: total([a.usd, b.usd]) });
const partOf = (what: EstimatedPart['what'], model: string, { calls, tokens, reasoning, usd }: Measure): EstimatedPart => ({
  what, model, calls: whole(calls), tokens: whole(tokens), reasoningTokens: whole(reasoning), usd: { low: roundUsdUp(usd.low), expected: roundUsdUp(usd.expected), high: roundUsdUp(usd.high) },
});

function measureRequests(spec: CampaignSpec, requests: readonly TeacherRequest[], { usage, traits }: Basis): Measure {
  const sums = { low: 0, expected: 0, high: 0 };
  const usd = { low: 0, expected: 0, high: 0 };
  let reasoning = NOTHING;
  for (const request of requests) {
    const endpoint = endpointOf(spec, request);
    const price = priceFor(endpoint);
    const likely = endpoint.batch === undefined ? price : batchPrice(price);
    const prompt = promptTokens(request);
    const known = localOr(endpoint, traits);
    const mean = meanOf(usage, endpoint, request);
    const thinking = reasoningRoom(request.task, known);
    const completion = completionTokens(request, mean?.completion, thinking);
    reasoning = total([reasoning, mean === undefined ? times(REASONED, { low: thinking, expected: thinking, high: thinking }) : { low: 0.7 * mean.reasoning, expected: mean.reasoning, high: thinking }]);
    // The bound that the campaign will set aside, a repair of broken JSON included.
    const bound: Cost = boundOf({ upperBound: (asked) => callUpperBound(price, asked, known) }, request);
    sums.low += prompt.low + completion.low;
    sums.expected += prompt.expected + completion.expected;
    sums.high += bound.tokens;
    usd.low += costUsd(likely, { promptTokens: prompt.low, cachedPromptTokens: 0, completionTokens: completion.low });
    usd.expected += costUsd(likely, { promptTokens: prompt.expected, cachedPromptTokens: 0, completionTokens: completion.expected });
    usd.high += bound.usd;
  }
  return { calls: { low: requests.length, expected: requests.length, high: requests.length }, tokens: sums, reasoning, usd };
}

/** Tokens of a text: four ASCII bytes or one other character each, give or take a fifth to a third. */
function promptTokens(request: TeacherRequest): Range {
  const { task } = request;
  const text = task.messages.map(({ content }) => content).join('\n') + (task.kind === 'json' ? JSON.stringify(task.schema) : '');
  const other = [...text].filter((character) => character > '\u007f').length;
  const ascii = text.length - other;
  const frame = 4 * task.messages.length + 3;
  return { low: ascii / 5 + 0.6 * other + frame, expected: ascii / 4 + other + frame, high: tokenUpperBound(request).promptTokens };
}

/** Of the room for reasoning; narrow questions take little of it. */
const REASONED: Range = { low: 0.02, expected: 0.15, high: 1 };

/** By the ledger's mean where the model has answered such questions before; else by the kind of task. `thinking`: room beside that of the answer. */
function completionTokens({ task }: TeacherRequest, mean: number | undefined, thinking: number): Range {
  const { maxTokens } = task.parameters;
  const high = maxTokens + thinking;
  if (mean !== undefined) return { low: Math.min(high, 0.7 * mean), expected: Math.min(high, mean), high };
  const written = task.kind === 'label' ? Math.min(maxTokens, Math.max(...task.labels.map((label) => Math.ceil(label.length / 4))) + 1) : 0.4 * maxTokens;
  const least = task.kind === 'label' ? 1 : 0.1 * maxTokens;
  return { low: least + REASONED.low * thinking, expected: written + REASONED.expected * thinking, high };
}

function meanOf(usage: readonly LedgerUsage[], { model }: EndpointSpec, { purpose }: Pick<TeacherRequest, 'purpose'>): { readonly completion: number; readonly reasoning: number } | undefined {
  const alike = usage.filter((each) => each.model === model && each.calls > 0 && (each.purpose === 'judge') === (purpose === 'judge'));
  const calls = alike.reduce((sum, each) => sum + each.calls, 0);
  if (calls === 0) return undefined;
  const perCall = (of: 'completionTokens' | 'reasoningTokens'): number => alike.reduce((sum, each) => sum + each[of], 0) / calls;
  return { completion: perCall('completionTokens'), reasoning: perCall('reasoningTokens') };
}

/** The teacher's answers once, the student's after each round, both and the untuned student's on the test rows; pairs in both orders where they are compared. */
function judgements(spec: CampaignSpec, { developmentRows, testRows }: Planned, campaignRounds: Range, basis: Basis): readonly EstimatedPart[] {
  const { scorer } = spec.evaluation;
  if (scorer.kind !== 'judge') return [];
  const { judge, rubric, compare } = scorer;
  const { measurements } = firstRoundOf(spec);
  const rounds = total([campaignRounds, measurements, { low: -1, expected: -1, high: -1 }]);
  const asked = (rows: readonly InputRow[], answers: number, pairs: number, answer: string): readonly TeacherRequest[] =>
    rows.flatMap((row) => [
      ...Array.from({ length: answers }, () => judgeRequest(spec, judge, rubric, row, answer)),
      ...(compare ? Array.from({ length: pairs }, () => comparisonRequests(spec, judge, rubric, row, answer, `${answer}.`)).flat() : []),
    ]);
  const measured = (answer: string): Measure =>
    plus(
      plus(measureRequests(spec, asked(developmentRows, 1, 0, answer), basis), scale(measureRequests(spec, asked(developmentRows, 1, 1, answer), basis), rounds)),
      measureRequests(spec, asked(testRows, 3, 2, answer), basis),
    );
  // Four characters a token: an answer of middling length, and the longest.
  const [likely, longest] = [measured('x'.repeat(Math.round(1.6 * spec.teacher.maxTokens))), measured('x'.repeat(4 * spec.teacher.maxTokens))];
  return [partOf('judgements', judge.model, { calls: likely.calls, tokens: { ...likely.tokens, high: longest.tokens.high }, reasoning: likely.reasoning, usd: { ...likely.usd, high: longest.usd.high } })];
}

/** Every round trains afresh on all accepted rows, some of which the filters will have turned away. */
function fineTuning(spec: CampaignSpec, training: readonly TeacherRequest[], rounds: Range): readonly EstimatedPart[] {
  const { student } = spec;
  if (student.provider === 'local') return [];
  const price = trainingUsdPerMillion(student, baseUrlOf(student));
  const rows = training.map((request) => ({ prompt: promptTokens(request), completion: completionTokens(request, undefined, 0) }));
  const tokens = total(rows.flatMap(({ prompt, completion }) => [prompt, completion]));
  const epochs = spec.training.epochs;
  const trained = { low: 0.5 * tokens.low * epochs, expected: tokens.expected * epochs * rounds.expected, high: tokens.high * epochs * rounds.high * (1 + rounds.high / 4) };
  const usd = { low: (trained.low * price) / 1e6, expected: (trained.expected * price) / 1e6, high: (trained.high * price) / 1e6 };
  return [partOf('fine-tuning', student.model, { calls: NOTHING, tokens: trained, reasoning: NOTHING, usd })];
}

function callHours({ teacher }: CampaignSpec, calls: Range): Range {
  const local = teacher.provider === 'local';
  // Four batches at a time, see specToPlan.
  const atOnce = local ? 1 : 4 * teacher.concurrency;
  const perCall = local ? LOCAL_CALL_MS : CALL_MS;
  const { requestsPerMinute } = teacher.limits ?? {};
  const ms = times(calls, { low: perCall.low / atOnce, expected: perCall.expected / atOnce, high: perCall.high / atOnce });
  const limited = (value: number, count: number): number => Math.max(value, requestsPerMinute === undefined ? 0 : (count * 60_000) / requestsPerMinute) / MS_PER_HOUR;
  return { low: limited(ms.low, calls.low), expected: limited(ms.expected, calls.expected), high: limited(ms.high, calls.high) };
}

/** In millions of parameters, from the student's name as `smollm2-135m` or `qwen2.5-0.5b` say it. */
function sizeOf({ model }: CampaignSpec['student']): number | undefined {
  const [, size, unit] = /(\d+(?:\.\d+)?)([mb])(?![a-z0-9])/i.exec(model) ?? [];
  return size === undefined ? undefined : Number(size) * (unit?.toLowerCase() === 'b' ? 1_000 : 1);
}

/** What the first round trains and measures: one student, or all contestants of a tournament. Epochs count as often as the student is larger than the campaign's. */
function firstRoundOf(spec: CampaignSpec): { readonly epochs: Range; readonly measurements: Range; readonly laterEpochs: Range } {
  const { tournament, training } = spec;
  const flat = (value: number): Range => ({ low: value, expected: value, high: value });
  if (tournament === undefined) return { epochs: flat(training.epochs), measurements: flat(1), laterEpochs: flat(training.epochs) };
  const own = sizeOf(spec.student) ?? 1;
  const contestants = contestantsOf(spec).map((each) => ({ epochs: each.spec.training.epochs, size: (sizeOf(each.spec.student) ?? own) / own }));
  const [least, most] = [tournamentWork(contestants, tournament, 'least'), tournamentWork(contestants, tournament, 'most')];
  const between = (low: number, high: number): Range => ({ low, expected: (low + high) / 2, high });
  const winners = contestants.map(({ epochs, size }) => epochs * size);
  return { epochs: between(least.epochs, most.epochs), measurements: between(least.measurements, most.measurements), laterEpochs: between(Math.min(...winners), Math.max(...winners)) };
}

/** Every round learns all rows so far; the first one as often as contestants train. */
function trainingHours(spec: CampaignSpec, requests: readonly TeacherRequest[], rounds: Range): { readonly trainingHours?: Range } {
  const { student, sampling } = spec;
  const size = sizeOf(student);
  if (student.provider !== 'local' || size === undefined) return {};
  const tokens = requests.reduce((sum, request) => sum + promptTokens(request).expected + completionTokens(request, undefined, 0).expected, 0);
  const perLater = (sampling.rowsPerLaterRound ?? sampling.rows / 2) / sampling.rows;
  const first = firstRoundOf(spec);
  const hours = (bound: keyof Range): number => {
    const learned = Array.from({ length: rounds[bound] - 1 }, (_, index) => (1 + (index + 1) * perLater) * first.laterEpochs[bound]).reduce((sum, share) => sum + share, first.epochs[bound]);
    return (tokens * learned * (size / 135)) / TRAINED_PER_SECOND[bound] / 3_600;
  };
  return { trainingHours: { low: hours('low'), expected: hours('expected'), high: hours('high') } };
}

function basisOf(spec: CampaignSpec, usage: readonly LedgerUsage[], hasLedger: boolean): readonly string[] {
  const mean = meanOf(usage, spec.teacher, { purpose: 'train' });
  const planned = sourcesOf(spec.sampling.source).some(({ source }) => source.kind === 'description' && source.attributes === undefined);
  return [
    `rounds: 1 to ${spec.iterate.maxRounds}; a round that reaches the target, or gains nothing, is the last`,
    mean === undefined ? `length of answers: by the kind of task, because ${hasLedger ? `the ledger has none of ${spec.teacher.model}` : 'there is no ledger yet'}` : `length of answers: ${mean.completion.toFixed(1)} tokens, the mean of ${spec.teacher.model} in the ledger`,
    'high: every prompt byte a token, every answer as long as allowed: what the campaign sets aside',
    ...(spec.teacher.provider === 'local' ? ['a local teacher costs nothing; what the ledger knows of it was not looked up'] : []),
    ...(spec.tournament === undefined ? [] : [`tournament: the epochs of all ${spec.tournament.contestants.length} contestants, until the others are stopped`]),
    ...(planned ? ['one call more for the plan of attributes, and longer prompts by its values'] : []),
  ];
}
