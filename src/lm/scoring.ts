/**
 * Log-probabilities of fixed continuations. Prompts are packed one after another into one row; each
 * attends to the shared prefix and itself alone, each label of several tokens to its prompt and itself.
 * How prompts are packed depends on the request alone, so the same request gives bitwise the same answer.
 */
import { StillhouseError } from '../contracts/errors.ts';
import { MASKED } from './architectures/decoder.ts';
import type { RowCache } from './cache.ts';
import type { Engine } from './engine.ts';
import { prefill } from './generation.ts';
import type { LabelScores, LabelScoringRequest, Prompt } from './model.ts';
import { refuseTooLong } from './too-long.ts';
import type { ChatTokenizer } from './tokenizer.ts';

/** Tokens of one packed row. More cost quadratically in attention, fewer leave the matrix units idle. */
const ROW_TOKENS = 256;

/** A prompt and the continuations to compare, in tokens. */
export interface LabelledTokens {
  readonly prompt: readonly number[];
  readonly labels: readonly (readonly number[])[];
}

interface Block extends LabelledTokens {
  /** Tokens it takes in a row: the prompt and all but the last token of each label. */
  readonly length: number;
}

function blockOf({ prompt, labels }: LabelledTokens): Block {
  return { prompt, labels, length: prompt.length + labels.reduce((sum, ids) => sum + ids.length - 1, 0) };
}

/** What may follow a label's end, of kinds that tokenizers do not join. */
const FOLLOWING = ['A', '7'] as const;

/**
 * A label with its end as they stand in the middle of a text: tokenizers cut line breaks before more text otherwise than at
 * the text's end, and may join them with the label's last sign. Tokens that depend on what follows are left out.
 */
function encodeEnded(tokenizer: ChatTokenizer, label: string, end: string): number[] {
  if (end === '') return tokenizer.encode(label);
  const [one = [], other = []] = FOLLOWING.map((next) => tokenizer.encode(label + end + next));
  const differs = one.findIndex((id, i) => id !== other[i]);
  const shared = differs < 0 ? one : one.slice(0, differs);
  const bytes = shared.reduce((sum, id) => sum + tokenizer.tokenBytes(id).length, 0);
  return bytes > Buffer.byteLength(label) ? shared : tokenizer.encode(label + end);
}

function encodeBlock(tokenizer: ChatTokenizer, prompt: Prompt, labels: readonly string[], end: string, lead: readonly number[], begin: boolean): Block {
  let promptIds: number[];
  let labelIds: number[][];
  if ('messages' in prompt) {
    promptIds = tokenizer.encodeChat(prompt.messages, { openAssistantTurn: true });
    labelIds = labels.map((label) => tokenizer.encodeAssistantTurn(label));
  } else {
    // A word's token holds the space before it, so a trailing space goes to the label.
    const text = prompt.text.replace(/ +$/, '');
    const space = prompt.text.slice(text.length);
    promptIds = [...lead, ...tokenizer.encode(text, { begin })];
    labelIds = labels.map((label) => encodeEnded(tokenizer, space + label, end));
  }
  if (promptIds.length === 0) throw new StillhouseError('BAD_INPUT', 'prompt: expected one token or more, got none');
  const empty = labelIds.findIndex((ids) => ids.length === 0);
  if (empty >= 0) throw new StillhouseError('BAD_INPUT', `labels[${empty}]: expected text, got ${JSON.stringify(labels[empty])}`);
  return blockOf({ prompt: promptIds, labels: labelIds });
}

function packRows(blocks: readonly Block[]): readonly (readonly Block[])[] {
  const rows: Block[][] = [];
  let used = Infinity;
  for (const block of blocks) {
    if (used + block.length > ROW_TOKENS) {
      rows.push([]);
      used = 0;
    }
    rows.at(-1)?.push(block);
    used += block.length;
  }
  return rows;
}

/** Fills one packed row: ids, positions, mask and which log-probability belongs to which label. */
class RowWriter {
  readonly ids: BigInt64Array;
  readonly positions: BigInt64Array;
  readonly mask: Float32Array; // (T, C + T), C the cache's capacity
  readonly logitRows: number[] = [];
  readonly targetRows: number[] = [];
  readonly targetIds: number[] = [];
  readonly #past: number;
  readonly #capacity: number;
  #at = 0;

