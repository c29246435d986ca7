import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { campaignSpecSchema, type CampaignSpec, type StudentSpec } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { InputRow, Prediction } from '../../src/contracts/records.ts';
import { studentMessages } from '../../src/dataset/student-prompt.ts';
import { measureSpeed } from '../../src/evaluation/speed.ts';
import { runStudent } from '../../src/evaluation/student.ts';
import { createModelHost } from '../../src/lm/host.ts';
import { encodeSafetensors } from '../../src/lm/weights/safetensors.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import type { TrainedStudent } from '../../src/training/trainer.ts';
import { getRows, putJson, putRows } from '../../src/store/jsonl.ts';
import { temporaryFolder } from '../support/folder.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const folder = temporaryFolder();
const model = writeTinyLlama(join(folder, 'tiny'));
const store = createFileStore(join(folder, 'store'));
const host = createModelHost({ assets: { model: (name) => Promise.resolve({ name, path: name, license: 'none' }) }, cache: join(folder, 'cache'), threads: 1 });
const exported: string[] = [];
const trainer = {
  /** An adapter that moves every layer's queries. */
  studentOf: (_checkpoint: unknown, base: StudentSpec, target: string): Promise<TrainedStudent> => {
    exported.push(base.model, target);
    mkdirSync(target);
    const wave = (name: string, shape: readonly [number, number]) => ({ name, shape, values: Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => Math.sin(i)) });
    writeFileSync(join(target, 'adapter_config.json'), JSON.stringify({ peft_type: 'LORA', r: 2, lora_alpha: 4 }));
    const tensors = [0, 1].flatMap((layer) => [
      wave(`base_model.model.model.layers.${layer}.self_attn.q_proj.lora_A.weight`, [2, 32]),
      wave(`base_model.model.model.layers.${layer}.self_attn.q_proj.lora_B.weight`, [32, 2]),
    ]);
    writeFileSync(join(target, 'adapter_model.safetensors'), encodeSafetensors(tensors));
    return Promise.resolve({ kind: 'adapter', adapterPath: target, sizeBytes: 1_000 });
  },
};
const deps = { store, host, trainer };

function spec(output: CampaignSpec['task']['output']): CampaignSpec {
  return campaignSpecSchema.parse({
    name: 'tiny',
    task: { description: 'Sort.', instruction: 'Text: {input}\nKind:', output },
    teacher: { provider: 'local', model, maxTokens: 6, shots: output.kind === 'label' ? [{ input: 'x', output: 'odd' }] : [] },
    sampling: { source: { kind: 'inputs', dataset: 'pool.jsonl' }, rows: 4 },
    student: { model },
    evaluation: { source: { kind: 'dataset', dataset: 'gold.jsonl' }, developmentRows: 2, testRows: 2, scorer: output.kind === 'label' ? { kind: 'label' } : { kind: 'judge', judge: { provider: 'openai', model: 'm' }, rubric: 'r' } },
  });
}
const rows: readonly InputRow[] = Array.from({ length: 40 }, (_, i) => ({ id: `row-${i}`, input: `number ${i}`, gold: i % 2 === 0 ? 'even' : 'odd', origin: `gold.jsonl:${i + 1}` }));
async function inputOf(output: CampaignSpec['task']['output']) {
  return { campaign: 'tiny', spec: await putJson(store, 'spec', spec(output)), rows: await putRows(store, 'rows', rows) };
}
const LABELS = { kind: 'label', labels: ['even', 'odd'] } as const;

test('the student is asked with the instruction, every {input} replaced as it is', () => {
  assert.deepEqual(studentMessages({ instruction: '{input} or {input}?' }, "a $& b's"), [{ role: 'user', content: "a $& b's or a $& b's?" }]);
  assert.deepEqual(studentMessages({ instruction: 'Sort.', system: 'Be brief.' }, 'x'), [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'Sort.\nx' }]);
});

test('a student chooses labels for every row, the same ones each time, and an adapter changes them', async () => {
  const input = await inputOf({ kind: 'label', labels: [...LABELS.labels] });
  const progress: number[] = [];
  const untuned = await runStudent(deps, input, { onProgress: ({ done }) => progress.push(done) });
  const predictions = await getRows<Prediction>(store, untuned.predictions);
  assert.deepEqual(predictions.map(({ id, gold }) => [id, gold]), rows.map(({ id, gold }) => [id, gold]));
  for (const { output, labelLogProbs = [] } of predictions) {
    assert.equal(output, LABELS.labels[labelLogProbs.indexOf(Math.max(...labelLogProbs))]);
    assert.ok(Math.abs(labelLogProbs.reduce((sum, value) => sum + Math.exp(value), 0) - 1) < 1e-12);
  }
  assert.equal(untuned.promptTokens, predictions.reduce((sum, { promptTokens }) => sum + promptTokens, 0));
  assert.deepEqual(progress, [32, 40]);
  assert.deepEqual((await runStudent(deps, input)).predictions, untuned.predictions);

  const tuned = await runStudent(deps, { ...input, checkpoint: { kind: 'checkpoint', sha256: 'ab'.repeat(32), sizeBytes: 1 }, limit: 5 });
  assert.equal(tuned.rows, 5);
  assert.equal(exported[0], model);
  const changed = await getRows<Prediction>(store, tuned.predictions);
  assert.ok(Math.abs((changed[0]?.labelLogProbs?.[0] ?? NaN) - (predictions[0]?.labelLogProbs?.[0] ?? NaN)) > 1e-4);
});

test('a student writes text up to the spec’s limit; no rows is a plain refusal', async () => {
  const input = await inputOf({ kind: 'text' });
  const answers = await runStudent(deps, { ...input, limit: 3 });
  const predictions = await getRows<Prediction>(store, answers.predictions);
  assert.equal(predictions.length, 3);
  assert.ok(predictions.every(({ completionTokens, labelLogProbs }) => completionTokens <= 6 && labelLogProbs === undefined));
  await assert.rejects(runStudent(deps, { ...input, limit: 0 }), (error: unknown) => error instanceof StillhouseError && error.code === 'BAD_INPUT');
});

test('speed is measured for the teacher with and without its cached prompt, and for the student', async () => {
  const input = { ...(await inputOf({ kind: 'label', labels: [...LABELS.labels] })), checkpoint: { kind: 'checkpoint', sha256: 'ab'.repeat(32), sizeBytes: 1 } as const };
  const { rows: measured } = await measureSpeed(deps, input);
  assert.deepEqual(measured.map(({ who }) => who), ['teacher, prompt not cached', 'teacher, prompt cached', 'student']);
  for (const { msMedian, msP95, promptTokens, parameters } of measured) assert.ok(msMedian > 0 && msP95 >= msMedian && promptTokens > 0 && parameters === 23_808);
  assert.ok((measured[2]?.sizeBytes ?? 0) > (measured[0]?.sizeBytes ?? 0), 'the adapter counts');
});
