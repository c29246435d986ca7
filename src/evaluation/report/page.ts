/** The page: what a manager reads first comes first, every hash last. */
import type { SpeedRow, WriteReportInput } from '../../contracts/activities.ts';
import type { CampaignSpec } from '../../contracts/campaign-spec.ts';
import type { ReportedLoss, RejectionReason } from '../../contracts/records.ts';
import type { Interval, RoundSummary, Stage } from '../../contracts/state.ts';
import type { HostedModel } from '../../training/hosted/hosted-model.ts';
import { CONTESTANTS } from '../evaluation.ts';
import type { Contestant, Evaluation } from '../evaluation.ts';
import { comparisonSection } from './comparisons.ts';
import { count, dollars, duration, html, instant, markup, milliseconds, parameterCount, percent, percentRange, size } from './markup.ts';
import type { Markup } from './markup.ts';
import { barsPlot, classPlot, confidencePlot, intervalPlot, lossPlot, roundsPlot } from './plots.ts';
import { scoreFormat } from './score-format.ts';
import { STYLE } from './style.ts';
import { tournamentSection } from './tournament.ts';
import type { ReportedTournament } from './tournament.ts';

export interface ModelFacts {
  readonly role: 'teacher' | 'student' | 'judge';
  readonly name: string;
  readonly license: string;
  /** The day from which its provider answers no more, where that is known. */
  readonly retiresOn?: string;
  readonly sha256?: string;
  readonly parameters?: number;
  readonly sizeBytes?: number;
  /** Of a student that its provider serves: where, and what made it. */
  readonly hosted?: HostedModel;
}

export interface NamedHash {
  readonly name: string;
  readonly sha256: string;
  readonly sizeBytes?: number;
}

/** Everything that the page shows, read from the store already. */
export interface ReportData {
  readonly spec: CampaignSpec;
  readonly input: WriteReportInput;
  readonly test?: Evaluation;
  readonly development: readonly Evaluation[];
  /** Of the best round. */
  readonly lossCurve: readonly ReportedLoss[];
  readonly confidences: readonly number[];
  /** Where the spec wants them: of the accepted rows those that have soft targets, with the positions and bytes of all. */
  readonly softTargets?: { readonly rows: number; readonly of: number; readonly positions: number; readonly sizeBytes: number };
  readonly rejections: readonly { readonly reason: RejectionReason; readonly rows: number }[];
  /** Rows that import left out before anything was bought; `example` says of the first what it is. */
  readonly leftOut?: readonly { readonly reason: RejectionReason; readonly rows: number; readonly example: string }[];
  readonly tournament?: ReportedTournament;
  readonly models: readonly ModelFacts[];
  readonly hashes: readonly NamedHash[];
}

const NAMES: Readonly<Record<Contestant, string>> = { teacher: 'Teacher', untuned: 'Untuned', student: 'Student' };
const STOPPED: Readonly<Record<string, string>> = {
  'target-retention': 'the target retention was reached',
  'no-gain': 'another round brought no gain',
  'max-rounds': 'the number of rounds was reached',
  budget: 'the budget was spent',
  'no-inputs-left': 'no inputs were left to ask about',
  cancelled: 'it was cancelled',
};

