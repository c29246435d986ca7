/** Students of some layers of a larger model: which layers, and what is left of its configuration and weights. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { chosenLayers, firstAndLast, keepLayersOf, keepTensors } from '../../src/lm/layers.ts';
import type { ModelConfig } from '../../src/lm/config.ts';

test('the first layers and the last are distinct and in order', () => {
  assert.deepEqual(firstAndLast(15, 30), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 29]);
  assert.deepEqual(firstAndLast(1, 30), [0]);
  for (let total = 1; total <= 40; total++) {
    for (let kept = 1; kept <= total; kept++) {
      const layers = firstAndLast(kept, total);
      assert.equal(new Set(layers).size, kept);
      assert.deepEqual(layers, layers.toSorted((a, b) => a - b));
      assert.ok(kept === 1 || layers.at(-1) === total - 1);
    }
  }
});

test('layers that the model does not have are refused by number', () => {
  const refused = (choice: object, message: RegExp): void => assert.throws(() => chosenLayers(choice, 30, 'm'), (error) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && message.test(error.message));
  refused({ keepLayers: 31 }, /keepLayers: expected at most its 30 layers, got 31/);
  refused({ layers: [0, 30] }, /layers: expected layers from 0 to 29, got 30/);
  assert.equal(chosenLayers({}, 30, 'm'), undefined);
  assert.equal(chosenLayers({ keepLayers: 30 }, 30, 'm'), undefined);
});

test('the kept layers keep their kind of attention, and their tensors new numbers', () => {
  const rotary = { base: 1e4 };
  const config: ModelConfig = {
    architecture: 'gemma3', layers: 4, hiddenSize: 8, attentionHeads: 1, keyValueHeads: 1, headSize: 8, feedForwardSize: 8, vocabularySize: 8, normEpsilon: 1e-6,
    rotary, slidingWindow: { tokens: 4, layers: [true, true, false, true], rotary }, tiedEmbeddings: true, maxPositions: 16,
  };
  const kept = keepLayersOf(config, [1, 2]);
  assert.equal(kept.layers, 2);
  assert.deepEqual(kept.slidingWindow?.layers, [true, false]);
  const tensors = new Map([['model.embed_tokens.weight', 'e'], ['model.layers.0.a', '0'], ['model.layers.1.a', '1'], ['model.layers.2.a', '2'], ['model.layers.12.a', '12'], ['model.norm.weight', 'n']]);
  assert.deepEqual([...keepTensors(tensors, [1, 12])], [['model.embed_tokens.weight', 'e'], ['model.layers.0.a', '1'], ['model.layers.1.a', '12'], ['model.norm.weight', 'n']]);
});
