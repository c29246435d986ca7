/** llama.cpp, prebuilt for Node, in a folder of its own in the cache. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { readConfig } from '../../src/config.ts';

const run = promisify(execFile);
const VERSION = '3.22.1';

/** The part of node-llama-cpp that is used here. */
export interface LlamaCppModule {
  getLlama(options: { readonly gpu: false; readonly build: 'never'; readonly maxThreads: number; readonly logLevel: 'error' }): Promise<{
    loadModel(options: { readonly modelPath: string }): Promise<{
      tokenize(text: string, specialTokens?: boolean): readonly number[];
      createContext(options: { readonly contextSize: number; readonly threads: number }): Promise<{
        getSequence(): {
          /** Greedy unless a temperature is given. */
          evaluate(tokens: readonly number[], options: { readonly temperature: 0; readonly yieldEogToken: true }): AsyncIterable<number>;
          clearHistory(): Promise<void>;
        };
        dispose(): Promise<void>;
      }>;
      dispose(): Promise<void>;
    }>;
  }>;
}

/** node-llama-cpp with its processor binary, installed when absent. `say` hears of an installation. */
export async function llamaCpp(say: (line: string) => void): Promise<LlamaCppModule> {
  const folder = join(readConfig().cache, 'peers', 'llama-cpp');
  const require = createRequire(join(folder, 'package.json'));
  if (!existsSync(join(folder, 'node_modules', 'node-llama-cpp', 'package.json'))) {
    say(`installing node-llama-cpp ${VERSION}`);
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'package.json'), JSON.stringify({ name: 'llama-cpp-peer', private: true }));
    // Its optional packages are binaries for graphics processors; the one for this processor is named.
    const packages = [`node-llama-cpp@${VERSION}`, `@node-llama-cpp/${process.platform}-${process.arch}@${VERSION}`];
    await run('npm', ['install', '--save-exact', '--omit=optional', '--ignore-scripts', '--no-audit', '--no-fund', ...packages], { cwd: folder, maxBuffer: 1 << 24 });
  }
  return (await import(pathToFileURL(require.resolve('node-llama-cpp')).href)) as LlamaCppModule;
}
