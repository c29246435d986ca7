/** What a tournament trains and measures before its winner is known: who goes on decides, so that the bounds are those of the shortest and the longest. */
import { rungEpochs, survivors } from '../contracts/rungs.ts';
import type { Halving } from '../contracts/rungs.ts';

export interface TournamentWork {
  /** Epochs of all contestants together, each counted as often as its student is large. */
  readonly epochs: number;
  /** How often the development rows are answered and scored. */
  readonly measurements: number;
}

export interface ContestantSize {
  readonly epochs: number;
  /** Of its student, in any unit. */
  readonly size: number;
}

/** The work if at each rung those go on whose epochs to come are the least or the most. */
export function tournamentWork(contestants: readonly ContestantSize[], rule: Halving, goOn: 'least' | 'most'): TournamentWork {
  const sign = goOn === 'least' ? 1 : -1;
  let left = contestants.toSorted((a, b) => sign * (a.epochs * a.size - b.epochs * b.size));
  let [epochs, measurements] = [0, 0];
  for (let rung = 0, before = 0; left.some((each) => each.epochs > before); rung += 1) {
    const after = rungEpochs(rule, rung);
    for (const each of left) {
      if (each.epochs <= before) continue;
      epochs += (Math.min(after, each.epochs) - before) * each.size;
      measurements += 1;
    }
    left = left.slice(0, survivors(rule, left.length));
    before = after;
  }
  return { epochs, measurements };
}
