/** Labels are compared with what ends them, so that one which begins another can lose; a local teacher's ledger keys say so. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { TeacherRequest } from '../../src/contracts/records.ts';
import { ledgerKey, ledgerRequest } from '../../src/ledger/key.ts';
import { createEngine, type Engine } from '../../src/lm/engine.ts';
import { createModelHost } from '../../src/lm/host.ts';
import { loadModel, type LoadedModel } from '../../src/lm/load.ts';
import { PrefixCache, scoreLabels } from '../../src/lm/scoring.ts';
import { scoreTexts } from '../../src/lm/log-probs.ts';
import type { LabelScoringRequest } from '../../src/lm/model.ts';
import { canonicalJson } from '../../src/store/jsonl.ts';
import { createLocalTeacher } from '../../src/teacher/local.ts';
import { temporaryFolder } from '../support/folder.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();
const cache = join(folder, 'cache');
// Two line breaks are one token, where no more text follows; GPT-2's pattern cuts them before a word.
const path = writeTinyLlama(join(folder, 'model'), 7, undefined, { merges: [['Ċ', 'Ċ'], ['c', 'a'], ['r', 'd'], ['ca', 'rd'], ['Ġ', 'card']] });
const PREFIX = 'Q: one\nA: card\n\nQ: two\nA: card_payment\n\n';
const LABELS = [' card_payment_fee', ' card_payment', ' card', ' 0.5 %)', ' 支付卡', ' 🙂'];
let model: LoadedModel;
let engine: Engine;
before(async () => {
  model = await loadModel({ path, cache });
  engine = await createEngine({ config: model.config, weights: model.weights, threads: 1 });
});
after(() => engine[Symbol.asyncDispose]());

const score = (request: Partial<LabelScoringRequest>) => scoreLabels(engine, model.tokenizer, new PrefixCache(), { prompts: [{ text: 'Q: three\nA:' }], labels: LABELS, ...request });

/** The same sum out of the log-probabilities of the whole text, more of which follows. */
async function wholeText(label: string, end: string, more: string): Promise<number> {
  const { tokenizer } = model;
  const prompt = [...tokenizer.encode(PREFIX), ...tokenizer.encode('Q: three\nA:')];
  const rest = tokenizer.encode(label + end + more);
  const [scores] = await scoreTexts(engine, { encode: () => [...prompt, ...rest] } as never, { texts: [{ text: PREFIX }] });
  const counted = rest.length - tokenizer.encode(more).length;
  return [...(scores?.logProbs ?? [])].slice(prompt.length - 1, prompt.length - 1 + counted).reduce((sum, value) => sum + value, 0);
}

describe('labels after plain text', () => {
  for (const [what, end] of [['an empty line', '\n\n'], ['a line break', '\n'], ['a word', ' END']] as const) {
    test(`ended by ${what} have the sum of their tokens and of the end's, as in the middle of a text`, async () => {
      for (const cachePrefix of [true, false]) {
        const [scores] = await score({ prefix: PREFIX, cachePrefix, labelEnd: end });
        for (const [i, label] of LABELS.entries()) {
          // "END" goes on to be another word: what follows it is a space.
          const wanted = await wholeText(label, end, end === ' END' ? ' x' : 'Q');
          assert.ok(Math.abs((scores?.logProbs[i] ?? NaN) - wanted) < 1e-3, `${label}: ${scores?.logProbs[i]} against ${wanted}`);
        }
      }
    });
  }

  test('an empty line is cut as before the next example, not as at the end of a text', () => {
    const { tokenizer } = model;
    assert.equal(tokenizer.encode('\n\n').length, 1);
    assert.equal(tokenizer.encode('\n\nQ').length, 3);
  });

  test('a label that begins another pays for its end too', async () => {
    const request = { prefix: PREFIX, labels: [' card', ' card_payment'] };
    const [[open], [ended]] = await Promise.all([score(request), score({ ...request, labelEnd: '\n\n' })]);
    assert.ok((ended?.logProbs[0] ?? 0) < (open?.logProbs[0] ?? 0) - 1, `${ended?.logProbs[0]} against ${open?.logProbs[0]}`);
  });

  test('a label without text is refused', async () => {
    for (const labelEnd of ['', '\n\n']) await assert.rejects(score({ labels: [' a', ''], labelEnd }), (error) => error instanceof StillhouseError && error.code === 'BAD_INPUT' && error.message === 'labels[1]: expected text, got ""');
  });
});

const request = (few: boolean, text = 'three'): TeacherRequest => ({
  id: text, purpose: 'train', sampleIndex: 0,
  task: { kind: 'label', labels: ['card_payment_fee', 'card_payment', 'card'], messages: [{ role: 'user', content: text }], parameters: { maxTokens: 8, temperature: 0 }, ...(few ? { completionPrompt: { prefix: PREFIX, suffix: `Q: ${text}\nA:` } } : {}) },
});

test('a local teacher compares few-shot labels with the empty line that ends each output', async () => {
  const host = createModelHost({ assets: { model: (name) => Promise.resolve({ name, path: name, license: 'none' }) }, cache, threads: 1 });
  await using opened = await host.open({ model: path });
  const asked: LabelScoringRequest[] = [];
  const watched = { ...opened, identity: opened.identity, scoreLabels: (each: LabelScoringRequest) => (asked.push(each), opened.scoreLabels(each)) } as typeof opened;
  await using teacher = createLocalTeacher({ identity: { provider: 'local', model: 'tiny' }, load: async () => watched, release: async () => undefined });
  const answers: string[] = [];
  for (const few of [true, false]) await teacher.ask([request(few)], { onAnswers: async (list) => void answers.push(...list.map(({ answer }) => answer.text)) });
  assert.deepEqual(asked.map(({ labelEnd }) => labelEnd), ['\n\n', undefined]); // a chat has its end token
  const [scores] = await score({ prefix: PREFIX, cachePrefix: true, labels: [' card_payment_fee', ' card_payment', ' card'], labelEnd: '\n\n' });
  const best = scores?.logProbs.indexOf(Math.max(...scores.logProbs)) ?? -1;
  assert.equal(answers[0], ['card_payment_fee', 'card_payment', 'card'][best]);
});

test('answers of a local teacher that were compared without their ends are other calls; those of endpoints and of chats are the same', () => {
  const before = (identity: { readonly provider: string; readonly model: string }, asked: TeacherRequest): string =>
    createHash('sha256').update(canonicalJson(identity)).update('\n').update(ledgerRequest(asked)).digest('hex');
  const [local, endpoint] = [{ provider: 'local', model: 'm' }, { provider: 'https://api.example.com/v1', model: 'm' }];
  assert.notEqual(ledgerKey(local, request(true)), before(local, request(true)));
  assert.equal(ledgerKey(local, request(false)), before(local, request(false)));
  for (const few of [true, false]) assert.equal(ledgerKey(endpoint, request(few)), before(endpoint, request(few)));
});
