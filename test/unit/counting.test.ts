/** Word problems with ground truth: distinct, repeatable, each with a rationale that its checker follows. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checkRationale, COUNTING_LABELS, countingProblems } from '../../src/dataset/counting.ts';

const OPTIONS = { seed: 17, rows: 2_000, steps: [1, 3] as const };

describe('counting problems', () => {
  const problems = countingProblems(OPTIONS);

  it('are distinct, repeatable, and the first of more', () => {
    assert.equal(new Set(problems.map(({ input }) => input)).size, 2_000);
    assert.deepEqual(countingProblems(OPTIONS), problems);
    assert.deepEqual(countingProblems({ ...OPTIONS, rows: 100 }), problems.slice(0, 100));
    assert.notDeepEqual(countingProblems({ ...OPTIONS, seed: 18 }), problems);
  });

  it('state what they count, and are answered by a digit that no class outweighs', () => {
    for (const { input, start, changes, output } of problems) {
      assert.deepEqual([...input.matchAll(/\d+/g)].map(([digits]) => Number(digits)), [start, ...changes.map(Math.abs)]);
      assert.equal(String(changes.reduce((count, change) => count + change, start)), output);
    }
    const counts = COUNTING_LABELS.map((label) => problems.filter(({ output }) => output === label).length);
    assert.ok(Math.min(...counts) > 140 && Math.max(...counts) < 260, counts.join(' '));
  });

  it('come with a rationale that the checker finds right', () => {
    for (const problem of problems) assert.deepEqual(checkRationale(problem, problem.rationale), { right: true });
    assert.match(problems[0]?.rationale ?? '', /^\d [+-] \d = \d\./);
  });

  it('are refused in numbers that there are not, and with steps that are none', () => {
    assert.throws(() => countingProblems({ seed: 1, rows: 1_000_000, steps: [1, 1] }), /expected 1000000 distinct ones of 1 to 1 steps, got \d+/);
    assert.throws(() => countingProblems({ seed: 1, rows: 1, steps: [2, 1] }), /the least first, got 2 and 1/);
  });
});

describe('the checker of rationales', () => {
  const problem = { start: 3, changes: [4, -2] };
  const CASES: readonly (readonly [what: string, rationale: string, step?: number, message?: RegExp])[] = [
    ['takes words around the equations', 'First 3 + 4 = 7, and then 7 − 2=5. So the answer is 5.'],
    ['finds wrong arithmetic', '3 + 4 = 8. 8 - 2 = 6.', 1, /expected 3 \+ 4 = 7, got 3 \+ 4 = 8/],
    ['finds a right result by a wrong way', '3 + 4 = 7. 8 - 3 = 5.', 2, /expected 7 - 2 = 5, got 8 - 3 = 5/],
    ['finds a step that is missing', '3 + 4 = 7.', 2, /expected 7 - 2 = 5, got nothing/],
    ['finds a step too much', '3 + 4 = 7. 7 - 2 = 5. 5 + 0 = 5.', 3, /expected the end, got 5 \+ 0 = 5/],
    ['finds no reasoning at all', '5', 1, /got nothing/],
  ];
  for (const [what, rationale, step, message] of CASES) {
    it(what, () => {
      const check = checkRationale(problem, rationale);
      assert.equal(check.right, step === undefined);
      if (check.right) return;
      assert.equal(check.step, step);
      assert.match(check.problem, message ?? /$^/);
    });
  }
});
