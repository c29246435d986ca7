/** Stored soft targets: what comes back, how many bytes it takes, how two tokenisations meet, what is refused. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { tokenBytes } from '../../src/lm/token-bytes.ts';
import { alignByOffsets } from '../../src/training/soft-targets/alignment.ts';
import { readSoftTargets, SoftTargetsWriter } from '../../src/training/soft-targets/file.ts';
import { topK } from '../../src/training/soft-targets/top-k.ts';
import type { TopK } from '../../src/training/soft-targets/top-k.ts';
import { requireSameVocabulary } from '../../src/training/soft-targets/vocabulary.ts';

const random = createRandom(1, 'soft targets');
/** Normal logits over ids that lie as those of a byte-pair vocabulary do, frequent tokens first; every other position is sure of one token. */
function draw(vocabularySize: number, index: number): Float32Array {
  const logits = Float32Array.from({ length: vocabularySize }, (_, id) => 2.5 * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()) - 0.8 * Math.log(1 + id));
  if (index % 2 === 1) logits[777 % vocabularySize] = 14;
  return logits;
}
const about = (k: number, vocabularySize: number) => ({ k, vocabularySize, vocabularySha256: 'a'.repeat(64), teacher: 'teacher', datasetSha256: 'b'.repeat(64) });
const sum = (values: Iterable<number>): number => [...values].reduce((total, value) => total + value, 0);

function stored(k: number, vocabularySize: number, count: number): { readonly bytes: Buffer; readonly positions: readonly TopK[] } {
  const positions = Array.from({ length: count }, (_, index) => topK(draw(vocabularySize, index), k, 'a test'));
  const writer = new SoftTargetsWriter(about(k, vocabularySize));
  writer.add({ tokens: Uint32Array.from(positions, ({ ids }, index) => (index % 3 === 0 ? vocabularySize - 1 : (ids[index % ids.length] as number))), positions });
  writer.add({ tokens: new Uint32Array(), positions: [] });
  return { bytes: writer.finish(), positions };
}

/** Σ p (log p − log q) over the listed tokens, nats. */
const divergence = (p: TopK, q: TopK): number => sum(Array.from(p.logProbs, (logProb, index) => Math.exp(logProb) * (logProb - (q.logProbs[index] as number))));

describe('stored soft targets', () => {
  for (const [k, vocabularySize, most] of [[50, 49_152, 120], [50, 151_936, 120], [128, 49_152, 300], [128, 151_936, 300]] as const) {
    it(`take at most ${most} bytes a token at k = ${k} and ${vocabularySize} tokens, and come back within 0.0005 nats`, (context) => {
      const { bytes, positions } = stored(k, vocabularySize, 24);
      const { header, row } = readSoftTargets(bytes);
      assert.deepEqual([header.rows, header.positions], [2, 24]);
      const own = row(0);
      const headerBytes = bytes.indexOf('}') + 1;
      const bytesPerToken = (bytes.length - headerBytes) / 24;
      own.positions.forEach((position, index) => {
        const expected = positions[index] as TopK;
        assert.deepEqual(position.ids, expected.ids);
        assert.equal(position.tailMass, Math.fround(expected.tailMass), 'the remaining mass as float32');
        assert.ok(Math.abs(sum(position.logProbs.map(Math.exp)) + position.tailMass - 1) < 1e-12, 'all mass is accounted for');
        assert.ok(Math.abs(divergence(expected, position)) < 5e-4);
        assert.equal(own.tokens[index], index % 3 === 0 ? vocabularySize - 1 : expected.ids[index % k]);
      });
      assert.equal(row(1).tokens.length, 0);
      assert.ok(bytesPerToken <= most, `${bytesPerToken} bytes`);
      context.diagnostic(`${bytesPerToken.toFixed(1)} bytes a token`);
    });
  }

  it('hold a whole vocabulary with no mass left, equal bytes for equal targets, and cut nothing short', () => {
    const logits = draw(300, 1);
    const whole = topK(logits, 1_000, 'a test');
    assert.deepEqual([whole.ids.length, whole.tailMass], [300, 0]);
    const write = (): Buffer => {
      const writer = new SoftTargetsWriter(about(1_000, 300));
      writer.add({ tokens: Uint32Array.of(5), positions: [whole] });
      return writer.finish();
    };
    assert.deepEqual(write(), write());
    const [position] = readSoftTargets(write()).row(0).positions;
    assert.ok(position !== undefined && Math.abs(divergence(whole, position)) < 5e-4);
  });

  it('are refused by name when they are damaged', () => {
    const { bytes } = stored(50, 1_000, 3);
    const corrupt = (error: unknown): boolean => error instanceof StillhouseError && error.code === 'CORRUPT';
    assert.throws(() => readSoftTargets(bytes.subarray(0, -1)), corrupt);
    assert.throws(() => readSoftTargets(Buffer.from('PK\x03\x04 no soft targets')), corrupt);
    const damaged = Buffer.from(bytes);
    damaged.fill(0xff, bytes.length - 60);
    assert.throws(() => readSoftTargets(damaged).row(0), corrupt);
    assert.throws(() => topK(Float32Array.of(1, NaN), 1, 'row 3, position 7'), /row 3, position 7: expected finite logits of the teacher, got NaN for token 1/);
    assert.throws(() => topK(Float32Array.of(-Infinity, -Infinity), 1, 'row 3'), /expected a teacher that gives some token a mass/);
  });

  it('keep the lower ids among equal logits', () => {
    assert.deepEqual([...topK(Float32Array.of(1, 2, 1, 1), 2, 'a test').ids], [0, 1]);
  });
});

