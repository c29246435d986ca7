/**
 * Batched generation with a key/value cache. What the prompts begin with together is computed once; each prompt's
 * rest is read by itself, without padding, into a row of the cache. A row that is done leaves the batch, and the
 * next prompt takes its place.
 */
import { StillhouseError } from '../contracts/errors.ts';
import { AnswerText } from './answer-text.ts';
import type { RowCache } from './cache.ts';
import type { Engine } from './engine.ts';
import type { GeneratedText, GenerationRequest, OnText, Prompt } from './model.ts';
import { checkSampling, createSampler, type Sampler } from './sampling.ts';
import { refuseTooLong } from './too-long.ts';
import type { ChatTokenizer } from './tokenizer.ts';

/** Rows decoded together: a step reads every weight once, however many rows there are. */
const BATCH_ROWS = 16;
/** Tokens of a prompt in one run: bounds the attention scores. */
export const PREFILL_TOKENS = 256;
/** A common beginning that is shorter is not worth a run of its own. */
const LEAST_SHARED_TOKENS = 8;

/** One prompt on its way. */
interface Row {
  readonly index: number;
  readonly prompt: readonly number[];
  readonly sampler: Sampler;
  readonly tokens: number[];
  readonly text: AnswerText;
}

export function encodePrompt(tokenizer: ChatTokenizer, prompt: Prompt): number[] {
  return 'messages' in prompt ? tokenizer.encodeChat(prompt.messages, { openAssistantTurn: true }) : tokenizer.encode(prompt.text, { begin: true });
}

/** Reads `ids` into row `row` of the cache and gives the logits after the last: (V). */
export async function prefill(engine: Engine, cache: RowCache, row: number, ids: readonly number[]): Promise<Float32Array> {
  let logits: Float32Array = new Float32Array(0);
  for (let from = 0; from < ids.length; from += PREFILL_TOKENS) {
    const part = BigInt64Array.from(ids.slice(from, from + PREFILL_TOKENS), BigInt);
    const last = from + PREFILL_TOKENS >= ids.length;
    const run = { batch: 1, tokens: part.length, ids: part, cache, firstRow: row, logitRows: [part.length - 1] };
    ({ logits } = await engine.run(run, { keep: true, logits: last }));
  }
  return logits;
}

/** Tokens that all prompts begin with; each keeps at least its last for itself. */
function sharedTokens(rows: readonly Row[]): number {
  const first = rows[0]?.prompt ?? [];
  let length = Math.min(...rows.map(({ prompt }) => prompt.length - 1));
  for (const { prompt } of rows) {
    let same = 0;
    while (same < length && prompt[same] === first[same]) same += 1;
    length = same;
  }
  return rows.length < 2 || length < LEAST_SHARED_TOKENS ? 0 : length;
}

class Generation {
  readonly #engine: Engine;
  readonly #endIds: readonly number[];
  readonly #maxNewTokens: number;
  readonly #results: GeneratedText[] = [];
  /** Rows 0 to n − 1 of the cache, in order. */
  readonly #active: Row[] = [];
  readonly #cache: RowCache;
  #shared: { readonly cache: RowCache; readonly tokens: number } | undefined;

  constructor(engine: Engine, endIds: readonly number[], maxNewTokens: number, rows: number) {
    this.#engine = engine;
    this.#endIds = endIds;
    this.#maxNewTokens = maxNewTokens;
    this.#cache = engine.createCache(rows);
  }

  async run(rows: readonly Row[], places: number): Promise<readonly GeneratedText[]> {
    const tokens = sharedTokens(rows);
    if (tokens > 0) {
      this.#shared = { tokens, cache: this.#engine.createCache() };
      await prefill(this.#engine, this.#shared.cache, 0, (rows[0] as Row).prompt.slice(0, tokens));
    }
    const waiting = rows.values();
    for (;;) {
      while (this.#active.length < places) {
        const next = waiting.next();
        if (next.done === true) break;
        await this.#admit(next.value);
      }
      if (this.#active.length === 0) return this.#results;
      await this.#decode();
    }
  }

  async #admit(row: Row): Promise<void> {
    const at = this.#active.length;
    if (this.#shared === undefined) this.#cache.clearRow(at);
    else this.#cache.startRow(at, this.#shared.cache);
    const logits = await prefill(this.#engine, this.#cache, at, row.prompt.slice(this.#shared?.tokens ?? 0));
    this.#active.push(row);
    this.#advance(row, logits);
  }

  /** One more token of each active row. */
  async #decode(): Promise<void> {
    const rows = [...this.#active];
    const V = this.#engine.config.vocabularySize;
    const ids = BigInt64Array.from(rows, ({ tokens }) => BigInt(tokens.at(-1) ?? 0));
    const { logits } = await this.#engine.run({ batch: rows.length, tokens: 1, ids, cache: this.#cache, logitRows: rows.map((_, b) => b) }, { keep: true, logits: true });
    rows.forEach((row, b) => this.#advance(row, logits.subarray(b * V, (b + 1) * V)));
  }

  /** Takes the row's next token; a row that this ends leaves the batch. */
  #advance(row: Row, logits: Float32Array): void {
    const token = row.sampler(logits, row.tokens.length);
    if (this.#endIds.includes(token)) return this.#finish(row, 'stop');
    row.tokens.push(token);
    if (row.text.add(token)) return this.#finish(row, 'stop');
    const length = row.prompt.length + row.tokens.length;
    if (row.tokens.length >= this.#maxNewTokens || length >= this.#engine.contextTokens) this.#finish(row, 'length');
  }

  #finish(row: Row, finishReason: GeneratedText['finishReason']): void {
    this.#results[row.index] = { text: row.text.end(), tokens: row.tokens, promptTokens: row.prompt.length, finishReason };
    const at = this.#active.indexOf(row);
    const last = this.#active.pop();
    if (last === undefined || last === row) return;
    this.#cache.moveRow(this.#active.length, at);
    this.#active[at] = last;
  }
}

export function generate(engine: Engine, tokenizer: ChatTokenizer, request: GenerationRequest, onText?: OnText): Promise<readonly GeneratedText[]> {
  return generateFromTokens(engine, tokenizer, request.prompts.map((prompt) => encodePrompt(tokenizer, prompt)), request, onText);
}

/** The same after prompts in tokens. */
export async function generateFromTokens(
  engine: Engine,
  tokenizer: Pick<ChatTokenizer, 'decode' | 'endIds'>,
  prompts: readonly (readonly number[])[],
  request: Omit<GenerationRequest, 'prompts'>,
  onText?: OnText,
): Promise<readonly GeneratedText[]> {
  const { maxNewTokens, stop = [] } = request;
  if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) throw new StillhouseError('BAD_INPUT', `maxNewTokens: expected a positive integer, got ${maxNewTokens}`);
  const empty = stop.indexOf('');
  if (empty >= 0) throw new StillhouseError('BAD_INPUT', `stop[${empty}]: expected text, got ""`);
  checkSampling(request);
  refuseTooLong(prompts.map((ids) => ids.length), engine.contextTokens - 1);
  const rows = prompts.map((ids, index): Row => {
    if (ids.length === 0) throw new StillhouseError('BAD_INPUT', `prompts[${index}]: expected 1 to ${engine.contextTokens - 1} tokens, got ${ids.length}`);
    const text = new AnswerText(tokenizer, stop, (piece) => onText?.(index, piece));
    return { index, prompt: ids, sampler: createSampler(request, index), tokens: [], text };
  });
  const places = Math.min(BATCH_ROWS, rows.length);
  return new Generation(engine, tokenizer.endIds, maxNewTokens, places).run(rows, places);
}
