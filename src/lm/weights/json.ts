/** JSON of files that come from elsewhere: bounded in size and depth before anything else looks at it. */
import { readFileSync, statSync } from 'node:fs';
import { StillhouseError } from '../../contracts/errors.ts';
import { corrupt } from './tensor-file.ts';

/** The largest tokenizer.json of known models has about 35 MB. */
export const MAX_JSON_BYTES = 100_000_000;
/** Deeper than any model's files; what walks a value by recursion stays far from the end of its stack. */
const MAX_DEPTH = 64;

/** Nesting outside of strings. */
function depthOf(text: string): number {
  let [depth, deepest, inString] = [0, 0, false];
  for (let i = 0; i < text.length; i += 1) {
    const code = text.charCodeAt(i);
    if (inString) {
      if (code === 0x5c) i += 1;
      else if (code === 0x22) inString = false;
    } else if (code === 0x22) inString = true;
    else if (code === 0x5b || code === 0x7b) deepest = Math.max(deepest, (depth += 1));
    else if (code === 0x5d || code === 0x7d) depth -= 1;
  }
  return deepest;
}

/** CORRUPT when the text is no JSON, or nested deeper than a model's files are. */
export function parseJson(text: string, where: string): unknown {
  const depth = depthOf(text);
  if (depth > MAX_DEPTH) throw corrupt(where, `JSON nested at most ${MAX_DEPTH} deep`, `${depth}`);
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new StillhouseError('CORRUPT', `${where}: expected JSON, got ${JSON.stringify(text.slice(0, 40))}`, { cause, details: { where } });
  }
}

/** Parses a JSON file: NOT_FOUND without it, CORRUPT when it is too large or not JSON. */
export function readJson(path: string): unknown {
  let text: string;
  try {
    const { size } = statSync(path);
    if (size > MAX_JSON_BYTES) throw corrupt(path, `at most ${MAX_JSON_BYTES} bytes of JSON`, `${size}`);
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    if (cause instanceof StillhouseError) throw cause;
    throw new StillhouseError('NOT_FOUND', `${path}: expected a readable file, got ${String((cause as NodeJS.ErrnoException).code)}`, { cause });
  }
  return parseJson(text, path);
}

export const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);
