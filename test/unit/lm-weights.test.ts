import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { BF16, F16, Q4_0, Q4_1, Q8_0 } from '../../src/lm/weights/dequantize.ts';
import { rotaryPairs } from '../../src/lm/architectures/architecture.ts';
import { ggufConfig } from '../../src/lm/weights/gguf-model.ts';
import { openGguf } from '../../src/lm/weights/gguf.ts';
import { huggingFaceConfig } from '../../src/lm/weights/hugging-face-model.ts';
import { materializeWeights } from '../../src/lm/weights/materialize.ts';
import { encodeSafetensors, openSafetensors, safetensorsPaths } from '../../src/lm/weights/safetensors.ts';
import { wholeTensor } from '../../src/lm/weights/tensor-file.ts';
import { temporaryFolder } from '../support/folder.ts';
import { floatEntry, ggufBytes, stringEntry, text, u32, u64, uintEntry } from '../support/gguf.ts';

const folder = temporaryFolder();

const place = (name: string, bytes: Uint8Array | string): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};
const refused = (code: string, pattern: RegExp) => (error: unknown): boolean => {
  assert.ok(error instanceof StillhouseError);
  assert.equal(error.code, code, error.message);
  assert.match(error.message, pattern);
  return true;
};

const LLAMA_ENTRIES = [
  stringEntry('general.architecture', 'llama'),
  uintEntry('llama.block_count', 1),
  uintEntry('llama.embedding_length', 8),
  uintEntry('llama.attention.head_count', 2),
  uintEntry('llama.attention.head_count_kv', 1),
  uintEntry('llama.feed_forward_length', 16),
  uintEntry('llama.context_length', 64),
  floatEntry('llama.attention.layer_norm_rms_epsilon', 1e-5),
];

function gguf(entries: readonly Buffer[], tensorType = 0): Buffer {
  const values = Float32Array.from({ length: 24 }, (_, i) => i / 4);
  return ggufBytes(entries, [{ name: 'token_embd.weight', shape: [3, 8], type: tensorType, bytes: new Uint8Array(values.buffer) }]);
}

test('a GGUF file gives metadata, and tensors with the outermost dimension first', () => {
  using file = openGguf(place('good.gguf', gguf(LLAMA_ENTRIES)));
  assert.equal(file.metadata.get('llama.embedding_length'), 8);
  const tensor = file.tensors.get('token_embd.weight');
  assert.deepEqual(tensor?.shape, [3, 8]);
  assert.deepEqual([...(tensor?.read() ?? [])].slice(0, 5), [0, 0.25, 0.5, 0.75, 1]);
  const config = ggufConfig(file);
  assert.equal(config.headSize, 4);
  assert.equal(config.vocabularySize, 3);
  assert.equal(config.rotary.base, 10_000);
  assert.equal(config.tiedEmbeddings, true);
});

test('a GGUF file cut at any byte is CORRUPT and says where', () => {
  const whole = gguf(LLAMA_ENTRIES);
  for (let length = 0; length < whole.length; length += 7) {
    assert.throws(() => openGguf(place('cut.gguf', whole.subarray(0, length))), refused('CORRUPT', /expected .*got /s), `cut at ${length}`);
  }
});

test('a GGUF length that the file cannot hold is refused before memory is taken', () => {
  const huge = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(0), u64(1), u64(2 ** 52), Buffer.alloc(16)]);
  assert.throws(() => openGguf(place('huge.gguf', huge)), refused('CORRUPT', /metadata key 0 at byte 32: expected 4503599627370496 bytes, got 16/));
  const array = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(0), u64(1), text('k'), u32(9), u32(4), u64(2 ** 40), Buffer.alloc(16)]);
  assert.throws(() => openGguf(place('array.gguf', array)), refused('CORRUPT', /k at byte/));
});

