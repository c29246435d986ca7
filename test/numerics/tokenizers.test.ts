/**
 * Ids and texts against the Python tokenizers library, chats against transformers' jinja, on English, Chinese, code,
 * emoji and pieces cut anywhere; fixtures/tokenizers_reference.py wrote what is expected.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { createAssets } from '../../src/assets/create-assets.ts';
import { readConfig } from '../../src/config.ts';
import type { ChatMessage } from '../../src/contracts/records.ts';
import { openModel } from '../../src/lm/load.ts';
import { ChatTokenizer } from '../../src/lm/tokenizer.ts';

interface Expected {
  readonly idHashes: readonly string[];
  readonly decodedHashes: readonly string[];
}
interface Reference {
  readonly texts: readonly string[];
  readonly smollm2: Expected;
  readonly small: Readonly<Record<string, Expected & { readonly tokenizerJson: object }>>;
  readonly chats: readonly (readonly ChatMessage[])[];
  /** Of each chat: with the assistant's turn opened, and without; null where the template refuses it. */
  readonly templates: Readonly<Record<string, { readonly template: string; readonly begin: string; readonly chats: readonly (readonly (string | null)[])[] }>>;
}
const reference = JSON.parse(readFileSync(new URL('./fixtures/tokenizers-reference.json', import.meta.url), 'utf8')) as Reference;

const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 12);
/** The library decodes bytes with a decoder that takes a byte-order mark for one. */
const BYTE_ORDER_MARK = '\uFEFF';

const parts = { chatTemplate: undefined, beginText: undefined, beginId: undefined, endIds: [0] };

function compare(tokenizer: ChatTokenizer, { idHashes, decodedHashes }: Expected, options: { readonly losesByteOrderMarks?: boolean } = {}): void {
  reference.texts.forEach((text, i) => {
    const ids = tokenizer.encode(text);
    assert.equal(hashOf(ids.join(',')), idHashes[i], `ids of ${JSON.stringify(text)}: ${ids.join(' ')}`);
    if (options.losesByteOrderMarks === true && text.includes(BYTE_ORDER_MARK)) return;
    assert.equal(hashOf(tokenizer.decode(ids)), decodedHashes[i], `text of ${JSON.stringify(text)}: ${JSON.stringify(tokenizer.decode(ids))}`);
  });
}

test('SmolLM2, rebuilt from GGUF metadata', async () => {
  const { cache, hub } = readConfig();
  const { path } = await createAssets({ cache, hub }).model('smollm2-135m-instruct');
  using model = openModel(path);
  assert.ok(reference.texts.length > 300);
  compare(model.tokenizer, reference.smollm2);
});

describe('tokenizer.json', () => {
  for (const [name, { tokenizerJson, ...expected }] of Object.entries(reference.small)) {
    const gemma = name === 'gemma';
    test(`of ${name}'s kind`, () => compare(new ChatTokenizer({ ...parts, tokenizerJson, where: name }), expected, { losesByteOrderMarks: gemma }));
  }
});

describe('chat template', () => {
  const { tokenizerJson = {} } = reference.small['qwen'] ?? {};
  for (const [name, { template, begin, chats }] of Object.entries(reference.templates)) {
    test(`of ${name}`, () => {
      const tokenizer = new ChatTokenizer({ ...parts, tokenizerJson, chatTemplate: template, beginText: begin, where: name });
      reference.chats.forEach((messages, i) => {
        [true, false].forEach((openAssistantTurn, j) => {
          const expected = chats[i]?.[j] ?? null;
          if (expected === null) assert.throws(() => tokenizer.renderChat(messages, { openAssistantTurn }), /chat template: expected a chat that it accepts/);
          else assert.equal(tokenizer.renderChat(messages, { openAssistantTurn }), expected, `chat ${i}`);
        });
      });
    });
  }
});
