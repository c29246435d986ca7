/** What each command does. They return an exit code; errors are thrown and explained in src/cli/still.ts. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createAssets } from '../assets/create-assets.ts';
import type { Assets, FetchProgress } from '../assets/assets.ts';
import { homePaths } from '../config.ts';
import type { Config } from '../config.ts';
import { contestantsOf } from '../contracts/campaign-spec.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { Budget, CampaignState, Remedy } from '../contracts/state.ts';
import { startEmbedded } from '../embedded/start.ts';
import { createEstimator, limitWarnings } from '../estimate/estimator.ts';
import type { CampaignResource, EstimateAnswer } from './api-client.ts';
import { findOrStartStack, findStack, requireStack } from './connect.ts';
import type { Connection } from './connect.ts';
import { createScreen, follow } from './follow.ts';
import { printableLines } from './terminal.ts';
import type { Followed, Screen } from './follow.ts';
import { campaignText, checkText, duration, estimateText, listTable, megabytes, percent, phasesTable } from './format.ts';
import { readSpecFile } from './spec-file.ts';

export const EXIT = { done: 0, failed: 1, wrongUse: 2 } as const;
const COMMAND = 'npm run still --';
const DEMO_SPEC = fileURLToPath(new URL('../../campaigns/review-sentiment.yaml', import.meta.url));

export interface CommandContext {
  readonly config: Config;
  /** One JSON document on standard output and nothing else there; people read standard error. */
  readonly json: boolean;
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
}

export const screenOf = ({ json }: CommandContext): Screen => createScreen(json ? process.stderr : process.stdout);
const print = (text: string): void => void process.stdout.write(`${printableLines(text)}\n`);

export function output(context: CommandContext, value: unknown, text: () => string): void {
  if (context.json) process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
  else print(text());
}

export async function withStack<T>(context: CommandContext, use: (stack: Connection) => Promise<T>): Promise<T> {
  return use(await requireStack(context.config));
}

export async function list(context: CommandContext): Promise<number> {
  const campaigns = await withStack(context, ({ api }) => api.list());
  output(context, { campaigns }, () => listTable(campaigns));
  return EXIT.done;
}

export async function show(context: CommandContext, name: string): Promise<number> {
  const campaign = await withStack(context, ({ api }) => api.get(name));
  output(context, campaign, () => campaignText(campaign));
  return EXIT.done;
}

export type Steering =
  | { readonly kind: 'pause'; readonly reason?: string; readonly by?: string }
  | { readonly kind: 'cancel'; readonly reason?: string }
  | { readonly kind: 'resume' }
  | { readonly kind: 'budget'; readonly budget: Budget }
  /** Keys of `teacher` in a spec. */
  | { readonly kind: 'teacher'; readonly change: Readonly<Record<string, unknown>> }
  /** Other keys of a spec, nested as there. */
  | { readonly kind: 'set'; readonly patch: Readonly<Record<string, unknown>> };

export async function steer(context: CommandContext, name: string, steering: Steering): Promise<number> {
  const state: CampaignState & { readonly notes?: readonly string[] } = await withStack(context, ({ api }) => {
    switch (steering.kind) {
      case 'pause': {
        const { kind: _kind, ...pause } = steering;
        return api.pause(name, pause);
      }
      case 'cancel':
        return api.cancel(name, steering.reason);
      case 'resume':
        return api.resume(name);
      case 'budget':
        return api.raiseBudget(name, steering.budget);
      case 'teacher':
        return api.setTeacher(name, steering.change);
      case 'set':
        return api.setSpec(name, steering.patch);
    }
  });
  output(context, state, () => [`${name}: ${state.status}${state.pauseReason === undefined || state.status !== 'paused' ? '' : ` (${state.pauseReason})`}`, ...(state.notes ?? []).map((note) => `  ${note}`)].join('\n'));
  return EXIT.done;
}

export interface ForkOptions {
  readonly fromRound: number;
  /** Default: the name in the spec file. */
  readonly name?: string;
  readonly spec?: string;
}

/** Starts a campaign from a finished round of another. */
export async function fork(context: CommandContext, parent: string, { fromRound, name, spec: file }: ForkOptions): Promise<number> {
  const spec = file === undefined ? undefined : await readSpecFile(file);
  const own = name ?? spec?.name;
  if (own === undefined) throw new StillhouseError('BAD_INPUT', 'fork: expected --name for the new campaign, or --spec with a file that has one, got neither');
  const { created, campaign } = await withStack(context, ({ api }) => api.fork(parent, { name: own, fromRound, ...(spec === undefined ? {} : { spec }) }));
  output(context, campaign, () => `${own}: ${created ? `started from round ${fromRound} of ${parent}` : 'exists already with this spec'}; look at it with ${COMMAND} show ${own}`);
  return EXIT.done;
}