test('other files, versions, quantisations and architectures are named in the refusal', () => {
  assert.throws(() => openGguf(place('zip.gguf', 'PK\u0003\u0004 some archive')), refused('CORRUPT', /expected "GGUF", got "PK/));
  assert.throws(() => openGguf(place('v9.gguf', Buffer.concat([Buffer.from('GGUF'), u32(9), Buffer.alloc(16)]))), refused('CORRUPT', /expected 2 or 3, got 9/));
  assert.throws(() => openGguf(place('q2.gguf', gguf(LLAMA_ENTRIES, 10))), refused('BAD_INPUT', /token_embd\.weight: expected one of F32.*got Q2_K/));
  using other = openGguf(place('mamba.gguf', gguf([stringEntry('general.architecture', 'mamba'), ...LLAMA_ENTRIES.slice(1)])));
  assert.throws(() => ggufConfig(other), refused('BAD_INPUT', /general\.architecture: expected llama, qwen2, qwen3, gemma3, got "mamba"/));
  assert.throws(() => openGguf(join(folder, 'absent.gguf')), refused('NOT_FOUND', /absent\.gguf/));
});

// -- number formats --------------------------------------------------------------------------------

test('quantised blocks widen to scale, minimum and nibbles', () => {
  const half = (bits: number): Buffer => { const b = Buffer.alloc(2); b.writeUInt16LE(bits); return b; };
  const nibbles = Buffer.from(Array.from({ length: 16 }, (_, i) => i | ((15 - i) << 4)));
  const low = Array.from({ length: 16 }, (_, i) => i);
  const high = low.toReversed();
  // 0x3800 is 0.5, 0xc000 is −2.
  assert.deepEqual([...Q4_0.widen(Buffer.concat([half(0x3800), nibbles]), 32)], [...low, ...high].map((q) => 0.5 * (q - 8)));
  assert.deepEqual([...Q4_1.widen(Buffer.concat([half(0x3800), half(0xc000), nibbles]), 32)], [...low, ...high].map((q) => 0.5 * q - 2));
  const bytes = Buffer.from(Int8Array.from({ length: 32 }, (_, i) => i * 8 - 128).buffer);
  assert.deepEqual([...Q8_0.widen(Buffer.concat([half(0x3800), bytes]), 32)], Array.from({ length: 32 }, (_, i) => 0.5 * (i * 8 - 128)));
});

test('half precision covers subnormals, infinities and signs; bfloat16 is the upper half of a float32', () => {
  const halves = Buffer.from(Uint16Array.from([0x0001, 0x8000, 0x7bff, 0xfc00, 0x3c00]).buffer);
  assert.deepEqual([...F16.widen(halves, 5)], [2 ** -24, -0, 65_504, -Infinity, 1]);
  assert.deepEqual([...BF16.widen(Buffer.from(Uint16Array.from([0x3f80, 0xc049]).buffer), 2)], [1, -3.140625]);
});

test('rotary rows go back from neighbouring pairs to halves', () => {
  // One head of six rows, one column: pairs (0,1) (2,3) (4,5) become first halves, then second halves.
  const [six, eight] = [Float32Array.from([0, 1, 2, 3, 4, 5]), Float32Array.from([0, 1, 2, 3, 4, 5, 6, 7])];
  assert.deepEqual([...rotaryPairs(1).fromGguf(six, [6, 1])], [0, 2, 4, 1, 3, 5]);
  assert.deepEqual([...rotaryPairs(2).fromGguf(eight, [8, 1])], [0, 2, 1, 3, 4, 6, 5, 7]);
  for (const [values, heads] of [[six, 1], [eight, 2]] as const) {
    assert.deepEqual(rotaryPairs(heads).fromGguf(rotaryPairs(heads).toGguf(values, [values.length, 1]), [values.length, 1]), values);
  }
});

// -- safetensors and Hugging Face folders ----------------------------------------------------------

test('safetensors written are read back, byte for byte the same whatever the order', () => {
  const a = { name: 'a', shape: [2, 2], values: Float32Array.from([1, 2, 3, 4]) };
  const b = { name: 'b', shape: [1], values: Float32Array.from([-0.5]) };
  const bytes = encodeSafetensors([b, a]);
  assert.deepEqual(bytes, encodeSafetensors([a, b]));
  using file = openSafetensors(place('good.safetensors', bytes));
  assert.deepEqual([...(file.tensors.get('a')?.read() ?? [])], [1, 2, 3, 4]);
  assert.deepEqual(file.tensors.get('b')?.shape, [1]);
  assert.deepEqual(file.metadata, { format: 'pt' });
});

test('broken safetensors are CORRUPT and say where', () => {
  const bytes = encodeSafetensors([{ name: 'a', shape: [4], values: new Float32Array(4) }]);
  for (const length of [0, 7, 20, bytes.length - 1]) {
    assert.throws(() => openSafetensors(place('cut.safetensors', bytes.subarray(0, length))), refused('CORRUPT', /cut\.safetensors/), `cut at ${length}`);
  }
  const lying = (header: object): Buffer => { const json = Buffer.from(JSON.stringify(header)); return Buffer.concat([u64(json.length), json, Buffer.alloc(16)]); };
  assert.throws(() => openSafetensors(place('lie.safetensors', lying({ a: { dtype: 'F32', shape: [4], data_offsets: [0, 8] } }))), refused('CORRUPT', /tensor a: expected 16 bytes/));
  assert.throws(() => openSafetensors(place('i8.safetensors', lying({ a: { dtype: 'I8', shape: [16], data_offsets: [0, 16] } }))), refused('BAD_INPUT', /got I8/));
});

test('the shards of an index are listed once, and a path in it is refused', () => {
  place('model.safetensors.index.json', JSON.stringify({ weight_map: { x: 's-2.safetensors', y: 's-1.safetensors', z: 's-2.safetensors' } }));
  assert.deepEqual(safetensorsPaths(folder), [join(folder, 's-1.safetensors'), join(folder, 's-2.safetensors')]);
  place('model.safetensors.index.json', JSON.stringify({ weight_map: { x: '../../etc/passwd' } }));
  assert.throws(() => safetensorsPaths(folder), refused('CORRUPT', /expected file names/));
});

test('config.json is read strictly: other architectures, and settings that are not computed, are refused', () => {
  const base = { model_type: 'llama', num_hidden_layers: 2, hidden_size: 8, num_attention_heads: 2, intermediate_size: 16, vocab_size: 10, rope_parameters: { rope_type: 'default', rope_theta: 5e5 } };
  place('config.json', JSON.stringify(base));
  const config = huggingFaceConfig(folder);
  assert.deepEqual([config.keyValueHeads, config.headSize, config.rotary.base, config.tiedEmbeddings], [2, 4, 5e5, false]);
  const refuses = (changes: object, pattern: RegExp): void => {
    place('config.json', JSON.stringify({ ...base, ...changes }));
    assert.throws(() => huggingFaceConfig(folder), refused('BAD_INPUT', pattern));
  };
  refuses({ model_type: 'phi3' }, /model_type: expected llama, qwen2, qwen3, gemma3_text, got "phi3"/);
  refuses({ rope_parameters: { rope_type: 'yarn' } }, /rope_type: expected default, linear or llama3, got "yarn"/);
  refuses({ rope_parameters: { rope_type: 'llama3', factor: 8 } }, /low_freq_factor: expected a number for llama3 rotary scaling, got nothing/);
  refuses({ attention_bias: true }, /attention_bias/);
  refuses({ model_type: 'qwen2', use_sliding_window: true }, /use_sliding_window/);
  refuses({ num_hidden_layers: 1e9 }, /num_hidden_layers/);
  refuses({ model_type: 'gemma3_text', rope_parameters: null, layer_types: ['full_attention'] }, /layer_types: expected one of each of 2 layers, got 1/);
  refuses({ model_type: 'gemma3_text', rope_parameters: null, final_logit_softcapping: 30 }, /final_logit_softcapping/);
  refuses({ hidden_size: 9 }, /head_dim: expected an even integer, got 4\.5/);
});

test('materialised weights are written once and a damaged file is written again', () => {
  const cache = mkdtempSync(join(folder, 'cache-'));
  let reads = 0;
  const values = Float32Array.from([1, 2, 3]);
  const tensor = wholeTensor({ name: 't', shape: [3], storedAs: 'F32' }, () => { reads += 1; return values; });
  const input = { cache, sha256: 'ab'.repeat(32), tensors: new Map([['t', tensor], ['u', { ...tensor, name: 'u' }]]) };
  const first = materializeWeights(input);
  const second = materializeWeights(input);
  assert.equal(reads, 2);
  assert.deepEqual([...second.tensors], [...first.tensors]);
  const place2 = first.tensors.get('u');
  assert.equal((place2?.offsetBytes ?? 1) % 4096, 0);
  const bytes = readFileSync(first.path).subarray(place2?.offsetBytes, (place2?.offsetBytes ?? 0) + 12);
  assert.deepEqual([...new Float32Array(new Uint8Array(bytes).buffer)], [1, 2, 3]);
  writeFileSync(first.path, readFileSync(first.path).subarray(0, 100));
  assert.equal(statSync(materializeWeights(input).path).size, 4096 + 12);
  assert.equal(reads, 4);
  assert.deepEqual(readdirSync(join(cache, 'weights')).filter((name) => name.endsWith('.tmp')), []);
});
