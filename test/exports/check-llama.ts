/**
 * Loads the GGUF exports in llama.cpp, through the npm package node-llama-cpp that check.ts installs elsewhere, and
 * compares its greedy answers token by token. Run by check.ts: node check-llama.ts FOLDER PACKAGE
 */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** What is used of the package. */
interface LlamaModule {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<LlamaModel> }>;
}
interface LlamaModel {
  tokenize(text: string, special: boolean): number[];
  isEogToken(token: number): boolean;
  createContext(options: object): Promise<{ getSequence(): LlamaSequence; dispose(): Promise<void> }>;
  dispose(): Promise<void>;
}
interface LlamaSequence {
  evaluate(tokens: readonly number[], options: object): AsyncIterable<number>;
  clearHistory(): Promise<void>;
}

const [folder = '', packagePath = ''] = process.argv.slice(2);
const expected = JSON.parse(readFileSync(join(folder, 'answers.json'), 'utf8')) as {
  readonly maxNewTokens: number;
  readonly prompts: readonly string[];
  readonly promptIds: readonly (readonly number[])[];
  readonly answers: Readonly<Record<string, readonly (readonly number[])[]>>;
  readonly architectures: Readonly<Record<string, { readonly ids: readonly number[]; readonly answer: readonly number[] }>>;
};
const { getLlama } = (await import(pathToFileURL(join(packagePath, 'dist', 'index.js')).href)) as LlamaModule;
const llama = await getLlama({ gpu: false, build: 'never', maxThreads: 2, logLevel: 'error', progressLogs: false });
const { version } = JSON.parse(readFileSync(join(packagePath, 'package.json'), 'utf8')) as { version: string };
const fileIn = (name: string): string => globSync(join(folder, name, '*.gguf'))[0] ?? '';

/** Keys and values in float32, as here. One thread: several wait for one another in loops, which a busy machine makes endless. */
const CONTEXT = { contextSize: 512, flashAttention: false, experimentalKvCacheKeyType: 'F32', experimentalKvCacheValueType: 'F32', threads: 1 };

/** `wanted`: whose answers these should be. */
async function check(name: string, wanted: string, model: string, lora?: string): Promise<void> {
  const loaded = await llama.loadModel({ modelPath: fileIn(model) });
  const context = await loaded.createContext({
    ...CONTEXT,
    ...(lora === undefined ? {} : { lora: { adapters: [{ filePath: fileIn(lora) }] } }),
  });
  const sequence = context.getSequence();
  let [same, samePromptTokens] = [0, 0];
  for (const [i, promptIds] of expected.promptIds.entries()) {
    samePromptTokens += JSON.stringify(loaded.tokenize(expected.prompts[i] ?? '', true)) === JSON.stringify(promptIds) ? 1 : 0;
    await sequence.clearHistory();
    const tokens: number[] = [];
    for await (const token of sequence.evaluate(promptIds, { temperature: 0 })) {
      if (loaded.isEogToken(token)) break;
      tokens.push(token);
      if (tokens.length >= expected.maxNewTokens) break;
    }
    const want = expected.answers[wanted]?.[i] ?? [];
    if (JSON.stringify(tokens) === JSON.stringify(want)) same += 1;
    else {
      const at = tokens.findIndex((token, j) => token !== want[j]);
      process.stderr.write(`${name}, prompt ${i}: first difference at token ${at < 0 ? tokens.length : at}\n`);
    }
  }
  process.stdout.write(`${JSON.stringify({ name, prompts: expected.promptIds.length, same, samePromptTokens, versions: { 'node-llama-cpp': version } })}\n`);
  await context.dispose();
  await loaded.dispose();
}

/** One question to each small model; their tokenizers have no words that could end an answer. */
async function checkArchitectures(): Promise<void> {
  let same = 0;
  for (const [name, { ids, answer }] of Object.entries(expected.architectures)) {
    const loaded = await llama.loadModel({ modelPath: fileIn(join('architectures', `${name}-gguf`)) });
    const context = await loaded.createContext(CONTEXT);
    const tokens: number[] = [];
    for await (const token of context.getSequence().evaluate(ids, { temperature: 0 })) {
      tokens.push(token);
      if (tokens.length >= answer.length) break;
    }
    if (JSON.stringify(tokens) === JSON.stringify(answer)) same += 1;
    else process.stderr.write(`${name}: expected ${answer.join(', ')}, got ${tokens.join(', ')}\n`);
    await context.dispose();
    await loaded.dispose();
  }
  const names = Object.keys(expected.architectures);
  process.stdout.write(`${JSON.stringify({ name: `${names.join(', ')}: gguf`, prompts: names.length, same })}\n`);
}

await check('gguf f32', 'tuned', 'gguf-f32');
await check('gguf f16', 'f16', 'gguf-f16');
await check('gguf q8_0', 'q8_0', 'gguf-q8_0');
await check('gguf-lora on the base model', 'tuned', 'gguf-base', 'gguf-lora');
await checkArchitectures();
process.exit(0);