describe('two tokenisations of one text', () => {
  const ranges = (teacher: readonly number[], student: readonly number[]) => alignByOffsets(teacher, student, 'row 1').map(({ teacher: t, student: s, startByte }) => [t.from, t.to, s.from, s.to, startByte]);

  it('meet wherever both have a boundary', () => {
    assert.deepEqual(ranges([3, 2, 4], [3, 2, 4]), [[0, 1, 0, 1, 0], [1, 2, 1, 2, 3], [2, 3, 2, 3, 5]]);
    assert.deepEqual(ranges([5, 1, 3], [2, 3, 4]), [[0, 1, 0, 2, 0], [1, 3, 2, 3, 5]]);
    assert.deepEqual(ranges([9], [4, 4, 1]), [[0, 1, 0, 3, 0]]);
    assert.deepEqual(ranges([], []), []);
  });

  it('meet at tokens without bytes, which else go with what follows or with the end', () => {
    assert.deepEqual(ranges([3, 0], [3, 0]), [[0, 1, 0, 1, 0], [1, 2, 1, 2, 3]]);
    assert.deepEqual(ranges([0, 3], [3]), [[0, 2, 0, 1, 0]]);
    assert.deepEqual(ranges([3, 0], [3]), [[0, 2, 0, 1, 0]]);
  });

  it('of different texts are refused', () => {
    assert.throws(() => alignByOffsets([3, 2], [4], 'row 9'), /row 9: expected two tokenisations of one text, got one of 5 bytes by the teacher and one of 4 by the student/);
  });

  it('count the bytes that tokens stand for', () => {
    assert.deepEqual([...tokenBytes('Ġcafé', 'byte-level')], [...Buffer.from(' caf'), 0xe9]);
    assert.deepEqual([...tokenBytes('Ã©', 'byte-level')], [...Buffer.from('é')]);
    assert.deepEqual([...tokenBytes('Ċ', 'byte-level')], [10]);
    assert.deepEqual([...tokenBytes('▁hi', 'sentencepiece')], [...Buffer.from(' hi')]);
    assert.deepEqual([...tokenBytes('<0x0A>', 'sentencepiece')], [10]);
  });
});

describe('vocabularies', () => {
  it('are the same where one is the other with padding, and refused with the first difference else', () => {
    requireSameVocabulary({ name: 't', tokens: ['a', 'b'] }, { name: 's', tokens: ['a', 'b', '<pad>'] });
    assert.throws(
      () => requireSameVocabulary({ name: 'teacher', tokens: ['a', 'b', 'c'] }, { name: 'student', tokens: ['a', 'x', 'y', 'z'] }),
      /expected teacher and student of one vocabulary, got teacher with 3 tokens and student with 4: 2 of 3 ids differ, the first of them 1, "b" and "x"/,
    );
  });
});
