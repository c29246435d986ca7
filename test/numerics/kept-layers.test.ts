/** A student of half the layers of the real SmolLM2-135M-Instruct, all of its weights trained, learns a few rows. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAssets } from '../../src/assets/create-assets.ts';
import { readConfig } from '../../src/config.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import { loadModel } from '../../src/lm/load.ts';
import { trainEpoch } from '../../src/training/epoch.ts';

const ROWS = [
  ['a fine film', 'positive'], ['dull and long', 'negative'], ['I loved it', 'positive'], ['never again', 'negative'],
] as const;

test('fifteen of the thirty layers are a model of 81 million numbers whose loss falls', async (t) => {
  const { cache, hub } = readConfig();
  const { path, name } = await createAssets({ cache, hub }).model('smollm2-135m-instruct');
  const { identity, config, weights, tokenizer } = await loadModel({ path, name, cache, keepLayers: 15 });
  assert.equal(identity.name, 'smollm2-135m-instruct (15 of 30 layers: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 29)');
  assert.equal(config.layers, 15);
  assert.equal(identity.parameters, 81_413_568);
  const samples = ROWS.map(([text, answer], i) => ({ id: `row-${i}`, ...tokenizer.encodeForTraining([{ role: 'user', content: `Review: ${text}\nSentiment:` }, { role: 'assistant', content: answer }]) }));
  const training = campaignSpecSchema.shape.training.parse({ tune: 'full', epochs: 1, batchSize: 1, learningRate: 2e-4, schedule: 'constant', warmupRatio: 0 });
  // The same four rows again, so that each is seen twice.
  const { state } = await trainEpoch({ config, weights, modelSha256: identity.sha256, datasetSha256: '', samples: [...samples, ...samples], training, seed: 3, epoch: 0, threads: 2 }, { afterStep: () => undefined, shouldStop: () => false });
  const losses = state.curve.map(({ lossNats }) => lossNats);
  t.diagnostic(losses.map((loss) => loss.toFixed(2)).join(' '));
  assert.ok((losses[0] ?? 0) > 5 && (losses.at(-1) ?? Infinity) < 0.3 * (losses[0] ?? 0), losses.join(' '));
});
