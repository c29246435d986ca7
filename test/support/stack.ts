/** The whole product as a user starts it, `still up` in a process of its own, for end-to-end tests. */
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CampaignDescription, CampaignListing } from '../../src/client/campaigns.ts';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import type { Budget, RoundSummary } from '../../src/contracts/state.ts';
import { freePort } from './free-port.ts';
import { killHard, processesWith } from './processes.ts';
import type { ProcessInfo } from './processes.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const STILL = join(ROOT, 'src', 'cli', 'still.ts');
const KEY = 'end-to-end-tests-key';
const POLL_MS = 250;

export type CampaignResource = CampaignDescription & { readonly rounds: readonly RoundSummary[] };

export interface StackOptions {
  readonly home: string;
  readonly environment?: Readonly<Record<string, string>>;
}

const isRunning = ({ exitCode, signalCode }: ChildProcess): boolean => exitCode === null && signalCode === null;

export class Stack implements AsyncDisposable {
  readonly home: string;
  readonly #environment: Readonly<Record<string, string>>;
  #ports: { readonly api: number; readonly temporal: number; readonly ui: number } | undefined;
  #process: ChildProcess | undefined;

  constructor(options: StackOptions) {
    this.home = options.home;
    this.#environment = options.environment ?? {};
  }

  /** Starts it, or starts it again on the same ports and the same home, and waits until it answers. */
  async start(): Promise<void> {
    mkdirSync(this.home, { recursive: true });
    this.#ports ??= { api: await freePort(), temporal: await freePort(), ui: await freePort() };
    const log = openSync(join(this.home, 'stack.log'), 'a');
    this.#process = spawn(process.execPath, [STILL, 'up'], {
      cwd: ROOT,
      stdio: ['ignore', log, log],
      env: this.#env(this.#ports),
    });
    await this.#until('the API to answer', 120_000, async () => (await this.#fetch('/v1/health')).ok);
  }

  #env({ api, temporal, ui }: { readonly api: number; readonly temporal: number; readonly ui: number }): NodeJS.ProcessEnv {
    return {
      ...process.env,
      STILLHOUSE_HOME: this.home,
      STILLHOUSE_API_PORT: String(api),
      STILLHOUSE_API_KEY: KEY,
      TEMPORAL_ADDRESS: `127.0.0.1:${temporal}`,
      TEMPORAL_UI_PORT: String(ui),
      ...this.#environment,
    };
  }

  /** A command in a process of its own, as its user types it, on this home. */
  async still(...args: readonly string[]): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
    const ports = this.#ports;
    if (ports === undefined) throw new Error('the stack was not started');
    return await new Promise((resolve) => {
      execFile(process.execPath, [STILL, ...args], { cwd: ROOT, env: this.#env(ports), maxBuffer: 2 ** 26 }, (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code ?? 1), stdout, stderr }));
    });
  }

  /** Asks for an end and waits for it; what is left of a supervisor that was killed is ended too. */
  async stop(): Promise<void> {
    const running = this.#process;
    if (running !== undefined && isRunning(running)) {
      const ended = once(running, 'exit');
      running.kill('SIGTERM');
      const patience = setTimeout(() => running.kill('SIGKILL'), 60_000);
      await ended;
      clearTimeout(patience);
    }
    for (const { pid } of this.processes()) killHard(pid);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  /** SIGKILL to every process at once, the supervisor first so that it mends nothing. */
  async killEverything(): Promise<void> {
    const root = this.#process;
    if (root?.pid === undefined) throw new Error('the stack was not started');
    const below = this.processes();
    const ended = isRunning(root) ? once(root, 'exit') : undefined;
    killHard(root.pid);
    for (const { pid } of below) killHard(pid);
    await ended;
  }

  get temporalAddress(): string {
    return `127.0.0.1:${this.#ports?.temporal}`;
  }

  /** All that run on its home, but for the supervisor. */
  processes(): ProcessInfo[] {
    return processesWith('STILLHOUSE_HOME', this.home).filter(({ pid }) => pid !== this.#process?.pid);
  }

  async submit(spec: CampaignSpecInput): Promise<void> {
    const response = await this.#fetch('/v1/campaigns', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(spec) });
    if (!response.ok) throw new Error(`POST /v1/campaigns: ${response.status} ${await response.text()}\n${this.log()}`);
  }

  async steer(name: string, verb: 'pause' | 'resume' | 'cancel'): Promise<void> {
    const response = await this.#fetch(`/v1/campaigns/${name}/${verb}`, { method: 'POST' });
    if (!response.ok) throw new Error(`POST ${verb}: ${response.status} ${await response.text()}`);
  }

  async raiseBudget(name: string, budget: Budget): Promise<void> {
    const response = await this.#fetch(`/v1/campaigns/${name}/budget`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(budget) });
    if (!response.ok) throw new Error(`POST budget: ${response.status} ${await response.text()}`);
  }

  /** Every campaign as search attributes know it, a second old; undefined while the API is away. */
  async list(): Promise<readonly CampaignListing[] | undefined> {
    try {
      const response = await this.#fetch('/v1/campaigns');
      return response.ok ? ((await response.json()) as { readonly campaigns: CampaignListing[] }).campaigns : undefined;
    } catch {
      return undefined;
    }
  }

  /** Undefined while the API or every worker is away. */
  async campaign(name: string): Promise<CampaignResource | undefined> {
    try {
      const response = await this.#fetch(`/v1/campaigns/${name}`);
      return response.ok ? ((await response.json()) as CampaignResource) : undefined;
    } catch {
      return undefined;
    }
  }

  async artifact(name: string, kind: string): Promise<{ readonly sha256: string; readonly text: string }> {
    const response = await this.#fetch(`/v1/campaigns/${name}/artifacts/${kind}`);
    if (!response.ok) throw new Error(`GET artifact ${kind}: ${response.status} ${await response.text()}`);
    return { sha256: response.headers.get('x-artifact-sha256') ?? '', text: await response.text() };
  }

  /** Waits for the campaign's end; throws when it pauses or fails. */
  async finished(name: string, timeoutMs: number): Promise<CampaignResource> {
    return this.watch(name, timeoutMs, (campaign) => {
      if (campaign.status === 'failed') throw new Error(`campaign ${name} failed: ${campaign.failure ?? 'no reason given'}\n${this.log()}`);
      if (campaign.state?.status === 'paused') throw new Error(`campaign ${name} paused: ${campaign.state.pauseReason ?? ''}\n${this.log()}`);
      return campaign.status === 'completed' && campaign.state !== undefined;
    });
  }

  async watch(name: string, timeoutMs: number, condition: (campaign: CampaignResource) => boolean): Promise<CampaignResource> {
    let last: CampaignResource | undefined;
    await this.#until(`campaign ${name}`, timeoutMs, async () => {
      const campaign = await this.campaign(name);
      if (campaign === undefined) return false;
      last = campaign;
      return condition(campaign);
    });
    if (last === undefined) throw new Error(`campaign ${name} was never seen`);
    return last;
  }

  /** The last lines that the stack wrote. */
  log(): string {
    return readFileSync(join(this.home, 'stack.log'), 'utf8').split('\n').slice(-40).join('\n');
  }

  #fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set('authorization', `Bearer ${KEY}`);
    return fetch(`http://127.0.0.1:${this.#ports?.api}${path}`, { ...init, headers, signal: AbortSignal.timeout(15_000) });
  }

  async #until(what: string, timeoutMs: number, condition: () => Promise<boolean>): Promise<void> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      if (this.#process !== undefined && this.#process.exitCode !== null) throw new Error(`the stack ended with ${this.#process.exitCode}\n${this.log()}`);
      let failure: unknown;
      try {
        if (await condition()) return;
      } catch (error) {
        if (!(error instanceof TypeError) && !(error instanceof DOMException)) throw error; // fetch: not up yet
        failure = error;
      }
      if (performance.now() > end) throw new Error(`waited ${timeoutMs} ms for ${what}\n${this.log()}`, { cause: failure });
      await sleep(POLL_MS);
    }
  }
}
