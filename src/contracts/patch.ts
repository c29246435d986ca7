/** A change of some keys of what a schema describes. */
import { z } from 'zod';

/** The same keys, none with a default; null takes away one that may be absent. */
export function patchOf(shape: Readonly<Record<string, z.ZodType>>): Record<string, z.ZodType> {
  const patched = (schema: z.ZodType): z.ZodType => {
    if (schema instanceof z.ZodOptional) return (schema.unwrap() as z.ZodType).nullable().optional();
    return (schema instanceof z.ZodDefault ? (schema.unwrap() as z.ZodType) : schema).optional();
  };
  return Object.fromEntries(Object.entries(shape).map(([key, schema]) => [key, patched(schema)]));
}

/** What the change makes of a value: keys that are absent stay as they are. */
export function applyPatch(value: Readonly<Record<string, unknown>>, patch: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries({ ...value, ...patch }).filter(([, each]) => each !== undefined && each !== null));
}
