#!/usr/bin/env node
/** `still`: commands over the REST API, and the embedded stack. Exit 0 done, 1 failed, 2 wrong use. */
import { userInfo } from 'node:os';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { readConfig } from '../config.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { Budget } from '../contracts/state.ts';
import { check, demo, estimate, EXIT, fork, list, report, run, setup, show, steer, up } from './commands.ts';
import type { CommandContext, ForkOptions } from './commands.ts';
import { addExportCommand } from './export-command.ts';
import { ledgerTotals } from './ledger.ts';
import { addModelCommands } from './model-options.ts';
import { limits } from './limits.ts';
import type { LimitsChange } from './limits.ts';
import { prices } from './prices.ts';
import { serveApi } from './serve-api.ts';
import { withSettings } from './settings.ts';
import { train } from './train-command.ts';
import type { TrainOptions } from './train-command.ts';
import { printableLines } from './terminal.ts';

const controller = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // A second signal ends the process without waiting for its parts.
    if (controller.signal.aborted) process.exit(EXIT.failed);
    controller.abort();
  });
}

function positive(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value <= 0) throw new InvalidArgumentError(`expected a number above 0, got ${JSON.stringify(text)}.`);
  return value;
}

function whole(text: string): number {
  const value = positive(text);
  if (!Number.isInteger(value)) throw new InvalidArgumentError(`expected a whole number, got ${JSON.stringify(text)}.`);
  return value;
}

function dollars(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value < 0) throw new InvalidArgumentError(`expected a number of at least 0, got ${JSON.stringify(text)}.`);
  return value;
}

interface TeacherOptions {
  readonly model?: string;
  readonly baseUrl?: string;
  readonly apiKeyEnv?: string;
  readonly inputPrice?: number;
  readonly outputPrice?: number;
  readonly concurrency?: number;
  readonly requestsPerMinute?: number;
  readonly tokensPerMinute?: number;
  readonly temperature?: number;
  readonly maxTokens?: number;
}

/** The options as keys of `teacher` in a spec. */
function teacherChange({ baseUrl, inputPrice, outputPrice, requestsPerMinute, tokensPerMinute, ...rest }: TeacherOptions): Readonly<Record<string, unknown>> {
  if ((inputPrice === undefined) !== (outputPrice === undefined)) throw new StillhouseError('BAD_INPUT', 'teacher: expected --input-price and --output-price together, got one of them');
  const price = inputPrice === undefined ? {} : { price: { inputUsdPerMillion: inputPrice, outputUsdPerMillion: outputPrice } };
  const limits = { ...(requestsPerMinute === undefined ? {} : { requestsPerMinute }), ...(tokensPerMinute === undefined ? {} : { tokensPerMinute }) };
  const change = { ...rest, ...price, ...(Object.keys(limits).length === 0 ? {} : { limits }), ...(baseUrl === undefined ? {} : { baseUrl: baseUrl === 'default' ? null : baseUrl }) };
  const { json: _json, ...keys } = change as typeof change & { readonly json?: boolean };
  if (Object.keys(keys).length === 0) throw new StillhouseError('BAD_INPUT', 'teacher: expected at least one option, got none (--help lists them)');
  return keys;
}
const wholeOrNone = (text: string): number | 'none' => (text === 'none' ? text : whole(text));

/** Who gives the command; nothing where the system has no name for its user, as in some containers. */
function userName(): { readonly by?: string } {
  try {
    return { by: userInfo().username.slice(0, 100) };
  } catch {
    return {};
  }
}

/** Runs a command and leaves its exit code; the stack of the command is closed by then. */
function action<Args extends unknown[]>(work: (context: CommandContext, ...args: Args) => Promise<number>): (...args: [...Args, ...unknown[]]) => Promise<void> {
  return async (...args) => {
    const command = args.at(-1) as Command;
    const { json } = command.optsWithGlobals<{ json?: boolean }>();
    process.exitCode = await work({ config: readConfig(), json: json === true, signal: controller.signal }, ...(args as unknown as Args));
  };
}

