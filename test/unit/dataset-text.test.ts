import assert from 'node:assert/strict';
import { test } from 'node:test';
import { measurePrior } from '../../src/dataset/calibration.ts';
import { codeProblem } from '../../src/dataset/code.ts';
import { calibratedProbabilities, chooseLabel, labelOf } from '../../src/dataset/labels.ts';
import { jaccard, NearDuplicateIndex, shinglesOf } from '../../src/dataset/near-duplicates.ts';
import { parsePairs } from '../../src/dataset/pairs.ts';
import { createRandom, shuffled } from '../../src/dataset/random.ts';
import { normaliseText, rowId } from '../../src/dataset/text.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { answer } from '../support/rows.ts';

test('texts that differ in width, case, composition or white space are the same text', () => {
  assert.equal(normaliseText('  ＡＢＣ　１２３\n Straße '), 'abc 123 strasse');
  assert.equal(normaliseText('e\u0301'), normaliseText('É'));
  assert.equal(rowId('e\u0301'), rowId('é'));
  assert.match(rowId('x'), /^[0-9a-f]{16}$/);
});

test('the same seed and name give the same order, another name another', () => {
  const items = Array.from({ length: 50 }, (_, index) => index);
  const order = shuffled(items, createRandom(7, 'pool'));
  assert.deepEqual(order, shuffled(items, createRandom(7, 'pool')));
  assert.notDeepEqual(order, shuffled(items, createRandom(7, 'test')));
  assert.notDeepEqual(order, shuffled(items, createRandom(8, 'pool')));
  assert.deepEqual([...order].sort((a, b) => a - b), items);
});

test('random numbers are spread evenly over [0, 1)', () => {
  const random = createRandom(1, 'spread');
  const bins = new Array<number>(10).fill(0);
  for (let draw = 0; draw < 20_000; draw += 1) {
    const bin = Math.floor(random() * 10);
    bins[bin] = (bins[bin] as number) + 1;
  }
  for (const count of bins) assert.ok(Math.abs(count - 2_000) < 200, String(bins)); // ± 4.7 standard deviations
});

test('near duplicates are found in English and Chinese, with their exact similarity', () => {
  const index = new NearDuplicateIndex(0.7);
  index.add('en', 'The battery died after two days and nobody answered my mail.');
  index.add('zh', '这家餐厅的服务态度非常好，菜品也很新鲜，下次还会再来。');
  const english = index.find('The battery died after two days, and nobody answered my mail!');
  assert.equal(english?.id, 'en');
  const chinese = index.find('这家餐厅的服务态度非常好，菜品也很新鲜，下次一定再来。');
  assert.equal(chinese?.id, 'zh');
  assert.ok(Math.abs((chinese?.similarity ?? 0) - jaccard(shinglesOf('这家餐厅的服务态度非常好，菜品也很新鲜，下次还会再来。'), shinglesOf('这家餐厅的服务态度非常好，菜品也很新鲜，下次一定再来。'))) < 1e-12);
  assert.equal(index.find('An entirely different sentence about the weather.'), undefined);
});

test('the index agrees with a comparison of all pairs', () => {
  const random = createRandom(3, 'texts');
  const words = Array.from({ length: 30 }, (_, index) => `w${index}${'abcdefgh'[index % 8]}`);
  const base = Array.from({ length: 40 }, () => Array.from({ length: 14 }, () => words[Math.floor(random() * words.length)] as string));
  const texts = base.flatMap((sentence) => [sentence, sentence.with(3, 'changed'), sentence.with(0, 'x').with(9, 'y')]).map((sentence) => sentence.join(' '));
  for (const threshold of [0.5, 0.8, 1]) {
    const index = new NearDuplicateIndex(threshold);
    let expected = 0;
    let found = 0;
    texts.forEach((text, position) => {
      const rivals = texts.slice(0, position).map((other) => jaccard(shinglesOf(text), shinglesOf(other)));
      const best = Math.max(0, ...rivals);
      if (best >= threshold) expected += 1;
      const match = index.find(text);
      if (match !== undefined) {
        found += 1;
        assert.ok(Math.abs(match.similarity - best) < 1e-12);
      }
      index.add(String(position), text);
    });
    assert.ok(threshold === 1 || expected > 20, `${expected} pairs at ${threshold}`);
    assert.equal(found, expected, `threshold ${threshold}`);
  }
});

