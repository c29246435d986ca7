/** Models by name through the hub's routes: redirects to a storage host, hashes from either place, cuts, wrong bytes, refusals. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { createAssets } from '../../src/assets/create-assets.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import { startFileServer } from '../support/file-server.ts';
import type { FileServer, ServedFile } from '../support/file-server.ts';
import { temporaryFolder } from '../support/folder.ts';

const COMMIT = 'b'.repeat(40);
const TOKEN = 'hf_test';
const weights = randomBytes(200_000);
const config = '{"model_type":"llama"}';
const sha256 = (body: string | Buffer): string => createHash('sha256').update(body).digest('hex');
const gitBlob = (body: string): string => createHash('sha1').update(`blob ${Buffer.byteLength(body)}\0${body}`).digest('hex');
let hub: FileServer;
let storage: FileServer;
let folder: string;

before(async () => {
  [hub, storage] = [await startFileServer(), await startFileServer()];
});
after(async () => {
  await hub[Symbol.asyncDispose]();
  await storage[Symbol.asyncDispose]();
});
beforeEach(async () => {
  folder = temporaryFolder();
  for (const server of [hub, storage]) {
    server.files.clear();
    server.requests.length = 0;
    server.authorizations.length = 0;
  }
});

const assets = (token?: string) => createAssets({ cache: folder, hub: { endpoint: hub.url, ...(token === undefined ? {} : { token }) } });
const failsWith = (code: string, message: RegExp) => (error: unknown): boolean => error instanceof StillhouseError && error.code === code && message.test(error.message);

/** A repository as the hub serves it: its description, small files from itself, weights from a storage host that it redirects to. */
function serve(options: { readonly revision?: string; readonly weights?: Partial<ServedFile>; readonly hashes?: 'listed' | 'in headers' | 'none'; readonly authorization?: string } = {}): void {
  const { revision = 'main', hashes = 'listed', authorization } = options;
  const listed = hashes === 'listed';
  const locked = authorization === undefined ? {} : { authorization };
  hub.files.set(`/api/models/org/name/revision/${revision}?blobs=true`, {
    ...locked,
    body: JSON.stringify({
      sha: COMMIT,
      cardData: { license: 'apache-2.0' },
      siblings: [
        { rfilename: 'config.json', ...(listed ? { size: config.length, blobId: gitBlob(config) } : {}) },
        { rfilename: 'model.safetensors', ...(listed ? { size: weights.length, blobId: 'pointer', lfs: { sha256: sha256(weights), size: weights.length } } : {}) },
      ],
    }),
  });
  hub.files.set(`/org/name/resolve/${COMMIT}/config.json`, { ...locked, body: config, ...(hashes === 'in headers' ? { headers: { etag: `"${gitBlob(config)}"` } } : {}) });
  hub.files.set(`/org/name/resolve/${COMMIT}/model.safetensors`, {
    ...locked, body: '', redirect: `${storage.url}/blob`, ...(hashes === 'in headers' ? { headers: { etag: '"of the storage"', 'x-linked-etag': `"${sha256(weights)}"` } } : {}),
  });
  storage.files.set('/blob', { body: weights, ...options.weights });
}

test('weights come from where the hub redirects to, cut after cut, and the token does not go there', async () => {
  serve({ authorization: `Bearer ${TOKEN}`, weights: { faults: ['cut', 'cut'] } });
  const model = await assets(TOKEN).model('hf:org/name');
  assert.equal(model.license, 'apache-2.0');
  assert.deepEqual(await readFile(join(model.path, 'model.safetensors')), weights);
  const [first, ...later] = storage.requests;
  assert.equal(first, 'GET /blob');
  assert.ok(later.length >= 2 && later.every((line) => /^GET \/blob bytes=[1-9]\d*-$/.test(line)), later.join());
  assert.deepEqual(storage.authorizations, []);
  assert.ok(hub.authorizations.length > 0 && hub.authorizations.every((one) => one === `Bearer ${TOKEN}`));
});

test('a revision is resolved to its commit; what is there already is not fetched again', async () => {
  serve({ revision: 'v1.0' });
  const model = await assets().model('hf:org/name@v1.0');
  assert.match(model.path, new RegExp(`${COMMIT}$`));
  const fetched = storage.requests.length;
  assert.equal((await assets().model('hf:org/name@v1.0')).path, model.path);
  assert.equal(storage.requests.length, fetched);
});

test('hashes that a mirror leaves out of its list are taken from its answers', async () => {
  serve({ hashes: 'in headers' });
  await assets().model('hf:org/name');
  serve({ hashes: 'in headers', weights: { faults: ['wrong-byte'] } });
  await rm(join(folder, 'hub'), { recursive: true });
  await assert.rejects(assets().model('hf:org/name'), failsWith('CORRUPT', /model\.safetensors: expected SHA-256/));
});

test('one wrong byte is CORRUPT, leaves no model behind, and the next try succeeds', async () => {
  serve({ weights: { faults: ['wrong-byte'] } });
  await assert.rejects(assets().model('hf:org/name'), failsWith('CORRUPT', /org\/name\/model\.safetensors: expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}; the file was removed, try again/));
  const home = join(folder, 'hub', 'org--name', COMMIT);
  assert.ok(!existsSync(join(home, 'model.safetensors')) && !existsSync(join(home, 'stillhouse.manifest')));
  assert.deepEqual(await readFile(join((await assets().model('hf:org/name')).path, 'model.safetensors')), weights);
});

test('a gated model says how to get in, a wrong token too, and an unknown one that there is none', async () => {
  serve({ authorization: `Bearer ${TOKEN}` });
  await assert.rejects(assets().model('hf:org/name'), failsWith('UNAUTHORIZED', /org\/name@main: expected access to the model, got HTTP 401.*set HF_TOKEN/));
  await assert.rejects(assets('other').model('hf:org/name'), failsWith('UNAUTHORIZED', /HTTP 401/));
  await assert.rejects(assets(TOKEN).model('hf:org/name@nothing'), failsWith('NOT_FOUND', /org\/name@nothing: .*no such model or revision/));
});

test('while the hub is away, the last known commit serves; a model never fetched does not', async () => {
  serve();
  const model = await assets().model('hf:org/name');
  const away = createAssets({ cache: folder, hub: { endpoint: 'http://127.0.0.1:1' } });
  assert.equal((await away.model('hf:org/name')).path, model.path);
  const controller = new AbortController();
  const other = away.model('hf:org/other', { signal: controller.signal });
  setTimeout(() => controller.abort(), 50);
  await assert.rejects(other, failsWith('CANCELLED', /org\/other|stopped/));
});

test('names in a repository that lead out of the cache are refused, whatever the hub says', async () => {
  for (const name of ['../../outside.gguf', '/etc/outside.gguf', 'a/../../outside.gguf', 'a//outside.gguf', 'a\\outside.gguf', './outside.gguf', '']) {
    hub.files.set('/api/models/org/name/revision/main?blobs=true', { body: JSON.stringify({ sha: COMMIT, siblings: [{ rfilename: name, size: 4 }] }) });
    await assert.rejects(assets().model('hf:org/name'), failsWith('CORRUPT', /expected the hub's description of the model, got another shape/), name);
  }
  assert.ok(!hub.requests.some((line) => line.includes('resolve')));
  assert.deepEqual(readdirSync(folder), []);
});

test('a damaged list in the cache is as good as none', async () => {
  serve();
  const { path } = await assets().model('hf:org/name');
  await writeFile(join(path, 'stillhouse.manifest'), '{"commit":');
  assert.equal((await assets().model('hf:org/name')).path, path);
});
