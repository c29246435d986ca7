/** Text for people: tables, bars, durations, percentages. */
import type { CampaignListing } from '../client/campaigns.ts';
import { formatUsd } from '../contracts/money.ts';
import type { ContestantState, Interval, Stage } from '../contracts/state.ts';
import type { FirstAnswers } from '../contracts/activities.ts';
import type { Range } from '../estimate/estimate.ts';
import type { CampaignResource, CheckAnswer, EstimateAnswer } from './api-client.ts';
import { columnsOf, padded } from './terminal.ts';

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((cell, column) => Math.max(...[cell, ...rows.map((row) => row[column] ?? '')].map(columnsOf)));
  const line = (cells: readonly string[]): string => cells.map((cell, column) => padded(cell, widths[column] ?? 0)).join('  ').trimEnd();
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n');
}

export function bar(share: number, width: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  return '█'.repeat(full) + '░'.repeat(width - full);
}

export function duration(ms: number): string {
  const seconds = ms / 1_000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;
export const megabytes = (bytes: number): string => `${(bytes / 1_000_000).toFixed(1)} MB`;
export const interval = ({ mean, low, high }: Interval): string => `${mean.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`;
export const when = (ms: number): string => new Date(ms).toISOString().replace('T', ' ').slice(0, 16);

export function listTable(campaigns: readonly CampaignListing[]): string {
  if (campaigns.length === 0) return 'no campaigns so far';
  return table(
    ['campaign', 'status', 'stage', 'round', 'retention', 'spent $', 'started (UTC)'],
    campaigns.map((one) => [
      one.campaign,
      one.status === 'running' ? (one.campaignStatus ?? one.status) : one.status,
      one.stage ?? '',
      one.round?.toString() ?? '',
      one.retention?.toFixed(3) ?? '',
      one.spentUsd?.toFixed(4) ?? '',
      when(one.startedAtMs),
    ]),
  );
}

function roundsTable({ rounds }: CampaignResource): string {
  return table(
    ['round', 'asked', 'kept so far', 'turned away so far', 'loss first → last', 'teacher', 'student', 'retention [95 %]'],
    rounds.map((round) => [
      String(round.round), String(round.requests), String(round.accepted), String(round.rejected),
      `${round.lossFirstNats.toFixed(3)} → ${round.lossLastNats.toFixed(3)}`, percent(round.teacherScore), percent(round.studentScore), interval(round.retention),
    ]),
  );
}

function contestantsTable(contestants: readonly ContestantState[]): string {
  return table(
    ['contestant', 'status', 'epochs', 'score [95 %]', 'of epoch', 'why'],
    contestants.map(({ name, status, trained, epochs, best, ended }) => [
      name, status, `${trained}/${epochs}`, best === undefined ? '' : interval(best.score), best?.epoch.toString() ?? '', ended?.reason ?? '',
    ]),
  );
}

/** Everything about one campaign that fits a terminal. */
export function campaignText(campaign: CampaignResource): string {
  const { state } = campaign;
  const lines = [`${campaign.campaign}: ${state?.status === 'paused' ? 'paused' : campaign.status}`];
  if (campaign.failure !== undefined) lines.push(`failure: ${campaign.failure}`);
  if (state === undefined) {
    if (campaign.status === 'running') lines.push('its state is not known at the moment: no worker answered');
    return lines.join('\n');
  }
  if (state.forkedFrom !== undefined) lines.push(`began with round ${state.forkedFrom.round} of ${state.forkedFrom.campaign}`);
  if (state.pauseReason !== undefined && state.status === 'paused') lines.push(`paused: ${state.pauseReason}`);
  if (state.pausedBy !== undefined || state.pausedAtMs !== undefined) lines.push(`  by ${state.pausedBy ?? 'somebody'}${state.pausedAtMs === undefined ? '' : `, since ${when(state.pausedAtMs)} UTC`}${state.pauseCode === undefined ? '' : `, ${state.pauseCode}`}`);
  for (const { command, effect } of state.remedies ?? []) lines.push(`  to go on: ${command}     # ${effect}`);
  if (state.kept !== undefined) lines.push(`kept: epoch ${state.kept.epoch} goes on${state.kept.step === undefined ? ' from its newest checkpoint' : ` after step ${state.kept.step} of ${state.kept.steps}`}`);
  if (state.trainedAnew !== undefined) lines.push(`trained anew from the first epoch: ${state.trainedAnew}`);
  if (state.resumesAtMs !== undefined) lines.push(`the provider is asked again by itself at ${new Date(state.resumesAtMs).toISOString()}, or at once by resume`);
  if (campaign.status === 'running') lines.push(`round ${state.round} of at most ${state.maxRounds}, ${state.stage}, ${percent(state.progress)}`);
  const { spending, budget } = state;
  const limit = budget.usd === undefined ? '' : ` of ${formatUsd(budget.usd)}`;
  lines.push(`spent: ${formatUsd(spending.usd)}${limit}, ${spending.tokens} tokens${spending.reasoningTokens === undefined ? '' : ` (${spending.reasoningTokens} for reasoning)`}, ${spending.callsBought} calls bought, ${spending.callsReused} reused, ${spending.callsRepeated} possibly repeated`);
  if (state.inFlight !== undefined) lines.push(`set aside for what is in flight: ${formatUsd(state.inFlight.usd)}, ${state.inFlight.tokens} tokens`);
  if (state.uncertain !== undefined) lines.push(`possibly billed twice: at most ${formatUsd(state.uncertain.usd)}, ${state.uncertain.tokens} tokens; counted against the budget`);
  if (state.firstAnswers !== undefined && state.firstAnswers.answers.length > 0) lines.push('', firstAnswersText(state.firstAnswers));
  if (state.tournament !== undefined) lines.push('', 'tournament, by the development rows', contestantsTable(state.tournament.contestants));
  if (campaign.rounds.length > 0) lines.push('', 'development rows', roundsTable(campaign));
  if (state.test !== undefined) {
    const { test } = state;
    lines.push('', `test: ${test.rows} rows that no earlier step saw`, table(['who', 'score', 'retention [95 %]'], [
      ['teacher', percent(test.teacherScore), ''],
      ['untuned student', percent(test.untunedScore), ''],
      ['student', percent(test.studentScore), interval(test.retention)],
    ]));
  }
  if (state.stopReason !== undefined) lines.push('', `stopped: ${state.stopReason}, best round ${state.bestRound ?? 'none'}`);
  return lines.join('\n');
}

const STAGES_OF_A_ROUND: readonly Stage[] = ['preparing', 'selecting', 'sampling', 'filtering', 'training', 'evaluating'];

/** Wall-clock time of each phase. `observed` holds what the rounds themselves do not tell. */
export function phasesTable(campaign: CampaignResource, observed: ReadonlyMap<string, number>): string {
  const rows: string[][] = [];
  const told = new Set<string>();
  for (const { round, stageMs } of campaign.rounds) {
    for (const stage of STAGES_OF_A_ROUND) {
      const ms = stageMs[stage];
      if (ms === undefined) continue;
      told.add(`${round} ${stage}`);
      rows.push([String(round), stage, duration(ms)]);
    }
  }
  for (const [key, ms] of observed) {
    const [round = '', stage = ''] = key.split(' ');
    if (!told.has(key) && stage !== 'finished') rows.push([stage === 'testing' || stage === 'reporting' || stage === 'preparing' || round === '' ? '' : round, stage, duration(ms)]);
  }
  return table(['round', 'phase', 'time'], rows);
}

const rangeText = ({ low, expected, high }: Range, text: (value: number) => string): string => (low === high ? text(expected) : `${text(low)} – ${text(expected)} – ${text(high)}`);
const cents = (usd: number): string => `$${usd.toFixed(usd >= 1 || usd === 0 ? 2 : 4)}`;
const hours = (value: number): string => duration(value * 3_600_000);

/** What came of the first question of each kind. */
export function firstAnswersText({ answers, learned }: FirstAnswers): string {
  const rows = answers.map(({ who, model, promptTokens, completionTokens, reasoningTokens, usd, latencyMs, answer, problem }) => [
    who, model, String(promptTokens), `${completionTokens}${reasoningTokens === undefined ? '' : ` (${reasoningTokens} for reasoning)`}`, formatUsd(usd), duration(latencyMs), problem === undefined ? answer : `${answer} – ${problem}`,
  ]);
  return [
    ...(rows.length === 0 ? ['nobody at an endpoint is asked'] : [table(['first question', 'model', 'prompt', 'tokens written', 'dollars', 'took', 'answer'], rows)]),
    ...learned.map((line) => `  learned of ${line}`),
  ].join('\n');
}

export function checkText(name: string, { leftOut, problem, warnings, usd, poolRows, developmentRows, testRows, ...found }: CheckAnswer): string {
  return [
    `check of ${name}: ${poolRows} rows to ask about, ${developmentRows} development rows, ${testRows} test rows; nothing was started`,
    ...leftOut.map(({ reason, rows, example }) => `left out: ${rows} ${rows === 1 ? 'row' : 'rows'}, ${reason}, as ${example}`),
    firstAnswersText(found),
    ...(usd === 0 ? [] : [`bought for ${formatUsd(usd)}; the campaign does not buy it again`]),
    ...warnings.map((warning) => `warning: ${warning}`),
    problem === undefined ? 'every answer can be used' : `cannot be used: ${problem}`,
  ].join('\n');
}

/** Low, expected and high, by part and in all. */
export function estimateText(name: string, { parts, calls, tokens, reasoningTokens, usd, callHours, trainingHours, answeredAlready, leftOut = [], basis, warnings }: EstimateAnswer): string {
  const row = (what: string, model: string, part: { readonly calls: Range; readonly tokens: Range; readonly usd: Range }): readonly string[] =>
    [what, model, rangeText(part.calls, String), rangeText(part.tokens, String), rangeText(part.usd, cents)];
  return [
    `estimate for ${name}: low – expected – high`,
    table(['what', 'model', 'calls', 'tokens', 'dollars'], [...parts.map((part) => row(part.what, part.model, part)), row('in all', '', { calls, tokens, usd })]),
    `the calls take ${rangeText(callHours, hours)}${answeredAlready === 0 ? '' : `; ${answeredAlready} more questions are answered by the ledger and cost nothing`}`,
    ...(reasoningTokens.high === 0 ? [] : [`of the tokens ${rangeText(reasoningTokens, String)} are for reasoning, billed as output`]),
    ...leftOut.map(({ reason, rows, example }) => `left out before anything is bought: ${rows} ${rows === 1 ? 'row' : 'rows'}, ${reason}, as ${example}`),
    ...(trainingHours === undefined ? [] : [`training on two cores takes ${rangeText(trainingHours, hours)}`]),
    ...basis.map((line) => `  ${line}`),
    ...warnings.map((warning) => `warning: ${warning}`),
  ].join('\n');
}
