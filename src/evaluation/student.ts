/** Runs a student over rows: the untuned model, or the one that a checkpoint holds. */
import { join } from 'node:path';
import { withWorkFolder } from '../assets/work-folder.ts';
import type { RunStudentInput, StudentAnswers } from '../contracts/activities.ts';
import type { ArtifactRef } from '../contracts/artifacts.ts';
import { localStudentOf } from '../contracts/campaign-spec.ts';
import type { CampaignSpec, LocalStudentSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { InputRow, Prediction } from '../contracts/records.ts';
import { studentMessages } from '../dataset/student-prompt.ts';
import type { LabelScores, LanguageModel, ModelHost } from '../lm/model.ts';
import { tooLongPrompts } from '../lm/too-long.ts';
import type { TooLongPrompt } from '../lm/too-long.ts';
import { getJson, getRows, putRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import type { Trainer } from '../training/trainer.ts';

export interface StudentDeps {
  readonly store: ArtifactStore;
  readonly host: ModelHost;
  readonly trainer: Pick<Trainer, 'studentOf'>;
}

export interface StudentOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: { readonly done: number; readonly total: number }) => void;
}

/** Rows in one call to the model. Fixed, so that the same rows give bitwise the same scores. */
const ROWS_PER_CALL = 32;

export interface OpenStudent extends AsyncDisposable {
  readonly model: LanguageModel;
  /** Of its weights as they are stored, with the adapter's where it has one. */
  readonly sizeBytes: number;
}

export async function openStudent(deps: StudentDeps, student: LocalStudentSpec, checkpoint: ArtifactRef | undefined, signal: AbortSignal | undefined): Promise<OpenStudent> {
  const { model, layers, keepLayers } = student;
  const options = { model, layers, keepLayers, ...(signal === undefined ? {} : { signal }) };
  const opened = (opening: LanguageModel, adapterBytes: number): OpenStudent => ({
    model: opening,
    sizeBytes: opening.identity.sizeBytes + adapterBytes,
    [Symbol.asyncDispose]: () => opening[Symbol.asyncDispose](),
  });
  if (checkpoint === undefined) return opened(await deps.host.open(options), 0);
  return withWorkFolder('student', async (parent) => {
    const trained = await deps.trainer.studentOf(checkpoint, student, join(parent, 'adapter'));
    if (trained.kind === 'full') return opened(await deps.host.open({ ...options, weights: trained.weights }), 0);
    // The process has read the adapter by the time it is open: its folder may go.
    return opened(await deps.host.open({ ...options, adapterPath: trained.adapterPath }), trained.sizeBytes);
  });
}

/** Natural-log probabilities that sum to 1 over the labels. */
function normalise(logProbs: readonly number[]): readonly number[] {
  const largest = Math.max(...logProbs);
  const total = largest + Math.log(logProbs.reduce((sum, value) => sum + Math.exp(value - largest), 0));
  return logProbs.map((value) => value - total);
}

function labelPrediction(row: InputRow, scores: LabelScores, labels: readonly string[], labelTokens: readonly number[]): Prediction {
  const labelLogProbs = normalise(scores.logProbs);
  let best = 0;
  labelLogProbs.forEach((value, index) => {
    if (value > (labelLogProbs[best] as number)) best = index;
  });
  return {
    id: row.id,
    output: labels[best] as string,
    ...(row.gold === undefined ? {} : { gold: row.gold }),
    labelLogProbs,
    promptTokens: scores.promptTokens,
    completionTokens: labelTokens[best] as number,
  };
}

function unread(row: InputRow, { tokens, most }: TooLongPrompt): Prediction {
  return { id: row.id, output: '', ...(row.gold === undefined ? {} : { gold: row.gold }), problem: `${tokens} tokens, the student reads ${most}`, promptTokens: 0, completionTokens: 0 };
}

/**
 * The student's answers to the rows, in their order: the most probable label, or greedy text. A row that is longer than
 * the student can read has none, which counts as wrong: a user's long row would fare no better.
 */
export async function answerRows(model: LanguageModel, spec: CampaignSpec, rows: readonly InputRow[]): Promise<readonly Prediction[]> {
  if (rows.length === 0) return [];
  try {
    return await answerReadable(model, spec, rows);
  } catch (error) {
    const long = new Map(tooLongPrompts(error).map((prompt) => [prompt.index, prompt]));
    if (long.size === 0) throw error;
    const others = (await answerRows(model, spec, rows.filter((_, index) => !long.has(index)))).values();
    return rows.map((row, index) => {
      const prompt = long.get(index);
      return prompt === undefined ? (others.next().value as Prediction) : unread(row, prompt);
    });
  }
}

/** BAD_INPUT where a row is longer than the student reads. */
export async function answerReadable(model: LanguageModel, spec: CampaignSpec, rows: readonly InputRow[]): Promise<readonly Prediction[]> {
  const prompts = rows.map((row) => ({ messages: studentMessages(spec.task, row.input) }));
  if (spec.task.output.kind === 'label') {
    const { labels } = spec.task.output;
    const labelTokens = await model.countTokens(labels);
    const scores = await model.scoreLabels({ prompts, labels });
    return rows.map((row, index) => labelPrediction(row, scores[index] as LabelScores, labels, labelTokens));
  }
  const texts = await model.generate({ prompts, maxNewTokens: spec.teacher.maxTokens, temperature: 0 });
  return rows.map((row, index) => {
    const { text, tokens, promptTokens } = texts[index] as (typeof texts)[number];
    return { id: row.id, output: text.trim(), ...(row.gold === undefined ? {} : { gold: row.gold }), promptTokens, completionTokens: tokens.length };
  });
}

export async function runStudent(deps: StudentDeps, input: RunStudentInput, options: StudentOptions = {}): Promise<StudentAnswers> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const rows = (await getRows<InputRow>(deps.store, input.rows)).slice(0, input.limit);
  if (rows.length === 0) throw new StillhouseError('BAD_INPUT', `rows ${input.rows.sha256.slice(0, 12)}: expected one row or more, got none`);
  await using student = await openStudent(deps, localStudentOf(spec), input.checkpoint, options.signal);
  const predictions: Prediction[] = [];
  const startedMs = performance.now();
  while (predictions.length < rows.length) {
    predictions.push(...(await answerRows(student.model, spec, rows.slice(predictions.length, predictions.length + ROWS_PER_CALL))));
    options.onProgress?.({ done: predictions.length, total: rows.length });
  }
  const seconds = (performance.now() - startedMs) / 1000;
  return {
    predictions: await putRows(deps.store, 'predictions', predictions),
    rows: predictions.length,
    promptTokens: predictions.reduce((sum, prediction) => sum + prediction.promptTokens, 0),
    completionTokens: predictions.reduce((sum, prediction) => sum + prediction.completionTokens, 0),
    seconds,
    sizeBytes: student.sizeBytes,
  };
}
