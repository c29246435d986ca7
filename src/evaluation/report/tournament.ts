/** The part of the page on a tournament: how its contestants trained, how far each came, and why one of them won. */
import type { ContestantState, Interval } from '../../contracts/state.ts';
import { count, dollars, duration, html, size } from './markup.ts';
import type { Markup } from './markup.ts';
import { contestantsPlot } from './plots.ts';
import type { ScoreFormat } from './score-format.ts';

export interface ReportedContestant extends ContestantState {
  /** `logit, all weights, 15 layers`. */
  readonly method: string;
}

export interface ReportedTournament {
  readonly contestants: readonly ReportedContestant[];
  /** The best of the others, where both were measured: the winner's score less its, on the same rows. */
  readonly runnerUp?: { readonly name: string; readonly rows: number; readonly difference: Interval };
}

export function tournamentSection({ contestants, runnerUp }: ReportedTournament, scores: ScoreFormat): Markup {
  const { name, format } = scores;
  const winner = contestants.find(({ status }) => status === 'winner');
  const plotted = contestants.filter(({ measured }) => measured.length > 0);
  return html`<h2>Tournament</h2><p>${winner === undefined ? 'It was not decided: the campaign ended before one contestant was left.' : html`<b>${winner.name}</b> (${winner.method}) won: ${winner.ended?.reason}.`}${runnerUp !== undefined && ` ${certainty(runnerUp, scores.difference)}`}</p>
${plotted.length > 0 && html`<figure><h3>Development ${name} by epoch</h3><figcaption>Compared after each rung of successive halving; a line ends where its contestant was stopped.</figcaption>${contestantsPlot(plotted, scores)}</figure>`}
<div class="scroll"><table><thead><tr><th>Contestant</th><th>Trains</th><th class="n">${name}</th><th class="n">95 % interval</th><th class="n">epochs</th><th class="n">size</th><th class="n">answers, tokens/s</th><th class="n">training</th><th class="n">judged for</th><th>Ended</th></tr></thead><tbody>
${contestants.toSorted(byScore).map(row(format))}
</tbody></table></div><p class="note">Scores are of the development rows, each contestant’s best; the epoch that had it stands in brackets. One dataset was bought for all; what a contestant cost beyond that is its time on the device and the judging of its answers. Tokens per second, prompt and answer, are of answering the development rows in batches on the machine as it was.</p>`;
}

const byScore = (a: ContestantState, b: ContestantState): number =>
  Number(b.status === 'winner') - Number(a.status === 'winner') || b.trained - a.trained || (b.best?.score.mean ?? -1) - (a.best?.score.mean ?? -1);

const row = (format: (value: number) => string) => ({ name, method, status, best, trained, epochs, sizeBytes, answeredTokens, answeredSeconds, trainedSeconds, usd, ended }: ReportedContestant): Markup =>
  html`<tr${status === 'winner' && { markup: ' class="us"' }}><td>${name}</td><td>${method}</td><td class="n">${best === undefined ? '–' : `${format(best.score.mean)} (${best.epoch})`}</td><td class="n">${best === undefined ? '–' : `${format(best.score.low)} – ${format(best.score.high)}`}</td><td class="n">${trained} of ${epochs}</td><td class="n">${sizeBytes === undefined ? '–' : size(sizeBytes)}</td><td class="n">${answeredSeconds > 0 ? count(answeredTokens / answeredSeconds) : '–'}</td><td class="n">${duration(1_000 * trainedSeconds)}</td><td class="n">${dollars(usd)}</td><td>${ended === undefined ? status : `${status} after epoch ${ended.epoch}: ${ended.reason}`}</td></tr>`;

/** What the rows allow to say of the winner and the next best, and no more. */
export function certainty({ name, rows, difference }: NonNullable<ReportedTournament['runnerUp']>, format: (value: number) => string): string {
  const { mean, low, high } = difference;
  const ahead = `Against ${name} it is ahead by ${format(mean)} on the same ${rows} rows (95 % paired bootstrap ${format(low)} to ${format(high)})`;
  return low > 0 ? `${ahead}.` : `${ahead}: a difference that so few rows do not prove.`;
}

/** How a contestant trains, in a few words. */
export function methodText({ method, tune }: { readonly method: string; readonly tune: string }, { model, layers, keepLayers }: { readonly model: string; readonly layers?: readonly number[] | undefined; readonly keepLayers?: number | undefined }): string {
  const kept = layers?.length ?? keepLayers;
  return [method, tune === 'full' ? 'all weights' : 'LoRA', kept === undefined ? model : `${kept} layers of ${model}`].join(', ');
}
