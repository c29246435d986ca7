/** What a model's process and its parent say to each other. Messages go through the IPC channel of child_process.fork. */
import type { ExecutionProvider } from '../contracts/execution-providers.ts';
import { StillhouseError, type ErrorCode } from '../contracts/errors.ts';
import type { Precision } from '../contracts/precision.ts';
import type { WeightFile } from './config.ts';
import type { LayerChoice } from './layers.ts';
import type { GeneratedText, GenerationRequest, LabelScores, LabelScoringRequest, ModelIdentity, TextScores, TextScoringRequest } from './model.ts';

export interface OpenRequest extends LayerChoice {
  readonly path: string;
  readonly name: string;
  readonly license: string;
  readonly cache: string;
  readonly adapterPath?: string;
  /** Weights in place of the model's own. */
  readonly weights?: WeightFile;
  readonly threads: number;
  readonly executionProviders?: readonly ExecutionProvider[];
  readonly precision?: Precision;
}

/** Every call with what it takes and gives; `open` comes first and once. */
export interface Calls {
  readonly open: { readonly takes: OpenRequest; readonly gives: ModelIdentity };
  readonly scoreLabels: { readonly takes: LabelScoringRequest; readonly gives: readonly LabelScores[] };
  readonly scoreTexts: { readonly takes: TextScoringRequest; readonly gives: readonly TextScores[] };
  /** `stream`: pieces of text come before the result. */
  readonly generate: { readonly takes: GenerationRequest & { readonly stream: boolean }; readonly gives: readonly GeneratedText[] };
  readonly countTokens: { readonly takes: readonly string[]; readonly gives: readonly number[] };
  readonly tokenTexts: { readonly takes: readonly number[]; readonly gives: readonly string[] };
}
export type CallName = keyof Calls;

export type CallMessage = { readonly [Name in CallName]: { readonly id: number; readonly call: Name; readonly input: Calls[Name]['takes'] } }[CallName];

export interface WireError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}
/** A piece of the answer to prompt `index`, while its call goes on. */
export interface PieceMessage {
  readonly id: number;
  readonly index: number;
  readonly piece: string;
}
export type AnswerMessage = { readonly id: number; readonly result: Calls[CallName]['gives'] } | { readonly id: number; readonly error: WireError };

export function toWireError(error: unknown): WireError {
  if (error instanceof StillhouseError) return { code: error.code, message: error.message, details: error.details };
  return { code: 'INTERNAL', message: error instanceof Error ? (error.stack ?? error.message) : String(error), details: {} };
}

export const fromWireError = (error: WireError): StillhouseError => new StillhouseError(error.code, error.message, { details: error.details });
