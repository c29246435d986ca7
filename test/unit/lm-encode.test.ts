/** Narrowing against the Python package gguf, bit for bit; numerics/fixtures/quantize_reference.py wrote the hashes. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ENCODERS } from '../../src/lm/weights/encode.ts';
import type { EncodedType } from '../../src/lm/weights/encode.ts';
import { randomStream } from '../../src/training/random.ts';

const reference = JSON.parse(readFileSync(new URL('../numerics/fixtures/quantize-reference.json', import.meta.url), 'utf8')) as Readonly<Record<string, string>>;
const COUNT = 64 * 96;
const [SEED, STREAM] = [31, 5];
const { fround } = Math;

function values(): Float32Array {
  const [unit, size] = [randomStream(SEED, STREAM, 0), randomStream(SEED, STREAM, 1)];
  const v = Float32Array.from({ length: COUNT }, (_, i) => (2 * unit.uniform(i) - 1) * 2 ** Math.floor(24 * size.uniform(i) - 18));
  v.fill(0, 0, 64);
  v[40] = -127;
  for (let i = 0; i < 32; i += 1) {
    v[64 + i] = i - 15.5;
    v[96 + i] = fround(i * fround(1e-9));
  }
  v[64] = 127;
  return v;
}
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

for (const type of Object.keys(ENCODERS) as EncodedType[]) {
  test(`${type} is written as the Python package writes it`, () => {
    assert.equal(sha256(ENCODERS[type].encode(values())), reference[type]);
    const changed = values();
    changed[COUNT - 1] = 3;
    assert.notEqual(sha256(ENCODERS[type].encode(changed)), reference[type], 'a changed number changes the bytes');
  });

  test(`${type} widens back to numbers as near as the format allows`, () => {
    const { format, encode } = ENCODERS[type];
    const before = values();
    const after = format.widen(Buffer.from(encode(before).slice()), COUNT);
    const relative = { f32: 0, f16: 2 ** -11, bf16: 2 ** -8, q8_0: 0 }[type];
    before.forEach((value, i) => {
      const block = before.subarray(i - (i % format.blockValues), i - (i % format.blockValues) + format.blockValues);
      // Half a step of the block, and what rounding the step to a half adds over 127 steps.
      const step = type === 'q8_0' ? Math.max(...block.map(Math.abs)) / 127 : 0;
      const limit = type === 'q8_0' ? step * (0.5 + 127 * 2 ** -11) + 127 * 2 ** -25 : Math.abs(value) * relative + (type === 'f16' ? 2 ** -25 : 0);
      assert.ok(Math.abs(value - (after[i] ?? NaN)) <= limit, `${i}: ${value} became ${after[i]}, limit ${limit}`);
    });
  });
}

test('numbers that are none stay so in bfloat16 and float16', () => {
  const special = Float32Array.of(NaN, Infinity, -Infinity, -0, 3.4e38);
  new Uint32Array(special.buffer)[0] = 0x7f800001;
  for (const type of ['bf16', 'f16'] as const) {
    const { format, encode } = ENCODERS[type];
    const [nan, infinity, negative, zero, large] = format.widen(Buffer.from(encode(special).slice()), special.length);
    assert.deepEqual([nan, infinity, negative, zero], [NaN, Infinity, -Infinity, -0]);
    assert.equal(large, Infinity, 'too large for the format, or rounded up');
  }
});
