/** Text to tokens and back, and chats by the model's own template. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { Tokenizer } from '@huggingface/tokenizers';
import { z } from 'zod';
import { StillhouseError } from '../contracts/errors.ts';
import type { ChatMessage } from '../contracts/records.ts';
import { tokenBytes, tokenSpelling } from './token-bytes.ts';
import type { TokenSpelling } from './token-bytes.ts';
import type { GgufFile, GgufValue } from './weights/gguf.ts';
import { parseConfig } from './weights/hugging-face-config.ts';
import { readJson } from './weights/json.ts';
import { shown } from './weights/tensor-file.ts';

export interface TrainingChat {
  readonly ids: readonly number[];
  /** Index in `ids` of the first token that is learned: the assistant's last message, its end token included. */
  readonly responseStart: number;
}

interface ChatTokenizerParts {
  /** Contents of tokenizer.json. */
  readonly tokenizerJson: object;
  /** Jinja source; absent for base models. */
  readonly chatTemplate: string | undefined;
  readonly beginText: string | undefined;
  /** Put before plain text; undefined where the model was trained without. */
  readonly beginId: number | undefined;
  /** Tokens that end an answer; the first is the chat's own. */
  readonly endIds: readonly number[];
  /** For error messages. */
  readonly where: string;
}

/**
 * Digits as the tokenizers of Rust see them: every numeric character of Unicode ("½", "Ⅷ"), where the library here
 * sees 0 to 9 and their like alone.
 */
function withUnicodeDigits(tokenizerJson: object): object {
  if (!('pre_tokenizer' in tokenizerJson)) return tokenizerJson;
  const preTokenizer: unknown = JSON.parse(JSON.stringify(tokenizerJson.pre_tokenizer), (_key, part: unknown) => {
    if (typeof part !== 'object' || part === null || !('type' in part) || part.type !== 'Digits') return part;
    const pattern = 'individual_digits' in part && part.individual_digits === true ? '\\p{N}' : '\\p{N}+';
    return { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false };
  });
  return { ...tokenizerJson, pre_tokenizer: preTokenizer };
}

/** Every kind of piece that pre-tokenizers tell apart. */
const PROBE = 'A probe: 12 ½ words,\n中文 🙂';

/** BAD_INPUT for one that is not understood, or that fails over ordinary text. */
function readTokenizer(json: unknown, where: string): Tokenizer {
  try {
    const tokenizer = new Tokenizer(withUnicodeDigits(json as object), { clean_up_tokenization_spaces: false });
    const ids: readonly number[] = tokenizer.encode(PROBE).ids;
    if (!ids.every((id) => Number.isSafeInteger(id) && id >= 0)) throw new Error(`ids ${ids.slice(0, 4).join(', ')}`);
    return tokenizer;
  } catch (cause) {
    throw new StillhouseError('BAD_INPUT', `${where}: expected a supported tokenizer, got: ${shown(String(cause))}`, { cause });
  }
}

export class ChatTokenizer {
  readonly endIds: readonly number[];
  readonly #tokenizer: Tokenizer;
  readonly #template: Template | undefined;
  readonly #beginText: string;
  readonly #beginId: number | undefined;
  readonly #where: string;
  readonly #spelling: TokenSpelling;

  constructor(parts: ChatTokenizerParts) {
    this.#where = parts.where;
    this.#tokenizer = readTokenizer(parts.tokenizerJson, parts.where);
    this.#spelling = tokenSpelling(parts.tokenizerJson);
    try {
      this.#template = parts.chatTemplate === undefined ? undefined : new Template(parts.chatTemplate);
    } catch (cause) {
      throw new StillhouseError('BAD_INPUT', `${parts.where}: expected a supported chat template, got: ${shown(String(cause))}`, { cause });
    }
    if (parts.endIds.length === 0) throw new StillhouseError('BAD_INPUT', `${parts.where}: expected an end-of-text token, got none`);
    this.endIds = parts.endIds;
    this.#beginText = parts.beginText ?? '';
    this.#beginId = parts.beginId;
  }

  /** The token that closes an assistant's turn. */
  get endId(): number {
    return this.endIds[0] ?? 0;
  }

  get hasChatTemplate(): boolean {
    return this.#template !== undefined;
  }

  /** Every token as the tokenizer's file writes it, by id; an id that no token has is an empty text. */
  get tokens(): readonly string[] {
    const ids = this.#tokenizer.get_vocab(true);
    const tokens: string[] = [];
    for (const [token, id] of ids) tokens[id] = token;
    return Array.from(tokens, (token) => token ?? '');
  }

  /** Plain text; names of special tokens in it become those tokens. `begin` puts the begin token first where the model has one. */
  encode(text: string, options: { readonly begin?: boolean } = {}): number[] {
    const ids = text === '' ? [] : this.#tokenizer.encode(text, { add_special_tokens: false }).ids;
    return options.begin === true && this.#beginId !== undefined ? [this.#beginId, ...ids] : ids;
  }

