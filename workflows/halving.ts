/**
 * Who goes on in a tournament: successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943, figure 3; the reduction
 * factor η as in Hyperband, Li et al. 2018, arXiv 1603.06560). All contestants train for r epochs, the best 1/η of them for
 * η·r in all, and so on, until one is left. As in Hyperband a contestant stands by the best score it has had. Pure.
 */
import { survivors } from '../src/contracts/rungs.ts';
import type { Halving } from '../src/contracts/rungs.ts';

/** What the rule needs of a contestant that is still in, in the spec's order. */
export interface Standing {
  readonly name: string;
  /** The highest development score so far, and the epoch after which it was measured. */
  readonly score: number;
  readonly epoch: number;
  /** It trains no more: its epochs are over, its development loss ended it, or it failed with a student that counts. */
  readonly over: boolean;
}

export interface Verdict {
  /** Those that leave, the best of them first. */
  readonly stopped: readonly { readonly name: string; readonly reason: string }[];
  readonly winner?: { readonly name: string; readonly reason: string };
}

/** Best first. The earlier in the spec stays ahead on a tie: its order is the order of preference. */
export function ranked(standings: readonly Standing[]): readonly Standing[] {
  return standings.toSorted((a, b) => b.score - a.score);
}

/** The comparison at one rung. Where none would train any further the best of them wins at once. */
export function compareRung(standings: readonly Standing[], rule: Halving): Verdict {
  const order = ranked(standings);
  const keep = order.every(({ over }) => over) ? 1 : survivors(rule, order.length);
  const [first, second] = order;
  const last = order[keep - 1];
  if (first === undefined || last === undefined) return { stopped: [] };
  const stopped = order.slice(keep).map((each, index) => ({ name: each.name, reason: lost(each, keep + index + 1, order.length, last, keep) }));
  if (keep > 1 || !first.over) return { stopped };
  return { stopped, winner: { name: first.name, reason: won(first, second) } };
}

const percent = (score: number): string => `${(100 * score).toFixed(1)} %`;

function lost({ score }: Standing, place: number, of: number, last: Standing, keep: number): string {
  const against = `${percent(score)} against ${percent(last.score)} of ${last.name}`;
  const tie = score === last.score ? ', which the spec names first' : '';
  return `place ${place} of ${of} on the development rows, ${against}${tie}: ${keep === 1 ? 'one stays' : `${keep} go on`}`;
}

/** `second` is whom it beat last; absent where nobody was left to beat. */
function won({ score, epoch }: Standing, second: Standing | undefined): string {
  const own = `the highest development score, ${percent(score)} after epoch ${epoch}`;
  if (second === undefined) return own;
  return score === second.score ? `${own}, a tie with ${second.name}, which the spec names later` : `${own}, against ${percent(second.score)} of ${second.name}`;
}
