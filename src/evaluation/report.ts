/** The last stage: one page for people and one manifest for programs. */
import type { WriteReportInput, WrittenReport } from '../contracts/activities.ts';
import type { ArtifactRef, FolderManifest } from '../contracts/artifacts.ts';
import { contestantsOf, localStudentOf } from '../contracts/campaign-spec.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import type { ReportedLoss, RejectedSample, RejectionReason, Sample } from '../contracts/records.ts';
import type { ContestantState, TournamentState } from '../contracts/state.ts';
import { unpackSoftTargets } from '../dataset/soft-targets.ts';
import { getJson, getRows, putJson } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { retirementDay } from '../teacher/prices.ts';
import type { Evaluation } from './evaluation.ts';
import { readHostedModel } from '../training/hosted/hosted-model.ts';
import type { HostedModel } from '../training/hosted/hosted-model.ts';
import { meanInterval } from './metrics.ts';
import { renderPage } from './report/page.ts';
import type { ModelFacts, NamedHash, ReportData } from './report/page.ts';
import { methodText } from './report/tournament.ts';
import type { ReportedTournament } from './report/tournament.ts';

/** What the report says about a model; facts that are not known, as those of an endpoint, are left out. */
export interface ReportModels {
  facts(model: { readonly provider: 'local' | 'openai'; readonly model: string }): Promise<Omit<ModelFacts, 'role' | 'name'>>;
}

export interface ReportDeps {
  readonly store: ArtifactStore;
  readonly models: ReportModels;
}

/** The manifest artifact: every hash of a campaign, for programs. */
export interface CampaignManifest extends Omit<WriteReportInput, 'rounds' | 'developmentEvaluations'> {
  readonly format: 'stillhouse/manifest/1';
  readonly rounds: readonly (WriteReportInput['rounds'][number] & { readonly developmentEvaluation?: ArtifactRef })[];
  readonly models: readonly ModelFacts[];
  readonly report: ArtifactRef;
}

/**
 * Writes both from what the store holds. Works for a campaign that ended early too: what is missing
 * is left out of the page, and the headline says so. The same input gives the same bytes.
 */
export async function writeReport(deps: ReportDeps, input: WriteReportInput): Promise<WrittenReport> {
  const data = await gather(deps, input);
  const report = await deps.store.put('report', renderPage(data));
  const { rounds, developmentEvaluations, ...rest } = input;
  const manifest: CampaignManifest = {
    ...rest,
    format: 'stillhouse/manifest/1',
    rounds: rounds.map((round, index) => {
      const developmentEvaluation = developmentEvaluations[index];
      return { ...round, ...(developmentEvaluation === undefined ? {} : { developmentEvaluation }) };
    }),
    models: data.models,
    report,
  };
  return { report, manifest: await putJson(deps.store, 'manifest', manifest) };
}

async function gather({ store, models }: ReportDeps, input: WriteReportInput): Promise<ReportData> {
  const spec = await getJson<CampaignSpec>(store, input.spec);
  const best = input.rounds.find((round) => round.round === input.bestRound);
  const hosted = best === undefined || spec.student.provider !== 'openai' ? undefined : await readHostedModel(store, best.checkpoint);
  const development = await Promise.all(input.developmentEvaluations.map((ref) => getJson<Evaluation>(store, ref)));
  const samples = best === undefined ? [] : await getRows<Sample>(store, best.dataset);
  const excluded = input.data?.excluded === undefined ? [] : await getRows<RejectedSample>(store, input.data.excluded);
  const rejected: RejectedSample[] = [...excluded];
  // Rows left out at import first, then those of the best round, whose dataset covers the rounds before it.
  if (best?.rejectedRows !== undefined) rejected.push(...(await getRows<RejectedSample>(store, best.rejectedRows)));
  return {
    spec,
    input,
    ...(input.testEvaluation === undefined ? {} : { test: await getJson<Evaluation>(store, input.testEvaluation) }),
    development,
    lossCurve: best === undefined ? [] : await getRows<ReportedLoss>(store, best.lossCurve),
    confidences: samples.flatMap((sample) => sample.confidence ?? []),
    ...(spec.sampling.softTargets === undefined ? {} : { softTargets: countSoftTargets(samples) }),
    rejections: countReasons(rejected),
    ...(excluded.length === 0 ? {} : { leftOut: [...Map.groupBy(excluded, ({ reason }) => reason)].map(([reason, rows]) => ({ reason, rows: rows.length, example: rows[0]?.detail ?? '' })) }),
    ...(input.tournament === undefined ? {} : { tournament: await gatherTournament(store, input.tournament) }),
    models: await modelFacts(models, spec, input, hosted),
    hashes: await namedHashes(store, input),
  };
}

async function gatherTournament(store: ArtifactStore, { spec: ref, contestants }: TournamentState): Promise<ReportedTournament> {
  const spec = await getJson<CampaignSpec>(store, ref);
  const methods = new Map(contestantsOf(spec).map(({ name, spec: own }) => [name, methodText(own.training, localStudentOf(own))]));
  const runnerUp = await compareWithRunnerUp(store, spec, contestants);
  return { contestants: contestants.map((contestant) => ({ ...contestant, method: methods.get(contestant.name) ?? '' })), ...(runnerUp === undefined ? {} : { runnerUp }) };
}

