/** The part of the page on answers that a judge compared in pairs. */
import type { Comparison, Contestant } from '../evaluation.ts';
import { count, html, percent, percentRange } from './markup.ts';
import type { Markup } from './markup.ts';

export function comparisonSection(comparisons: readonly Comparison[], names: Readonly<Record<Contestant, string>>): Markup {
  if (comparisons.length === 0) return html``;
  return html`<h3>Compared in pairs</h3><div class="scroll"><table><thead><tr><th></th><th class="n">win rate</th><th class="n">95 % interval</th><th class="n">wins</th><th class="n">ties</th><th class="n">losses</th><th class="n">judged apart in the two orders</th></tr></thead><tbody>
${comparisons.map((each) => html`<tr><td>${names[each.contestant]} against ${names[each.against].toLowerCase()}</td><td class="n">${each.winRate === undefined ? '–' : percent(each.winRate.mean)}</td><td class="n">${each.winRate === undefined ? '–' : percentRange(each.winRate.low, each.winRate.high)}</td><td class="n">${count(each.wins)}</td><td class="n">${count(each.ties)}</td><td class="n">${count(each.losses)}</td><td class="n">${count(each.inconsistent)}</td></tr>`)}
</tbody></table></div><p class="note">The judge saw each pair in both orders; only what it preferred in both counts as won or lost, and a tie as half a win. ${comparisons.map((each) => html`${bias(each, names)} `)}</p>`;
}

/** How far the judge's verdicts depended on the order. */
function bias(each: Comparison, names: Readonly<Record<Contestant, string>>): string {
  const asked = each.rows - each.identical;
  if (asked === 0) return `All ${each.rows} answers of ${names[each.contestant].toLowerCase()} and ${names[each.against].toLowerCase()} are the same.`;
  const unread = each.unread === 0 ? '' : `; ${each.unread} pairs are left out because a judgement could not be read`;
  return `Against ${names[each.against].toLowerCase()}, position bias: in ${percent(each.inconsistent / asked, 0)} of ${asked} pairs that differ the order changed the verdict (${each.favouredFirst} times for whichever stood first, ${each.favouredSecond} for whichever stood second)${unread}.`;
}
