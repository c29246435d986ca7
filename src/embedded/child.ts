/** One child process that is kept running: started again when it ends, with growing pauses while it keeps ending. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { identityOf } from '../assets/lock.ts';
import type { ProcessIdentity } from '../assets/lock.ts';

const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 15_000;
/** A child that ran this long was well: its next pause is the first one again. */
const HEALTHY_AFTER_MS = 30_000;

export interface KeptChildOptions {
  readonly name: string;
  readonly start: () => ChildProcess;
  /** Called after each start, before anything else can happen to the child. */
  readonly onStart: (identity: ProcessIdentity) => void;
  readonly log: (message: string) => void;
  /** Where its output goes, named in messages. */
  readonly logPath: string;
  /** Between SIGTERM and SIGKILL when it is stopped. */
  readonly graceMs: number;
}

export class KeptChild {
  readonly #options: KeptChildOptions;
  #child: ChildProcess | undefined;
  #stopping = false;
  #pauseMs = FIRST_PAUSE_MS;
  #timer: NodeJS.Timeout | undefined;
  #restarts = 0;

  constructor(options: KeptChildOptions) {
    this.#options = options;
    this.#start();
  }

  get restarts(): number {
    return this.#restarts;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  #start(): void {
    const { name, log, logPath } = this.#options;
    const startedAt = Date.now();
    const child = this.#options.start();
    this.#child = child;
    if (child.pid !== undefined) this.#options.onStart(identityOf(child.pid) ?? { pid: child.pid });
    let ended = false;
    const end = (how: string): void => {
      if (ended) return;
      ended = true;
      this.#child = undefined;
      if (this.#stopping) return;
      if (Date.now() - startedAt >= HEALTHY_AFTER_MS) this.#pauseMs = FIRST_PAUSE_MS;
      log(`${name} ended (${how}); starting it again in ${this.#pauseMs} ms; its log is ${logPath}`);
      this.#timer = setTimeout(() => {
        this.#restarts += 1;
        this.#start();
      }, this.#pauseMs);
      this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
    };
    child.on('exit', (code, signal) => end(signal ?? `exit code ${code}`));
    child.on('error', (error) => end(error.message));
  }

  /** Ends the child for good: SIGTERM, and SIGKILL when it takes longer than its grace. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#timer);
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    const killer = setTimeout(() => child.kill('SIGKILL'), this.#options.graceMs);
    await exited;
    clearTimeout(killer);
  }
}