  /** Special tokens are left out. */
  decode(ids: readonly number[]): string {
    return ids.length === 0 ? '' : this.#tokenizer.decode([...ids], { skip_special_tokens: true });
  }

  /** One token, special ones by name; bytes that are no character by themselves come as U+FFFD. */
  tokenText(id: number): string {
    return this.#tokenizer.decode([id], { skip_special_tokens: false });
  }

  /** The bytes of text that a token stands for; of one that was added to the vocabulary, those of its name. */
  tokenBytes(id: number): Uint8Array {
    const added = this.#tokenizer.get_added_tokens_decoder().get(id);
    return added === undefined ? tokenBytes(this.#tokenizer.id_to_token(id) ?? '', this.#spelling) : Buffer.from(added.content, 'utf8');
  }

  renderChat(messages: readonly ChatMessage[], options: { readonly openAssistantTurn: boolean }): string {
    if (this.#template === undefined) throw new StillhouseError('BAD_INPUT', `${this.#where}: expected a chat template for a chat prompt, got none`);
    try {
      return this.#template.render({
        messages: messages.map(({ role, content }) => ({ role, content })),
        // Templates ask whether they are none.
        tools: null,
        documents: null,
        add_generation_prompt: options.openAssistantTurn,
        bos_token: this.#beginText,
        eos_token: this.#tokenizer.id_to_token(this.endId) ?? '',
      });
    } catch (cause) {
      throw new StillhouseError('BAD_INPUT', `${this.#where}, chat template: expected a chat that it accepts, got: ${String(cause)}`, { cause });
    }
  }

  encodeChat(messages: readonly ChatMessage[], options: { readonly openAssistantTurn: boolean }): number[] {
    return this.encode(this.renderChat(messages, options));
  }

  /** An assistant's whole turn: its text and the end token. */
  encodeAssistantTurn(text: string): number[] {
    return [...this.encode(text), this.endId];
  }

  /**
   * The chat up to the opened assistant's turn exactly as inference encodes it, then the answer and its
   * end token. The last message must be the assistant's.
   */
  encodeForTraining(messages: readonly ChatMessage[]): TrainingChat {
    const last = messages.at(-1);
    if (last?.role !== 'assistant') {
      throw new StillhouseError('BAD_INPUT', `training chat: expected an assistant's message at the end, got ${last?.role ?? 'no messages'}`);
    }
    const prompt = this.encodeChat(messages.slice(0, -1), { openAssistantTurn: true });
    return { ids: [...prompt, ...this.encodeAssistantTurn(last.content)], responseStart: prompt.length };
  }
}

const tokenTextSchema = z.union([z.string(), z.looseObject({ content: z.string() }).transform((token) => token.content)]);
export const tokenizerConfigSchema = z.looseObject({
  chat_template: z.union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))]).nullish(),
  bos_token: tokenTextSchema.nullish(),
  eos_token: tokenTextSchema.nullish(),
  unk_token: tokenTextSchema.nullish(),
  pad_token: tokenTextSchema.nullish(),
});

/** The default one of tokenizer_config.json. */
export function chatTemplateOf({ chat_template: template }: z.output<typeof tokenizerConfigSchema>): string | undefined {
  return (Array.isArray(template) ? template.find(({ name }) => name === 'default')?.template : template) ?? undefined;
}
const generationConfigSchema = z.looseObject({ eos_token_id: z.union([z.int(), z.array(z.int())]).nullish() });

/** From tokenizer.json, tokenizer_config.json, generation_config.json and chat_template.jinja of a Hugging Face folder. */
export function tokenizerFromFolder(folder: string): ChatTokenizer {
  const where = join(folder, 'tokenizer.json');
  const tokenizerJson = readJson(where) as object;
  const optional = (name: string): unknown => (existsSync(join(folder, name)) ? readJson(join(folder, name)) : {});
  const config = parseConfig(tokenizerConfigSchema, optional('tokenizer_config.json'), join(folder, 'tokenizer_config.json'));
  const generation = parseConfig(generationConfigSchema, optional('generation_config.json'), join(folder, 'generation_config.json'));
  const templateFile = join(folder, 'chat_template.jinja');
  const plain = readTokenizer(tokenizerJson, where);
  const idOf = (text: string | null | undefined): number | undefined => (text === null || text === undefined ? undefined : plain.token_to_id(text));
  const withSpecial = plain.encode('a').ids;
  const without = plain.encode('a', { add_special_tokens: false }).ids;
  const ends = [idOf(config.eos_token), ...[generation.eos_token_id ?? []].flat()].filter((id) => id !== undefined);
  return new ChatTokenizer({
    tokenizerJson,
    chatTemplate: existsSync(templateFile) ? readFileSync(templateFile, 'utf8') : chatTemplateOf(config),
    beginText: config.bos_token ?? undefined,
    beginId: withSpecial.length > without.length && withSpecial[0] === idOf(config.bos_token) ? withSpecial[0] : undefined,
    endIds: [...new Set(ends)],
    where,
  });
}