async function compareWithRunnerUp(store: ArtifactStore, { evaluation: { bootstrapResamples }, seed }: CampaignSpec, contestants: readonly ContestantState[]): Promise<ReportedTournament['runnerUp']> {
  const winner = contestants.find(({ status }) => status === 'winner')?.best;
  const [second] = contestants.filter(({ status, best }) => status !== 'winner' && best !== undefined).sort((a, b) => (b.best?.score.mean ?? 0) - (a.best?.score.mean ?? 0));
  if (winner === undefined || second?.best === undefined) return undefined;
  const [own, other] = await Promise.all([winner, second.best].map((best) => getJson<Evaluation>(store, best.evaluation)));
  const others = new Map(other?.rows.map(({ id, scores }) => [id, scores.student]));
  const differences = (own?.rows ?? []).flatMap(({ id, scores }) => {
    const theirs = others.get(id);
    return scores.student === undefined || theirs === undefined ? [] : [scores.student - theirs];
  });
  if (differences.length === 0) return undefined;
  return { name: second.name, rows: differences.length, difference: meanInterval(differences, { resamples: bootstrapResamples, seed }) };
}

function countSoftTargets(samples: readonly Sample[]): NonNullable<ReportData['softTargets']> {
  const packed = samples.flatMap(({ softTargets }) => softTargets ?? []);
  const positions = packed.reduce((sum, each) => sum + unpackSoftTargets(each).length, 0);
  return { rows: packed.length, of: samples.length, positions, sizeBytes: packed.reduce((sum, each) => sum + Buffer.byteLength(each, 'base64'), 0) };
}

function countReasons(rejected: readonly RejectedSample[]): readonly { readonly reason: RejectionReason; readonly rows: number }[] {
  return [...Map.groupBy(rejected, (row) => row.reason)].map(([reason, rows]) => ({ reason, rows: rows.length })).sort((a, b) => b.rows - a.rows || (a.reason < b.reason ? -1 : 1));
}

async function modelFacts(models: ReportModels, spec: CampaignSpec, { speed, finishedAtMs }: WriteReportInput, hosted: HostedModel | undefined): Promise<readonly ModelFacts[]> {
  const { scorer } = spec.evaluation;
  const asked = [
    { role: 'teacher' as const, endpoint: spec.teacher },
    { role: 'student' as const, endpoint: spec.student },
    ...(scorer.kind === 'judge' ? [{ role: 'judge' as const, endpoint: scorer.judge }] : []),
  ];
  return Promise.all(asked.map(async ({ role, endpoint }) => {
    const { provider, model } = endpoint;
    const retiresOn = retirementDay(endpoint, finishedAtMs);
    const measured = speed?.rows.find((row) => row.who.startsWith(role));
    // What was measured is the student as it is, with its own layers and weights.
    return { ...(await models.facts({ provider, model })), ...(retiresOn === undefined ? {} : { retiresOn }), ...(measured === undefined ? {} : { parameters: measured.parameters, sizeBytes: measured.sizeBytes }), role, name: model, ...(role === 'student' && hosted !== undefined ? { name: hosted.model, hosted } : {}) };
  }));
}

async function namedHashes(store: ArtifactStore, input: WriteReportInput): Promise<readonly NamedHash[]> {
  const named: (readonly [string, ArtifactRef | undefined])[] = [
    ['spec', input.spec],
    ['pool', input.data?.pool], ['development rows', input.data?.development], ['test rows', input.data?.test], ['rows left out at import', input.data?.excluded],
    ...input.rounds.flatMap((round, index): (readonly [string, ArtifactRef | undefined])[] => [
      [`round ${round.round}: dataset`, round.dataset],
      [`round ${round.round}: rejected rows`, round.rejectedRows],
      [`round ${round.round}: loss curve`, round.lossCurve],
      [`round ${round.round}: checkpoint`, round.checkpoint],
      [`round ${round.round}: evaluation`, input.developmentEvaluations[index]],
    ]),
    ['spec with the tournament', input.tournament?.spec],
    ...(input.tournament?.contestants ?? []).flatMap(({ name, best }): (readonly [string, ArtifactRef | undefined])[] => [[`${name}: checkpoint`, best?.checkpoint], [`${name}: evaluation`, best?.evaluation]]),
    ['test evaluation', input.testEvaluation],
    [`${input.adapter?.kind ?? 'adapter'} folder`, input.adapter],
  ];
  const hashes = named.flatMap(([name, ref]): NamedHash[] => (ref === undefined ? [] : [{ name, sha256: ref.sha256, sizeBytes: ref.sizeBytes }]));
  if (input.adapter === undefined) return hashes;
  const { files } = await getJson<FolderManifest>(store, input.adapter);
  return [...hashes, ...files.map((file) => ({ name: `${input.adapter?.kind ?? 'adapter'}: ${file.path}`, sha256: file.sha256, sizeBytes: file.sizeBytes }))];
}
