/**
 * A task with ground truth, made by a seed: word problems about a count that goes up and down, each with
 * the reasoning that solves it and a checker that follows any reasoning step by step. It is there to
 * measure what rationales teach (Distilling Step-by-Step, arXiv 2305.02301), small enough for models of
 * a hundred million parameters: every count is one digit.
 *
 *   input      Ada has 3 marbles. Then Ada finds 4 marbles. Then Ada loses 2 marbles. How many marbles does Ada have?
 *   rationale  3 + 4 = 7. 7 - 2 = 5.
 *   output     5
 */
import { StillhouseError } from '../contracts/errors.ts';
import { createRandom } from './random.ts';

export interface CountingProblem {
  readonly input: string;
  readonly rationale: string;
  /** One digit: of `COUNTING_LABELS`. */
  readonly output: string;
  readonly start: number;
  /** What is added, or with a minus sign taken away, one after the other. */
  readonly changes: readonly number[];
}

export interface CountingOptions {
  readonly seed: number;
  readonly rows: number;
  /** Changes in one problem, at least and at most. */
  readonly steps: readonly [least: number, most: number];
}

export const COUNTING_LABELS: readonly string[] = Array.from({ length: 10 }, (_, digit) => String(digit));

const NAMES = ['Ada', 'Ben', 'Cleo', 'Dan', 'Eva', 'Finn', 'Gus', 'Hana', 'Ivo', 'Jill', 'Kai', 'Lea'];
const THINGS = ['marbles', 'apples', 'books', 'coins', 'pens', 'shells', 'stamps', 'buttons'];
const GAINS = ['finds', 'buys', 'gets', 'wins'];
const LOSSES = ['loses', 'sells', 'gives away', 'drops'];
const HIGHEST = 9;
/** Draws in a row that were there before, after which there is nothing new to be expected. */
const MOST_REPEATS = 10_000;

/** Distinct problems; the same options give the same ones, and more rows begin with the fewer. BAD_INPUT when there are not so many. */
export function countingProblems({ seed, rows, steps: [least, most] }: CountingOptions): readonly CountingProblem[] {
  if (!Number.isInteger(least) || !Number.isInteger(most) || least < 1 || most < least) {
    throw new StillhouseError('BAD_INPUT', `counting problems: expected whole numbers of steps, at least 1 and the least first, got ${least} and ${most}`);
  }
  const random = createRandom(seed, 'counting');
  const below = (count: number): number => Math.floor(random() * count);
  const pick = (list: readonly string[]): string => list[below(list.length)] as string;
  const problems = new Map<string, CountingProblem>();
  for (let repeats = 0; problems.size < rows; ) {
    const problem = drawProblem(below, pick, least + below(most - least + 1));
    repeats = problems.has(problem.input) ? repeats + 1 : 0;
    problems.set(problem.input, problem);
    if (repeats === MOST_REPEATS) throw new StillhouseError('BAD_INPUT', `counting problems: expected ${rows} distinct ones of ${least} to ${most} steps, got ${problems.size}`);
  }
  return [...problems.values()];
}

function drawProblem(below: (count: number) => number, pick: (list: readonly string[]) => string, steps: number): CountingProblem {
  const [name, things] = [pick(NAMES), pick(THINGS)];
  const start = below(HIGHEST + 1);
  const changes: number[] = [];
  const sentences = [`${name} has ${start} ${things}.`];
  const equations: string[] = [];
  let count = start;
  for (let step = 0; step < steps; step += 1) {
    // Any other count within one digit may come next.
    const next = (count + 1 + below(HIGHEST)) % (HIGHEST + 1);
    const change = next - count;
    sentences.push(`Then ${name} ${pick(change > 0 ? GAINS : LOSSES)} ${Math.abs(change)} ${things}.`);
    equations.push(`${count} ${change > 0 ? '+' : '-'} ${Math.abs(change)} = ${next}.`);
    changes.push(change);
    count = next;
  }
  sentences.push(`How many ${things} does ${name} have?`);
  return { input: sentences.join(' '), rationale: equations.join(' '), output: String(count), start, changes };
}

export type RationaleCheck =
  | { readonly right: true }
  /** `step` counts from 1: the first that is missing, wrong or too much. */
  | { readonly right: false; readonly step: number; readonly problem: string };

/** Follows a rationale: right when it makes each change in its order, with right arithmetic, and nothing else. Words around the equations do not count. */
export function checkRationale({ start, changes }: Pick<CountingProblem, 'start' | 'changes'>, rationale: string): RationaleCheck {
  const equations = [...rationale.matchAll(/(\d+)\s*([+−-])\s*(\d+)\s*=\s*(-?\d+)/g)];
  const wrong = (step: number, expected: string, got: string): RationaleCheck => ({ right: false, step, problem: `expected ${expected}, got ${got}` });
  let count = start;
  for (const [index, change] of changes.entries()) {
    const expected = `${count} ${change > 0 ? '+' : '-'} ${Math.abs(change)} = ${count + change}`;
    const [text, left, sign, right, result] = equations[index] ?? [];
    if (text === undefined) return wrong(index + 1, expected, 'nothing');
    const stated = sign === '+' ? Number(right) : -Number(right);
    if (Number(left) !== count || stated !== change || Number(result) !== count + change) return wrong(index + 1, expected, text);
    count += change;
  }
  const extra = equations[changes.length];
  return extra === undefined ? { right: true } : wrong(changes.length + 1, 'the end', extra[0]);
}
