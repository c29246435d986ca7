/** JSON that a user wrote: parsed, or refused with the place of the mistake. */

const parses = (text: string): Error | undefined => {
  try {
    JSON.parse(text);
    return undefined;
  } catch (error) {
    return error as Error;
  }
};

/** Whether the text is the beginning of some JSON: its only mistake is that it ends. */
function isBeginning(text: string): boolean {
  const message = parses(text)?.message;
  if (message === undefined || message.startsWith('Unexpected end')) return true;
  // Inside of an escape the place that is named is the escape's own.
  return Number(/at position (\d+)/.exec(message)?.[1] ?? -1) >= text.length || /^(?:Unterminated|Bad Unicode escape)/.test(message) && /\\(?:u[0-9a-f]{0,3})?$/i.test(text);
}

/** Characters before the mistake: the longest beginning that could still become JSON. */
function mistakeAt(text: string): number {
  let good = 0;
  let bad = text.length + 1;
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (isBeginning(text.slice(0, middle))) good = middle;
    else bad = middle;
  }
  return good;
}

export interface JsonMistake {
  /** From 1, in the text. */
  readonly line: number;
  readonly column: number;
  /** `expected a value, got "NaN}"`. */
  readonly got: string;
}

/** Where a text stops being JSON. */
export function jsonMistake(text: string): JsonMistake {
  const at = mistakeAt(text);
  const before = text.slice(0, at).split(/\r\n|\n|\r/);
  const found = text.slice(at, at + 24);
  const got = found === '' ? 'its end' : JSON.stringify(text.length > at + 24 ? `${found}…` : found);
  const comma = /,\s*$/.test(text.slice(0, at)) && /^[}\]]/.test(found) ? ' after a comma' : '';
  return { line: before.length, column: (before.at(-1) as string).length + 1, got: `${got}${comma}` };
}

/** A number as the text spells it, by its key in the text's object: 1.0 stays "1.0". */
export function spelledNumber(text: string, key: string): string | undefined {
  const keepSource = ((_key: string, value: unknown, context?: { readonly source?: string }) => (typeof value === 'number' ? (context?.source ?? String(value)) : value)) as (key: string, value: unknown) => unknown;
  const found: unknown = (JSON.parse(text, keepSource) as Readonly<Record<string, unknown>>)[key];
  return typeof found === 'string' ? found : undefined;
}
