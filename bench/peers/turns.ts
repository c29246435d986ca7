/**
 * Programs that take turns: each line on a program's standard input is a number (of training steps, or of the turn
 * in its task), each line it prints is what that took. It ends when its input ends. Only one of them works at a time.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { TrainingSpec } from '../../src/contracts/training-spec.ts';

/** What a program is given to do: a file of JSON whose path is its argument. */
export interface TrainingTask {
  /** A GGUF file, or a folder of random-model.ts. */
  readonly modelPath: string;
  /** The model's layers that the student is made of. With `logit` the whole model is its teacher. */
  readonly layers: readonly number[];
  /** Does our teacher read each batch beside the student, in its turn, or all rows before the first? */
  readonly teacherReads: 'each-batch' | 'before';
  /** Safetensors of the A matrices that both begin with; B is zero. */
  readonly adapterPath: string;
  readonly threads: number;
  readonly seed: number;
  /** `training` of a campaign; each program takes what it needs of it. */
  readonly training: TrainingSpec;
  readonly samples: readonly { readonly id: string; readonly ids: readonly number[]; readonly responseStart: number }[];
  /** The order of `samples`, batch after batch. */
  readonly order: readonly number[];
  /** Tokens that a collator pads each row to; 0 pads to the longest row of the batch. */
  readonly padTo: number;
}

export interface Turn {
  readonly seconds: number;
  /** Of all threads: what the turn cost even where other work had the processor too. */
  readonly processorSeconds: number;
  /** Of each step. */
  readonly lossNats: readonly number[];
  /** What went through the model, padding included, shared prefixes once. */
  readonly computedTokens: number;
  /** Resident memory at its highest, while the model was loaded and from then on. */
  readonly loadingPeakRssBytes: number;
  readonly peakRssBytes: number;
}

/** Answers to give, turn by turn: rows of tokens, the same for every program. */
export interface GenerationTask {
  readonly modelPath: string;
  readonly threads: number;
  /** `labels`: log-probabilities of `labelIds` after each prompt. `greedy`: `newTokens` more tokens of each. */
  readonly kind: 'labels' | 'greedy';
  /** What every prompt begins with. */
  readonly prefixIds: readonly number[];
  /** One token each. */
  readonly labelIds: readonly number[];
  readonly newTokens: number;
  /** For each turn the rest of each prompt. */
  readonly turns: readonly (readonly (readonly number[])[])[];
  /** The prefix is computed once, where the program can. */
  readonly cachePrefix: boolean;
}

export interface GenerationTurn {
  readonly seconds: number;
  readonly peakRssBytes: number;
  /** For each prompt the log-probabilities of the labels, or the new tokens. */
  readonly answers: readonly (readonly number[])[];
}

export interface Program<Result = Turn> extends AsyncDisposable {
  take(number: number): Promise<Result>;
}

export function startProgram<Result = Turn>(name: string, command: string, args: readonly string[], env: NodeJS.ProcessEnv): Program<Result> {
  const child = spawn(command, args, { env, stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const exited = once(child, 'exit');
  return {
    async take(number) {
      child.stdin.write(`${number}\n`);
      const line = await lines.next();
      if (line.done === true) throw new Error(`${name}: expected turn ${number}, got the end of its output`);
      return JSON.parse(line.value) as Result;
    },
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await exited;
    },
  };
}