async function saveReport(context: CommandContext, { api }: Connection, name: string, path?: string): Promise<string> {
  const target = resolve(path ?? join(homePaths(context.config.home).reports, `${name}.html`));
  const page = await api.report(name);
  await mkdir(dirname(target), { recursive: true });
  await writeFile(target, page);
  return target;
}

export async function report(context: CommandContext, name: string, path?: string): Promise<number> {
  const target = await withStack(context, (stack) => saveReport(context, stack, name, path));
  output(context, { report: target }, () => target);
  return EXIT.done;
}

/** Shows downloads; one line for each name, a live share on a terminal. */
export function fetchProgress(screen: Screen): (progress: FetchProgress) => void {
  const announced = new Set<string>();
  return ({ name, doneBytes, totalBytes }) => {
    if (!announced.has(name)) screen.line(`fetching ${name}${totalBytes === undefined ? '' : ` (${megabytes(totalBytes)})`}`);
    announced.add(name);
    screen.live(`${name}: ${megabytes(doneBytes)}${totalBytes === undefined ? '' : ` of ${megabytes(totalBytes)}, ${percent(doneBytes / totalBytes)}`}`);
  };
}

/** Brings what a campaign needs from outside before anything starts: each verified, kept in the cache. */
async function fetchNeeds(assets: Assets, spec: CampaignSpec | undefined, screen: Screen, signal: AbortSignal): Promise<void> {
  const options = { onProgress: fetchProgress(screen), signal };
  await assets.temporalCli(options);
  if (spec !== undefined) {
    if (spec.teacher.provider === 'local') await assets.model(spec.teacher.model, options);
    for (const { student, training } of [spec, ...contestantsOf(spec).map((each) => each.spec)]) {
      for (const model of [student.provider === 'local' ? student.model : undefined, training.teacher?.model]) if (model !== undefined) await assets.model(model, options);
    }
    const { sampling, evaluation } = spec;
    if ('dataset' in sampling.source) await assets.dataset(sampling.source.dataset, options);
    if (evaluation.source.kind === 'dataset') await assets.dataset(evaluation.source.dataset, options);
  }
  screen.live('');
}

export async function setup(context: CommandContext, file: string = DEMO_SPEC): Promise<number> {
  const spec = await readSpecFile(file);
  const startedAt = Date.now();
  await fetchNeeds(createAssets(context.config), spec, screenOf(context), context.signal);
  output(context, { cache: context.config.cache, ms: Date.now() - startedAt }, () => `everything is in ${context.config.cache} (${duration(Date.now() - startedAt)})`);
  return EXIT.done;
}

export async function up(context: CommandContext): Promise<number> {
  const screen = screenOf(context);
  await fetchNeeds(createAssets(context.config), undefined, screen, context.signal);
  const stack = await startEmbedded(context.config, { say: (line) => screen.line(line) });
  output(context, { apiUrl: stack.apiUrl, uiUrl: stack.uiUrl, home: context.config.home, pid: process.pid }, () =>
    [`REST API      ${stack.apiUrl}/v1 (key in ${homePaths(context.config.home).apiKey})`, `Temporal UI   ${stack.uiUrl}`, `Home folder   ${context.config.home}`, 'Ctrl-C stops it; campaigns go on when it is started again.'].join('\n'),
  );
  await aborted(context.signal);
  screen.line('stopping');
  await stack.stop();
  return EXIT.done;
}

/** Resolves when the signal aborts; keeps the process alive meanwhile. */
function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolveNow) => {
    const keepAlive = setInterval(() => undefined, 1 << 30);
    const end = (): void => {
      clearInterval(keepAlive);
      resolveNow();
    };
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
  });
}

const exitCodeOf = (campaign: CampaignResource): number => (campaign.status === 'completed' ? EXIT.done : EXIT.failed);

const limitOptions = (needs: Budget): string => Object.entries(needs).map(([limit, value]) => `--${limit} ${value}`).join(' ');

const remedyText = ({ command, effect }: Remedy): string => `${command.replace(/^still/, COMMAND)}     # ${effect}`;

