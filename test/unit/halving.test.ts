import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { rungEpochs } from '../../src/contracts/rungs.ts';
import { tournamentWork } from '../../src/estimate/tournament.ts';
import { compareRung } from '../../workflows/halving.ts';
import type { Standing } from '../../workflows/halving.ts';

const standing = (name: string, score: number, over = false): Standing => ({ name, score, epoch: 1, over });
const halving = { firstRung: 1, reductionFactor: 2 };
const stopped = (standings: readonly Standing[], rule = halving): readonly string[] => compareRung(standings, rule).stopped.map(({ name }) => name);

describe('successive halving', () => {
  it('compares after r, η·r, η²·r epochs', () => {
    assert.deepEqual([0, 1, 2, 3].map((rung) => rungEpochs(halving, rung)), [1, 2, 4, 8]);
    assert.deepEqual([0, 1, 2].map((rung) => rungEpochs({ firstRung: 2, reductionFactor: 3 }, rung)), [2, 6, 18]);
  });

  it('keeps the best half, a third at η = 3, and never stops the last one', () => {
    const four = [standing('a', 0.7), standing('b', 0.9), standing('c', 0.8), standing('d', 0.6)];
    assert.deepEqual(stopped(four), ['a', 'd']);
    assert.deepEqual(stopped(four, { firstRung: 1, reductionFactor: 3 }), ['a', 'd']);
    assert.deepEqual(stopped(four, { firstRung: 1, reductionFactor: 4 }), ['c', 'a', 'd']);
    assert.deepEqual(stopped(four.slice(0, 3)), ['a']);
    assert.deepEqual(stopped(four.slice(0, 1)), []);
    assert.equal(compareRung(four, halving).winner, undefined);
  });

  it('says of each that leaves its place, its score and whom it would have had to beat', () => {
    const { stopped: left } = compareRung([standing('a', 0.7), standing('b', 0.9), standing('c', 0.8), standing('d', 0.6)], halving);
    assert.deepEqual(left.map(({ reason }) => reason), [
      'place 3 of 4 on the development rows, 70.0 % against 80.0 % of c: 2 go on',
      'place 4 of 4 on the development rows, 60.0 % against 80.0 % of c: 2 go on',
    ]);
  });

  it('lets the one that the spec names first go on when scores are equal', () => {
    const { stopped: left } = compareRung([standing('first', 0.8), standing('second', 0.8)], halving);
    assert.deepEqual(left, [{ name: 'second', reason: 'place 2 of 2 on the development rows, 80.0 % against 80.0 % of first, which the spec names first: one stays' }]);
  });

  it('names the winner when one is left whose training is over', () => {
    assert.equal(compareRung([standing('a', 0.8)], halving).winner, undefined);
    assert.deepEqual(compareRung([standing('a', 0.8, true)], halving).winner, { name: 'a', reason: 'the highest development score, 80.0 % after epoch 1' });
    assert.deepEqual(compareRung([standing('a', 0.8, true), standing('b', 0.7)], halving).winner, { name: 'a', reason: 'the highest development score, 80.0 % after epoch 1, against 70.0 % of b' });
  });

  it('names the winner at once when none would train any further', () => {
    const { stopped: left, winner } = compareRung([standing('a', 0.8, true), standing('b', 0.8, true), standing('c', 0.9, true), standing('d', 0.9, true)], halving);
    assert.deepEqual(left.map(({ name }) => name), ['d', 'a', 'b']);
    assert.equal(winner?.reason, 'the highest development score, 90.0 % after epoch 1, a tie with d, which the spec names later');
    assert.deepEqual(compareRung([], halving), { stopped: [] });
  });

  it('is estimated by the shortest and the longest way through it', () => {
    const four = [3, 3, 3, 9].map((epochs) => ({ epochs, size: 1 }));
    // 4 × 1, then two to epoch 2, then one to epoch 3.
    assert.deepEqual(tournamentWork(four, halving, 'least'), { epochs: 7, measurements: 7 });
    // 4 × 1, then two to epoch 2, then the long one to 4, 8 and 9.
    assert.deepEqual(tournamentWork(four, halving, 'most'), { epochs: 13, measurements: 9 });
    assert.deepEqual(tournamentWork([{ epochs: 2, size: 1 }, { epochs: 2, size: 3 }], { firstRung: 2, reductionFactor: 2 }, 'most'), { epochs: 8, measurements: 2 });
  });
});
