/** `still model …`: a model alone, without a campaign: what it is, what it expects, how probable a text is, what it writes. */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { createAssets } from '../assets/create-assets.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { createModelHost } from '../lm/host.ts';
import { inspectModel } from '../lm/inspect.ts';
import type { GenerationRequest, LanguageModel, Prompt, SamplingSettings, TextScores } from '../lm/model.ts';
import { EXIT, output } from './commands.ts';
import type { CommandContext } from './commands.ts';
import { megabytes, table } from './format.ts';
import { printableLines } from './terminal.ts';

/** What the commands that load a model share. */
export interface ModelOptions {
  readonly adapter?: string;
}
/** Prompts from the command line or a file; those of `--chat` and `messages` go through the model's template. */
export interface PromptOptions extends ModelOptions {
  readonly prompt?: readonly string[];
  readonly chat?: readonly string[];
  readonly system?: string;
  readonly input?: string;
}

const messagesSchema = z.array(z.strictObject({ role: z.enum(['system', 'user', 'assistant']), content: z.string() })).min(1);
const lineSchema = z.union([z.strictObject({ messages: messagesSchema }), z.strictObject({ text: z.string() })]);

/** Lines of { "text": … } or { "messages": [ … ] }. */
async function promptsOf(file: string): Promise<readonly Prompt[]> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new StillhouseError('NOT_FOUND', `${file}: expected a file of JSON lines, got: ${String(cause)}`, { cause });
  });
  const lines = text.split('\n').map((line, index) => ({ line, number: index + 1 })).filter(({ line }) => line.trim() !== '');
  return lines.map(({ line, number }) => {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      throw new StillhouseError('BAD_INPUT', `${file}:${number}: expected JSON, got: ${String(cause)}`, { cause });
    }
    const parsed = lineSchema.safeParse(value);
    if (!parsed.success) throw new StillhouseError('BAD_INPUT', `${file}:${number}: expected {"text": "…"} or {"messages": [{"role": "…", "content": "…"}]}, got ${line.slice(0, 80)}`);
    return parsed.data;
  });
}

async function readPrompts(options: PromptOptions): Promise<readonly Prompt[]> {
  const { prompt = [], chat = [], system, input } = options;
  if (system !== undefined && chat.length === 0) throw new StillhouseError('BAD_INPUT', '--system: expected --chat beside it, got none');
  const opening = system === undefined ? [] : [{ role: 'system' as const, content: system }];
  const prompts: readonly Prompt[] = [
    ...prompt.map((text) => ({ text })),
    ...chat.map((content) => ({ messages: [...opening, { role: 'user' as const, content }] })),
    ...(input === undefined ? [] : await promptsOf(input)),
  ];
  if (prompts.length === 0) throw new StillhouseError('BAD_INPUT', 'expected a prompt (--prompt, --chat or --input), got none');
  return prompts;
}

async function openModel(context: CommandContext, name: string, { adapter }: ModelOptions): Promise<LanguageModel> {
  const { config, signal } = context;
  const { cache, threads, executionProviders, precision } = config;
  const host = createModelHost({ assets: createAssets(config), cache, executionProviders, precision, ...(threads === undefined ? {} : { threads }) });
  return host.open({ model: name, signal, ...(adapter === undefined ? {} : { adapterPath: adapter }) });
}

const count = (value: number): string => value.toLocaleString('en-US');

export async function inspect(context: CommandContext, name: string): Promise<number> {
  const files = await createAssets(context.config).model(name, { signal: context.signal });
  const { config, ...inspected } = await inspectModel(files.path);
  const license = files.license === '' ? (inspected.license ?? 'unknown') : files.license;
  output(context, { name, ...inspected, license, ...config }, () => {
    const { attentionHeads, keyValueHeads, headSize, slidingWindow } = config;
    const rows: [string, string][] = [
      ['architecture', config.architecture],
      ['parameters', count(inspected.parameters)],
      ['layers', String(config.layers)],
      ['hidden size', `${config.hiddenSize}, feed-forward ${config.feedForwardSize}`],
      ['attention', `${attentionHeads} heads of ${headSize}, ${keyValueHeads} key/value heads${slidingWindow === undefined ? '' : `, windows of ${slidingWindow.tokens} tokens in ${slidingWindow.layers.filter(Boolean).length} layers`}`],
      ['vocabulary', `${count(config.vocabularySize)}${config.tiedEmbeddings ? ', head tied to the embedding' : ''}`],
      ['context', `${count(config.maxPositions)} tokens`],
      ['chat template', inspected.chatTemplate ? 'present' : 'absent'],
      ['licence', license],
      ['memory, about', `${megabytes(inspected.memory.loadedBytes)} loaded, ${(inspected.memory.cacheBytesPerToken / 1e3).toFixed(1)} KB a token of context`],
    ];
    const width = Math.max(...rows.map(([key]) => key.length));
    const list = table(['file', 'size', 'SHA-256'], inspected.files.map((file) => [file.name, megabytes(file.sizeBytes), file.sha256]));
    return [files.path, ...rows.map(([key, value]) => `${key.padEnd(width)}  ${value}`), '', list].join('\n');
  });
  return EXIT.done;
}

export interface LogitsOptions extends PromptOptions {
  readonly top: number;
  /** Every position, not the last alone. */
  readonly all?: boolean;
}

interface Candidate {
  readonly id: number;
  readonly text: string;
  readonly logProb: number;
}
interface Position {
  readonly position: number;
  readonly id: number;
  readonly text: string;
  /** Of this token after those before it; null for the first. */
  readonly logProb: number | null;
  readonly next: readonly Candidate[];
}

