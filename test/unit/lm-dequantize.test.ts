/** Every quantised type against the Python package gguf, bit for bit; fixtures/architectures_reference.py wrote the numbers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0 } from '../../src/lm/weights/dequantize.ts';
import { quantisedBytes, readReference } from '../support/recipe.ts';

const { blocks } = readReference();

for (const format of [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K]) {
  const { name } = format;
  test(`${name} widens to the numbers of the Python package`, () => {
    const expected = blocks[name];
    assert.ok(expected !== undefined);
    const count = expected.values.length;
    const bytes = Buffer.from(quantisedBytes(count, expected.index, name));
    assert.equal(bytes.length, (count / format.blockValues) * format.blockBytes);
    assert.deepEqual([...format.widen(bytes, count)], expected.values.map(Math.fround));
    bytes[Math.floor(bytes.length / 2)] = (bytes[Math.floor(bytes.length / 2)] ?? 0) ^ 0x11;
    assert.notDeepEqual([...format.widen(bytes, count)], expected.values.map(Math.fround), 'a changed byte changes a number');
  });
}
