/**
 * What stands between the openai package and a server that is not quite OpenAI's: a response becomes either a JSON
 * document or an error in OpenAI's envelope that keeps the server's words, whatever the server called it.
 */
import { completionOfEvents, looksLikeEvents } from './event-stream.ts';
import { readErrorBody } from './error-body.ts';

/** A completion is a few kilobytes; with log-probabilities of long texts some megabytes. */
const MAX_BODY_BYTES = 64 * 1024 * 1024;
const SHOWN_CHARACTERS = 160;

/** A call that ended well has brought something that cannot be read: it may have been billed, and asking again may bring the same. */
export class UnreadableResponse extends Error {
  override readonly name = 'UnreadableResponse';
}

type Fetch = (input: string | URL | Request, init?: RequestInit) => Promise<Response>;
type Json = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);

/** For the package's `fetch`. Files and lists come through as they are; errors of all calls are read, and chat completions. */
export const tolerantFetch: Fetch = async (input, init) => {
  const response = await fetch(input, init);
  const isChat = init?.method?.toUpperCase() === 'POST' && /\/chat\/completions(?:\?|$)/.test(String(input instanceof Request ? input.url : input));
  if (response.ok && !isChat) return response;
  if (response.ok) return completionResponse(await readText(response), response);
  // The status stays known where its body breaks off.
  const text = await readText(response).catch(() => '');
  return jsonResponse({ error: readErrorBody(text) }, response.status, response.headers);
};

async function readText(response: Response): Promise<string> {
  if (response.body === null) return '';
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    bytes += chunk.byteLength;
    if (bytes > MAX_BODY_BYTES) throw new UnreadableResponse(`a body of more than ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  return new TextDecoder().decode(Buffer.concat(chunks));
}

/** Reads JSON whatever its content type says, between blank lines, comments and the end mark of a stream; a stream is put together. */
function documentOf(text: string): unknown {
  const bare = text.replace(/^(?:\s|:[^\n]*\n)+/, '').replace(/\s*(?:data: *\[DONE\]\s*)+$/, '').trim();
  try {
    return JSON.parse(bare) as unknown;
  } catch {
    return looksLikeEvents(text) ? completionOfEvents(text) : undefined;
  }
}

function completionResponse(text: string, { headers }: Response): Response {
  const found = documentOf(text);
  // Some gateways wrap what the model's server said in a list.
  const document = Array.isArray(found) && found.length === 1 ? (found[0] as unknown) : found;
  if (!isObject(document)) throw new UnreadableResponse(text.trim() === '' ? 'an empty body' : shown(text));
  const choices: unknown = document['choices'];
  if (Array.isArray(choices) && choices.length > 0) return jsonResponse(document, 200, headers);
  const wrong = ['error', 'errors', 'detail', 'error_code', 'error_message'].some((key) => document[key] !== undefined && document[key] !== null) || document['object'] === 'error';
  if (!wrong) throw new UnreadableResponse(shown(text));
  // A success that says it is none: what it would have been as a status.
  const error = readErrorBody(JSON.stringify(document));
  return jsonResponse({ error }, statusIn(document) ?? 502, headers);
}

function statusIn(document: Json): number | undefined {
  const places = [document, document['error']].flatMap((place) => (isObject(place) ? [place['code'], place['status'], place['status_code']] : []));
  return places.map(Number).find((status) => Number.isInteger(status) && status >= 400 && status <= 599);
}

const shown = (text: string): string => JSON.stringify(text.trim().slice(0, SHOWN_CHARACTERS));

function jsonResponse(body: Json, status: number, headers: Headers): Response {
  const kept = new Headers(headers);
  for (const name of ['content-length', 'content-encoding', 'transfer-encoding']) kept.delete(name);
  kept.set('content-type', 'application/json');
  return new Response(JSON.stringify(body), { status, headers: kept });
}