function nextCommands(name: string, campaign: CampaignResource, own: boolean): string {
  const lines = campaign.status === 'running'
    ? campaign.state?.remedies !== undefined ? campaign.state.remedies.map(remedyText) : (campaign.state?.needs === undefined ? [`${COMMAND} resume ${name}`, `${COMMAND} teacher ${name} --model OTHER     # what has no answer yet goes to another`] : [`${COMMAND} budget ${name} ${limitOptions(campaign.state.needs)}     # the least that lets it go on`])
    : [`${COMMAND} show ${name}`, ...(campaign.state?.adapter === undefined ? [] : [`${COMMAND} export ${name} ./student     # or --format gguf, onnx, safetensors`]), `${COMMAND} report ${name}`];
  return ['Go on with', ...(own ? [`  ${COMMAND} up     # the service and Temporal's UI; the following commands want it running`] : []), ...lines.map((line) => `  ${line}`)].join('\n');
}

async function finish(context: CommandContext, stack: Connection, { campaign, observedMs }: Followed): Promise<number> {
  const name = campaign.campaign;
  const path = campaign.state?.report === undefined ? undefined : await saveReport(context, stack, name);
  output(context, { ...campaign, ...(path === undefined ? {} : { reportPath: path }), observedMs: Object.fromEntries(observedMs) }, () =>
    ['', campaignText(campaign), '', phasesTable(campaign, observedMs), '', ...(path === undefined ? [] : [`Report: ${path}`, '']), nextCommands(name, campaign, stack.own)].join('\n'),
  );
  return exitCodeOf(campaign);
}

/** What a campaign would ask and cost. Asks the service that runs on this home, else reads the home itself. */
export async function estimate(context: CommandContext, file: string): Promise<number> {
  const spec = await readSpecFile(file);
  const stack = await findStack(context.config);
  const local = async (): Promise<EstimateAnswer> => {
    const screen = screenOf(context);
    const estimated = await createEstimator(context.config)(spec, { onProgress: fetchProgress(screen), signal: context.signal });
    screen.live('');
    return { ...estimated, warnings: limitWarnings(spec, estimated) };
  };
  const answer = stack === undefined ? await local() : await stack.api.estimate(spec);
  output(context, { campaign: spec.name, ...answer }, () => estimateText(spec.name, answer));
  return EXIT.done;
}

/** Whether a spec would work, by the first question of each kind. Starts a stack when none is running. */
export async function check(context: CommandContext, file: string): Promise<number> {
  const spec = await readSpecFile(file);
  const screen = screenOf(context);
  if (context.config.api.url === undefined) await fetchNeeds(createAssets(context.config), spec, screen, context.signal);
  const stack = await findOrStartStack(context.config, (line) => screen.line(line));
  try {
    const answer = await stack.api.check(spec);
    output(context, { campaign: spec.name, ...answer }, () => checkText(spec.name, answer));
    return answer.problem === undefined ? EXIT.done : EXIT.failed;
  } finally {
    await stack.close();
  }
}

export interface RunOptions {
  /** Submit and leave; needs a stack that goes on without this process. */
  readonly detach?: boolean;
}

export async function run(context: CommandContext, file: string, options: RunOptions = {}): Promise<number> {
  const spec = await readSpecFile(file);
  const screen = screenOf(context);
  if (options.detach === true) {
    const { created, campaign } = await withStack(context, ({ api }) => api.start(spec));
    output(context, campaign, () => `${spec.name}: ${created ? 'started' : 'exists already with this spec'}; follow it with ${COMMAND} run ${file}`);
    return EXIT.done;
  }
  if (context.config.api.url === undefined) await fetchNeeds(createAssets(context.config), spec, screen, context.signal);
  const stack = await findOrStartStack(context.config, (line) => screen.line(line));
  try {
    screen.line(`REST API ${stack.apiUrl}/v1${stack.uiUrl === undefined ? '' : `, Temporal UI ${stack.uiUrl}`}`);
    if (await stack.api.get(spec.name).then(() => false, () => true)) screen.line(estimateText(spec.name, await stack.api.estimate(spec)));
    const { created } = await stack.api.start(spec);
    screen.line(`campaign ${spec.name} ${created ? 'started' : 'exists already with this spec; following it'}`);
    return await finish(context, stack, await follow(stack.api, spec.name, screen, context.signal));
  } catch (error) {
    if (!context.signal.aborted) throw error;
    screen.live('');
    screen.line(stack.own ? `stopping; the campaign goes on with ${COMMAND} up or the same command` : 'no longer following; the campaign goes on');
    return EXIT.failed;
  } finally {
    await stack.close();
  }
}

export function demo(context: CommandContext): Promise<number> {
  return run(context, DEMO_SPEC);
}