test('an answer is a label only when it names one and nothing else', () => {
  const labels = ['Positive', 'negative', '中性'];
  assert.equal(labelOf(' "positive." ', labels), 'Positive');
  assert.equal(labelOf('**Negative**', labels), 'negative');
  assert.equal(labelOf('Sentiment: negative', labels), 'negative');
  assert.equal(labelOf('情感：中性。', labels), '中性');
  assert.equal(labelOf('not positive', labels), undefined);
  assert.equal(labelOf('', labels), undefined);
});

test('the prior is the median of the normalised log-probabilities and undoes a leaning teacher', () => {
  // Unnormalised on purpose: the second column is 2 nats above the first whatever the input.
  const margins = [-3, -2, -1, 0, 1, 2, 3];
  const answers = margins.map((margin) => answer('positive', { labelLogProbs: [-5, -5 + 2 + margin] }));
  const labels = ['negative', 'positive'];
  const calibration = measurePrior(labels, answers);
  assert.equal(calibration.rows, 7);
  const [negative, positive] = calibration.priorLogProbs as [number, number];
  assert.ok(Math.abs(positive - negative - 2) < 1e-12);
  const chosen = answers.map((given) => chooseLabel(given, labels, calibration));
  assert.deepEqual(chosen.map((choice) => choice?.label).filter((label) => label === 'positive').length, 3);
  assert.ok(Math.abs((chosen[6]?.confidence ?? 0) - 1 / (1 + Math.exp(-3))) < 1e-12);
  assert.ok(chosen.slice(4).every((choice) => choice?.label === 'positive'));
  const raw = answers.map((given) => chooseLabel(given, labels)?.label);
  assert.ok(raw.filter((label) => label === 'positive').length > 4, 'without the calibration the leaning shows');
  assert.ok(Math.abs(calibratedProbabilities([-1, -2, -3], undefined).reduce((sum, value) => sum + value, 0) - 1) < 1e-12);
});

test('a prior without log-probabilities is refused in one sentence', () => {
  assert.throws(() => measurePrior(['a', 'b'], [answer('a')]), (error: unknown) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && /calibration: none/.test(error.message));
});