export function renderPage(data: ReportData): string {
  const { spec, input } = data;
  const page = html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${spec.name} · Stillhouse report</title><style>${markup(STYLE)}</style></head>
<body><main>
<header><div class="kicker"><b>Stillhouse</b> · distillation report · ${instant(input.finishedAtMs)}</div>
<h1>${spec.name}</h1><p class="soft">${firstLines(spec.task.description)}</p></header>
${headline(data)}
${facts(data)}
${quality(data)}
${data.tournament !== undefined && tournamentSection(data.tournament, scoreFormat(spec))}
${training(data)}
${speedSection(data)}
${costSection(data)}
${modelSection(data)}
${provenance(data)}
<footer>Written by Stillhouse. This page needs no network: every figure is drawn from the artifacts named above.</footer>
</main></body></html>
`;
  return page.markup;
}

const firstLines = (text: string): string => (text.length <= 400 ? text : `${text.slice(0, 400)}…`);

/** What the interval allows to say, and no more. */
export function verdict(retention: Interval, rows: number, teacherName: string): string {
  const kept = `${percent(retention.mean)} of its teacher’s score`;
  const evidence = `on ${rows} rows that no earlier step saw (95 % interval ${percentRange(retention.low, retention.high)})`;
  if (retention.low > 1) return `The student does better than ${teacherName}: it reaches ${kept} ${evidence}.`;
  if (retention.high >= 1) return `The student keeps ${kept} ${evidence}. A difference from ${teacherName} is not measurable at this number of rows.`;
  return `The student keeps ${kept} ${evidence}; it is measurably behind ${teacherName}.`;
}

function headline(data: ReportData): Markup {
  const { test, spec, input } = data;
  const shown = test ?? data.development[input.rounds.findIndex((round) => round.round === input.bestRound)];
  if (shown === undefined) {
    return html`<p class="lead">No round was finished: the campaign ended because ${STOPPED[input.stopReason] ?? input.stopReason}. What was bought is kept and will not be bought again.</p>`;
  }
  const scores = scoreFormat(spec);
  const rows = CONTESTANTS.toReversed().flatMap((who) => {
    const result = shown.contestants[who];
    return result === undefined ? [] : [{ name: NAMES[who], className: who, interval: result.score }];
  });
  const where = test === undefined ? 'development rows; the test rows were not reached' : 'test rows';
  return html`<p class="lead">${verdict(shown.retention, shown.rows.length, spec.teacher.model)}</p>
<section class="hero"><div><div class="kicker">Retention</div><div class="figure">${(shown.retention.mean * 100).toFixed(1)}<small> %</small></div>
<p class="soft">${percentRange(shown.retention.low, shown.retention.high)}, 95 % paired bootstrap<br>student ÷ teacher, ${shown.rows.length} ${where}</p></div>
<div><h3>${capital(scores.name)} with 95 % interval</h3>${intervalPlot(rows, scores, `${capital(scores.name)} of student, untuned student and teacher`)}</div></section>`;
}

function trained({ spec: { training: { lora, epochs }, student }, models }: ReportData): string {
  if (student.provider === 'openai') {
    const hosted = models.find(({ role }) => role === 'student')?.hosted;
    return hosted === undefined ? 'fine-tuned by its provider' : `fine-tuned in ${epochs} epochs at ${hosted.provider}, job ${hosted.job}, and served there as ${hosted.model}`;
  }
  const { layers, keepLayers } = student;
  const kept = layers !== undefined ? `its layers ${layers.join(', ')}, ` : keepLayers !== undefined ? `${keepLayers} of its layers, ` : '';
  return `${kept}${lora === undefined ? 'all weights trained' : `trained with LoRA r = ${lora.r} on ${lora.targets.join(', ')}`}`;
}

function facts(data: ReportData): Markup {
  const { input, spec } = data;
  const best = input.rounds.find((round) => round.round === input.bestRound);
  const student = input.speed?.rows.find((row) => row.who === 'student');
  const items: readonly (readonly [string, string])[] = [
    [spec.student.provider === 'openai' ? 'Bought from teacher, judge and the student’s provider' : 'Bought from teacher and judge', dollars(input.spending.usd)],
    ['Wall clock', duration(input.finishedAtMs - input.startedAtMs)],
    ['Rounds', `${input.rounds.length}${best === undefined ? '' : `, best: ${best.round}`}`],
    ...(best === undefined ? [] : [['Training rows', count(best.accepted)] as const]),
    ...(student === undefined ? [] : [['One answer of the student', milliseconds(student.msMedian)] as const]),
    ['Stopped because', STOPPED[input.stopReason] ?? input.stopReason],
  ];
  return html`<dl class="facts">${items.map(([term, value]) => html`<div><dt>${term}</dt><dd${term === 'Stopped because' ? markup(' style="font-size:15px"') : ''}>${value}</dd></div>`)}</dl>
<p class="note" style="margin-top:12px">Teacher ${spec.teacher.model} (${spec.teacher.provider}), student ${spec.student.model}, ${trained(data)}.</p>`;
}

function quality(data: ReportData): Markup {
  const { spec, test, development, input } = data;
  const scores = scoreFormat(spec);
  const points = development.flatMap((evaluation, index) => {
    const { student, teacher } = evaluation.contestants;
    return student === undefined || teacher === undefined ? [] : [{ round: input.rounds[index]?.round ?? index + 1, student: student.score, teacher: teacher.score.mean }];
  });
  const shown = test ?? development.at(-1);
  const figures = [
    points.length > 0 && html`<figure><h3>${capital(scores.name)} by round</h3><figcaption>On ${development[0]?.rows.length ?? 0} development rows, which decide when to stop.</figcaption>${roundsPlot(points, scores)}</figure>`,
    shown?.labels !== undefined && html`<figure><h3>F1 by class</h3><figcaption>On ${shown.rows.length} ${test === undefined ? 'development' : 'test'} rows. ${present(shown).map((who) => html`<span class="key ${who}">${NAMES[who]}</span>`)}</figcaption>${classPlot(shown.labels.map((label, index) => ({
      label, support: shown.contestants.teacher?.classes?.[index]?.support ?? 0, bars: present(shown).map((who) => ({ className: who, value: shown.contestants[who]?.classes?.[index]?.f1 ?? 0 })),
    })))}</figure>`,
  ];
  if (!figures.some(Boolean)) return html``;
  return html`<h2>Quality</h2><div class="pair">${figures}</div>${shown !== undefined && scoreTable(shown, scores.format, scores.name)}${comparisonSection(shown?.comparisons ?? [], NAMES)}`;
}

const present = (evaluation: Evaluation): Contestant[] => (['teacher', 'untuned', 'student'] as const).filter((who) => evaluation.contestants[who] !== undefined);

function scoreTable(evaluation: Evaluation, format: (value: number) => string, name: string): Markup {
  const withF1 = evaluation.labels !== undefined;
  return html`<div class="scroll"><table><thead><tr><th></th><th class="n">${name}</th><th class="n">95 % interval</th>${withF1 && html`<th class="n">macro F1</th><th class="n">answers that name no label</th>`}</tr></thead><tbody>
${present(evaluation).map((who) => {
  const result = evaluation.contestants[who];
  if (result === undefined) return html``;
  const none = result.confusion?.reduce((sum, row) => sum + (row.at(-1) ?? 0), 0) ?? 0;
  return html`<tr${who === 'student' && markup(' class="us"')}><td>${NAMES[who]}</td><td class="n">${format(result.score.mean)}</td><td class="n">${format(result.score.low)} – ${format(result.score.high)}</td>${withF1 && html`<td class="n">${(result.macroF1 ?? 0).toFixed(3)}</td><td class="n">${none}</td>`}</tr>`;
})}</tbody></table></div>
${evaluation.calibration !== undefined && html`<p class="note">The teacher’s prior over the labels (${evaluation.calibration.labels.map((label, index) => `${label} ${(evaluation.calibration?.priorLogProbs[index] ?? 0).toFixed(2)}`).join(', ')} nats, the median over ${evaluation.calibration.rows} unlabelled rows) is subtracted before its answers are read.</p>`}
${evaluation.unscored.length > 0 && html`<p class="note">${evaluation.unscored.length} rows are left out for all three because the judge’s answer could not be read.</p>`}`;
}

function developmentNote(measured: readonly { readonly step: number; readonly lossNats: number }[]): string {
  const [first, ...others] = measured;
  if (first === undefined) return '';
  const best = others.reduce((low, point) => (point.lossNats < low.lossNats ? point : low), first);
  return ` Dots: the development loss, of rows that are not learned from; the student has the weights of step ${best.step}, where it was lowest (${best.lossNats.toFixed(3)}).`;
}

function training(data: ReportData): Markup {
  const { lossCurve, confidences, rejections, input, softTargets } = data;
  const starts = lossCurve.flatMap((point, index) => (index === 0 || point.epoch !== lossCurve[index - 1]?.epoch ? [index] : []));
  const measured = lossCurve.flatMap(({ step, developmentNats }, index) => (developmentNats === undefined ? [] : [{ index, step, lossNats: developmentNats }]));
  const figures = [
    lossCurve.length > 1 && html`<figure><h3>Training loss</h3><figcaption>Nats per answer token, round ${input.bestRound}; the strong line is a moving average.${developmentNote(measured)}</figcaption>${lossPlot(lossCurve.map((point) => point.lossNats), starts, measured)}</figure>`,
    confidences.length > 1 && html`<figure><h3>Confidence of the accepted rows</h3><figcaption>${count(confidences.length)} rows, ${data.spec.sampling.answersPerInput > 1 ? `the agreement among ${data.spec.sampling.answersPerInput} answers of the teacher` : 'the probability that the teacher gives its own label'}.</figcaption>${confidencePlot(confidences)}</figure>`,
    rejections.length > 0 && html`<figure><h3>Rejected rows by reason</h3><figcaption>Kept with their reason; nothing that was paid for is thrown away.</figcaption>${barsPlot(rejections.map(({ reason, rows }) => ({ name: reason.replaceAll('-', ' '), value: rows })), 'Rejected rows by reason')}</figure>`,
  ];
  if (input.rounds.length === 0) return html``;
  const { leftOut = [] } = data;
  const tooLong = input.rounds.find(({ round }) => round === input.bestRound)?.tooLongRows ?? 0;
  return html`<h2>Data and training</h2><div class="pair">${figures}</div>
${leftOut.length > 0 && html`<p class="note">Left out before anything was bought: ${leftOut.map(({ reason, rows, example }) => `${count(rows)} ${reason.replaceAll('-', ' ')} (the first: ${example})`).join('; ')}.</p>`}
${tooLong > 0 && html`<p class="note">${count(tooLong)} rows of the dataset are longer than training.maxTokens and were not learned.</p>`}
<div class="scroll"><table><thead><tr><th>Round</th><th class="n">newly asked</th><th class="n">accepted</th><th class="n">rejected</th><th class="n">loss, first → last</th><th class="n">student</th><th class="n">retention, 95 % interval</th></tr></thead><tbody>
${input.rounds.map((round) => html`<tr${round.round === input.bestRound && markup(' class="us"')}><td>${round.round}</td><td class="n">${count(round.requests)}</td><td class="n">${count(round.accepted)}</td><td class="n">${count(round.rejected)}</td><td class="n">${round.lossFirstNats.toFixed(3)} → ${round.lossLastNats.toFixed(3)}</td><td class="n">${scoreFormat(data.spec).format(round.studentScore)}</td><td class="n">${percent(round.retention.mean)} (${percentRange(round.retention.low, round.retention.high)})</td></tr>`)}
</tbody></table></div><p class="note">Accepted and rejected count all answers so far, student and retention are of the development rows. The best round is set in bold.</p>${softTargets !== undefined && html`<p class="note">${softTargetNote(softTargets, data.spec.teacher.model)}</p>`}`;
}

function speedSection({ input, spec }: ReportData): Markup {
  const rows = input.speed?.rows ?? [];
  const student = rows.find((row) => row.who === 'student');
  if (student === undefined) return html``;
  const rank: readonly SpeedRow['who'][] = ['teacher, prompt not cached', 'teacher, prompt cached', 'student'];
  const ordered = rows.toSorted((a, b) => rank.indexOf(a.who) - rank.indexOf(b.who));
  const sameModel = ordered.every((row) => row.parameters === student.parameters);
  return html`<h2>Speed and size</h2><div class="scroll"><table><thead><tr><th></th><th class="n">median</th><th class="n">95th percentile</th><th class="n">time ÷ student’s</th><th class="n">prompt tokens</th><th class="n">parameters</th><th class="n">size</th></tr></thead><tbody>
${ordered.map((row) => html`<tr${row.who === 'student' && markup(' class="us"')}><td>${capital(row.who)}</td><td class="n">${milliseconds(row.msMedian)}</td><td class="n">${milliseconds(row.msP95)}</td><td class="n">${(row.msMedian / student.msMedian).toFixed(2)} ×</td><td class="n">${count(row.promptTokens)}</td><td class="n">${parameterCount(row.parameters)}</td><td class="n">${size(row.sizeBytes)}</td></tr>`)}
</tbody></table></div><p class="note">Milliseconds for one answer, one at a time, on the same machine. “Prompt cached” keeps the part of the prompt that all questions share (instructions and ${spec.teacher.shots.length} worked examples) in memory and is how a dedicated server would run; “not cached” reads it anew with every answer.${sameModel ? ' Teacher and student have the same number of parameters: what the student saves is the longer prompt, and nothing where that is cached.' : ''}</p>`;
}

/** What the money section says beside its figures: where the campaign began, whom it asked, what may have been billed twice. */
function moneyNotes({ input, spec }: ReportData): string {
  const { uncertain, forkedFrom } = input;
  return [
    ...(uncertain === undefined ? [] : [`Those cost at most ${dollars(uncertain.usd)}, which counted against the limit.`]),
    ...(forkedFrom === undefined ? [] : [`Rounds 1 to ${forkedFrom.round} began with the answers of ${forkedFrom.campaign}.`]),
    ...(spec.teachers === undefined ? [] : [`Teachers, one after another: ${spec.teachers.map(({ model }) => model).join(', ')}.`]),
  ].join(' ');
}

function costSection(data: ReportData): Markup {
  const { input } = data;
  const { spending, rounds, budget } = input;
  const calls = spending.callsBought + spending.callsReused;
  const stages = (['selecting', 'sampling', 'filtering', 'training', 'evaluating'] satisfies Stage[]).filter((stage) => rounds.some((round) => (round.stageMs[stage] ?? 0) > 0));
  const total = (round: RoundSummary): number => Object.values(round.stageMs).reduce((sum, ms) => sum + ms, 0);
  return html`<h2>Cost and time</h2><dl class="facts">${[
    ['Spent', `${dollars(spending.usd)}${budget?.usd === undefined ? '' : ` of ${dollars(budget.usd)}`}`], ['Tokens', count(spending.tokens)], ...(spending.reasoningTokens === undefined ? [] : [['Of them for reasoning', count(spending.reasoningTokens)] as const]), ['Calls bought', count(spending.callsBought)], ['Calls reused', count(spending.callsReused)], ['Possibly bought twice', count(spending.callsRepeated)],
  ].map(([term, value]) => html`<div><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>
<p class="note" style="margin-top:12px">Teacher and judge together.${calls > 0 && ` ${percent(spending.callsReused / calls, 0)} of the answers were in the ledger already.`} “Possibly bought twice” counts calls in flight when a process died: they may have been paid for without an answer being kept. ${moneyNotes(data)}</p>
${stages.length > 0 && html`<div class="scroll"><table><thead><tr><th>Time by stage</th>${stages.map((stage) => html`<th class="n">${stage}</th>`)}<th class="n">round</th></tr></thead><tbody>
${rounds.map((round) => html`<tr><td>Round ${round.round}</td>${stages.map((stage) => html`<td class="n">${round.stageMs[stage] === undefined ? '–' : duration(round.stageMs[stage])}</td>`)}<td class="n">${duration(total(round))}</td></tr>`)}
</tbody></table></div><p class="note">Wall clock, waiting and restarts included. Preparing, the final test and this report make up the rest of ${duration(input.finishedAtMs - input.startedAtMs)}.</p>`}`;
}

function modelSection({ models }: ReportData): Markup {
  return html`<h2>Models and licences</h2><div class="scroll"><table><thead><tr><th>Role</th><th>Model</th><th>Licence</th><th class="n">parameters</th><th class="n">size</th><th>SHA-256 of the weights</th></tr></thead><tbody>
${models.map((model) => html`<tr><td>${capital(model.role)}</td><td>${model.name}</td><td>${model.license}${model.retiresOn !== undefined && `; the provider retires it on ${model.retiresOn}`}</td><td class="n">${model.parameters === undefined ? '–' : parameterCount(model.parameters)}</td><td class="n">${model.sizeBytes === undefined ? '–' : size(model.sizeBytes)}</td><td><code>${model.sha256 ?? '–'}</code></td></tr>`)}
</tbody></table></div><p class="note">A teacher’s licence or terms may bind what is trained on its answers: read them before the student leaves the house.</p>`;
}

function provenance({ hashes, spec }: ReportData): Markup {
  return html`<h2>Provenance</h2><p class="soft">Every artifact by the SHA-256 of its bytes. The same spec, data and answers give the same dataset hash, and on the same machine the same adapter.</p>
<details open><summary>${hashes.length} artifacts</summary><div class="scroll"><table><thead><tr><th>Artifact</th><th>SHA-256</th><th class="n">size</th></tr></thead><tbody>
${hashes.map((entry) => html`<tr><td>${entry.name}</td><td><code>${entry.sha256}</code></td><td class="n">${entry.sizeBytes === undefined ? '–' : size(entry.sizeBytes)}</td></tr>`)}
</tbody></table></div></details><details><summary>The spec, defaults filled in</summary><pre>${JSON.stringify(spec, null, 2)}</pre></details>`;
}

function softTargetNote({ rows, of, positions, sizeBytes }: NonNullable<ReportData['softTargets']>, teacher: string): string {
  if (rows === 0) return `Soft targets were wanted, but ${teacher} gave no log-probabilities with any of ${count(of)} accepted answers: the student learns from the text alone.`;
  return `Soft targets: ${count(rows)} of ${count(of)} accepted rows, ${count(positions)} tokens at ${(sizeBytes / positions).toFixed(1)} bytes each.${rows < of ? ` With the others ${teacher} gave no log-probabilities.` : ''}`;
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
