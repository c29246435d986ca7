/** Damaged and hostile files: each ends in a result or in one clear error, and memory stays bounded. */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { extractMembers } from '../../src/assets/python.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { openGguf } from '../../src/lm/weights/gguf.ts';
import { readJson } from '../../src/lm/weights/json.ts';
import { openSafetensors, safetensorsPaths } from '../../src/lm/weights/safetensors.ts';
import { temporaryFolder } from '../support/folder.ts';
import { ggufBytes, stringEntry } from '../support/gguf.ts';

const folder = temporaryFolder();

const CASES_OF_EACH = 60;
/** Above what reading the undamaged files took; the largest of them has 0.3 MB. */
const MAX_GROWN_BYTES = 256 << 20;

interface Report {
  readonly outcomes: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly faults: readonly { readonly kind: string; readonly index: number; readonly error: string }[];
  readonly grownBytes: number;
}

for (const seed of [20_261_125, 7]) {
  test(`hundreds of damaged files, seed ${seed}: every one is read or refused with what was expected and what came`, async (context) => {
    const script = fileURLToPath(new URL('../support/hostile-files.ts', import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, [script, String(seed), String(CASES_OF_EACH)], { maxBuffer: 1 << 24 });
    const { outcomes, faults, grownBytes } = JSON.parse(stdout) as Report;
    assert.deepEqual(faults, []);
    for (const [kind, ends] of Object.entries(outcomes)) {
      assert.equal(Object.values(ends).reduce((sum, n) => sum + n, 0), CASES_OF_EACH, kind);
      assert.ok((ends['CORRUPT'] ?? 0) + (ends['BAD_INPUT'] ?? 0) >= CASES_OF_EACH / 5, `${kind}: the damage is mostly noticed, got ${JSON.stringify(ends)}`);
    }
    context.diagnostic(`memory grew by ${(grownBytes / 2 ** 20).toFixed(0)} MiB`);
    assert.ok(grownBytes < MAX_GROWN_BYTES, `memory grew by ${grownBytes} bytes`);
  });
}

const place = (name: string, content: string | Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};
const refused = (code: string, pattern: RegExp) => (error: unknown): boolean => error instanceof StillhouseError && error.code === code && pattern.test(error.message);

function safetensors(header: object, dataBytes = 64): Buffer {
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([size, json, Buffer.alloc(dataBytes)]);
}

test('tensors that lie about their place are refused: outside, backwards, over one another, or of a size that overflows', () => {
  const cases: [object, RegExp][] = [
    [{ a: { dtype: 'F32', shape: [16], data_offsets: [64, 128] } }, /expected bytes up to \d+, got a file of/],
    [{ a: { dtype: 'F32', shape: [4], data_offsets: [16, 0] } }, /expected 16 bytes for \[4\] F32, got offsets 16 to 0/],
    [{ a: { dtype: 'F32', shape: [4], data_offsets: [-16, 0] } }, /two data_offsets, got/],
    [{ a: { dtype: 'F32', shape: [4], data_offsets: [0, 16] }, b: { dtype: 'F32', shape: [4], data_offsets: [12, 28] } }, /tensor b: expected bytes of its own from \d+ on, got \d+, inside a/],
    [{ a: { dtype: 'F32', shape: [2 ** 31, 2 ** 31, 2 ** 31], data_offsets: [0, 64] } }, /expected .* bytes for/],
    [{ a: { dtype: 'F32', shape: Array.from({ length: 1_000 }, () => 1), data_offsets: [0, 4] } }, /at most 8 dimensions/],
    [{ __metadata__: { format: 1 } }, /__metadata__: expected texts by name/],
  ];
  for (const [header, message] of cases) assert.throws(() => openSafetensors(place('lying.safetensors', safetensors(header))), refused('CORRUPT', message), String(message));
  const bytes = new Uint8Array(64);
  const twice = ggufBytes([stringEntry('general.architecture', 'llama')], [{ name: 'a', shape: [16], type: 0, bytes }, { name: 'a', shape: [16], type: 0, bytes }]);
  assert.throws(() => openGguf(place('twice.gguf', twice)), refused('CORRUPT', /tensor a: expected one of that name, got two/));
  const overlapping = ggufBytes([stringEntry('general.architecture', 'llama')], [{ name: 'a', shape: [16], type: 0, bytes }, { name: 'b', shape: [32], type: 0, bytes: new Uint8Array(32) }]);
  // b claims 128 bytes where 64 are left: the file is padded so that its end is not what gives it away.
  assert.throws(() => openGguf(place('over.gguf', overlapping)), refused('CORRUPT', /tensor b: expected bytes/));
});

test('shards are files of their own folder, whatever the index says', () => {
  place('secret.safetensors', safetensors({ a: { dtype: 'F32', shape: [16], data_offsets: [0, 64] } }));
  const home = join(folder, 'home');
  mkdirSync(home);
  for (const name of ['../secret.safetensors', join(folder, 'secret.safetensors'), '..', '.', '', 'a\\b', 'a\u0000b', 'x'.repeat(256), 7, null, ['x']]) {
    writeFileSync(join(home, 'model.safetensors.index.json'), JSON.stringify({ weight_map: { a: name } }));
    assert.throws(() => safetensorsPaths(home), refused('CORRUPT', /weight_map: expected file names, got/), JSON.stringify(name));
  }
});

test('JSON is bounded before it is parsed', () => {
  assert.throws(() => readJson(place('deep.json', '['.repeat(1_000_000))), refused('CORRUPT', /expected JSON nested at most 64 deep, got 1000000/));
  assert.deepEqual(readJson(place('text.json', '{"a":"[[[[\\"[{"}')), { a: '[[[["[{' }, 'brackets in texts do not count');
  assert.throws(() => readJson(folder), refused('NOT_FOUND', /expected a readable file, got EISDIR/));
  assert.throws(() => readJson(place('nan.json', '{"a":NaN}')), refused('CORRUPT', /expected JSON/));
});

/** Archives of every bad kind, made by Python's own modules. */
const ARCHIVES = `
import io, os, sys, tarfile, zipfile
home = sys.argv[1]
def zipped(name, member, body=b"x" * 1000):
    with zipfile.ZipFile(os.path.join(home, name), "w") as z:
        z.writestr(member, body)
zipped("good.zip", "pkg/data.bin")
zipped("parent.zip", "../outside.bin")
zipped("absolute.zip", "/tmp/outside.bin")
whole = open(os.path.join(home, "good.zip"), "rb").read()
open(os.path.join(home, "cut.zip"), "wb").write(whole[: len(whole) // 2])
open(os.path.join(home, "flipped.zip"), "wb").write(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
with tarfile.open(os.path.join(home, "links.tar"), "w") as t:
    for name, kind, target in (("pkg/data.bin", tarfile.SYMTYPE, "/etc/hostname"), ("pkg/hard.bin", tarfile.LNKTYPE, "../../etc/hostname")):
        info = tarfile.TarInfo(name); info.type = kind; info.linkname = target; t.addfile(info)
    info = tarfile.TarInfo("pkg/fifo.bin"); info.type = tarfile.FIFOTYPE; t.addfile(info)
    info = tarfile.TarInfo("pkg/folder.bin"); info.type = tarfile.DIRTYPE; t.addfile(info)
`;

test('members of archives are written where they were asked for and nowhere else; broken and linked ones are CORRUPT', async () => {
  const home = join(folder, 'archives');
  const out = join(folder, 'out');
  mkdirSync(home);
  mkdirSync(out);
  execFileSync('python3', ['-c', ARCHIVES, home]);
  writeFileSync(join(home, 'noise.zip'), Buffer.from(Array.from({ length: 500 }, (_, i) => (i * 37) % 256)));
  const take = (archive: string, member: string, target = join(out, 'taken')): Promise<void> => extractMembers(join(home, archive), [{ member, target }]);
  await take('good.zip', 'pkg/data.bin');
  assert.equal(readFileSync(join(out, 'taken'), 'utf8'), 'x'.repeat(1_000));
  for (const [archive, member] of [
    ['cut.zip', 'pkg/data.bin'], ['flipped.zip', 'pkg/data.bin'], ['noise.zip', 'pkg/data.bin'],
    ['links.tar', 'pkg/data.bin'], ['links.tar', 'pkg/hard.bin'], ['links.tar', 'pkg/fifo.bin'], ['links.tar', 'pkg/folder.bin'], ['good.zip', '../outside.bin'],
  ] as const) {
    await assert.rejects(take(archive, member), refused('CORRUPT', /expected an archive with/), `${archive}, ${member}`);
  }
  // A name in the archive is never a path here.
  for (const [archive, member] of [['parent.zip', '../outside.bin'], ['absolute.zip', '/tmp/outside.bin']] as const) await take(archive, member, join(out, 'named')).catch(() => undefined);
  assert.ok(!existsSync(join(home, '..', 'outside.bin')) && !existsSync('/tmp/outside.bin'));
  assert.deepEqual(readdirSync(out).filter((name) => name !== 'taken' && name !== 'named'), []);
});
