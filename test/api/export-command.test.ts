/** `still export` as a user runs it: a campaign's student over REST, and a model and adapter of one's own. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { buildApp } from '../../src/api/app.ts';
import { listen } from '../../src/api/server.ts';
import type { ListeningServer } from '../../src/api/server.ts';
import { exportCommand } from '../../src/cli/export-command.ts';
import type { ExportOptions } from '../../src/cli/export-command.ts';
import { readConfig } from '../../src/config.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { parseSpec } from '../../src/contracts/parse-spec.ts';
import { readAdapter } from '../../src/lm/adapter.ts';
import { EXPORT_FORMATS, exportModel, exportPeft } from '../../src/lm/export/export-model.ts';
import { openModel } from '../../src/lm/load.ts';
import { openGguf } from '../../src/lm/weights/gguf.ts';
import { openSafetensors } from '../../src/lm/weights/safetensors.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { specToPlan } from '../../src/contracts/campaign.ts';
import { putJson } from '../../src/store/jsonl.ts';
import { writeAdapterFolder } from '../support/adapter-folder.ts';
import { temporaryFolder } from '../support/folder.ts';
import { MemoryCampaigns, scriptedEstimate } from '../support/memory-campaigns.ts';
import { TINY, writeTinyLlama } from '../support/tiny-llama.ts';

const STILL = fileURLToPath(new URL('../../src/cli/still.ts', import.meta.url));
const SPEC = fileURLToPath(new URL('../../campaigns/review-sentiment.yaml', import.meta.url));
const KEY = 'test-key-0123456789';
const { hiddenSize: H } = TINY;
const QUERY = 'model.layers.0.self_attn.q_proj';
const folder = temporaryFolder();
let model: string;
let adapter: string;
let server: ListeningServer;

before(async () => {
  model = writeTinyLlama(join(folder, 'tiny'));
  adapter = writeAdapterFolder(join(folder, 'adapter'), [{ module: QUERY, inSize: H, outSize: H }]);
  const store = createFileStore(join(folder, 'artifacts'));
  const campaigns = new MemoryCampaigns();
  server = await listen(await buildApp({ campaigns, store, apiKey: KEY, hasSecret: () => false, estimate: scriptedEstimate }), { host: '127.0.0.1', port: 0 });
  const spec = parseSpec(readFileSync(SPEC, 'utf8'), SPEC);
  await campaigns.start({ campaign: spec.name, spec: await putJson(store, 'spec', spec), plan: specToPlan(spec), budget: {} });
  const stored = join(folder, 'stored');
  await exportPeft({ adapterPath: adapter, provenance: { baseModel: model, license: 'MIT', campaign: spec.name, datasetSha256: 'cd'.repeat(32) } }, stored);
  campaigns.change(spec.name, { adapter: await store.putFolder('adapter', stored) });
});
after(async () => {
  await server.close();
});

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}
function still(...args: readonly string[]): Promise<Outcome> {
  const child = spawn(process.execPath, [STILL, 'export', ...args], {
    env: { ...process.env, STILLHOUSE_HOME: join(folder, 'home'), STILLHOUSE_API_URL: server.url, STILLHOUSE_API_KEY: KEY },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr })));
}

test("a campaign's student comes as it is stored, or merged into its base model in another format", async () => {
  const plain = await still('review-sentiment', join(folder, 'plain'));
  assert.equal(plain.code, 0, plain.stderr);
  assert.deepEqual(readdirSync(join(folder, 'plain')).toSorted(), ['README.md', 'adapter_config.json', 'adapter_model.safetensors', 'stillhouse.json']);
  assert.deepEqual(readFileSync(join(folder, 'plain', 'adapter_model.safetensors')), readFileSync(join(folder, 'stored', 'adapter_model.safetensors')));
  using stored = openSafetensors(join(folder, 'plain', 'adapter_model.safetensors'));
  assert.equal(stored.metadata['stillhouse.dataset_sha256'], 'cd'.repeat(32));

  const merged = await still('--json', 'review-sentiment', join(folder, 'merged'), '--format', 'gguf', '--type', 'f32');
  assert.equal(merged.code, 0, merged.stderr);
  const { files } = JSON.parse(merged.stdout) as { files: { path: string; sha256: string; sizeBytes: number }[] };
  assert.deepEqual(files.map(({ path }) => path), ['README.md', 'review-sentiment.F32.gguf', 'stillhouse.json']);
  using file = openGguf(join(folder, 'merged', 'review-sentiment.F32.gguf'));
  assert.deepEqual(['general.license', 'stillhouse.campaign', 'stillhouse.base_model'].map((key) => file.metadata.get(key)), ['mit', 'review-sentiment', model]);
  using after = openModel(join(folder, 'merged', 'review-sentiment.F32.gguf'));
  using base = openModel(model);
  const pair = readAdapter(adapter).pairs.get(`${QUERY}.weight`) ?? assert.fail();
  const [first, before] = [after.tensors, base.tensors].map((tensors) => tensors.get(`${QUERY}.weight`)?.read()[0] ?? NaN) as [number, number];
  const delta = Array.from({ length: 4 }, (_, k) => (pair.b.values[k] ?? 0) * (pair.a.values[k * H] ?? 0)).reduce((sum, one) => sum + one, 0) * 2;
  assert.ok(Math.abs(first - before - delta) < 1e-6 && delta !== 0, `${first} after, ${before} before, ${delta} added`);
});

test('a model and an adapter of one’s own are exported without a service', async () => {
  const outcome = await still(join(folder, 'own'), '--model', model, '--adapter', adapter, '--format', 'gguf-lora');
  assert.equal(outcome.code, 0, outcome.stderr);
  assert.deepEqual(readdirSync(join(folder, 'own')).toSorted(), ['README.md', 'stillhouse.json', 'tiny.lora.F32.gguf']);
  assert.match(outcome.stdout, /own: README\.md \(0\.0 MB\), stillhouse\.json/);
});

test('every format is written from a model and an adapter', async () => {
  const expected = {
    peft: /adapter_model\.safetensors/, safetensors: /model\.safetensors/, gguf: /base\.F16\.gguf/, 'gguf-lora': /base\.lora\.F32\.gguf/, onnx: /model\.onnx_data/,
  } as const;
  for (const format of EXPORT_FORMATS) {
    const target = join(folder, `all-${format}`);
    await exportModel({ format, path: model, adapterPath: adapter, provenance: { baseModel: 'org/base', license: 'MIT' } }, target);
    assert.match(readdirSync(target).join(' '), expected[format]);
    assert.match(readFileSync(join(target, 'README.md'), 'utf8'), /base_model: org\/base\n[\s\S]*licence of the base model: MIT/);
  }
  assert.equal(readAdapter(join(folder, 'all-peft')).scale, 2);
  assert.ok(readdirSync(join(folder, 'all-peft')).includes('tokenizer.json'));
});

test('wrong use ends with 2, says what was expected, and writes nothing', async () => {
  const target = join(folder, 'none');
  const outcome = await still(target);
  assert.deepEqual([outcome.code, outcome.stdout], [2, '']);
  assert.match(outcome.stderr, /expected a campaign and a folder, or --model and a folder/);
  const cases: [string[], ExportOptions, RegExp][] = [
    [['review-sentiment', target], { model }, /expected a campaign or --model and --adapter, got both/],
    [['review-sentiment', target], { type: 'f16' }, /expected --format beside --type/],
    [['review-sentiment', target], { format: 'onnx', type: 'q8_0' }, /type: expected f32 for onnx, got "q8_0"/],
    [[target], { model, format: 'gguf-lora' }, /gguf-lora: expected an adapter to export, got a whole model/],
    [[join(folder, 'tiny')], { model }, /tiny: expected a new or empty folder, got one with 4 entries/],
  ];
  const context = { config: readConfig(), json: false, signal: new AbortController().signal };
  for (const [names, options, message] of cases) {
    await assert.rejects(exportCommand(context, names, options), (error) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && message.test(error.message), String(message));
  }
  assert.ok(!readdirSync(folder).some((name) => name.startsWith('none')));
});
