/** A student that its provider serves: asked through the ledger as a teacher is, on the same rows and with the same prompt as any student. */
import type { PlannedRequests, PlanStudentInput, ReadStudentInput, StudentAnswers } from '../contracts/activities.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { InputRow, Prediction, TeacherRequest, TeacherTask } from '../contracts/records.ts';
import type { AnswerReader } from '../dataset/answers.ts';
import { studentMessages } from '../dataset/student-prompt.ts';
import { getJson, getRows, putRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { storePlan } from '../teacher/plan.ts';
import { endpointOf } from '../teacher/sample.ts';
import type { TeacherDirectory } from '../teacher/teacher.ts';
import { readHostedModel } from '../training/hosted/hosted-model.ts';

/** The chat that the student was trained on, up to its answer: greedy, and of labels with their log-probabilities. */
function studentTask(spec: CampaignSpec, input: string, maxTokens: number): TeacherTask {
  const { output } = spec.task;
  const messages = studentMessages(spec.task, input);
  if (output.kind !== 'label') return { kind: 'text', messages, parameters: { maxTokens, temperature: 0 } };
  // A token is at least one byte: enough for the longest label, quotes and a full stop.
  const labelTokens = Math.max(...output.labels.map((label) => Buffer.byteLength(label))) + 8;
  return { kind: 'label', messages, labels: output.labels, parameters: { maxTokens: Math.min(maxTokens, labelTokens), temperature: 0 } };
}

/** The questions about all rows; none carries a gold output. The same input gives the same bytes. */
export async function planStudentRequests(deps: { readonly store: ArtifactStore; readonly directory: TeacherDirectory }, input: PlanStudentInput): Promise<PlannedRequests> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const rows = await getRows<InputRow>(deps.store, input.rows);
  const tuned = input.checkpoint === undefined ? {} : { tunedModel: (await readHostedModel(deps.store, input.checkpoint)).model };
  const endpoint = endpointOf(spec, { purpose: 'student', ...tuned });
  const requests = rows.map((row, index): TeacherRequest => {
    const { gold: _gold, ...bare } = row;
    return { id: `student-${index}`, purpose: 'student', task: studentTask(spec, row.input, endpoint.maxTokens), sampleIndex: 0, row: bare, ...tuned };
  });
  await using student = await deps.directory.open(endpoint);
  return await storePlan(deps.store, student, requests, spec.sampling.batchSize);
}

/** What the student answered, in the order of the rows. Answers that are no label stay as they are and are scored as wrong. */
export async function readStudentAnswers(deps: { readonly store: ArtifactStore; readonly answers: AnswerReader }, input: ReadStudentInput): Promise<StudentAnswers> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const rows = await getRows<InputRow>(deps.store, input.rows);
  const requests = await getRows<TeacherRequest>(deps.store, input.requests);
  const answers = await deps.answers(spec, requests);
  const predictions = rows.map((row, index): Prediction => {
    const answer = answers[index];
    if (answer === undefined || requests[index]?.row?.id !== row.id) throw new StillhouseError('INTERNAL', `expected request ${index} to be about row ${row.id}, got ${requests[index]?.row?.id ?? 'none'}`);
    return {
      id: row.id,
      output: answer.text.trim(),
      ...(row.gold === undefined ? {} : { gold: row.gold }),
      ...(answer.labelLogProbs === undefined ? {} : { labelLogProbs: answer.labelLogProbs }),
      promptTokens: answer.usage.promptTokens,
      completionTokens: answer.usage.completionTokens,
    };
  });
  return {
    predictions: await putRows(deps.store, 'predictions', predictions),
    rows: predictions.length,
    promptTokens: predictions.reduce((sum, { promptTokens }) => sum + promptTokens, 0),
    completionTokens: predictions.reduce((sum, { completionTokens }) => sum + completionTokens, 0),
    seconds: answers.reduce((sum, { latencyMs }) => sum + latencyMs, 0) / 1_000,
  };
}
