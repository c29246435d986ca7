/** The rows that flow through a campaign, one JSON document a line in the artifacts that hold them. */

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

/** One input, before any teacher saw it. */
export interface InputRow {
  /** Stable across campaigns: the first 16 hex digits of the SHA-256 of the NFC text. */
  readonly id: string;
  readonly input: string;
  /** The gold output, where one is known. Pool rows never carry it into a request. */
  readonly gold?: string;
  /** Where the row came from: dataset name and line. */
  readonly origin: string;
  /** Which of a mixed source's sources, from 0; absent where there is one. */
  readonly source?: number;
}

/** How much text, and of which kind, one call may produce. */
export interface GenerationParameters {
  /** Room for what is to be read; what a model reasons before has its own. */
  readonly maxTokens: number;
  /** Of a reasoning model: how hard it is to think, in its provider's words, and the room for it in tokens. */
  readonly reasoning?: { readonly effort?: string | undefined; readonly maxTokens: number };
  readonly temperature: number;
  readonly topP?: number;
  readonly seed?: number;
  readonly stop?: readonly string[];
  /** Soft targets: the log-probabilities of so many most probable tokens at each position. */
  readonly topLogProbs?: number;
}

/**
 * One question to a teacher or a judge. Its ledger key is the SHA-256 of the canonical JSON of
 * everything that decides the answer: provider identity, model, `task`, `sampleIndex`. `id` and
 * `purpose` are ours and decide nothing.
 */
export interface TeacherRequest {
  readonly id: string;
  readonly purpose: RequestPurpose;
  readonly task: TeacherTask;
  /** Distinguishes repeated draws of the same question. */
  readonly sampleIndex: number;
  /** The input row that the question is about, where there is one. */
  readonly row?: InputRow;
  /** The round that asks it; absent for held-out rows. */
  readonly round?: number;
  /** Which of `spec.teachers` answers it, counted from 0, the first one; a later one only after a change of teacher. */
  readonly teacher?: number;
  /** Of purpose `student`: the fine-tuned model that answers; absent for the model as it was before training. */
  readonly tunedModel?: string;
}

/** `student`: an evaluation or pool row answered by a student that its provider serves. */
export type RequestPurpose = 'train' | 'development' | 'test' | 'judge' | 'student';

export type TeacherTask =
  /** Choose among fixed answers: the log-probability of each label after the messages. */
  | {
      readonly kind: 'label';
      readonly messages: readonly ChatMessage[];
      /**
       * Plain-text prompt for a base-model style few-shot completion; when present a white-box
       * teacher scores the labels after this text, and `messages` serves chat endpoints.
       */
      readonly completionPrompt?: { readonly prefix: string; readonly suffix: string };
      readonly labels: readonly string[];
      readonly parameters: GenerationParameters;
    }
  /** Free text. */
  | {
      readonly kind: 'text';
      readonly messages: readonly ChatMessage[];
      readonly parameters: GenerationParameters;
      /** The id of the completion that the provider had stored and that answers this: imported, never asked. */
      readonly completion?: string;
    }
  /** A JSON document of a given schema: input/output pairs, a judge's scores. */
  | {
      readonly kind: 'json';
      readonly messages: readonly ChatMessage[];
      readonly schemaName: string;
      readonly schema: Readonly<Record<string, unknown>>;
      readonly parameters: GenerationParameters;
    };

export interface TokenUsage {
  readonly promptTokens: number;
  /** The part of promptTokens that the provider served from its cache. */
  readonly cachedPromptTokens: number;
  /** Reasoning included. */
  readonly completionTokens: number;
  /** The part of completionTokens that was spent on reasoning, where the provider says so. */
  readonly reasoningTokens?: number;
}

/** What came back, as it is kept in the ledger for good. */
export interface TeacherAnswer {
  /** The text: of a label task the chosen label or what the model wrote; of a json task the JSON text. */
  readonly text: string;
  /** Natural-log probabilities of the labels in the order of the task, normalised over them. White box only, or from endpoints with logprobs. */
  readonly labelLogProbs?: readonly number[];
  /** Base64 of the most probable tokens at each position: src/dataset/soft-targets.ts. */
  readonly softTargets?: string;
  /** What the model reasoned before its answer, where the provider shows it. */
  readonly reasoning?: string;
  /** `rejected`: the provider would not take this one question; `error`: what it gave was no whole answer, however often it was asked. */
  readonly finishReason: 'stop' | 'length' | 'content_filter' | 'refusal' | 'rejected' | 'error';
  /** What the provider said in place of an answer, or of its end. */
  readonly note?: string;
  readonly usage: TokenUsage;
  readonly costUsd: number;
  readonly latencyMs: number;
  /** The model as the provider named it in its answer. */
  readonly model: string;
}

/** One accepted training row. */
export interface Sample {
  readonly id: string;
  readonly input: string;
  readonly output: string;
  readonly rationale?: string;
  /** The chat that the student learns from: the last message is the assistant's and alone is learned. */
  readonly messages: readonly ChatMessage[];
  /** 0…1; the teacher's calibrated probability of `output`, or the agreement among k answers. */
  readonly confidence?: number;
  /** Base64 of the teacher's most probable tokens at each position of `output`: src/dataset/soft-targets.ts. */
  readonly softTargets?: string;
  readonly round: number;
  /** Where the input came from, and which request gave the output. */
  readonly origin: string;
  readonly requestId: string;
}

export const REJECTION_REASONS = [
  'refusal', 'rejected', 'unreadable', 'truncated', 'schema', 'unknown-label', 'empty', 'length', 'low-confidence',
  'exact-duplicate', 'near-duplicate', 'held-out', 'near-held-out', 'class-balance', 'does-not-parse',
] as const;
export type RejectionReason = (typeof REJECTION_REASONS)[number];

/** A row that was turned away; nothing that was paid for is thrown away. */
export interface RejectedSample {
  readonly id: string;
  readonly input: string;
  readonly output: string;
  readonly reason: RejectionReason;
  /** What exactly: the id of the row it duplicates, the confidence, the parser's message. */
  readonly detail: string;
  readonly round: number;
  readonly requestId: string;
}

/** A teacher's prior over labels: the median normalised log-probability of each over the pool. */
export interface Calibration {
  readonly labels: readonly string[];
  readonly priorLogProbs: readonly number[];
  readonly rows: number;
}

/** One model's answer to one input row. */
export interface Prediction {
  readonly id: string;
  readonly output: string;
  readonly gold?: string;
  readonly labelLogProbs?: readonly number[];
  /** Why there is no answer: `output` is empty then, and counts as wrong. */
  readonly problem?: string;
  readonly promptTokens: number;
  readonly completionTokens: number;
}

export interface LossPoint {
  readonly epoch: number;
  readonly step: number;
  readonly lossNats: number;
  readonly learningRate: number;
  readonly tokens: number;
  readonly gradientNorm: number;
  /** Mean loss of the development rows after the step, where it was measured. */
  readonly developmentNats?: number;
}

/** A point of a loss curve as every trainer reports it; a provider's fine-tuning tells no more than this. */
export type ReportedLoss = Pick<LossPoint, 'epoch' | 'step' | 'lossNats' | 'developmentNats'>;
