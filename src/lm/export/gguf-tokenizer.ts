/** A tokenizer as GGUF metadata: vocabulary, merges, special tokens and chat template in llama.cpp's keys. */
import { z } from 'zod';
import { StillhouseError } from '../../contracts/errors.ts';
import { chatTemplateOf, preTokenizerName, tokenizerConfigSchema } from '../tokenizer.ts';
import type { GgufEntry } from './gguf-writer.ts';
import type { ExportSource } from './source.ts';

/** llama_token_type. */
const TOKEN_TYPE = { normal: 1, control: 3, userDefined: 4, unused: 5 } as const;

const tokenizerSchema = z.looseObject({
  added_tokens: z.array(z.looseObject({ id: z.int().min(0), content: z.string(), special: z.boolean().default(false) })).default([]),
  pre_tokenizer: z.unknown(),
  model: z.looseObject({
    type: z.literal('BPE'),
    byte_fallback: z.boolean().default(false),
    vocab: z.record(z.string(), z.int().min(0)),
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
  }),
});

function readJsonFile<T>(source: ExportSource, name: string, schema: z.ZodType<T>): T {
  const content = source.tokenizer.get(name);
  const refuse = (got: string, cause?: unknown): StillhouseError =>
    new StillhouseError('BAD_INPUT', `${name}: expected a byte-level byte-pair tokenizer, which GGUF can hold, got ${got}`, { cause });
  if (content === undefined) throw refuse('no such file');
  let raw: unknown;
  try {
    raw = JSON.parse(Buffer.from(content).toString('utf8'));
  } catch (cause) {
    throw refuse('no JSON', cause);
  }
  const parsed = schema.safeParse(raw);
  if (!parsed.success) throw refuse(parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).slice(0, 3).join('; '));
  return parsed.data;
}

/** Text and type of each of V tokens. A model's embedding may have more rows than its tokenizer has tokens: they get names that no text has. */
function vocabulary(source: ExportSource, tokenizer: z.output<typeof tokenizerSchema>): { readonly texts: readonly string[]; readonly types: readonly number[] } {
  const { vocabularySize } = source.config;
  const texts = Array.from({ length: vocabularySize }, (_, id) => `[PAD${id}]`);
  const types = Array.from({ length: vocabularySize }, (): number => TOKEN_TYPE.unused);
  const place = (id: number, text: string, type: number): void => {
    if (id >= vocabularySize) throw new StillhouseError('BAD_INPUT', `tokenizer.json: expected ids below ${vocabularySize}, the rows of the embedding, got ${id} for ${JSON.stringify(text)}`);
    texts[id] = text;
    types[id] = type;
  };
  for (const [text, id] of Object.entries(tokenizer.model.vocab)) place(id, text, TOKEN_TYPE.normal);
  for (const { id, content, special } of tokenizer.added_tokens) place(id, content, special ? TOKEN_TYPE.control : TOKEN_TYPE.userDefined);
  return { texts, types };
}

/** BAD_INPUT for a tokenizer that llama.cpp would not read as this one. */
export function ggufTokenizer(source: ExportSource): readonly GgufEntry[] {
  const tokenizer = readJsonFile(source, 'tokenizer.json', tokenizerSchema);
  const config = source.tokenizer.has('tokenizer_config.json') ? readJsonFile(source, 'tokenizer_config.json', tokenizerConfigSchema) : {};
  const pre = preTokenizerName(tokenizer.pre_tokenizer);
  if (pre === undefined || tokenizer.model.byte_fallback) {
    throw new StillhouseError('BAD_INPUT', `tokenizer.json, pre_tokenizer: expected one that llama.cpp knows by name, got ${JSON.stringify(tokenizer.pre_tokenizer).slice(0, 120)}`);
  }
  const { texts, types } = vocabulary(source, tokenizer);
  const special = (key: string, id: number | undefined): GgufEntry[] => (id === undefined || id < 0 ? [] : [[`tokenizer.ggml.${key}_token_id`, 'uint32', id]]);
  const idOf = (text: string | null | undefined): number | undefined => (text == null ? undefined : texts.indexOf(text));
  const templateFile = source.tokenizer.get('chat_template.jinja');
  const template = templateFile === undefined ? chatTemplateOf(config) : Buffer.from(templateFile).toString('utf8');
  const [eos, eot] = source.endIds;
  return [
    ['tokenizer.ggml.model', 'string', 'gpt2'],
    ['tokenizer.ggml.pre', 'string', pre],
    ['tokenizer.ggml.tokens', 'strings', texts],
    ['tokenizer.ggml.token_type', 'int32s', types],
    ['tokenizer.ggml.merges', 'strings', tokenizer.model.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')))],
    ...special('bos', idOf(config.bos_token)),
    ...special('eos', eos),
    ...special('eot', eot),
    ...special('unknown', idOf(config.unk_token)),
    ...special('padding', idOf(config.pad_token)),
    ['tokenizer.ggml.add_bos_token', 'bool', source.beginId !== undefined],
    ...(template === undefined ? [] : [['tokenizer.chat_template', 'string', template] as const]),
  ];
}
