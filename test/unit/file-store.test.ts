import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getRows, putJson, putRows } from '../../src/store/jsonl.ts';
import { temporaryFolder } from '../support/folder.ts';

const hasCode = (code: string) => (error: unknown) => error instanceof StillhouseError && error.code === code;

describe('file store', () => {
  const folder = temporaryFolder();
  const root = join(folder, 'objects');

  const pathOf = (sha256: string): string => join(root, 'sha256', sha256.slice(0, 2), sha256.slice(2));

  it('names bytes by their SHA-256 and gives them back', async () => {
    const store = createFileStore(root);
    const ref = await store.put('report', 'abc');
    // FIPS 180-2 appendix B.1.
    assert.equal(ref.sha256, 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
    assert.deepEqual(ref, { kind: 'report', sha256: ref.sha256, sizeBytes: 3 });
    assert.equal((await store.get(ref)).toString(), 'abc');
    assert.deepEqual(await store.put('report', Buffer.from('abc')), ref);
    assert.equal(await store.has(ref), true);
    assert.deepEqual(await readdir(join(root, 'tmp')), []);
  });

  it('keeps non-ASCII rows as they are and hashes equal values equally', async () => {
    const store = createFileStore(root);
    const rows = [{ input: '这部电影很好看', n: 1 }, { n: 2, input: 'ß😀' }];
    const ref = await putRows(store, 'rows', rows);
    assert.deepEqual(await getRows(store, ref), rows);
    assert.match(await readFile(pathOf(ref.sha256), 'utf8'), /这部电影很好看/);
    assert.deepEqual(await putJson(store, 'spec', { b: 1, a: { d: 2, c: 3 } }), await putJson(store, 'spec', { a: { c: 3, d: 2 }, b: 1 }));
  });

  it('refuses damaged bytes and mends them at the next put', async () => {
    const store = createFileStore(root);
    const ref = await store.put('dataset', 'precious rows');
    assert.equal(await readFile(await store.localPath(ref), 'utf8'), 'precious rows');
    await writeFile(pathOf(ref.sha256), 'precious rowz');
    await assert.rejects(store.get(ref), hasCode('CORRUPT'));
    await assert.rejects(store.localPath(ref), hasCode('CORRUPT'));
    await truncate(pathOf(ref.sha256), 4);
    await assert.rejects(createFileStore(root).localPath(ref), hasCode('CORRUPT'));
    await store.put('dataset', 'precious rows');
    assert.equal((await store.get(ref)).toString(), 'precious rows');
  });

  it('says what is missing', async () => {
    const store = createFileStore(root);
    const ref = { kind: 'dataset', sha256: 'ab'.repeat(32), sizeBytes: 1 } as const;
    assert.equal(await store.has(ref), false);
    await assert.rejects(store.get(ref), hasCode('NOT_FOUND'));
    await assert.rejects(store.localPath(ref), hasCode('NOT_FOUND'));
    await assert.rejects(store.get({ ...ref, sha256: '../../etc/passwd' }), hasCode('BAD_INPUT'));
  });

  it('stores folders and writes them out again', async () => {
    const store = createFileStore(root);
    const source = join(folder, 'adapter');
    await mkdir(join(source, 'inner'), { recursive: true });
    await writeFile(join(source, 'adapter_config.json'), '{}');
    await writeFile(join(source, 'inner', 'weights.bin'), Buffer.alloc(300_000, 7));
    const ref = await store.putFolder('adapter', source);
    assert.deepEqual(await store.putFolder('adapter', source), ref);
    const target = join(folder, 'out');
    const manifest = await store.extractFolder(ref, target);
    assert.deepEqual(manifest.files.map((file) => file.path), ['adapter_config.json', 'inner/weights.bin']);
    assert.deepEqual(await readFile(join(target, 'inner', 'weights.bin')), Buffer.alloc(300_000, 7));
    await assert.rejects(store.extractFolder(ref, target), hasCode('CONFLICT'));
    const evil = await putJson(store, 'adapter', { files: [{ path: '../escape', sha256: ref.sha256, sizeBytes: ref.sizeBytes }] });
    await assert.rejects(store.extractFolder(evil, join(folder, 'evil')), hasCode('CORRUPT'));
  });

  it('survives eight writers of the same bytes', async () => {
    const bytes = Buffer.alloc(200_000, 3);
    const refs = await Promise.all(Array.from({ length: 8 }, () => createFileStore(root).put('file', bytes)));
    assert.equal(new Set(refs.map((ref) => ref.sha256)).size, 1);
    assert.deepEqual(await createFileStore(root).get(refs[0]!), bytes);
  });

  it('reports a full disk and leaves no half file', async () => {
    // A limit on file size makes the kernel refuse the write half-way, as a full disk does.
    const full = join(folder, 'full');
    const script = `
      import { createFileStore } from ${JSON.stringify(new URL('../../src/store/file-store.ts', import.meta.url).href)};
      const store = createFileStore(${JSON.stringify(full)});
      await store.put('file', 'small');
      await store.put('file', Buffer.alloc(400_000, 1)).catch((error) => console.log(error.code + ': ' + error.message));`;
    const child = spawnSync('sh', ['-c', 'ulimit -f 100; exec "$0" --input-type=module -e "$1"', process.execPath, script], { encoding: 'utf8' });
    assert.match(child.stdout, /^DISK_FULL: expected free space to write /, child.stderr);
    assert.deepEqual(await readdir(join(full, 'tmp')), []);
    const folders = await readdir(join(full, 'sha256'), { recursive: true });
    assert.equal(folders.filter((name) => name.includes('/')).length, 1);
  });

  it('is not disturbed by what a crash left in tmp', async () => {
    await writeFile(join(root, 'tmp', 'leftover'), 'half');
    const ref = await createFileStore(root).put('file', 'half a file');
    assert.equal((await createFileStore(root).get(ref)).toString(), 'half a file');
  });
});
