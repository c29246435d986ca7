import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { temporaryFolder } from '../support/folder.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const folder = temporaryFolder();

before(async () => {
  await cp(join(root, '.oxlintrc.json'), join(folder, '.oxlintrc.json'));
});

/** Lints one made-up file at a place of the tree and returns what was found. */
async function lint(path: string, source: string): Promise<string> {
  const file = join(folder, path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, source);
  const linter = join(root, 'node_modules', 'oxlint', 'bin', 'oxlint');
  const output = await new Promise<string>((resolve) => {
    execFile(process.execPath, [linter, '-c', join(folder, '.oxlintrc.json'), '-f', 'unix', path], { cwd: folder }, (_error, stdout, stderr) => resolve(stdout + stderr));
  });
  await rm(file);
  return output;
}
const use = (specifier: string): string => `import { x } from '${specifier}';\nexport const y: unknown = x;\n`;

const FORBIDDEN: readonly (readonly [string, string])[] = [
  ['src/contracts/a.ts', '../store/store.ts'],
  ['src/contracts/a.ts', '@temporalio/client'],
  ['src/training/a.ts', '@temporalio/activity'],
  ['src/store/a.ts', '../api/app.ts'],
  ['src/dataset/a.ts', '../../activities/failures.ts'],
  ['src/graph/a.ts', '../lm/model.ts'],
  ['src/graph/rules/a.ts', '../../lm/model.ts'],
  ['src/lm/a.ts', '../training/trainer.ts'],
  ['src/api/a.ts', '@temporalio/client'],
  ['src/cli/a.ts', '../../workflows/campaign.ts'],
  ['src/client/a.ts', '@temporalio/worker'],
  ['workflows/a.ts', '../src/store/store.ts'],
  ['workflows/a.ts', '../src/config.ts'],
  ['workflows/a.ts', '../activities/failures.ts'],
  ['workflows/a.ts', 'node:fs'],
  ['activities/a.ts', '../src/client/gateway.ts'],
  ['activities/a.ts', '@temporalio/client'],
  ['worker/a.ts', '../src/api/app.ts'],
];
for (const [path, specifier] of FORBIDDEN) {
  test(`${path} may not import ${specifier}`, async () => {
    assert.match(await lint(path, use(specifier)), /no-restricted-imports/);
  });
}

const ALLOWED: readonly (readonly [string, string])[] = [
  ['src/contracts/a.ts', '@temporalio/workflow'],
  ['src/training/a.ts', '../lm/model.ts'],
  ['src/lm/a.ts', '../graph/graph.ts'],
  ['workflows/a.ts', '../src/contracts/state.ts'],
  ['activities/a.ts', '../src/training/trainer.ts'],
  ['src/api/a.ts', '../client/campaigns.ts'],
  ['src/client/a.ts', '@temporalio/client'],
];
for (const [path, specifier] of ALLOWED) {
  test(`${path} may import ${specifier}`, async () => {
    assert.doesNotMatch(await lint(path, use(specifier)), /no-restricted-imports/);
  });
}

test('the environment is read in src/config.ts alone', async () => {
  const source = "export const home = process.env['HOME'];\n";
  assert.match(await lint('src/store/a.ts', source), /no-process-env/);
  assert.doesNotMatch(await lint('src/config.ts', source), /no-process-env/);
});
