/** The workflow bundle: built once a release for production, and once a change of its sources for one machine. */
import { createHash } from 'node:crypto';
import { mkdir, readFile, readdir, rename, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleWorkflowCode } from '@temporalio/worker';
import type { Logger, WorkflowBundleOption } from '@temporalio/worker';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
const SOURCES = ['workflows', join('src', 'contracts')];

/** Where `npm run bundle` writes, and where workers look first. */
export const BUILT_BUNDLE = join(ROOT, 'dist', 'workflows.js');

export async function buildBundle(logger?: Logger): Promise<string> {
  const { code } = await bundleWorkflowCode({ workflowsPath: join(ROOT, 'workflows', 'index.ts'), ...(logger === undefined ? {} : { logger }) });
  return code;
}

/** Writes the bundle with the hash of its sources in its first line, so that a stale one is noticed. */
export async function writeBundle(path: string, logger?: Logger): Promise<void> {
  const code = await buildBundle(logger);
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  await writeFile(temporary, `// sources ${await sourceHash()}\n${code}`);
  await rename(temporary, path);
}

/** The bundle of the present sources: the built one where it is current, else one from the cache folder, built when it is not there. */
export async function currentBundle(cacheFolder: string, logger?: Logger): Promise<WorkflowBundleOption> {
  const hash = await sourceHash();
  if ((await firstLine(BUILT_BUNDLE)) === `// sources ${hash}`) return { codePath: BUILT_BUNDLE };
  const codePath = join(cacheFolder, 'workflows', `${hash}.js`);
  if ((await stat(codePath).catch(() => undefined)) === undefined) await writeBundle(codePath, logger);
  return { codePath };
}

/** SHA-256 over the workflow sources and the SDK's version: what decides the bundle. */
export async function sourceHash(): Promise<string> {
  const hash = createHash('sha256');
  const sdk = createRequire(import.meta.url)('@temporalio/worker/package.json') as { readonly version: string };
  hash.update(`@temporalio/worker ${sdk.version}\n`);
  for (const folder of SOURCES) {
    const names = await readdir(join(ROOT, folder));
    for (const name of names.filter((entry) => entry.endsWith('.ts')).sort()) {
      const path = join(ROOT, folder, name);
      hash.update(`${relative(ROOT, path)}\n`).update(await readFile(path));
    }
  }
  return hash.digest('hex');
}

async function firstLine(path: string): Promise<string | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined);
  return text?.slice(0, text.indexOf('\n'));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeBundle(BUILT_BUNDLE);
