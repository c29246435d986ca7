/** What an operator reads about a campaign in Temporal's own UI, as Markdown. */
import { formatUsd } from '../src/contracts/money.ts';
import type { CampaignState, ContestantState, KeptTraining } from '../src/contracts/state.ts';

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

function limit(spent: string, allowed: number | undefined, unit: string): string {
  return allowed === undefined ? `${spent} ${unit}` : `${spent} of ${allowed} ${unit}`;
}

export function describeState(state: CampaignState): string {
  const { spending, budget, bestRetention } = state;
  const lines = [
    `**${state.status}** · ${state.stage} · round ${state.round} of ${state.maxRounds} · ${Math.round(100 * state.progress)} % of this stage`,
    '',
    ...(state.pauseReason === undefined ? [] : [`> Paused: ${state.pauseReason}${state.resumesAtMs === undefined ? '' : `. Asked again by itself at ${new Date(state.resumesAtMs).toISOString()}`}`, '']),
    ...(state.pausedBy === undefined ? [] : [`- Paused by ${state.pausedBy}${state.pausedAtMs === undefined ? '' : ` since ${new Date(state.pausedAtMs).toISOString()}`}`]),
    ...(state.remedies ?? []).map(({ command, effect }) => `- To go on: \`${command}\` (${effect})`),
    ...(state.kept === undefined ? [] : [`- Kept: ${keptText(state.kept)}`]),
    ...(state.trainedAnew === undefined ? [] : [`- Trained anew from the first epoch: ${state.trainedAnew}`]),
    `- Spent: ${limit(spending.usd.toFixed(4), budget.usd, 'USD')}, ${limit(String(spending.tokens), budget.tokens, 'tokens')}${budget.hours === undefined ? '' : `, time limit ${budget.hours} hours`}`,
    ...(state.inFlight === undefined ? [] : [`- In flight: at most ${formatUsd(state.inFlight.usd)}, ${state.inFlight.tokens} tokens`]),
    ...(state.uncertain === undefined ? [] : [`- Possibly billed twice: at most ${formatUsd(state.uncertain.usd)}, ${state.uncertain.tokens} tokens; counted against the budget`]),
    ...(spending.reasoningTokens === undefined ? [] : [`- Of the tokens ${spending.reasoningTokens} were spent on reasoning`]),
    `- Calls: ${spending.callsBought} bought, ${spending.callsReused} found in the ledger, ${spending.callsRepeated} possibly bought twice`,
  ];
  for (const each of state.tournament?.contestants ?? []) lines.push(describeContestant(each));
  if (bestRetention !== undefined && state.bestRound !== undefined) {
    lines.push(`- Best: round ${state.bestRound}, retention ${percent(bestRetention.mean)} (${percent(bestRetention.low)} to ${percent(bestRetention.high)}) on the development rows`);
  }
  if (state.test !== undefined) {
    const { test } = state;
    lines.push(`- Test, ${test.rows} rows: teacher ${percent(test.teacherScore)}, untuned ${percent(test.untunedScore)}, student ${percent(test.studentScore)}, retention ${percent(test.retention.mean)}`);
  }
  if (state.stopReason !== undefined) lines.push(`- Stopped: ${state.stopReason}`);
  return lines.join('\n');
}

const keptText = ({ epoch, step, steps, checkpoint }: KeptTraining): string => `epoch ${epoch} goes on ${step === undefined ? '' : `after step ${step} of ${steps}, `}from checkpoint ${checkpoint.sha256.slice(0, 12)}`;

function describeContestant({ name, status, trained, epochs, kept, best, ended }: ContestantState): string {
  const score = best === undefined ? '' : `, ${percent(best.score.mean)} on the development rows after epoch ${best.epoch}`;
  return `- ${name}: ${status}, ${trained} of ${epochs} epochs${kept === undefined ? '' : ` (${keptText(kept)})`}${score}${ended === undefined ? '' : `; ${ended.reason}`}`;
}
