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

/** `names` are the {{$names}}; every other is a path of `body`. A text that is one name takes its value as it is, a number or an object too. */
export function filled(template: Json, body: unknown, names: Readonly<Record<string, Json>>): Json {
  const valueOf = (name: string): Json => {
    const value = name.startsWith('$') ? names[name.slice(1)] : (valueAt(body, name) as Json | undefined);
    if (value === undefined && name.startsWith('$')) throw new Error(`expected one of $${Object.keys(names).join(', $')} in a template, got {{${name}}}`);
    return value ?? null;
  };
  if (typeof template === 'string') {
    const whole = /^\{\{([^{}]+)\}\}$/.exec(template)?.[1];
    if (whole !== undefined) return valueOf(whole);
    return template.replace(/\{\{([^{}]+)\}\}/g, (_match, name: string) => {
      const value = valueOf(name);
      return typeof value === 'string' ? value : JSON.stringify(value);
    });
  }
  if (Array.isArray(template)) return template.map((each: Json) => filled(each, body, names));
  if (typeof template !== 'object' || template === null) return template;
  return Object.fromEntries(Object.entries(template as { readonly [key: string]: Json }).map(([key, value]) => [key, filled(value, body, names)]));
}
