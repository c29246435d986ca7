/** Bodies with {{names}} in them, filled from the call that they answer. */
import type { Json } from './dialect.ts';

/** The value at a path of dots; undefined where there is none. */
export function valueAt(document: unknown, path: string): unknown {
  let at = document;
  for (const key of path.split('.')) {
    if (typeof at !== 'object' || at === null) return undefined;
    at = (at as Readonly<Record<string, unknown>>)[key];
  }
  return at;
}

type Names = Readonly<Record<string, Json>>;

function valueOf(name: string, body: unknown, names: Names): Json {
  const value = name.startsWith('$') ? names[name.slice(1)] : (valueAt(body, name) as Json | undefined);
  if (value === undefined && name.startsWith('$')) throw new Error(`expected one of $${Object.keys(names).join(', $')} in a template, got {{${name}}}`);
  return value ?? null;
}

/** `names` are the {{$names}}; every other is a path of `body`. */
export function filledText(template: string, body: unknown, names: Names): string {
  return template.replace(/\{\{([^{}]+)\}\}/g, (_match, name: string) => {
    const value = valueOf(name, body, names);
    return typeof value === 'string' ? value : JSON.stringify(value);
  });
}

/** The same for every text of a document. One that is a name and nothing else takes its value as it is, a number or an object too. */
export function filled(template: Json, body: unknown, names: Names): Json {
  if (typeof template === 'string') {
    const whole = /^\{\{([^{}]+)\}\}$/.exec(template)?.[1];
    return whole === undefined ? filledText(template, body, names) : valueOf(whole, body, names);
  }
  if (Array.isArray(template)) return template.map((each: Json) => filled(each, body, names));
  if (typeof template !== 'object' || template === null) return template;
  return Object.fromEntries(Object.entries(template as { readonly [key: string]: Json }).map(([key, value]) => [key, filled(value, body, names)]));
}
