import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { trainingOf } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { parseSpec, validateSpec } from '../../src/contracts/parse-spec.ts';
import type { SpecProblem } from '../../src/contracts/parse-spec.ts';

const file = new URL('../../campaigns/review-sentiment.yaml', import.meta.url);
const good = await readFile(file, 'utf8');

function failure(work: () => unknown): StillhouseError {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof StillhouseError);
    return error;
  }
  assert.fail('expected an error');
}

test('the demo spec is valid, and defaults are filled in', () => {
  const spec = parseSpec(good, 'review-sentiment.yaml');
  assert.equal(spec.name, 'review-sentiment');
  assert.equal(spec.training.lora?.r, 16);
  assert.equal(spec.seed, 17);
});

test('JSON is accepted as it is, and an already parsed object gives the same spec', () => {
  const spec = parseSpec(good);
  assert.deepEqual(parseSpec(JSON.stringify(spec)), spec);
  assert.deepEqual(validateSpec(spec), spec);
});

/** Replaces one piece of the good text; the table fails loudly when the piece is not there. */
const replace = (from: string, to: string): string => {
  assert.ok(good.includes(from), `the spec no longer holds ${from}`);
  return good.replace(from, to);
};
const lineOf = (text: string, piece: string): number => text.slice(0, text.indexOf(piece)).split('\n').length;

interface Case {
  readonly what: string;
  readonly from: string;
  readonly to: string;
  readonly path: string;
  readonly message: RegExp;
}
const cases: readonly Case[] = [
  { what: 'an unknown key', from: 'epochs: 2', to: 'epoch: 2', path: 'training.epoch', message: /training\.epoch: expected one of the keys .*epochs.*got an unknown key/ },
  { what: 'an unknown key at the top', from: 'budget:', to: 'budgte:', path: 'budgte', message: /budgte: expected one of the keys name, task/ },
  { what: 'an unknown key inside a union', from: 'kind: label, labels', to: 'kind: label, extra: 1, labels', path: 'task.output.extra', message: /expected one of the keys kind, labels/ },
  { what: 'a text for a number', from: 'rows: 480', to: 'rows: "480"', path: 'sampling.rows', message: /sampling\.rows: expected a number, got "480"/ },
  { what: 'a fraction for a whole number', from: 'rows: 480', to: 'rows: 4.5', path: 'sampling.rows', message: /expected a whole number, got 4\.5/ },
  { what: 'zero rows', from: 'rows: 480', to: 'rows: 0', path: 'sampling.rows', message: /expected a number of at least 1, got 0/ },
  { what: 'a learning rate of 3', from: 'learningRate: 1.0e-3', to: 'learningRate: 3', path: 'training.learningRate', message: /expected a number below 1, got 3/ },
  { what: 'a confidence above 1', from: 'minConfidence: 0.55', to: 'minConfidence: 55', path: 'filter.minConfidence', message: /at most 1, got 55/ },
  { what: 'an infinite number', from: 'usd: 1', to: 'usd: .inf', path: 'budget.usd', message: /expected a number, got Infinity/ },
  { what: 'a name with capitals', from: 'name: review-sentiment', to: 'name: Review', path: 'name', message: /name: expected lower-case letters.*got "Review"/ },
  { what: 'an unknown provider', from: 'provider: local', to: 'provider: lokal', path: 'teacher.provider', message: /expected one of local, openai, got "lokal"/ },
  { what: 'an unknown kind', from: 'kind: inputs', to: 'kind: input', path: 'sampling.source.kind', message: /expected one of inputs, description, tasks, stored-completions, mixed, got "input"/ },
  { what: 'a missing part', from: 'student: { model: smollm2-135m-instruct }', to: '', path: 'student', message: /student: expected a mapping, got nothing/ },
  { what: 'an empty model', from: 'student: { model: smollm2-135m-instruct }', to: 'student: { model: "" }', path: 'student.model', message: /a text that is not empty, got ""/ },
  { what: 'one label', from: 'labels: [negative, positive]', to: 'labels: [negative]', path: 'task.output.labels', message: /expected at least 2 entries, got \["negative"\]/ },
  { what: 'a shot with an unknown label', from: 'output: negative }', to: 'output: bad }', path: 'teacher.shots[0].output', message: /shots\[0\]\.output: expected one of negative, positive, got "bad"/ },
  { what: 'a URL that is none', from: 'calibration: prior', to: 'calibration: prior\n  baseUrl: "ftp://x"', path: 'teacher.baseUrl', message: /http:\/\/ or https:\/\/, got "ftp:\/\/x"/ },
  { what: 'settings of adapters where every weight is trained', from: 'learningRate: 1.0e-3', to: 'learningRate: 1.0e-3, tune: full, lora: { r: 8 }', path: 'training.lora', message: /training\.lora: expected nothing with tune: full, which trains every weight, got settings of adapters/ },
  { what: 'layers given in two ways', from: 'student: { model: smollm2-135m-instruct }', to: 'student: { model: smollm2-135m-instruct, keepLayers: 2, layers: [0, 1] }', path: 'student.layers', message: /student\.layers: expected either layers or keepLayers, got both/ },
  { what: 'layers out of order', from: 'student: { model: smollm2-135m-instruct }', to: 'student: { model: smollm2-135m-instruct, layers: [2, 0] }', path: 'student.layers', message: /expected distinct layers in ascending order, got \[2,0\]/ },
  { what: 'settings of a method that is not chosen', from: 'learningRate: 1.0e-3', to: 'learningRate: 1.0e-3, stepByStep: { rationaleWeight: 2 }', path: 'training.stepByStep', message: /training\.stepByStep: expected nothing with method: sft, got settings of another method/ },
  { what: 'step by step without rationales', from: 'learningRate: 1.0e-3', to: 'learningRate: 1.0e-3, method: step-by-step', path: 'training.method', message: /training\.method: expected sft without sampling\.rationale: true/ },
  { what: 'beta of another divergence', from: 'learningRate: 1.0e-3', to: 'learningRate: 1.0e-3, method: logit, logit: { beta: 0.2 }', path: 'training.logit', message: /training\.logit: expected beta with divergence: jensen-shannon, got it with forward-kl/ },
  { what: 'a weight of ranked distributions that is none', from: 'learningRate: 1.0e-3', to: 'learningRate: 1.0e-3, method: cross-tokenizer, crossTokenizer: { weight: 0 }', path: 'training.crossTokenizer.weight', message: /training\.crossTokenizer\.weight: expected a number above 0, got 0/ },
  { what: 'more of the student\'s own answers than a checkpoint holds', from: 'learningRate: 1.0e-3', to: 'learningRate: 1.0e-3, method: on-policy, onPolicy: { refreshEverySteps: 10000, maxTokens: 512 }', path: 'training.onPolicy', message: /training\.onPolicy: expected refreshEverySteps × batchSize × maxTokens of at most 4000000, which a checkpoint holds, got \d+/ },
  { what: 'a share that is more than all', from: 'learningRate: 1.0e-3', to: 'learningRate: 1.0e-3, method: on-policy, onPolicy: { share: 1.5 }', path: 'training.onPolicy.share', message: /training\.onPolicy\.share: expected a number of at most 1, got 1\.5/ },
  { what: 'beta of another divergence on policy', from: 'learningRate: 1.0e-3', to: 'learningRate: 1.0e-3, method: on-policy, onPolicy: { divergence: reverse-kl, beta: 0.2 }', path: 'training.onPolicy', message: /training\.onPolicy: expected beta with divergence: jensen-shannon, got it with reverse-kl/ },
  { what: 'a model to learn from that nothing asks', from: 'learningRate: 1.0e-3', to: 'learningRate: 1.0e-3, teacher: { model: x }', path: 'training.teacher', message: /training\.teacher: expected nothing with method: sft/ },
  { what: 'a scorer that does not fit', from: 'scorer: { kind: label }', to: 'scorer: { kind: labels }', path: 'evaluation.scorer.kind', message: /expected one of label, judge/ },
];