/** Pieces of text that byte-pair merging never crosses, by `tokenizer.ggml.pre` (llama.cpp, llama-vocab.cpp). */
const BYTE_LEVEL = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
const LLAMA3_SPLIT =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const PRE_TOKENIZERS: ReadonlyMap<string, { readonly preTokenizer: object; readonly ignoreMerges: boolean }> = new Map([
  ['gpt-2', { preTokenizer: BYTE_LEVEL, ignoreMerges: false }],
  ['smollm', { preTokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, BYTE_LEVEL] }, ignoreMerges: false }],
  [
    'llama-bpe',
    {
      preTokenizer: {
        type: 'Sequence',
        pretokenizers: [{ type: 'Split', pattern: { Regex: LLAMA3_SPLIT }, behavior: 'Isolated', invert: false }, { ...BYTE_LEVEL, use_regex: false }],
      },
      ignoreMerges: true,
    },
  ],
]);

/** What decides where a pre-tokenizer splits, as one comparable text: sequences flattened, offsets left out. */
function splitsOf(preTokenizer: unknown): string {
  const { trim_offsets: _, pretokenizers, ...rest } = { ...(preTokenizer as { readonly trim_offsets?: unknown; readonly pretokenizers?: unknown }) };
  if (Array.isArray(pretokenizers)) return pretokenizers.map(splitsOf).join(' ');
  return JSON.stringify(Object.entries(rest).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/** The name that `tokenizer.ggml.pre` gives a pre-tokenizer of tokenizer.json; undefined for one without a name here. */
export function preTokenizerName(preTokenizer: unknown): string | undefined {
  const splits = splitsOf(preTokenizer);
  return [...PRE_TOKENIZERS].find(([, known]) => splitsOf(known.preTokenizer) === splits)?.[0];
}

/** gguf token types: 3 is a control token, 4 one that a user defined. */
const CONTROL = 3;
const USER_DEFINED = 4;

const isTexts = (value: GgufValue | undefined): value is readonly string[] => Array.isArray(value) && value.every((one) => typeof one === 'string');

/** The contents of a tokenizer.json, rebuilt from the vocabulary, merges and special tokens in GGUF metadata. */
export function tokenizerJsonOfGguf(file: GgufFile): object {
  const { metadata, path } = file;
  const reject = (key: string, wanted: string): StillhouseError =>
    new StillhouseError('BAD_INPUT', `${path}, ${key}: expected ${wanted}, got ${JSON.stringify(metadata.get(key))?.slice(0, 40) ?? 'nothing'}`);
  if (metadata.get('tokenizer.ggml.model') !== 'gpt2') throw reject('tokenizer.ggml.model', 'gpt2 (byte-level byte-pair encoding)');
  const pre = PRE_TOKENIZERS.get(String(metadata.get('tokenizer.ggml.pre')));
  if (pre === undefined) throw reject('tokenizer.ggml.pre', `one of ${[...PRE_TOKENIZERS.keys()].join(', ')}`);
  const tokens = metadata.get('tokenizer.ggml.tokens');
  const merges = metadata.get('tokenizer.ggml.merges');
  const types = metadata.get('tokenizer.ggml.token_type');
  if (!isTexts(tokens)) throw reject('tokenizer.ggml.tokens', 'a list of texts');
  if (!isTexts(merges)) throw reject('tokenizer.ggml.merges', 'a list of texts');
  const addedTokens = tokens.flatMap((content, id) => {
    const type = Array.isArray(types) ? types[id] : undefined;
    if (type !== CONTROL && type !== USER_DEFINED) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: type === CONTROL }];
  });
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokens,
    normalizer: null,
    pre_tokenizer: pre.preTokenizer,
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.ignoreMerges,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: merges.map((merge) => merge.split(' ')),
    },
  };
}

/** The same tokenizer with the chat template and the special tokens that GGUF metadata name. */
export function tokenizerFromGguf(file: GgufFile): ChatTokenizer {
  const { metadata, path } = file;
  const tokenizerJson = tokenizerJsonOfGguf(file);
  const tokens = metadata.get('tokenizer.ggml.tokens');
  const idOf = (key: string): number | undefined => {
    const value = metadata.get(key);
    return typeof value === 'number' ? value : undefined;
  };
  const template = metadata.get('tokenizer.chat_template');
  const beginId = idOf('tokenizer.ggml.bos_token_id');
  const ends = [idOf('tokenizer.ggml.eos_token_id'), idOf('tokenizer.ggml.eot_token_id')].filter((id) => id !== undefined);
  return new ChatTokenizer({
    tokenizerJson,
    chatTemplate: typeof template === 'string' ? template : undefined,
    beginText: beginId === undefined || !isTexts(tokens) ? undefined : tokens[beginId],
    beginId: metadata.get('tokenizer.ggml.add_bos_token') === true ? beginId : undefined,
    endIds: [...new Set(ends)],
    where: path,
  });
}
