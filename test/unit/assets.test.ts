import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import type { PackageSource } from '../../src/assets/catalogue.ts';
import { createAssets } from '../../src/assets/create-assets.ts';
import { parseHubName } from '../../src/assets/hub.ts';
import { buildHuttoDatasets, cleanSentence } from '../../src/assets/hutto.ts';
import { extractMembers } from '../../src/assets/python.ts';
import { fetchPackageFile, findFileUrl } from '../../src/assets/wheel.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { startFileServer } from '../support/file-server.ts';
import type { FileServer } from '../support/file-server.ts';
import { temporaryFolder } from '../support/folder.ts';

const COMMIT = 'a'.repeat(40);
const sha256 = (body: string | Buffer): string => createHash('sha256').update(body).digest('hex');
const gitBlob = (body: string): string => createHash('sha1').update(`blob ${body.length}\0${body}`).digest('hex');
let server: FileServer;
let folder: string;

before(async () => {
  server = await startFileServer();
});
after(() => server[Symbol.asyncDispose]());
beforeEach(async () => {
  folder = temporaryFolder();
  server.files.clear();
  server.requests.length = 0;
});

const failsWith = (code: string, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof StillhouseError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, message);
  return true;
};
const assets = (extra: { token?: string; endpoint?: string } = {}) => createAssets({ cache: folder, hub: { endpoint: server.url, ...extra } });

/** Serves a model with one LFS file and one plain file through the hub's routes. */
function serveModel(options: { readonly wrongHash?: boolean } = {}): void {
  const config = '{"model_type":"llama"}';
  const weights = 'weights!';
  server.files.set('/api/models/org/name/revision/main?blobs=true', {
    contentType: 'application/json',
    body: JSON.stringify({
      sha: COMMIT,
      cardData: { license: 'mit' },
      siblings: [
        { rfilename: 'config.json', size: config.length, blobId: gitBlob(config) },
        { rfilename: 'model.safetensors', size: weights.length, blobId: 'x', lfs: { sha256: options.wrongHash === true ? sha256('other') : sha256(weights), size: weights.length } },
        { rfilename: 'onnx/model.onnx', size: 10, blobId: 'y' },
        { rfilename: 'image.png', size: 10, blobId: 'z' },
      ],
    }),
  });
  server.files.set(`/org/name/resolve/${COMMIT}/config.json`, { body: config, faults: ['cut'] });
  server.files.set(`/org/name/resolve/${COMMIT}/model.safetensors`, { body: weights, faults: [503] });
}

test('a hub model is resolved to a commit, its weights and configuration fetched and verified', async () => {
  serveModel();
  const model = await assets().model('hf:org/name');
  assert.equal(model.license, 'mit');
  assert.equal(await readFile(join(model.path, 'config.json'), 'utf8'), '{"model_type":"llama"}');
  assert.equal(await readFile(join(model.path, 'model.safetensors'), 'utf8'), 'weights!');
  assert.ok(!server.requests.some((line) => line.includes('onnx') || line.includes('image.png')));

  const asked = server.requests.length;
  const pinned = await assets().model(`hf:org/name@${COMMIT}`);
  assert.equal(pinned.path, model.path);
  assert.equal(server.requests.length, asked, 'a commit in the cache needs no network');
});

test('a hub model whose bytes are not the announced ones is CORRUPT', async () => {
  serveModel({ wrongHash: true });
  await assert.rejects(assets().model('hf:org/name'), failsWith('CORRUPT', /model\.safetensors: expected SHA-256/));
});

test('the hub: unknown model, private model with and without a token', async () => {
  await assert.rejects(assets().model('hf:org/none'), failsWith('NOT_FOUND', /org\/none@main.*no such model or revision/));
  const info = { sha: COMMIT, siblings: [{ rfilename: 'q4.gguf', size: 4 }] };
  server.files.set('/api/models/org/secret/revision/main?blobs=true', { body: JSON.stringify(info), authorization: 'Bearer t0ken' });
  server.files.set(`/org/secret/resolve/${COMMIT}/q4.gguf`, { body: 'GGUF', authorization: 'Bearer t0ken' });
  await assert.rejects(assets().model('hf:org/secret'), failsWith('UNAUTHORIZED', /HF_TOKEN/));
  const model = await assets({ token: 't0ken' }).model('hf:org/secret');
  assert.equal(await readFile(model.path, 'utf8'), 'GGUF');
  assert.equal(model.license, 'unknown');
});

test('several GGUF files want one to be named', async () => {
  server.files.set('/api/models/org/many/revision/v1?blobs=true', { body: JSON.stringify({ sha: COMMIT, siblings: [{ rfilename: 'a.gguf' }, { rfilename: 'b.gguf' }] }) });
  server.files.set(`/org/many/resolve/${COMMIT}/b.gguf`, { body: 'BBBB' });
  await assert.rejects(assets().model('hf:org/many@v1'), failsWith('BAD_INPUT', /several: hf:org\/many\/a\.gguf, hf:org\/many\/b\.gguf; name one/));
  assert.equal(await readFile((await assets().model('hf:org/many/b.gguf@v1')).path, 'utf8'), 'BBBB');
});

test('names of hub models', () => {
  assert.deepEqual(parseHubName('hf:org/name@refs/pr/1'), { repository: 'org/name', revision: 'refs/pr/1' });
  for (const bad of ['hf:name', 'hf:', 'hf:org/../x', 'hf:org/name@']) assert.throws(() => parseHubName(bad), failsWith('BAD_INPUT', /expected hf:ORGANISATION/));
});

