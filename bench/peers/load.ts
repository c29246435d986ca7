/** Loads a model with an empty cache and opens it for inference: argv = path, cache. Prints what each stage's peak memory was. */
import { createEngine } from '../../src/lm/engine.ts';
import { loadModel } from '../../src/lm/load.ts';

const [path = '', cache = ''] = process.argv.slice(2);
const peakBytes = (): number => process.resourceUsage().maxRSS * 1_024;
const startBytes = peakBytes();
const from = performance.now();
const { config, weights } = await loadModel({ path, cache });
const loadedBytes = peakBytes();
const seconds = (performance.now() - from) / 1_000;
await using engine = await createEngine({ config, weights, threads: 2 });
const float32Bytes = [...weights.tensors.values()].reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
process.stdout.write(JSON.stringify({ float32Bytes, startBytes, loadedBytes, openedBytes: peakBytes(), seconds, contextTokens: engine.contextTokens }));
