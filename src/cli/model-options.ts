/** The command line of `still model …`. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import type { CommandContext } from './commands.ts';
import { generate, inspect, logits, score } from './model-command.ts';
import type { GenerateOptions, LogitsOptions, ScoreOptions } from './model-command.ts';

/** Wraps work on a context as an action of commander. */
export type Act = <Args extends unknown[]>(work: (context: CommandContext, ...args: Args) => Promise<number>) => (...args: [...Args, ...unknown[]]) => Promise<void>;

const within = (what: string, least: number, most: number, whole: boolean) => (text: string): number => {
  const value = Number(text);
  if (text.trim() === '' || !(value >= least && value <= most) || (whole && !Number.isInteger(value))) throw new InvalidArgumentError(`expected ${what}, got ${JSON.stringify(text)}.`);
  return value;
};
const several = (text: string, before: readonly string[] | undefined): readonly string[] => [...(before ?? []), text];
/** \n, \t and \\ as a shell's user writes them. */
const unescaped = (text: string, before: readonly string[] | undefined): readonly string[] =>
  several(text.replaceAll(/\\([nt\\])/g, (_, letter: string) => ({ n: '\n', t: '\t' })[letter] ?? '\\'), before);

const withModel = (command: Command): Command => command.addOption(new Option('--adapter <folder>', 'apply a PEFT LoRA adapter'));
const withPrompts = (command: Command): Command =>
  withModel(command)
    .addOption(new Option('--prompt <text>', 'plain text; may be repeated').argParser(several))
    .addOption(new Option('--chat <text>', 'a user message, put through the model\'s chat template; may be repeated').argParser(several))
    .addOption(new Option('--system <text>', 'system message before each --chat'))
    .addOption(new Option('--input <file>', 'JSON lines of {"text": …} or {"messages": […]}'));

export function addModelCommands(program: Command, json: () => Option, act: Act): void {
  const model = program.command('model').description('a model alone: a catalogue name, hf:org/name@revision, a GGUF file or a Hugging Face folder').exitOverride();
  const add = (name: string, description: string): Command => model.command(`${name} <model>`).description(description).addOption(json()).exitOverride();

  add('inspect', 'architecture, parameters, files with their SHA-256, licence, memory').action(act((context, name: string) => inspect(context, name)));
  withPrompts(add('logits', 'the most probable next tokens'))
    .addOption(new Option('--top <count>', 'how many').argParser(within('a whole number from 1 to 1,000', 1, 1_000, true)).default(10))
    .option('--all', 'after every token, not the last alone')
    .action(act((context, name: string, options: LogitsOptions) => logits(context, name, options)));
  withPrompts(add('score', 'log-probability and perplexity of texts, or of labels after prompts'))
    .addOption(new Option('--label <text>', 'a continuation to compare; may be repeated').argParser(several))
    .addOption(new Option('--label-end <text>', 'what ends a label after --prompt and is compared with it; empty: nothing (after --chat it is the end token)').default('\n', 'a line break'))
    .action(act((context, name: string, options: ScoreOptions) => score(context, name, options)));
  withPrompts(add('generate', 'text after prompts; on a terminal as it is written'))
    .addOption(new Option('--max-tokens <count>', 'tokens of an answer').argParser(within('a whole number from 1 to 1,000,000', 1, 1e6, true)).default(256))
    .addOption(new Option('--temperature <number>', '0 is greedy').argParser(within('a number from 0 to 100', 0, 100, false)).default(0))
    .addOption(new Option('--top-k <count>', 'draw from the most probable alone').argParser(within('0 or a whole number', 0, 1e9, true)))
    .addOption(new Option('--top-p <share>', 'draw from the fewest that reach this probability').argParser(within('a number above 0 and up to 1', Number.MIN_VALUE, 1, false)))
    .addOption(new Option('--min-p <share>', 'draw from what has this share of the highest probability').argParser(within('a number from 0 to 1', 0, 1, false)))
    .addOption(new Option('--seed <number>', 'of the draws').argParser(within('0 or a whole number', 0, Number.MAX_SAFE_INTEGER, true)))
    .addOption(new Option('--stop <text>', 'end before this text (\\n is a line break); may be repeated').argParser(unescaped))
    .action(act((context, name: string, options: GenerateOptions) => generate(context, name, options)));
}