test('unknown names tell the known ones', async () => {
  await assert.rejects(assets().model('smollm9'), failsWith('NOT_FOUND', /expected one of smollm2-135m-instruct, hf:.*got "smollm9"/));
  await assert.rejects(assets().model('constructor'), failsWith('NOT_FOUND', /smollm2/));
  await assert.rejects(assets().dataset('catalogue:nope'), failsWith('NOT_FOUND', /hutto-reviews-gold, hutto-reviews-pool, got "catalogue:nope"/));
  await assert.rejects(assets().dataset('/no/such/file.jsonl'), failsWith('NOT_FOUND', /readable file/));
});

/** A wheel with one member, made here. */
async function makeWheel(): Promise<{ readonly source: PackageSource; readonly body: Buffer }> {
  const path = join(folder, 'made.zip');
  execFileSync('python3', ['-c', 'import sys,zipfile\nwith zipfile.ZipFile(sys.argv[1],"w") as z: z.writestr("pkg/data.bin","x"*100000)', path]);
  const body = await readFile(path);
  return { body, source: { kind: 'package', project: 'My_Pkg', version: '1.0', file: 'my_pkg-1.0-py3-none-any.whl', sha256: sha256(body), sizeBytes: body.length, member: 'pkg/data.bin' } };
}

test('a package file is found through a JSON or an HTML index, with its credentials in a header, and unpacked', async () => {
  const { source, body } = await makeWheel();
  const authorization = `Basic ${Buffer.from('user:p@ss').toString('base64')}`;
  server.files.set('/files/my_pkg-1.0-py3-none-any.whl', { body, faults: ['cut'], authorization });
  const page = `<a href="../../files/other-1.0.whl#sha256=1">o</a><a data-x="1" href="../../files/${source.file}#sha256=${source.sha256}">f</a>`;
  server.files.set('/simple/my-pkg/', { body: page, contentType: 'text/html', authorization });
  const target = join(folder, 'got', source.file);
  const index = `${server.url.replace('//', '//user:p%40ss@')}/simple`;
  await fetchPackageFile(source, target, { indexUrls: [`${server.url}/empty`, index], retryDelayMs: 1 });
  assert.deepEqual(await readFile(target), body);
  assert.ok(server.requests.some((line) => / bytes=\d+-$/.test(line)), 'resumed');

  const out = join(dirname(target), 'data.bin');
  await extractMembers(target, [{ member: 'pkg/data.bin', target: out }]);
  assert.equal((await readFile(out)).length, 100_000);
  await assert.rejects(extractMembers(target, [{ member: 'pkg/none', target: out }]), failsWith('CORRUPT', /pkg\/none/));
});

test('an index that serves a wrong byte is CORRUPT, and no other way is tried', async () => {
  const { source, body } = await makeWheel();
  server.files.set('/simple/my-pkg/', { contentType: 'application/vnd.pypi.simple.v1+json', body: JSON.stringify({ files: [{ filename: source.file, url: `${server.url}/f` }] }) });
  server.files.set('/f', { body, faults: ['wrong-byte'] });
  const target = join(folder, 'got', source.file);
  await assert.rejects(fetchPackageFile(source, target, { indexUrls: [`${server.url}/simple`], retryDelayMs: 1 }), failsWith('CORRUPT', /my_pkg.*SHA-256/));
  assert.ok(!existsSync(target) && !existsSync(`${target}.part`));
});

test('a file that the index does not list is not found', () => {
  assert.equal(findFileUrl('{"files":[]}', 'application/json', 'http://x/simple/a/', 'a.whl'), undefined);
  assert.equal(findFileUrl('<a href="/b.whl">a.whl</a>', 'text/html', 'http://x/simple/a/', 'a.whl'), undefined);
});

test('the Temporal CLI on the PATH comes first', async () => {
  await writeFile(join(folder, 'temporal'), '#!/bin/sh\n');
  await chmod(join(folder, 'temporal'), 0o755);
  const found = await createAssets({ cache: folder, hub: { endpoint: server.url }, path: `/nowhere:${folder}` }).temporalCli();
  assert.equal(found, join(folder, 'temporal'));
});

test('review datasets: cleaned, labelled by a clear mean, without a sentence in common', () => {
  assert.equal(cleanSentence("  The ''best''   film &amp; more&#39;s "), 'The "best" film & more\'s');
  const row = (index: number, mean: number, text: string): string => `${index}\t${mean}\t${text}`;
  const lines = Array.from({ length: 4_000 }, (_unused, index) => row(index, (index % 9) - 4, `sentence number ${index} about a film`));
  const text = ['\uFEFF', ...lines, row(9_001, 3, 'Sentence number 0 about a film!'), row(9_002, 3, 'too short')].join('\n').replace('\n', '');
  const built = buildHuttoDatasets([{ file: 'movie.txt', text }]);
  const parse = (jsonl: string) => jsonl.trim().split('\n').map((line) => JSON.parse(line) as { input: string; gold?: string });
  const [gold, pool] = [parse(built.gold), parse(built.pool)];
  assert.equal(gold.length, 1_500);
  assert.equal(pool.length, 2_500, 'everything else, the duplicate and the short one gone');
  const held = new Set(gold.map(({ input }) => input));
  assert.ok(pool.every(({ input, gold: label }) => !held.has(input) && label === undefined));
  for (const { input, gold: label } of gold) {
    const mean = (Number(/number (\d+)/.exec(input)?.[1]) % 9) - 4;
    assert.ok(Math.abs(mean) >= 1 && label === (mean > 0 ? 'positive' : 'negative'), input);
  }
  assert.deepEqual(buildHuttoDatasets([{ file: 'movie.txt', text }]), built);
  assert.throws(() => buildHuttoDatasets([{ file: 'movie.txt', text: '1\tx\ty' }]), failsWith('CORRUPT', /movie\.txt, line 1/));
});