  constructor(tokens: number, cache: RowCache) {
    this.ids = new BigInt64Array(tokens);
    this.positions = new BigInt64Array(tokens);
    this.#past = cache.lengths[0] ?? 0;
    this.#capacity = cache.capacity;
    this.mask = new Float32Array(tokens * (this.#capacity + tokens)).fill(MASKED);
  }

  /** Writes the block; the targets of its labels follow one another, label by label. */
  write(block: Block): void {
    const start = this.#at;
    for (const id of block.prompt) this.#put(id, this.#at - start, [[start, this.#at]]);
    const promptEnd = this.#at;
    const afterPrompt = this.logitRows.push(promptEnd - 1) - 1;
    for (const label of block.labels) {
      const labelStart = this.#at;
      label.forEach((id, index) => {
        this.targetRows.push(index === 0 ? afterPrompt : this.logitRows.push(this.#at - 1) - 1);
        this.targetIds.push(id);
        if (index < label.length - 1) this.#put(id, promptEnd - start + index, [[start, promptEnd - 1], [labelStart, this.#at]]);
      });
    }
  }

  /** One token that sees the prefix and the given ranges, both ends included. */
  #put(id: number, position: number, ranges: readonly (readonly [number, number])[]): void {
    this.ids[this.#at] = BigInt(id);
    this.positions[this.#at] = BigInt(this.#past + position);
    const row = this.#at * (this.#capacity + this.ids.length);
    this.mask.fill(0, row, row + this.#past);
    for (const [from, to] of ranges) this.mask.fill(0, row + this.#capacity + from, row + this.#capacity + to + 1);
    this.#at += 1;
  }
}

async function scoreRow(engine: Engine, blocks: readonly Block[], cache: RowCache): Promise<readonly (readonly number[])[]> {
  const tokens = blocks.reduce((sum, block) => sum + block.length, 0);
  const row = new RowWriter(tokens, cache);
  for (const block of blocks) row.write(block);
  const { ids, positions, mask, logitRows, targetRows, targetIds } = row;
  const { targetLogProbs } = await engine.run({ batch: 1, tokens, ids, positions, mask, cache, logitRows, targets: { rows: targetRows, ids: targetIds } }, {});
  let next = 0;
  return blocks.map((block) =>
    block.labels.map((label) => {
      let sum = 0;
      for (let i = 0; i < label.length; i += 1, next += 1) sum += targetLogProbs[next] ?? NaN;
      return sum;
    }),
  );
}

/** The last prefix that was computed; requests of one task come one after another and share it. */
export class PrefixCache {
  #text: string | undefined;
  #cache: RowCache | undefined;

  async get(engine: Engine, text: string, ids: readonly number[]): Promise<RowCache> {
    if (this.#text === text && this.#cache !== undefined) return this.#cache;
    const cache = engine.createCache(1, ids.length);
    await prefill(engine, cache, 0, ids);
    [this.#text, this.#cache] = [text, cache];
    return cache;
  }
}

export async function scoreLabels(engine: Engine, tokenizer: ChatTokenizer, prefixes: PrefixCache, request: LabelScoringRequest): Promise<readonly LabelScores[]> {
  const { prefix, prompts, labels, labelEnd = '' } = request;
  if (labels.length === 0) throw new StillhouseError('BAD_INPUT', 'labels: expected one or more, got none');
  const none = labels.indexOf('');
  if (none >= 0) throw new StillhouseError('BAD_INPUT', `labels[${none}]: expected text, got ""`);
  if (prefix !== undefined && prompts.some((prompt) => 'messages' in prompt)) {
    throw new StillhouseError('BAD_INPUT', 'prefix: expected plain-text prompts after a shared prefix, got a chat');
  }
  const prefixIds = prefix === undefined ? [] : tokenizer.encode(prefix, { begin: true });
  const cached = request.cachePrefix === true && prefixIds.length > 0;
  const blocks = prompts.map((prompt) => encodeBlock(tokenizer, prompt, labels, labelEnd, cached ? [] : prefixIds, prefix === undefined));
  refuseTooLong(blocks.map((block) => prefixIds.length * (cached ? 1 : 0) + block.prompt.length + Math.max(...block.labels.map((label) => label.length))), engine.contextTokens);
  const cache = cached ? await prefixes.get(engine, prefix ?? '', prefixIds) : engine.createCache();
  const cachedPromptTokens = cache.lengths[0] ?? 0;
  const logProbs = await scoreBlocks(engine, cache, blocks);
  return blocks.map(({ prompt }, index) => ({ logProbs: logProbs[index] ?? [], promptTokens: cachedPromptTokens + prompt.length, cachedPromptTokens }));
}

async function scoreBlocks(engine: Engine, cache: RowCache, blocks: readonly Block[]): Promise<readonly (readonly number[])[]> {
  const scores: (readonly number[])[] = [];
  for (const row of packRows(blocks)) scores.push(...(await scoreRow(engine, row, cache)));
  return scores;
}

/** Natural-log probability of each label after what the cache holds and its prompt. */
export function scoreTokens(engine: Engine, cache: RowCache, rows: readonly LabelledTokens[]): Promise<readonly (readonly number[])[]> {
  return scoreBlocks(engine, cache, rows.map(blockOf));
}
