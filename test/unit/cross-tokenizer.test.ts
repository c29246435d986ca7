/** A teacher with a vocabulary and a chat template of its own: what pairs up, that it trains, and what is refused. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ChatTokenizer } from '../../src/lm/tokenizer.ts';
import { loadModel } from '../../src/lm/load.ts';
import type { LoadedModel } from '../../src/lm/load.ts';
import { besideStudent, teacherSamples, withTeacherReadings } from '../../src/training/cross-reading.ts';
import { packRow } from '../../src/training/packing.ts';
import type { TrainingSample } from '../../src/training/packing.ts';
import { tokenizeSamples } from '../../src/training/samples.ts';
import { makeTeacherRows } from '../../src/training/teacher-rows.ts';
import { openTrainingRuns, trainingSpec } from '../support/training-runs.ts';
import type { TrainingRuns } from '../support/training-runs.ts';
import { TINY, writeTinyLlama } from '../support/tiny-llama.ts';

/** As Llama 2's: a mark for each space and one before the text, merges over characters, bytes where there is none. */
function sentencePiece(...normalizers: readonly object[]): ChatTokenizer {
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const merges = [['g', 'o'], ['▁', 'go'], ['o', 'd'], ['▁', 'a']] as const;
  const tokens = ['<unk>', '<s>', '</s>', ...bytes, '▁', ...'abcdefghijklmnopqrstuvwxyzR:<>|_', ...merges.map((pair) => pair.join(''))];
  const normalizer = { type: 'Sequence', normalizers: [...normalizers, { type: 'Prepend', prepend: '▁' }, { type: 'Replace', pattern: { String: ' ' }, content: '▁' }] };
  const decoder = { type: 'Sequence', decoders: [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 }] };
  const model = { type: 'BPE', unk_token: '<unk>', fuse_unk: true, byte_fallback: true, vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges };
  const added = ['<unk>', '<s>', '</s>'].map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }));
  const chatTemplate = "{% for message in messages %}{{ '<s>' + message['content'] }}{% endfor %}";
  return new ChatTokenizer({ tokenizerJson: { added_tokens: added, normalizer, pre_tokenizer: null, post_processor: null, decoder, model }, chatTemplate, beginText: '<s>', beginId: 1, endIds: [2], where: 'llama' });
}

let runs: TrainingRuns;
let teacher: LoadedModel;
/** A student of single bytes beside a teacher that knows these words. */
before(async () => {
  runs = await openTrainingRuns();
  const path = writeTinyLlama(join(runs.folder, 'teacher'), 8, { ...TINY, hiddenSize: 48 }, { merges: [['o', 'd'], ['o', 'od'], ['g', 'ood'], ['b', 'a']], afterRole: ': ' });
  teacher = await loadModel({ path, cache: join(runs.folder, 'cache') });
});
after(() => runs[Symbol.dispose]());

const ANSWERS = ['good', 'bad', 'no good', 'a bad one', 'good food', 'odd', '好 good'];
const rowsOf = (answers: readonly string[]): string => answers.map((content, i) => JSON.stringify({ id: `row-${i}`, messages: [{ role: 'user', content: `Review: ${'x'.repeat(i + 1)}` }, { role: 'assistant', content }] })).join('\n');
const named = ({ identity, tokenizer }: LoadedModel) => ({ name: identity.name, tokenizer });
function readings(answers: readonly string[] = ANSWERS, student: LoadedModel = runs.model): readonly TrainingSample[] {
  const rows = rowsOf(answers);
  return withTeacherReadings(named(teacher), named(student), rows, tokenizeSamples(rows, student.tokenizer, {}));
}
const teacherModel = () => ({ config: teacher.config, weights: teacher.weights, sha256: teacher.identity.sha256 });

