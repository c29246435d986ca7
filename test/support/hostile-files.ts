/**
 * Feeds damaged and hostile files to everything that reads models: argv = seed, cases of each kind. Prints one JSON document:
 * how each case ended, those that ended otherwise than in a result or a StillhouseError, and how far memory grew.
 * A process of its own, so that a crash and memory count.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { readAdapter } from '../../src/lm/adapter.ts';
import { openModel } from '../../src/lm/load.ts';
import { openGguf } from '../../src/lm/weights/gguf.ts';
import { openSafetensors } from '../../src/lm/weights/safetensors.ts';
import { randomStream } from '../../src/training/random.ts';
import { writeAdapterFolder } from './adapter-folder.ts';
import { temporaryFolder } from './folder.ts';
import { readReference, writeGgufModel } from './recipe.ts';
import { TINY, writeTinyLlama } from './tiny-llama.ts';

const [seedText = '1', countText = '40'] = process.argv.slice(2);
const [seed, count] = [Number(seedText), Number(countText)];
const folder = temporaryFolder();

interface Draw {
  below(limit: number): number;
  pick<T>(from: readonly T[]): T;
}
function drawOf(...stream: readonly number[]): Draw {
  const random = randomStream(seed, ...stream);
  let index = 0;
  const below = (limit: number): number => Math.min(limit - 1, Math.floor(random.uniform(index++) * limit));
  return { below, pick: <T>(from: readonly T[]): T => from[below(from.length)] as T };
}

// -- damage --------------------------------------------------------------------------------------------

const HOSTILE_U64 = [0n, 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 40n, 2n ** 53n, 2n ** 62n, 2n ** 63n, 2n ** 64n - 1n];

/** Bytes changed where they say most: in the first `head` of the file. */
function damageBytes(bytes: Buffer, draw: Draw, head: number): Buffer {
  const out = Buffer.from(bytes);
  const reach = Math.min(head, out.length);
  switch (draw.below(5)) {
    case 0:
      return out.subarray(0, draw.below(out.length));
    case 1:
      for (let i = draw.below(8); i >= 0; i -= 1) out[draw.below(reach)] = draw.below(256);
      return out;
    case 2:
      if (reach >= 8) out.writeBigUInt64LE(draw.pick(HOSTILE_U64), draw.below(reach - 7));
      return out;
    case 3:
      if (reach >= 4) out.writeUInt32LE(Number(draw.pick(HOSTILE_U64) & 0xffffffffn), draw.below(reach - 3));
      return out;
    default: {
      const at = draw.below(reach);
      return Buffer.concat([out.subarray(0, at), Buffer.alloc(draw.below(64), draw.below(256)), out.subarray(at + draw.below(64))]);
    }
  }
}

const deep = (levels: number): unknown => {
  let value: unknown = 1;
  for (let i = 0; i < levels; i += 1) value = i % 2 === 0 ? [value] : { a: value };
  return value;
};
const HOSTILE_VALUES: readonly unknown[] = [
  null, true, -1, 0, 0.5, 1e308, -1e308, 2 ** 53, 2 ** 31, 1e9, '', 'x', '../../../etc/passwd', '/etc/passwd', '\u0000', 'y'.repeat(100_000),
  [], {}, [-1, 4], [4, 0], [2 ** 30, 2 ** 30, 2 ** 30], [1e9, 1e9], Array.from({ length: 10_000 }, () => 1), { __proto__: null, constructor: 1 }, deep(60), deep(2_000), 'NaN',
];

/** A value somewhere in the document is replaced, removed or put beside others. */
function damageJson(text: string, draw: Draw): string {
  const document = JSON.parse(text) as unknown;
  let at: unknown = document;
  for (let levels = draw.below(5); levels >= 0; levels -= 1) {
    if (typeof at !== 'object' || at === null) break;
    const holder = at as Record<string, unknown>;
    const keys = Object.keys(holder);
    const key = keys.length === 0 ? 'added' : draw.pick(keys);
    const inner = holder[key];
    if (levels === 0 || typeof inner !== 'object' || inner === null) {
      if (draw.below(8) === 0) Reflect.deleteProperty(holder, key);
      else holder[key] = draw.pick(HOSTILE_VALUES);
      break;
    }
    at = inner;
  }
  return JSON.stringify(document);
}

/** Numbers that JSON has no word for, nesting that a parser's stack must bear, and text cut anywhere. */
function damageText(text: string, draw: Draw): string {
  switch (draw.below(6)) {
    case 0:
      return text.slice(0, draw.below(text.length));
    case 1:
      return text.replace(/\d+(\.\d+)?/, draw.pick(['NaN', 'Infinity', '1e999', '-1e999', '0x10', '1_000']));
    case 2:
      return '['.repeat(200_000);
    case 3:
      return draw.pick(['', 'null', '[]', '"text"', '\u0000\u0001', '{"a":1}{"b":2}', '\ufeff{}']);
    default:
      return damageJson(text, draw);
  }
}

/** A safetensors file with a damaged header of the right length, or with damaged bytes. */
function damageSafetensors(bytes: Buffer, draw: Draw): Buffer {
  if (draw.below(3) === 0) return damageBytes(bytes, draw, 400);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = Buffer.from(damageText(bytes.subarray(8, 8 + length).toString('utf8'), draw));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([size, header, bytes.subarray(8 + length)]);
}

