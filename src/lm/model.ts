/**
 * The port through which everything outside src/lm uses a local language model. The implementation
 * runs in a child process (src/lm/process.ts) because a native run() call stops the event loop.
 *
 * Letters in shape comments, used throughout src/lm and src/training: B batch, T tokens of a row,
 * P tokens of a cached prefix, H hidden size, A attention heads, K key/value heads, D head size,
 * F feed-forward size, V vocabulary, R rows of logits, r LoRA rank.
 */
import type { ChatMessage } from '../contracts/records.ts';
import type { WeightFile } from './config.ts';
import type { LayerChoice } from './layers.ts';

export interface ModelIdentity {
  /** The name it was asked for by. */
  readonly name: string;
  /** SHA-256 of the weight file; of a sharded model, of the list of its files' hashes. */
  readonly sha256: string;
  readonly architecture: string;
  readonly parameters: number;
  /** SPDX identifier, or the licence's name as the model's files give it. */
  readonly license: string;
  /** Of the weight files as they are on disk. */
  readonly sizeBytes: number;
}

/** A prompt: a chat rendered by the model's own template with the assistant's turn opened, or plain text. */
export type Prompt = { readonly messages: readonly ChatMessage[] } | { readonly text: string };

export interface LabelScoringRequest {
  /** Text that all prompts start with; its key/value cache is computed once when `cachePrefix` is true. Plain-text prompts only. */
  readonly prefix?: string;
  readonly cachePrefix?: boolean;
  readonly prompts: readonly Prompt[];
  /** Continuations to compare. With chat prompts they are whole assistant turns. */
  readonly labels: readonly string[];
  /**
   * Text that ends a label after a plain-text prompt, as the end token does in a chat: it is scored with the label, so that
   * one which another label begins with can lose to it. Default: none, labels are beginnings of a longer text.
   */
  readonly labelEnd?: string;
}

export interface LabelScores {
  /** Natural-log probability of each label's tokens and of its end, not normalised over the labels. */
  readonly logProbs: readonly number[];
  readonly promptTokens: number;
  readonly cachedPromptTokens: number;
}

export interface TextScoringRequest {
  /** A chat that ends with the assistant's turn is scored as it is; another one with that turn opened. */
  readonly texts: readonly Prompt[];
  /** How many of the most probable next tokens to give at each position. Default: none. */
  readonly top?: number;
  /** Layers whose hidden states to give: 0 is the embedding, n what layer n gives, before the final normalisation. */
  readonly hiddenLayers?: readonly number[];
}

export interface TextScores {
  readonly tokens: readonly number[]; // T
  /** Natural-log probability of tokens 1 to T − 1, each after all before it: (T − 1). */
  readonly logProbs: Float32Array;
  /** The most probable tokens after each position, in falling order: (T, count) each. */
  readonly top?: { readonly count: number; readonly ids: Int32Array; readonly logProbs: Float32Array };
  /** For each layer that was asked for: (T, H). */
  readonly hidden?: readonly Float32Array[];
}

export interface SamplingSettings {
  /** 0 is greedy. */
  readonly temperature: number;
  readonly topP?: number;
  readonly topK?: number;
  /** Least share of the highest probability. */
  readonly minP?: number;
  /** Default: 0. The same seed gives a prompt at the same index the same draws, whatever else is asked. */
  readonly seed?: number;
}

/** Gets each piece of text as it becomes certain, with the index of its prompt. */
export type OnText = (index: number, text: string) => void;

export interface GenerationRequest extends SamplingSettings {
  readonly prompts: readonly Prompt[];
  readonly maxNewTokens: number;
  /** The text ends before the first of them. */
  readonly stop?: readonly string[];
}

export interface GeneratedText {
  readonly text: string;
  /** All that were generated but the end token: with a stop string, those that made it too. */
  readonly tokens: readonly number[];
  readonly promptTokens: number;
  readonly finishReason: 'stop' | 'length';
}

export interface LanguageModel extends AsyncDisposable {
  readonly identity: ModelIdentity;
  scoreLabels(request: LabelScoringRequest): Promise<readonly LabelScores[]>;
  scoreTexts(request: TextScoringRequest): Promise<readonly TextScores[]>;
  /** `onText` gets each piece of an answer as it becomes certain, with the index of its prompt. */
  generate(request: GenerationRequest, onText?: OnText): Promise<readonly GeneratedText[]>;
  /** Text of single tokens, special ones by name. */
  tokenTexts(ids: readonly number[]): Promise<readonly string[]>;
  countTokens(texts: readonly string[]): Promise<readonly number[]>;
}

/** Without a choice of layers the whole model is opened. */
export interface OpenModelOptions extends LayerChoice {
  /** A catalogue name, `hf:org/name@revision`, or the path of a GGUF file or Hugging Face folder. */
  readonly model: string;
  /** A PEFT adapter folder to apply. */
  readonly adapterPath?: string;
  /** Trained weights in place of the model's own: the same tensors. */
  readonly weights?: WeightFile;
  readonly threads?: number;
  readonly signal?: AbortSignal;
}

export interface ModelHost {
  /** Starts a process that holds the model; PROCESS_DIED from every open call when it ends early. */
  open(options: OpenModelOptions): Promise<LanguageModel>;
}
