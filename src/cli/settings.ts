/** Settings as a command takes them, KEY=VALUE, as the tree that a spec is. */
import { parse } from 'yaml';
import { StillhouseError } from '../contracts/errors.ts';

export type Tree = Record<string, unknown>;
export const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null && !Array.isArray(value);

export function setAt(tree: Tree, path: readonly string[], value: unknown): Tree {
  const [key, ...rest] = path;
  if (key === undefined) return tree;
  const inner = tree[key];
  return { ...tree, [key]: rest.length === 0 ? value : setAt(isTree(inner) ? inner : {}, rest, value) };
}

/** The tree with each setting: a key's path and its value in YAML; `where` begins the message about one that is none. */
export function withSettings(tree: Tree, settings: readonly string[], where: string): Tree {
  return settings.reduce((changed, text) => {
    const at = text.indexOf('=');
    const path = text.slice(0, Math.max(0, at)).split('.');
    if (!path.every((key) => /^\w+$/.test(key))) throw new StillhouseError('BAD_INPUT', `${where}: expected KEY=VALUE, as in training.epochs=2, got ${JSON.stringify(text)}`);
    return setAt(changed, path, valueOf(text.slice(at + 1), `${where}: ${path.join('.')}`));
  }, tree);
}

function valueOf(text: string, where: string): unknown {
  try {
    return parse(text) as unknown;
  } catch (cause) {
    throw new StillhouseError('BAD_INPUT', `${where}: expected a value in YAML, got ${JSON.stringify(text)}`, { cause });
  }
}