describe('two readings of one answer', () => {
  test('meet where both have a token that begins at the same byte, and at the end', () => {
    const partners = readings().map(({ reading }) => reading?.partners);
    assert.deepEqual(partners.slice(0, 3), [
      [0, -1, -1, -1, 1], // g·o·o·d beside good
      [0, -1, 1, 2], // b·a·d beside ba·d
      [0, 1, 2, 3, -1, -1, -1, 4],
    ]);
  });

  test('meet in a SentencePiece vocabulary too, which begins a text with a space and falls back to bytes', () => {
    const rows = rowsOf(['good', 'a 好 dog', '<|im_end|> good']);
    const samples = withTeacherReadings({ name: 'llama', tokenizer: sentencePiece() }, named(runs.model), rows, tokenizeSamples(rows, runs.model.tokenizer, {}));
    assert.deepEqual(samples.map(({ reading }) => reading?.partners), [
      [0, -1, 1, -1, 2], // ▁go·od beside g·o·o·d
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], // ▁a·▁·(three bytes)·▁·d·o·g
      [0, 11, -1, -1, 12, -1, 13], // ▁·<·|·i·m·_·e·n·d·|·>·▁go·od beside one token, then single bytes
    ]);
  });

  test('that do not spell one answer are refused with the row and both spellings', () => {
    const rows = rowsOf(['Good']);
    const lowering = { name: 'lowering', tokenizer: sentencePiece({ type: 'Lowercase' }) };
    assert.throws(() => withTeacherReadings(lowering, named(runs.model), rows, tokenizeSamples(rows, runs.model.tokenizer, {})), /dataset, row row-0: expected tokens of teacher and student that spell the same answer, got " good" by lowering and "Good" by /);
  });

  test('are packed each in its own row, whose places still belong together', () => {
    const samples = readings();
    const row = packRow(samples);
    assert.ok(row.teacher !== undefined);
    const partnered = Array.from(row.values['partnered']?.data ?? [], Number);
    assert.equal(partnered.filter((value) => value === 1).length, samples.flatMap(({ reading }) => reading?.partners ?? []).filter((partner) => partner >= 0).length);
    const { tokenizer } = runs.model;
    partnered.forEach((paired, i) => {
      if (paired === 0) return;
      const [own, others] = [nextToken(row, row.rows[i] as bigint), nextToken(row.teacher?.row as typeof row, row.teacher?.rows[i] as bigint)];
      const [ownBytes, otherBytes] = [tokenizer.tokenBytes(own), teacher.tokenizer.tokenBytes(others)];
      assert.deepEqual([...ownBytes], [...otherBytes.subarray(0, ownBytes.length)]);
    });
  });

  /** What a row of a packed row has to predict. */
  function nextToken(row: ReturnType<typeof packRow>, at: bigint): number {
    return Number(row.labels[row.rows.indexOf(at)]);
  }
});

describe('learning from a teacher of another vocabulary', () => {
  for (const [what, spec] of [['adapters', {}], ['all weights, softened', { tune: 'full', crossTokenizer: { weight: 3, temperature: 2 } }]] as const) {
    test(`${what}: the loss falls, and a run that goes on in mid-epoch ends in the same bytes`, async () => {
      const training = trainingSpec({ method: 'cross-tokenizer', epochs: 6, batchSize: 4, ...spec });
      const input = { training, teacher: teacherModel(), samples: readings() };
      const { state } = await runs.runAll(input);
      const [first, last] = [state.curve[0]?.lossNats ?? NaN, state.curve.at(-1)?.lossNats ?? NaN];
      assert.ok(last < 0.9 * first, `${first} to ${last}`);
      const whole = await runs.run(input);
      const part = await runs.run(input, 1);
      const rest = await runs.run({ ...input, from: runs.saved(part.checkpoint) });
      assert.ok(rest.checkpoint.equals(whole.checkpoint));
    });
  }

  test('what the teacher has read before the first step is what it reads beside the student', async () => {
    const training = trainingSpec({ method: 'cross-tokenizer', batchSize: 4 });
    const samples = readings();
    const read = teacherSamples(samples);
    const targets = besideStudent(await makeTeacherRows({ teacher: teacherModel(), samples: read, maxRowTokens: 512, folder: join(runs.folder, 'rows'), threads: 1 }, () => undefined), samples, read);
    const { state: beside } = await runs.run({ training, teacher: teacherModel(), samples });
    const { state: before } = await runs.run({ training, teacher: teacherModel(), samples, targets });
    before.curve.forEach(({ lossNats }, i) => assert.ok(Math.abs(lossNats / (beside.curve[i]?.lossNats ?? NaN) - 1) < 1e-5));
  });

  test('without a weight worth the name it is the cross-entropy', async () => {
    const samples = readings();
    const { state } = await runs.run({ training: trainingSpec({ batchSize: 4 }), samples });
    const { state: beside } = await runs.run({ training: trainingSpec({ method: 'cross-tokenizer', batchSize: 4, crossTokenizer: { weight: 1e-9 } }), teacher: teacherModel(), samples });
    assert.ok(Math.abs((beside.curve[0]?.lossNats ?? NaN) / (state.curve[0]?.lossNats ?? NaN) - 1) < 1e-6);
  });

  test('a row that is too long as the teacher reads it is turned away', async () => {
    const samples = readings().map((sample, i) => (i === 2 && sample.reading !== undefined ? { ...sample, reading: { ...sample.reading, ids: [...Array<number>(200).fill(5), ...sample.reading.ids] } } : sample));
    await assert.rejects(runs.run({ training: trainingSpec({ method: 'cross-tokenizer' }), teacher: teacherModel(), samples }), /expected rows of at most maxTokens = 128 tokens, got 1 longer: row-2 \(\d+ as the teacher reads it\)/);
  });
});
