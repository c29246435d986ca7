/** JSON that a model wrote: found in its text, held against its schema. */
import { z } from 'zod';
import { splitReasoning } from './reasoning-text.ts';

export type JsonSchema = Readonly<Record<string, unknown>>;
export type FoundJson = { readonly value: unknown; readonly text: string } | { readonly problem: string };

const MAX_ISSUES = 3;
/** A schema is used for thousands of answers and is made once a request: it is known by its text. */
const validators = new Map<string, z.ZodType>();
const MAX_VALIDATORS = 256;
/** Braces in prose that are tried. */
const MAX_OPENINGS = 16;

/**
 * The JSON document of a text, reasoning before it taken off: the whole text, what stands in a code fence, or else the first object
 * or list inside of prose that parses. `text` is the document alone, non-ASCII characters as they are.
 */
export function findJson(text: string): FoundJson {
  const whole = splitReasoning(text).text.trim();
  const fenced = /```(?:json)?[ \t]*\r?\n([\s\S]*?)\r?\n?[ \t]*```/i.exec(whole)?.[1];
  let problem: string | undefined;
  for (const candidate of [whole, ...(fenced === undefined ? [] : [fenced.trim()])]) {
    try {
      return { value: JSON.parse(candidate) as unknown, text: candidate };
    } catch (error) {
      problem ??= error instanceof Error ? error.message : String(error);
    }
  }
  for (const document of documentsIn(whole)) {
    try {
      return { value: JSON.parse(document) as unknown, text: document };
    } catch {
      // The next brace may open one that parses.
    }
  }
  return { problem: problem ?? 'no JSON document' };
}

/** Texts from an opening brace or bracket to where it closes, strings respected; the outermost first. */
function* documentsIn(text: string): Generator<string> {
  let start = text.search(/[{[]/);
  for (let opening = 0; start >= 0 && opening < MAX_OPENINGS; opening += 1) {
    const end = closing(text, start);
    // What is never closed was cut off: a part of it is not the document.
    if (end === undefined) return;
    yield text.slice(start, end + 1);
    const next = text.slice(end + 1).search(/[{[]/);
    start = next < 0 ? -1 : end + 1 + next;
  }
}

function closing(text: string, start: number): number | undefined {
  let depth = 0;
  let quoted = false;
  for (let at = start; at < text.length; at += 1) {
    const character = text[at];
    if (quoted) {
      if (character === '\\') at += 1;
      else if (character === '"') quoted = false;
    } else if (character === '"') quoted = true;
    else if (character === '{' || character === '[') depth += 1;
    else if (character === '}' || character === ']') {
      depth -= 1;
      if (depth === 0) return at;
    }
  }
  return undefined;
}

/** Why a text is no document of the schema, in one line; undefined when it is one. */
export function jsonProblem(text: string, schema: JsonSchema): string | undefined {
  const found = findJson(text);
  if ('problem' in found) return `expected a JSON document: ${found.problem}`;
  const parsed = validatorOf(schema).safeParse(found.value);
  if (parsed.success) return undefined;
  const shown = parsed.error.issues.slice(0, MAX_ISSUES).map(({ path, message }) => `${path.length === 0 ? 'the document' : path.map(String).join('.')}: ${message}`);
  const more = parsed.error.issues.length - shown.length;
  return `${shown.join('; ')}${more > 0 ? `; and ${more} more` : ''}`;
}

function validatorOf(schema: JsonSchema): z.ZodType {
  const key = JSON.stringify(schema);
  let validator = validators.get(key);
  if (validator === undefined) {
    validator = z.fromJSONSchema(schema as Parameters<typeof z.fromJSONSchema>[0]);
    if (validators.size >= MAX_VALIDATORS) validators.clear();
    validators.set(key, validator);
  }
  return validator;
}
