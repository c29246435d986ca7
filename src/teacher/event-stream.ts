/** A chat completion that came as a stream of events although none was asked for: its parts put together. https://html.spec.whatwg.org/multipage/server-sent-events.html */

type Json = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);

export const looksLikeEvents = (text: string): boolean => /^(?:\s*(?::[^\n]*|event:[^\n]*|id:[^\n]*|retry:[^\n]*)?\n)*\s*data:/.test(text);

/** The data of each event, without the closing `[DONE]`. */
function dataOf(text: string): readonly string[] {
  return text
    .split(/\r?\n\r?\n/)
    .map((event) => event.split(/\r?\n/).flatMap((line) => /^data: ?(.*)$/.exec(line)?.[1] ?? []).join('\n'))
    .filter((data) => data !== '' && data.trim() !== '[DONE]');
}

/** Fields of a message that grow chunk by chunk. */
const GROWING = ['content', 'reasoning_content', 'reasoning', 'refusal'] as const;

/** The completion that the chunks make, or an error that came among them; undefined where they make none. */
export function completionOfEvents(text: string): Json | undefined {
  const message: Record<string, unknown> = { role: 'assistant' };
  const logprobs: unknown[] = [];
  let top: Json = {};
  let last: Json = {};
  let chunks = 0;
  for (const data of dataOf(text)) {
    let chunk: unknown;
    try {
      chunk = JSON.parse(data);
    } catch {
      return undefined;
    }
    if (!isObject(chunk)) return undefined;
    if (chunk['error'] !== undefined && chunk['error'] !== null) return chunk;
    const { choices, ...others } = chunk;
    top = { ...top, ...Object.fromEntries(Object.entries(others).filter(([, value]) => value !== null)) };
    const [choice] = Array.isArray(choices) ? (choices as unknown[]) : [];
    if (!isObject(choice)) continue;
    chunks += 1;
    // A whole message in one event.
    if (isObject(choice['message'])) Object.assign(message, choice['message']);
    const delta = isObject(choice['delta']) ? choice['delta'] : {};
    for (const key of GROWING) if (typeof delta[key] === 'string') message[key] = `${typeof message[key] === 'string' ? message[key] : ''}${delta[key]}`;
    const content = isObject(choice['logprobs']) ? choice['logprobs']['content'] : undefined;
    if (Array.isArray(content)) logprobs.push(...(content as unknown[]));
    if (choice['finish_reason'] !== undefined && choice['finish_reason'] !== null) last = choice;
  }
  if (chunks === 0) return undefined;
  return { ...top, choices: [{ index: 0, message, finish_reason: last['finish_reason'] ?? null, ...(last['error'] === undefined ? {} : { error: last['error'] }), ...(logprobs.length === 0 ? {} : { logprobs: { content: logprobs } }) }] };
}