/** The most probable tokens after position `at` of a text. */
async function candidates(model: LanguageModel, { top }: TextScores, at: number): Promise<readonly Candidate[]> {
  if (top === undefined) return [];
  const slice = <A extends Int32Array | Float32Array>(array: A): number[] => Array.from(array.subarray(at * top.count, (at + 1) * top.count));
  const ids = slice(top.ids);
  const [texts, logProbs] = [await model.tokenTexts(ids), slice(top.logProbs)];
  return ids.map((id, i) => ({ id, text: texts[i] ?? '', logProb: logProbs[i] ?? NaN }));
}

export async function logits(context: CommandContext, name: string, options: LogitsOptions): Promise<number> {
  const texts = await readPrompts(options);
  await using model = await openModel(context, name, options);
  const results: { readonly tokens: number; readonly positions: readonly Position[] }[] = [];
  for (const scores of await model.scoreTexts({ texts, top: options.top })) {
    const { tokens, logProbs } = scores;
    const tokenTexts = await model.tokenTexts(tokens);
    const positions: Position[] = [];
    for (let at = options.all === true ? 0 : tokens.length - 1; at < tokens.length; at += 1) {
      positions.push({ position: at, id: tokens[at] ?? 0, text: tokenTexts[at] ?? '', logProb: at === 0 ? null : (logProbs[at - 1] ?? NaN), next: await candidates(model, scores, at) });
    }
    results.push({ tokens: tokens.length, positions });
  }
  output(context, { model: model.identity.name, sha256: model.identity.sha256, results }, () =>
    results
      .flatMap(({ positions }) => positions)
      .map(({ position, text, next }) => `after token ${position} ${JSON.stringify(text)}\n${table(['token', 'id', 'probability', 'ln p'], next.map(({ id, text: token, logProb }) => [JSON.stringify(token), String(id), Math.exp(logProb).toFixed(4), logProb.toFixed(4)]))}`)
      .join('\n\n'),
  );
  return EXIT.done;
}

export interface ScoreOptions extends PromptOptions {
  readonly label?: readonly string[];
  /** Of labels after plain text. */
  readonly labelEnd: string;
}

async function scoreLabels(context: CommandContext, model: LanguageModel, prompts: readonly Prompt[], labels: readonly string[], labelEnd: string): Promise<void> {
  const scores = await model.scoreLabels({ prompts, labels, labelEnd });
  const results = scores.map(({ logProbs, promptTokens }) => {
    const largest = Math.max(...logProbs);
    const total = logProbs.reduce((sum, value) => sum + Math.exp(value - largest), 0);
    return { promptTokens, labels: labels.map((label, i) => ({ label, logProb: logProbs[i] ?? NaN, share: Math.exp((logProbs[i] ?? NaN) - largest) / total })) };
  });
  output(context, { model: model.identity.name, sha256: model.identity.sha256, results }, () =>
    results.map((result) => table(['label', 'ln p', 'share'], result.labels.map(({ label, logProb, share }) => [JSON.stringify(label), logProb.toFixed(4), share.toFixed(4)]))).join('\n\n'),
  );
}

async function scoreTexts(context: CommandContext, model: LanguageModel, texts: readonly Prompt[]): Promise<void> {
  const results = (await model.scoreTexts({ texts })).map(({ tokens, logProbs }) => {
    const logProb = logProbs.reduce((sum, value) => sum + value, 0);
    const meanNats = logProbs.length === 0 ? null : -logProb / logProbs.length;
    return { tokens: tokens.length, logProb, meanNats, perplexity: meanNats === null ? null : Math.exp(meanNats) };
  });
  const digits = (value: number | null): string => value?.toFixed(4) ?? '';
  output(context, { model: model.identity.name, sha256: model.identity.sha256, results }, () =>
    table(['text', 'tokens', 'ln p', 'nats a token', 'perplexity'], results.map((one, i) => [String(i + 1), String(one.tokens), digits(one.logProb), digits(one.meanNats), digits(one.perplexity)])),
  );
}

/** Of texts: their probability and perplexity. With labels: how probable each is after each prompt. */
export async function score(context: CommandContext, name: string, options: ScoreOptions): Promise<number> {
  const prompts = await readPrompts(options);
  await using model = await openModel(context, name, options);
  if (options.label === undefined) await scoreTexts(context, model, prompts);
  else await scoreLabels(context, model, prompts, options.label, options.labelEnd);
  return EXIT.done;
}

export interface GenerateOptions extends PromptOptions, SamplingSettings {
  readonly maxTokens: number;
  readonly stop?: readonly string[];
}

/** One prompt on a terminal is answered as it is written; several, and documents, at the end. */
export async function generate(context: CommandContext, name: string, options: GenerateOptions): Promise<number> {
  const { maxTokens, temperature, topP, topK, minP, seed, stop } = options;
  const prompts = await readPrompts(options);
  await using model = await openModel(context, name, options);
  const settings = Object.fromEntries(Object.entries({ topP, topK, minP, seed, stop }).filter(([, value]) => value !== undefined));
  const request: GenerationRequest = { prompts, maxNewTokens: maxTokens, temperature, ...settings };
  const streams = !context.json && prompts.length === 1 && process.stdout.isTTY;
  const startedMs = performance.now();
  const results = await model.generate(request, streams ? (_, piece) => process.stdout.write(printableLines(piece)) : undefined);
  if (streams) {
    process.stdout.write('\n');
    return EXIT.done;
  }
  const seconds = (performance.now() - startedMs) / 1_000;
  const { name: modelName, sha256 } = model.identity;
  output(context, { model: modelName, sha256, seconds, results }, () => results.map(({ text }) => text).join('\n---\n'));
  return EXIT.done;
}
