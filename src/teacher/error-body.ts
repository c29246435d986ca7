/**
 * What the body of a refused call says, whatever its shape: OpenAI's `{ error: { message, code, param } }`, an error as a
 * text or in a list, `detail` of FastAPI (a text, or a list of places and messages), `message` at the top, `error_code`,
 * a provider's error inside a gateway's, an HTML page, plain text.
 */

export interface ErrorBody {
  readonly message: string;
  /** In the provider's own terms: `insufficient_quota`, `context_length_exceeded`. */
  readonly code?: string;
  readonly type?: string;
  readonly param?: string;
}

const MAX_CHARACTERS = 2_000;
/** What a page says stands at its beginning; patterns over more of a hostile one take long. */
const MAX_PAGE_CHARACTERS = 20_000;

type Json = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);
const textOf = (value: unknown): string | undefined => (typeof value === 'string' && value.trim() !== '' ? value.trim() : typeof value === 'number' ? String(value) : undefined);
const first = (value: Json, keys: readonly string[]): string | undefined => keys.map((key) => textOf(value[key])).find((text) => text !== undefined);

/** Keys whose value says what is wrong, the plainest first. */
const WORDS = ['message', 'msg', 'detail', 'error_message', 'errorMessage', 'error_description', 'reason', 'title', 'description', 'error', 'raw'];
/** Keys that lead to a further object or list with words in it. `input` and the like repeat the question: no words of the provider's. */
const INNER = ['error', 'errors', 'detail', 'details', 'innererror', 'inner_error', 'metadata', 'raw', 'fault', 'message', 'body', 'data'];
const CODES = ['code', 'error_code', 'errorCode', 'status', '__type'];

/** All that a value says, the outermost first, each once. */
function wordsOf(value: unknown, depth = 0): readonly string[] {
  if (depth > 6) return [];
  if (typeof value === 'string') {
    const inner = parsed(value);
    return inner === undefined ? [value.trim()] : wordsOf(inner, depth + 1);
  }
  if (Array.isArray(value)) return value.slice(0, 10).flatMap((each: unknown) => wordsOf(each, depth + 1));
  if (!isObject(value)) return [];
  // FastAPI names the place of each mistake: body.store.
  const place = Array.isArray(value['loc']) ? [value['loc'].map(String).join('.')] : [];
  const own = WORDS.flatMap((key) => (typeof value[key] === 'string' ? wordsOf(value[key], depth + 1) : []));
  const further = INNER.flatMap((key) => (typeof value[key] === 'object' ? wordsOf(value[key], depth + 1) : []));
  return place.length > 0 ? [`${place[0]}: ${[...own, ...further].join('; ')}`] : [...own, ...further];
}

function parsed(text: string): unknown {
  if (!/^\s*[[{]/.test(text)) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** The nearest object that has one of the keys, from the outside in. */
function codeOf(value: unknown, keys: readonly string[], depth = 0): string | undefined {
  if (depth > 6) return undefined;
  if (Array.isArray(value)) return value.map((each: unknown) => codeOf(each, keys, depth + 1)).find((code) => code !== undefined);
  if (!isObject(value)) return undefined;
  // Numbers repeat the status as a rule; a name says more.
  const named = keys.map((key) => value[key]).find((code): code is string => typeof code === 'string' && code !== '' && !/^\d{3}$/.test(code));
  if (named !== undefined) return named;
  for (const key of INNER) {
    const found = typeof value[key] === 'object' ? codeOf(value[key], keys, depth + 1) : undefined;
    if (found !== undefined) return found;
  }
  return first(value, keys);
}

function pageText(page: string): string {
  const html = page.slice(0, MAX_PAGE_CHARACTERS);
  const title = /<title[^>]*>([\s\S]*?)<\/title>/i.exec(html)?.[1] ?? '';
  const body = html.replace(/<(script|style|head)\b[\s\S]*?<\/\1>/gi, ' ').replace(/<[^>]*>/g, ' ');
  return [title, body].map((text) => text.replace(/&nbsp;/g, ' ').replace(/\s+/g, ' ').trim()).filter((text, index, all) => text !== '' && all.indexOf(text) === index).join(': ');
}

export function readErrorBody(text: string): ErrorBody {
  const value = parsed(text);
  if (value === undefined) {
    const words = /^\s*(?:<!doctype|<html|<\?xml)/i.test(text) ? pageText(text) : text.trim();
    return { message: words.slice(0, MAX_CHARACTERS) };
  }
  const words = [...new Set(wordsOf(value).filter((each) => each !== ''))];
  const distinct = words.filter((each, index) => !words.some((other, at) => at !== index && other.length > each.length && other.includes(each)));
  const param = codeOf(value, ['param', 'parameter']);
  const code = codeOf(value, CODES);
  const type = codeOf(value, ['type', 'error_type', 'errorType']);
  return {
    message: (distinct.length === 0 ? JSON.stringify(value) : distinct.join('; ')).slice(0, MAX_CHARACTERS),
    ...(code === undefined ? {} : { code }),
    ...(type === undefined ? {} : { type }),
    ...(param === undefined ? {} : { param }),
  };
}