function build(): Command {
  const program = new Command('still').description('Distills a large language model into a small one that you keep.').exitOverride().showHelpAfterError('(--help lists what there is)');
  const json = (): Option => new Option('--json', 'print one JSON document on standard output and nothing else there');
  const add = (name: string, description: string): Command => program.command(name).description(description).addOption(json()).exitOverride();

  add('demo', 'bring what is missing, start the stack, run campaigns/review-sentiment.yaml').action(action((context) => demo(context)));
  add('setup [file]', 'fetch what a campaign file needs: model, data, Temporal CLI (default: the demo\'s)').action(action((context, file?: string) => setup(context, file)));
  add('up', 'run the stack on this machine: Temporal with its UI, workers, REST API').action(action((context) => up(context)));
  add('run <file>', 'start a campaign and follow it; starts a stack when none is running')
    .option('--detach', 'start it on the running stack and leave')
    .action(action((context, file: string, options: { detach?: boolean }) => run(context, file, options)));
  add('estimate <file>', 'what a campaign would ask and cost, without starting it').action(action((context, file: string) => estimate(context, file)));
  add('check <file>', 'ask one question of each kind, without starting a campaign: what answers, what it costs, what the endpoint does not take').action(action((context, file: string) => check(context, file)));
  add('list', 'all campaigns').action(action((context) => list(context)));
  add('show <campaign>', 'state, rounds and scores').action(action((context, name: string) => show(context, name)));
  add('pause <campaign>', 'pause after the work in progress')
    .option('--reason <text>', 'why, for the next person')
    .action(action((context, name: string, { reason }: { reason?: string }) => steer(context, name, { kind: 'pause', ...userName(), ...(reason === undefined ? {} : { reason }) })));
  add('resume <campaign>', 'go on').action(action((context, name: string) => steer(context, name, { kind: 'resume' })));
  add('cancel <campaign>', 'end it after a report; what was bought and trained stays')
    .option('--reason <text>', 'why, for the next person')
    .action(action((context, name: string, { reason }: { reason?: string }) => steer(context, name, { kind: 'cancel', ...(reason === undefined ? {} : { reason }) })));
  add('budget <campaign>', 'raise limits of the budget')
    .option('--usd <dollars>', 'dollars', positive)
    .option('--tokens <tokens>', 'tokens', whole)
    .option('--hours <hours>', 'hours since the start', positive)
    .action(action((context, name: string, { usd, tokens, hours }: Budget) => {
      const budget: Budget = { ...(usd === undefined ? {} : { usd }), ...(tokens === undefined ? {} : { tokens }), ...(hours === undefined ? {} : { hours }) };
      if (Object.keys(budget).length === 0) throw new StillhouseError('BAD_INPUT', 'budget: expected at least one of --usd, --tokens, --hours, got none');
      return steer(context, name, { kind: 'budget', budget });
    }));
  add('teacher <campaign>', 'change the teacher: what has no answer yet goes to the new one')
    .option('--model <name>', 'model')
    .option('--base-url <url>', 'address of an OpenAI-compatible endpoint; "default" for the provider\'s own')
    .option('--api-key-env <name>', 'name of the environment variable that holds the key')
    .option('--input-price <dollars>', 'dollars per million input tokens, where the price table does not know the model', dollars)
    .option('--output-price <dollars>', 'dollars per million output tokens', dollars)
    .option('--concurrency <calls>', 'calls in flight at once', whole)
    .option('--requests-per-minute <requests>', 'the most that it lets its key be used', positive)
    .option('--tokens-per-minute <tokens>', 'the same in tokens', positive)
    .option('--temperature <value>', 'of questions that are not planned yet', dollars)
    .option('--max-tokens <tokens>', 'of answers to questions that are not planned yet', whole)
    .action(action((context, name: string, options: TeacherOptions) => steer(context, name, { kind: 'teacher', change: teacherChange(options) })));
  add('set <campaign> <key=value...>', 'change settings that nothing which was bought depends on; "key=" takes one away')
    .addHelpText('after', '\ntraining.maxTokens=1024 filter.minConfidence=0.8 iterate.maxRounds=3 teacher.concurrency=8 evaluation.bootstrapResamples=5000')
    .action(action((context, name: string, settings: readonly string[]) => steer(context, name, { kind: 'set', patch: withSettings({}, settings, 'set') })));
  add('fork <campaign>', 'start another campaign from a finished round of this one; its answers are not bought again')
    .requiredOption('--from-round <round>', 'the round from which it goes on', whole)
    .option('--name <name>', 'name of the new campaign')
    .option('--spec <file>', 'its settings (default: those of the campaign it comes from)')
    .action(action((context, parent: string, options: ForkOptions) => fork(context, parent, options)));
  add('report <campaign>', 'write the HTML report and print its path')
    .option('--out <file>', 'where to write it')
    .action(action((context, name: string, { out }: { out?: string }) => report(context, name, out)));
  addExportCommand(add, action);
  add('train [file]', 'train a student on rows that are there already, without a service; run again, it goes on where it was')
    .option('--student <model>', 'catalogue name, hf:org/name@revision or path')
    .option('--dataset <file>', 'rows: {"messages": […]} or {"input", "output"} a line, or a .csv with these columns')
    .option('--development <file>', 'rows for the development loss')
    .option('--out <folder>', 'where student, checkpoint and loss curve go')
    .option('--hours <hours>', 'refuse what a few steps show to take longer', positive)
    .option('--seed <number>', 'of first weights, order and dropout', whole)
    .option('--set <key=value>', 'any other key of the file: training.epochs=2, training.tune=full, student.keepLayers=15', (text: string, all: readonly string[]) => [...all, text], [] as readonly string[])
    .action(action((context, file: string | undefined, options: TrainOptions) => train(context, file, options)));
  add('ledger [campaign]', 'recorded teacher and judge calls, tokens and cost of this home folder').action(action((context, campaign?: string) => ledgerTotals(context, campaign)));
  add('prices', 'what hosted models cost by the tables of this home folder, with source and day').action(action((context) => prices(context)));
  addModelCommands(program, json, action);
  add('limits', 'rate limits of provider keys in this home folder: what the provider says, what you set; and which parts of a question each model has refused')
    .option('--provider <url>', 'set a limit for the keys of this base URL')
    .option('--key <name>', 'only for the key in this environment variable')
    .option('--requests <number>', 'requests a minute, or none', wholeOrNone)
    .option('--tokens <number>', 'tokens a minute, or none', wholeOrNone)
    .option('--forget', 'try what the models of this base URL have refused again')
    .action(action((context, change: LimitsChange) => limits(context, change)));
  add('api', 'serve the REST API alone, against the Temporal server at TEMPORAL_ADDRESS').action(action((context) => serveApi(context)));
  return program;
}

/** One message on standard error, and the code that tells wrong use from failure. */
function explain(error: unknown): number {
  if (error instanceof CommanderError) {
    // Commander has printed its message; asking for help is no mistake.
    return error.exitCode === 0 ? EXIT.done : EXIT.wrongUse;
  }
  if (error instanceof StillhouseError) {
    process.stderr.write(`still: ${printableLines(error.message)}\n`);
    return error.code === 'BAD_INPUT' ? EXIT.wrongUse : EXIT.failed;
  }
  process.stderr.write(`still: a defect: ${printableLines(error instanceof Error ? (error.stack ?? error.message) : String(error))}\n`);
  return EXIT.failed;
}

try {
  await build().parseAsync(process.argv);
} catch (error) {
  process.exitCode = explain(error);
}
