/** The ULD loss against torch 2.15 (fixtures/uld_reference.py). float64 on both sides: 1e-12 is rounding. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { softmax, uldGradient, uldLoss } from '../../src/training/soft-targets/uld.ts';

interface Case {
  readonly teacher: readonly number[];
  readonly logits: readonly number[];
  readonly loss: number;
  readonly gradient: readonly number[];
}
const cases = JSON.parse(readFileSync(new URL('./fixtures/uld-reference.json', import.meta.url), 'utf8')) as readonly Case[];

for (const { teacher, logits, loss, gradient } of cases) {
  test(`${teacher.length} teacher and ${logits.length} student tokens: loss and gradient are torch's`, () => {
    assert.ok(Math.abs(uldLoss(teacher, softmax(logits)) - loss) < 1e-12);
    const own = uldGradient(teacher, logits);
    gradient.forEach((expected, id) => assert.ok(Math.abs((own[id] as number) - expected) < 1e-12, `token ${id}: ${own[id]}, torch ${expected}`));
  });
}

test('a student that gives the same probabilities to other tokens has no loss', () => {
  assert.equal(uldLoss([0.7, 0.2, 0.1], [0.1, 0, 0.7, 0.2]), 0);
});
