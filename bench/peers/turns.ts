/**
 * Programs that take turns: each line on a program's standard input is a number of training steps, each
 * line it prints is what they took. It ends when its input ends. Only one of them works at a time.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

/** What a program is given to do: a file of JSON whose path is its argument. */
export interface TrainingTask {
  /** A GGUF file, or a folder of random-model.ts. */
  readonly modelPath: string;
  /** Safetensors of the A matrices that both begin with; B is zero. */
  readonly adapterPath: string;
  readonly threads: number;
  readonly seed: number;
  /** `training` of a campaign; each program takes what it needs of it. */
  readonly training: { readonly batchSize: number; readonly learningRate: number; readonly maxGradientNorm: number; readonly weightDecay: number; readonly lora?: { readonly r: number; readonly alpha: number; readonly dropout: number } | undefined };
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

export interface Program extends AsyncDisposable {
  take(steps: number): Promise<Turn>;
}

export function startProgram(name: string, command: string, args: readonly string[], env: NodeJS.ProcessEnv): Program {
  const child = spawn(command, args, { env, stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const exited = once(child, 'exit');
  return {
    async take(steps) {
      child.stdin.write(`${steps}\n`);
      const line = await lines.next();
      if (line.done === true) throw new Error(`${name}: expected a turn of ${steps} steps, got the end of its output`);
      return JSON.parse(line.value) as Turn;
    },
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await exited;
    },
  };
}