for (const { what, from, to, path, message } of cases) {
  test(`${what} is named with its path, what was expected and what came`, () => {
    const text = replace(from, to);
    const error = failure(() => parseSpec(text, 'mine.yaml'));
    assert.equal(error.code, 'BAD_INPUT');
    assert.match(error.message, message);
    assert.match(error.message, /^mine\.yaml: /);
    const problems = error.details['problems'] as readonly SpecProblem[];
    assert.ok(problems.some((problem) => problem.path === path), JSON.stringify(problems));
  });
}

test('what is learned from a model is learned from the campaign\'s own teacher, where that runs here', () => {
  const method = (teacher: string): string => replace('learningRate: 1.0e-3', `learningRate: 1.0e-3, method: logit${teacher}`);
  const own = parseSpec(method(''), 'mine.yaml');
  assert.equal(own.training.teacher, undefined);
  assert.deepEqual(trainingOf(own).teacher, { model: own.teacher.model });
  assert.deepEqual(trainingOf(parseSpec(method(', teacher: { model: other, keepLayers: 3 }'), 'mine.yaml')).teacher, { model: 'other', keepLayers: 3 });
  const hosted = method('').replace('provider: local', 'provider: openai').replace('calibration: prior', 'calibration: none');
  assert.match(failure(() => parseSpec(hosted, 'mine.yaml')).message, /training\.teacher: expected a model to learn from with method: logit, which needs more of a teacher than its answers, got none and a teacher at an endpoint; logit with targets: offline can do with sampling\.softTargets: \{ onMissing: refuse \}/);
  const stored = hosted.replace('method: logit', 'method: logit, logit: { targets: offline }').replace('  rows: 480', '  softTargets: { onMissing: refuse }\n  rows: 480');
  assert.equal(trainingOf(parseSpec(stored, 'mine.yaml')).teacher, undefined);
});

test('every mistake is listed, each with its line', () => {
  const text = replace('rows: 480', 'rows: "480"').replace('epochs: 2', 'epoch: 2');
  const error = failure(() => parseSpec(text, 'mine.yaml'));
  assert.match(error.message, /^mine\.yaml: 2 problems\n/);
  assert.match(error.message, new RegExp(`line ${lineOf(text, 'rows: "480"')}, sampling\\.rows`));
  assert.match(error.message, new RegExp(`line ${lineOf(text, 'epoch: 2')}, training\\.epoch`));
});

test('text that is no YAML, a key given twice, and a document that is no mapping', () => {
  assert.match(failure(() => parseSpec('name: [', 'x.yaml')).message, /x\.yaml: .*expected YAML or JSON/s);
  assert.match(failure(() => parseSpec(`${good}\nname: other\n`, 'x.yaml')).message, /unique/);
  assert.match(failure(() => parseSpec('hello', 'x.yaml')).message, /the whole of it: expected a mapping, got "hello"/);
  assert.match(failure(() => parseSpec('', 'x.yaml')).message, /the whole of it: expected a mapping, got null/);
});