test('pairs are read from JSON, and a bad pair is told of alone', () => {
  const parsed = parsePairs('```json\n{"pairs":[{"input":"很好","output":"积极","why":1},{"input":3,"output":"x"},"text"]}\n```');
  assert.deepEqual(parsed[0], { pair: { input: '很好', output: '积极' } });
  assert.ok('problem' in (parsed[1] as object) && 'problem' in (parsed[2] as object));
  assert.throws(() => parsePairs('Sure! Here you go'), /expected a JSON document/);
  assert.throws(() => parsePairs('{"rows":[]}'), /expected \{"pairs"/);
});

const fenced = (tag: string, code: string): string => `Here it is:\n\n\`\`\`${tag}\n${code}\n\`\`\`\nDone.`;

test('code blocks of each language must parse', () => {
  assert.equal(codeProblem(fenced('typescript', 'export const add = (a: number, b: number): number => a + b;'), 'typescript'), undefined);
  assert.match(codeProblem(fenced('ts', 'function add(a: number {'), 'typescript') ?? '', /block 1 of 1/);
  assert.equal(codeProblem(fenced('js', 'import x from "y"; export default x;'), 'javascript'), undefined);
  assert.equal(codeProblem(fenced('', 'with (a) { b }'), 'javascript'), undefined);
  assert.match(codeProblem(fenced('js', 'const = 3'), 'javascript') ?? '', /block 1/);
  assert.equal(codeProblem('{"a": [1, 2]}', 'json'), undefined);
  assert.match(codeProblem('{"a": [1, 2}', 'json') ?? '', /does not parse/);
  assert.match(codeProblem('You should use a loop.', 'typescript') ?? '', /does not parse/);
  assert.match(codeProblem(fenced('bash', 'ls'), 'python') ?? '', /expected a code block of python, got bash/);
  assert.match(codeProblem('```python\nprint(1)\n', 'python') ?? '', /closed/);
});

test('blocks of JSX and TSX are read with their markup', () => {
  const component = 'export function A({ n }: { n: number }) {\n  return <><b className="x">{n}</b></>;\n}';
  assert.equal(codeProblem(fenced('tsx', component), 'typescript'), undefined);
  assert.equal(codeProblem(fenced('jsx', 'const A = ({ n }) => <b {...n}>{n.x ?? "y"}</b>;'), 'javascript'), undefined);
  assert.equal(codeProblem(fenced('tsx', component.replace('</b>', '</i>')), 'typescript'), 'block 1 of 1: line 2, column 32: Expected corresponding JSX closing tag for <b>.');
  assert.match(codeProblem(fenced('jsx', component), 'javascript') ?? '', /line 1, column 24: Unexpected token/, 'types are no JavaScript');
});

test('what does not parse is told with its line and column', () => {
  assert.equal(codeProblem(fenced('ts', 'const a: number = 1;\nconst b: string = ;'), 'typescript'), 'block 1 of 1: line 2, column 19: Expression expected');
  assert.match(codeProblem(fenced('js', 'import x from "y";\nexport const = 3'), 'javascript') ?? '', /line 2, column 14: /);
  assert.match(codeProblem('{"a": 1,\n"b"}', 'json') ?? '', /line 2, column 4: /);
  assert.match(codeProblem('{"a": ', 'json') ?? '', /line 1, column 7: /);
  assert.match(codeProblem(fenced('python', 'x = 1\nif x => 2:\n    pass'), 'python') ?? '', /line 2, column 6: unexpected "="/);
});

test('Python is checked by its grammar, its indentation included', () => {
  const good = [
    'def f(a,\n      b=")"):\n    """Doc: with \'quotes\'\n  and lines"""\n    if a:  # comment (\n        return {\n  "x": [a, b],\n}\n    return b\n',
    'x = 1 + \\\n    2\nclass A:\n\tdef g(self):\n\t\tpass\n\nprint("a#b", \'it\\\'s\')',
    'if x: y = 1\nelse:\n  y = 2',
    'def g():\n    yield\n    x = (yield)\n    return 24.*x + 3./2',
    'match e:\n    case ast.BinOp():\n        pass\n    case {"a": [1, *_], **rest} if rest:\n        pass',
    'async def h(*, a: int = 1) -> None:\n    async with x as y, z:\n        print(f"{y!r:>{a}}", (n := 3))',
  ];
  for (const code of good) assert.equal(codeProblem(fenced('python', code), 'python'), undefined, code);
  const bad: readonly (readonly [string, RegExp])[] = [
    ['def f():\nreturn 1', /line 2: expected an indented block/],
    ['x = (1, 2', /line 1: \( is never closed/],
    ['x = [1)', /unmatched \)/],
    ['print("a)', /line 1: expected the string to end/],
    ['x = 1\n  y = 2', /line 2: unexpected indentation/],
    ['def f()\n    pass', /colon/],
    ['for i in range(3):\n', /indented block/],
    ['def f(x):\n    retrun x', /line 2, column 12: unexpected "x"/],
    ['function f(x):\n    return x', /line 1, column 10: unexpected "f"/],
    ['x = a && b', /line 1, column 8: unexpected "&"/],
    ['try:\n    x()\ny()', /line 1, column 1: expected except or finally after try/],
    ['x = null;;', /line 1: expected a statement before ;/],
  ];
  for (const [code, message] of bad) assert.match(codeProblem(fenced('python', code), 'python') ?? 'none', message, code);
});
