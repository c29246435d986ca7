/**
 * Batched generation with a key/value cache. Prompts of a batch are padded on the right and the padding
 * is masked, so each keeps its own positions; a new token of every row is appended at the same place.
 */
import { StillhouseError } from '../contracts/errors.ts';
import { MASKED } from './architectures/decoder.ts';
import type { Cache, Engine } from './engine.ts';
import type { GeneratedText, GenerationRequest, Prompt } from './model.ts';
import { createSampler, type Sampler } from './sampling.ts';
import type { ChatTokenizer } from './tokenizer.ts';

/** Rows decoded together: a step reads every weight once, however many rows there are. */
const BATCH_ROWS = 8;

/** One prompt on its way. */
class Row {
  readonly prompt: readonly number[];
  readonly tokens: number[] = [];
  /** Set when a stop string ended the row: what came before it. */
  textBeforeStop: string | undefined;
  finishReason: 'stop' | 'length' | undefined;
  readonly sampler: Sampler;

  constructor(prompt: readonly number[], sampler: Sampler) {
    this.prompt = prompt;
    this.sampler = sampler;
  }
}

function encodePrompt(tokenizer: ChatTokenizer, prompt: Prompt): number[] {
  return 'messages' in prompt ? tokenizer.encodeChat(prompt.messages, { openAssistantTurn: true }) : tokenizer.encode(prompt.text, { begin: true });
}

/** Prompts side by side, padded to the longest. (B, T) under a causal mask. */
async function prefill(engine: Engine, rows: readonly Row[]): Promise<{ readonly logits: Float32Array; readonly cache: Cache }> {
  const batch = rows.length;
  const tokens = Math.max(...rows.map((row) => row.prompt.length));
  const ids = new BigInt64Array(batch * tokens);
  const positions = new BigInt64Array(batch * tokens);
  const mask = new Float32Array(batch * tokens * tokens).fill(MASKED);
  rows.forEach((row, b) => {
    for (let t = 0; t < tokens; t += 1) {
      ids[b * tokens + t] = BigInt(row.prompt[t] ?? 0);
      positions[b * tokens + t] = BigInt(t);
      const at = (b * tokens + t) * tokens;
      mask.fill(0, at, at + t + 1);
    }
  });
  const logitRows = rows.map((row, b) => b * tokens + row.prompt.length - 1);
  const { logits, cache } = await engine.run({ batch, tokens, ids, positions, mask, cache: engine.emptyCache(batch), logitRows }, { logits: true, cache: true });
  if (cache === undefined) throw new StillhouseError('INTERNAL', 'prefill: expected a cache, got none');
  return { logits, cache };
}

/** One more token of each row. `padded` is the T of the prefill. */
async function decodeStep(engine: Engine, rows: readonly Row[], cache: Cache, padded: number): Promise<{ readonly logits: Float32Array; readonly cache: Cache }> {
  const batch = rows.length;
  const span = cache.tokens + 1;
  const mask = new Float32Array(batch * span);
  const ids = new BigInt64Array(batch);
  const positions = new BigInt64Array(batch);
  rows.forEach((row, b) => {
    const step = cache.tokens - padded;
    // A row that has finished goes on with its last token; what comes out is not read.
    ids[b] = BigInt(row.tokens.at(-1) ?? 0);
    positions[b] = BigInt(row.prompt.length + step);
    mask.fill(MASKED, b * span + row.prompt.length, b * span + padded);
  });
  const next = await engine.run({ batch, tokens: 1, ids, positions, mask, cache, logitRows: rows.map((_, b) => b) }, { logits: true, cache: true });
  if (next.cache === undefined) throw new StillhouseError('INTERNAL', 'decode: expected a cache, got none');
  return { logits: next.logits, cache: next.cache };
}

/** Takes the row's next token; decides whether that ended it. */
function advance(row: Row, logits: Float32Array, tokenizer: ChatTokenizer, request: GenerationRequest, contextTokens: number): void {
  const token = row.sampler(logits);
  if (tokenizer.endIds.includes(token)) {
    row.finishReason = 'stop';
    return;
  }
  row.tokens.push(token);
  if (request.stop !== undefined && request.stop.length > 0) {
    const text = tokenizer.decode(row.tokens);
    const ends = request.stop.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    if (ends.length > 0) {
      row.textBeforeStop = text.slice(0, Math.min(...ends));
      row.finishReason = 'stop';
      return;
    }
  }
  if (row.tokens.length >= request.maxNewTokens || row.prompt.length + row.tokens.length >= contextTokens) row.finishReason = 'length';
}

async function generateBatch(engine: Engine, tokenizer: ChatTokenizer, rows: readonly Row[], request: GenerationRequest): Promise<readonly GeneratedText[]> {
  const { vocabularySize } = engine.config;
  let { logits, cache } = await prefill(engine, rows);
  const padded = cache.tokens;
  for (;;) {
    rows.forEach((row, b) => {
      if (row.finishReason === undefined) advance(row, logits.subarray(b * vocabularySize, (b + 1) * vocabularySize), tokenizer, request, engine.contextTokens);
    });
    if (rows.every((row) => row.finishReason !== undefined)) break;
    ({ logits, cache } = await decodeStep(engine, rows, cache, padded));
  }
  return rows.map((row) => ({
    text: row.textBeforeStop ?? tokenizer.decode(row.tokens),
    tokens: row.tokens,
    promptTokens: row.prompt.length,
    finishReason: row.finishReason ?? 'length',
  }));
}

export async function generate(engine: Engine, tokenizer: ChatTokenizer, request: GenerationRequest): Promise<readonly GeneratedText[]> {
  if (!Number.isInteger(request.maxNewTokens) || request.maxNewTokens < 1) {
    throw new StillhouseError('BAD_INPUT', `maxNewTokens: expected a positive integer, got ${request.maxNewTokens}`);
  }
  const rows = request.prompts.map((prompt, index) => {
    const ids = encodePrompt(tokenizer, prompt);
    if (ids.length === 0 || ids.length >= engine.contextTokens) {
      throw new StillhouseError('BAD_INPUT', `prompts[${index}]: expected 1 to ${engine.contextTokens - 1} tokens, got ${ids.length}`);
    }
    return new Row(ids, createSampler(request, index));
  });
  const texts: GeneratedText[] = [];
  for (let from = 0; from < rows.length; from += BATCH_ROWS) texts.push(...(await generateBatch(engine, tokenizer, rows.slice(from, from + BATCH_ROWS), request)));
  return texts;
}
