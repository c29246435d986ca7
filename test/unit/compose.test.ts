import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { parse } from 'yaml';
import { SEARCH_ATTRIBUTES } from '../../src/contracts/names.ts';
import { WORKER_ROLES } from '../../src/embedded/start.ts';

test('the compose file registers every search attribute and runs every role', async () => {
  const text = await readFile(new URL('../../docker/compose.yaml', import.meta.url), 'utf8');
  const { services } = parse(text, { merge: true }) as { services: Record<string, { command: string[]; depends_on?: object }> };
  const registered = services['temporal']?.command.filter((argument) => argument.startsWith('--search-attribute=')).map((argument) => argument.slice('--search-attribute='.length));
  assert.deepEqual(registered, Object.entries(SEARCH_ATTRIBUTES).map(([name, type]) => `${name}=${type}`));
  for (const role of WORKER_ROLES) assert.deepEqual(services[role]?.command, ['worker/main.ts', role]);
  assert.ok(services['api']?.depends_on !== undefined);
});
