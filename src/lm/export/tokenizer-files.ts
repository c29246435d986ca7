/** A model's tokenizer as files of a Hugging Face folder: its own, or rebuilt from the metadata of a GGUF file. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { tokenizerFromGguf, tokenizerJsonOfGguf } from '../tokenizer.ts';
import { openGguf, type GgufFile } from '../weights/gguf.ts';

/** Content by file name. */
export type TokenizerFiles = ReadonlyMap<string, Uint8Array | string>;

/** What transformers may look for beside the weights. */
const FILE_NAMES = [
  'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json', 'chat_template.jinja',
  'vocab.json', 'merges.txt', 'tokenizer.model',
];

function filesOfFolder(folder: string): TokenizerFiles {
  const present = FILE_NAMES.filter((name) => existsSync(join(folder, name)));
  return new Map(present.map((name) => [name, readFileSync(join(folder, name))]));
}

const textAt = (file: GgufFile, key: string): string | undefined => {
  const tokens = file.metadata.get('tokenizer.ggml.tokens');
  const id = file.metadata.get(key);
  const token = Array.isArray(tokens) && typeof id === 'number' ? (tokens[id] as unknown) : undefined;
  return typeof token === 'string' ? token : undefined;
};

/** Puts the begin token before a text, as `encode` does where special tokens are asked for. */
function beginProcessor(token: string, id: number): object {
  const begin = { SpecialToken: { id: token, type_id: 0 } };
  const sequence = (name: string, type: number): object => ({ Sequence: { id: name, type_id: type } });
  return {
    type: 'TemplateProcessing',
    single: [begin, sequence('A', 0)],
    pair: [begin, sequence('A', 0), { SpecialToken: { id: token, type_id: 1 } }, sequence('B', 1)],
    special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
  };
}

function filesOfGguf(path: string): TokenizerFiles {
  using file = openGguf(path);
  const [beginId] = tokenizerFromGguf(file).encode('', { begin: true });
  const begin = textAt(file, 'tokenizer.ggml.bos_token_id');
  const tokenizer = { ...tokenizerJsonOfGguf(file), ...(beginId === undefined || begin === undefined ? {} : { post_processor: beginProcessor(begin, beginId) }) };
  const template = file.metadata.get('tokenizer.chat_template');
  const token = (name: string, key: string): object => {
    const text = textAt(file, `tokenizer.ggml.${key}_token_id`);
    return text === undefined ? {} : { [name]: text };
  };
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    ...token('bos_token', 'bos'),
    ...token('eos_token', 'eos'),
    ...token('unk_token', 'unknown'),
    ...token('pad_token', 'padding'),
    clean_up_tokenization_spaces: false,
    ...(typeof template === 'string' ? { chat_template: template } : {}),
  };
  return new Map([
    ['tokenizer.json', JSON.stringify(tokenizer)],
    ['tokenizer_config.json', `${JSON.stringify(config, null, 2)}\n`],
  ]);
}

/** `path`: a GGUF file or a Hugging Face folder. */
export function tokenizerFiles(path: string): TokenizerFiles {
  return statSync(path).isDirectory() ? filesOfFolder(path) : filesOfGguf(path);
}
