/** The package installs in silence: on every Node that it names, with npm 10 and 11, and without fetching anything but packages. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

interface Locked {
  readonly version?: string;
  readonly engines?: { readonly node?: string };
  readonly optional?: boolean;
  readonly hasInstallScript?: boolean;
  readonly resolved?: string;
}
const read = (name: string): string => readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8');
const { packages } = JSON.parse(read('package-lock.json')) as { readonly packages: Readonly<Record<string, Locked>> };
const { engines, allowScripts } = JSON.parse(read('package.json')) as { readonly engines: { readonly node: string }; readonly allowScripts: Readonly<Record<string, boolean>> };

type Version = readonly [number, number, number];
const parse = (text: string): Version => {
  const [major = 0, minor = 0, patch = 0] = text.split('.').map((part) => Number.parseInt(part, 10) || 0);
  return [major, minor, patch];
};
const compare = (a: Version, b: Version): number => a[0] - b[0] || a[1] - b[1] || a[2] - b[2];

/** A range of npm: alternatives of conditions that all hold. */
function admits(range: string, version: Version): boolean {
  return range.split('||').some((alternative) =>
    [...alternative.replaceAll('*', '>=0').matchAll(/(>=|<=|>|<|\^|~|=|)\s*v?(\d[\w.-]*)/g)].every(([, operator, text = '']) => {
      const wanted = parse(text);
      const order = compare(version, wanted);
      switch (operator) {
        case '>=': return order >= 0;
        case '>': return order > 0;
        case '<': return order < 0;
        case '<=': return order <= 0;
        case '^': return order >= 0 && version[0] === wanted[0];
        case '~': return order >= 0 && version[0] === wanted[0] && version[1] === wanted[1];
        default: return version[0] === wanted[0];
      }
    }),
  );
}

test('every package takes every Node that this one names: none is warned of', () => {
  assert.ok(admits('>= 20', [20, 19, 0]) && !admits('^22.18.0 || >=24.11.0', [20, 19, 0]) && !admits('>=22', [20, 20, 2]), 'the check itself can fail');
  const oldest = engines.node.split('||').map((part) => parse(part.replace(/[^\d.]/g, '')));
  assert.ok(oldest.some(([major]) => major === 20), engines.node);
  const refusing = Object.entries(packages).flatMap(([name, { engines: wanted }]) => [...oldest, [24, 21, 0] as const].filter((version) => !admits(wanted?.node ?? '*', version)).map((version) => `${name} ${wanted?.node} with ${version.join('.')}`));
  assert.deepEqual(refusing, []);
});

test('the runtime’s script, which fetches the libraries of graphics cards, is not run: not by npm 11, nor by those that read the lock alone', () => {
  assert.equal(packages['node_modules/onnxruntime-node']?.hasInstallScript, undefined);
  assert.equal(allowScripts['onnxruntime-node'], false);
  for (const name of Object.keys(packages).filter((key) => packages[key]?.hasInstallScript === true)) assert.ok((name.split('node_modules/').at(-1) ?? '') in allowScripts, `allowScripts: expected a word about ${name}`);
});

test('the project’s .npmrc has keys that npm knows, the lock no addresses', () => {
  const keys = read('.npmrc').split('\n').filter((line) => /^[^#;\s]/.test(line)).map((line) => line.split('=')[0]);
  assert.deepEqual(new Set(keys), new Set(['audit', 'fund', 'omit-lockfile-registry-resolved']));
  assert.deepEqual(Object.keys(packages).filter((name) => packages[name]?.resolved !== undefined), []);
});
