/**
 * A white-box teacher: a local model that scores labels by their log-probabilities and writes text.
 * Requests are answered in groups of fixed size, because rows that run together decide each other's
 * last bits: the same group asked again gives bitwise the same answers.
 */
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherAnswer, TeacherRequest, TeacherTask } from '../contracts/records.ts';
import type { LabelScoringRequest, LanguageModel, Prompt } from '../lm/model.ts';
import { canonicalJson } from '../store/jsonl.ts';
import { tokenUpperBound } from './prices.ts';
import { SHOT_END } from './prompts.ts';
import type { AskOptions, Teacher, TeacherIdentity } from './teacher.ts';

export const LOCAL_GROUP_SIZE = 16;

export interface LocalTeacherOptions {
  readonly identity: TeacherIdentity;
  /** Called at the first question: planning opens teachers too, and must not load a model. */
  readonly load: () => Promise<LanguageModel>;
  /** Called once, when the teacher is closed. */
  readonly release: () => Promise<void>;
}

export type LabelTask = Extract<TeacherTask, { readonly kind: 'label' }>;
type TextTask = Extract<TeacherTask, { readonly kind: 'text' }>;

/** log softmax, kept as float32 as the ledger keeps it. */
function normalised(logProbs: readonly number[]): readonly number[] {
  const most = Math.max(...logProbs);
  const total = most + Math.log(logProbs.reduce((sum, value) => sum + Math.exp(value - most), 0));
  return logProbs.map((value) => Math.fround(value - total));
}

/** Labels as they continue the prompt: after a colon or a word a space is part of the label's first token. */
const continuations = (labels: readonly string[], suffix: string): readonly string[] => (/\s$/.test(suffix) ? labels : labels.map((label) => ` ${label}`));

/** How tasks that can run together are put to the model; each label is compared with what ends it, the empty line or the chat's end token. */
export function labelScoring(tasks: readonly [LabelTask, ...LabelTask[]], cachePrefix = true): LabelScoringRequest {
  const [{ labels, completionPrompt }] = tasks;
  if (completionPrompt === undefined) return { prompts: tasks.map(({ messages }): Prompt => ({ messages })), labels };
  const { prefix, suffix } = completionPrompt;
  return { prefix, cachePrefix, prompts: tasks.map((task): Prompt => ({ text: task.completionPrompt?.suffix ?? '' })), labels: continuations(labels, suffix), labelEnd: SHOT_END };
}

class LocalTeacher implements Teacher {
  readonly identity: TeacherIdentity;
  readonly groupSize = LOCAL_GROUP_SIZE;
  readonly #load: () => Promise<LanguageModel>;
  readonly #release: () => Promise<void>;
  #closed = false;

  constructor({ identity, load, release }: LocalTeacherOptions) {
    this.identity = identity;
    this.#load = load;
    this.#release = release;
  }

  upperBound(request: TeacherRequest): { readonly usd: number; readonly tokens: number } {
    const { promptTokens, completionTokens } = tokenUpperBound(request);
    const shots = request.task.kind === 'label' ? Buffer.byteLength((request.task.completionPrompt?.prefix ?? '') + (request.task.completionPrompt?.suffix ?? '')) : 0;
    return { usd: 0, tokens: Math.max(promptTokens, shots) + completionTokens };
  }

  async ask(requests: readonly TeacherRequest[], options: AskOptions): Promise<void> {
    const unfit = requests.find(({ task }) => task.kind === 'json');
    if (unfit !== undefined) {
      throw new StillhouseError('BAD_INPUT', `expected label or text requests for the local teacher ${this.identity.model}, got the JSON request ${unfit.id}: a local model does not write JSON of a given schema`);
    }
    for (let from = 0; from < requests.length; from += LOCAL_GROUP_SIZE) {
      if (options.signal?.aborted === true) throw new StillhouseError('CANCELLED', `stopped while asking ${this.identity.model}`);
      const group = requests.slice(from, from + LOCAL_GROUP_SIZE);
      const model = await this.#load();
      const elsewhere = await options.onAsk?.(group);
      if (elsewhere !== undefined && group.every((request) => elsewhere.has(request))) continue;
      await options.onAnswers(await this.#answerGroup(model, group));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#release();
  }

  async #answerGroup(model: LanguageModel, group: readonly TeacherRequest[]): Promise<readonly { readonly request: TeacherRequest; readonly answer: TeacherAnswer }[]> {
    const startedMs = performance.now();
    const parts = new Map<string, TeacherRequest[]>();
    for (const request of group) {
      const key = runTogether(request);
      parts.set(key, [...(parts.get(key) ?? []), request]);
    }
    const answered = new Map<TeacherRequest, Omit<TeacherAnswer, 'latencyMs'>>();
    for (const part of parts.values()) {
      const answers = part[0]?.task.kind === 'label' ? await this.#scoreLabels(model, part) : await this.#write(model, part);
      part.forEach((request, index) => {
        const answer = answers[index];
        if (answer === undefined) throw new StillhouseError('INTERNAL', `expected ${part.length} answers of ${this.identity.model}, got ${answers.length}`);
        answered.set(request, answer);
      });
    }
    const latencyMs = (performance.now() - startedMs) / group.length;
    return [...answered].map(([request, answer]) => ({ request, answer: { ...answer, latencyMs } }));
  }

  async #scoreLabels(model: LanguageModel, requests: readonly TeacherRequest[]): Promise<readonly Omit<TeacherAnswer, 'latencyMs'>[]> {
    const tasks = requests.map(({ task }) => task as LabelTask) as [LabelTask, ...LabelTask[]];
    const [{ labels }] = tasks;
    const scores = await model.scoreLabels(labelScoring(tasks));
    return scores.map(({ logProbs, promptTokens, cachedPromptTokens }) => {
      const labelLogProbs = normalised(logProbs);
      const best = labelLogProbs.indexOf(Math.max(...labelLogProbs));
      return {
        text: labels[best] ?? '',
        labelLogProbs,
        finishReason: 'stop',
        usage: { promptTokens, cachedPromptTokens, completionTokens: 0 },
        costUsd: 0,
        model: this.identity.model,
      };
    });
  }

  async #write(model: LanguageModel, requests: readonly TeacherRequest[]): Promise<readonly Omit<TeacherAnswer, 'latencyMs'>[]> {
    const tasks = requests.map(({ task }) => task as TextTask);
    const { maxTokens, temperature, topP, seed, stop } = (tasks[0] as TextTask).parameters;
    const texts = await model.generate({
      prompts: tasks.map(({ messages }) => ({ messages })),
      maxNewTokens: maxTokens,
      temperature,
      ...(topP === undefined ? {} : { topP }),
      ...(seed === undefined ? {} : { seed: seed + (requests[0]?.sampleIndex ?? 0) }),
      ...(stop === undefined ? {} : { stop }),
    });
    return texts.map(({ text, tokens, promptTokens, finishReason }) => ({
      text,
      finishReason,
      usage: { promptTokens, cachedPromptTokens: 0, completionTokens: tokens.length },
      costUsd: 0,
      model: this.identity.model,
    }));
  }
}

/** Requests with the same value can share one run of the model. */
function runTogether({ task, sampleIndex }: TeacherRequest): string {
  if (task.kind !== 'label') return canonicalJson([task.kind, task.parameters, sampleIndex]);
  const { labels, completionPrompt } = task;
  return canonicalJson([labels, completionPrompt === undefined ? null : [completionPrompt.prefix, /\s$/.test(completionPrompt.suffix)]]);
}

export function createLocalTeacher(options: LocalTeacherOptions): Teacher {
  return new LocalTeacher(options);
}