// -- what reads them -----------------------------------------------------------------------------------

/** Opens a model and reads all of its weights. */
function readWhole(path: string): void {
  using model = openModel(path);
  for (const tensor of model.tensors.values()) for (const values of tensor.blocks()) if (values.length < 0) throw new Error('unreachable');
  model.tokenizer.encode('Hello, world');
}

interface Kind {
  readonly name: string;
  /** Writes the damaged file and reads it. */
  readonly run: (draw: Draw) => void;
}

function kinds(): readonly Kind[] {
  const { architectures } = readReference();
  const ggufs = Object.entries(architectures).map(([name, reference]) => readFileSync(writeGgufModel(join(folder, `${name}.gguf`), name, reference, 'Q8_0')));
  const model = writeTinyLlama(join(folder, 'model'));
  const adapter = writeAdapterFolder(join(folder, 'adapter'), [{ module: 'model.layers.0.self_attn.q_proj', inSize: TINY.hiddenSize, outSize: TINY.hiddenSize }]);
  const original = (home: string, name: string): Buffer => readFileSync(join(home, name));
  /** One file of a good folder is damaged, read, and put back. */
  const inFolder = (home: string, name: string, damage: (bytes: Buffer, draw: Draw) => Buffer | string, read: (home: string) => void): Kind => {
    const good = original(home, name);
    return {
      name,
      run: (draw) => {
        writeFileSync(join(home, name), damage(good, draw));
        try {
          read(home);
        } finally {
          writeFileSync(join(home, name), good);
        }
      },
    };
  };
  const json = (home: string, name: string, read: (home: string) => void = readWhole): Kind => inFolder(home, name, (bytes, draw) => damageText(bytes.toString('utf8'), draw), read);
  const sharded = join(folder, 'sharded');
  mkdirSync(sharded);
  for (const name of ['config.json', 'tokenizer.json', 'tokenizer_config.json']) writeFileSync(join(sharded, name), original(model, name));
  writeFileSync(join(sharded, 'part.safetensors'), original(model, 'model.safetensors'));
  writeFileSync(join(sharded, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: { a: 'part.safetensors', b: 'part.safetensors' } }));
  const apply = (home: string): void => void readAdapter(home);
  return [
    {
      name: 'gguf',
      run: (draw) => {
        const path = join(folder, 'damaged.gguf');
        const good = draw.pick(ggufs);
        // Most of the damage where names, sizes and offsets are.
        writeFileSync(path, damageBytes(good, draw, draw.below(4) === 0 ? good.length : 8_000));
        readWhole(path);
      },
    },
    {
      name: 'gguf header',
      run: (draw) => {
        const path = join(folder, 'noise.gguf');
        const noise = Buffer.from(Array.from({ length: 24 + draw.below(400) }, () => draw.below(draw.pick([2, 16, 256]))));
        noise.write('GGUF');
        noise.writeUInt32LE(3, 4);
        writeFileSync(path, noise);
        using file = openGguf(path);
        for (const tensor of file.tensors.values()) tensor.read();
      },
    },
    inFolder(model, 'model.safetensors', damageSafetensors, readWhole),
    {
      name: 'safetensors alone',
      run: (draw) => {
        const path = join(folder, 'damaged.safetensors');
        writeFileSync(path, damageSafetensors(original(model, 'model.safetensors'), draw));
        using file = openSafetensors(path);
        for (const tensor of file.tensors.values()) tensor.read();
      },
    },
    json(sharded, 'model.safetensors.index.json'),
    json(model, 'config.json'),
    json(model, 'tokenizer.json'),
    json(model, 'tokenizer_config.json'),
    json(adapter, 'adapter_config.json', apply),
    inFolder(adapter, 'adapter_model.safetensors', damageSafetensors, apply),
  ];
}

/** Longer messages carry the file instead of saying what is wrong with it. */
const MAX_MESSAGE = 4_000;

const outcomes: Record<string, Record<string, number>> = {};
const faults: { readonly kind: string; readonly index: number; readonly error: string }[] = [];
let baselineBytes = 0;
for (const [k, kind] of kinds().entries()) {
  const ends: Record<string, number> = {};
  outcomes[kind.name] = ends;
  for (let index = 0; index < count; index += 1) {
    let end = 'read';
    try {
      kind.run(drawOf(k, index));
    } catch (error) {
      end = error instanceof StillhouseError ? error.code : 'fault';
      const tooLong = error instanceof StillhouseError && error.message.length > MAX_MESSAGE;
      if (!['CORRUPT', 'BAD_INPUT', 'NOT_FOUND'].includes(end) || tooLong) faults.push({ kind: kind.name, index, error: (error instanceof Error ? (error.stack ?? error.message) : String(error)).slice(0, 600) });
    }
    ends[end] = (ends[end] ?? 0) + 1;
    if (k === 0 && index === 0) baselineBytes = process.resourceUsage().maxRSS * 1_024;
  }
}
process.stdout.write(JSON.stringify({ outcomes, faults, grownBytes: process.resourceUsage().maxRSS * 1_024 - baselineBytes }));
