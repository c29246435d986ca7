/**
 * `npm run bench -- generate [--json] [--turns N] [--case NAME]`: our answers beside those of transformers and
 * llama.cpp on the same weights, prompts and threads. The programs are up at once and take turns; each turn has other
 * prompts, and the answers of all are compared.
 */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createAssets } from '../src/assets/create-assets.ts';
import { readConfig } from '../src/config.ts';
import { openModel } from '../src/lm/load.ts';
import { llamaCpp } from './peers/llama-cpp.ts';
import { peerEnvironment, pythonOf, type Peer } from './peers/python.ts';
import { spread } from './peers/statistics.ts';
import { startProgram, type GenerationTask, type GenerationTurn, type Program } from './peers/turns.ts';

const THREADS = 2;
const MODEL = 'smollm2-135m-instruct';
const PEER: Peer = { name: 'torch', requirement: 'peft==0.21.2', also: ['torch==2.15.0', 'transformers==5.23.0', 'gguf==0.19.0'], script: 'generate.py' };
/** Two float32 implementations of 30 layers may differ by this much in a log-probability. */
const TOLERANCE_NATS = 1e-3;

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false }, turns: { type: 'string', default: '5' }, case: { type: 'string' } } });
const turns = Number(values.turns);
const say = (line: string): void => void process.stderr.write(`${line}\n`);
const { cache, hub } = readConfig();
const assets = createAssets({ cache, hub });
const { path: modelPath } = await assets.model(MODEL);
const tokenizer = ((): ReturnType<typeof openModel>['tokenizer'] => {
  using opened = openModel(modelPath);
  return opened.tokenizer;
})();
const reviews = readFileSync(await assets.dataset('catalogue:hutto-reviews-gold'), 'utf8').split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as { input: string; gold: string });

const SHOTS = [['A warm, funny film.', 'positive'], ['It broke after two days and nobody answered my mail.', 'negative'], ['Easy to set up, and the picture is sharp.', 'positive'], ['Dull, long and far too loud.', 'negative']];
const labelPrefix = SHOTS.map(([text, label]) => `Review: ${text}\nSentiment: ${label}\n\n`).join('');
const chat = (content: string): readonly number[] => tokenizer.encodeChat([{ role: 'user', content }], { openAssistantTurn: true });
const question = (i: number): string => `${['Summarise this review in one sentence', 'Write an answer to this review', 'What does the writer of this review want?'][i % 3] ?? ''}: ${reviews[i]?.input ?? ''}`;

interface Contender {
  readonly name: string;
  readonly start: (taskFile: string) => Program<GenerationTurn>;
  /** Changes of the task for this program. */
  readonly task?: Partial<GenerationTask>;
  /** Do its arithmetic and weights promise the same answers? */
  readonly exact: boolean;
}
interface Case {
  readonly name: string;
  readonly rows: number;
  readonly task: Omit<GenerationTask, 'modelPath' | 'threads' | 'turns'>;
  readonly row: (i: number) => readonly number[];
  readonly peers: readonly Contender[];
}

const peers = join(import.meta.dirname, 'peers');
const python = await pythonOf(PEER, say);
const ours: Contender = { name: 'stillhouse', start: (file) => startProgram('stillhouse', process.execPath, [join(peers, 'generate.ts'), file], process.env), exact: true };
const transformers: Contender = { name: 'transformers', start: (file) => startProgram('transformers', python, [join(peers, PEER.script), file], peerEnvironment()), task: { cachePrefix: false }, exact: true };
const llama: Contender = { name: 'llama.cpp', start: (file) => startProgram('llama.cpp', process.execPath, [join(peers, 'llama-cpp-generate.ts'), file], process.env), exact: false };

const single = (text: string): number => {
  const [id, ...more] = tokenizer.encode(text);
  if (id === undefined || more.length > 0) throw new Error(`label ${JSON.stringify(text)}: expected one token, got ${1 + more.length}`);
  return id;
};
const labels: GenerationTask['labelIds'] = [' negative', ' positive'].map(single);
const greedy = (rows: number, newTokens: number, contenders: readonly Contender[]): Case => ({
  name: `greedy-${rows}`, rows, peers: contenders, row: (i) => chat(question(i)),
  task: { kind: 'greedy', prefixIds: [], labelIds: [], newTokens, cachePrefix: true },
});
const CASES: readonly Case[] = [
  {
    name: 'labels', rows: 32, peers: [transformers, { ...transformers, name: 'transformers, prefix cached', task: { cachePrefix: true } }],
    row: (i) => tokenizer.encode(`Review: ${reviews[i]?.input ?? ''}\nSentiment:`),
    task: { kind: 'labels', prefixIds: tokenizer.encode(labelPrefix, { begin: true }), labelIds: labels, newTokens: 1, cachePrefix: true },
  },
  greedy(8, 64, [transformers]),
  greedy(16, 64, [transformers]),
  greedy(1, 64, [llama, transformers]),
];

/** Of the rows of all turns: how many have the same answer, the same best label or the same tokens. */
function agreement(kind: GenerationTask['kind'], mine: readonly GenerationTurn[], theirs: readonly GenerationTurn[]) {
  const [a, b] = [mine.flatMap(({ answers }) => answers), theirs.flatMap(({ answers }) => answers)];
  if (kind === 'greedy') return { rows: a.length, equal: a.filter((tokens, i) => tokens.join() === b[i]?.join()).length };
  const largest = Math.max(...a.flatMap((row, i) => row.map((value, j) => Math.abs(value - (b[i]?.[j] ?? NaN)))));
  return { rows: a.length, equal: a.filter((row, i) => row.every((value, j) => Math.abs(value - (b[i]?.[j] ?? NaN)) <= TOLERANCE_NATS)).length, largestDifferenceNats: Number(largest.toExponential(1)) };
}

async function measure(measured: Case, folder: string) {
  const all = [ours, ...measured.peers];
  const task = { ...measured.task, modelPath, threads: THREADS, turns: Array.from({ length: turns + 1 }, (_, turn) => Array.from({ length: measured.rows }, (_row, i) => measured.row(turn * measured.rows + i))) };
  await using stack = new AsyncDisposableStack();
  const programs: Program<GenerationTurn>[] = [];
  for (const [i, contender] of all.entries()) {
    const file = join(folder, `${measured.name}-${i}.json`);
    await writeFile(file, JSON.stringify({ ...task, ...contender.task }));
    programs.push(stack.use(contender.start(file)));
  }
  // The first turn is not counted: programs start and first runs allocate.
  for (const program of programs) await program.take(0);
  const taken: GenerationTurn[][] = all.map(() => []);
  for (let turn = 1; turn <= turns; turn += 1) {
    // Whoever is first changes from turn to turn.
    for (let k = 0; k < all.length; k += 1) {
      const who = (k + turn) % all.length;
      taken[who]?.push(await (programs[who] as Program<GenerationTurn>).take(turn));
    }
  }
  const perTurn = measured.task.kind === 'greedy' ? measured.rows * measured.task.newTokens : measured.rows;
  const mine = taken[0] ?? [];
  const results = all.map(({ name, exact }, who) => {
    const own = taken[who] ?? [];
    const ratio = spread(own.map(({ seconds }, turn) => seconds / (mine[turn]?.seconds ?? NaN)));
    const rate = spread(own.map(({ seconds }) => perTurn / seconds));
    if (who > 0) say(`${measured.name}: ${rate.median} of ${name}, ours faster by ${ratio.median} (${ratio.lowest} to ${ratio.highest})`);
    return { name, ratePerSecond: rate, peakRssMiB: Math.round(Math.max(...own.map(({ peakRssBytes }) => peakRssBytes)) / 2 ** 20), ...(who === 0 ? {} : { ratio, exact, agreement: agreement(measured.task.kind, mine, own) }) };
  });
  const promptTokens = task.turns.slice(1).flat().reduce((sum, row) => sum + row.length + task.prefixIds.length, 0);
  return { case: measured.name, unit: measured.task.kind === 'greedy' ? 'new tokens a second, prompts read included' : 'rows a second', rows: measured.rows, newTokens: measured.task.newTokens, prefixTokens: task.prefixIds.length, promptTokens, turns, results };
}

const chosen = CASES.filter(({ name }) => values.case === undefined || values.case === name);
if (chosen.length === 0 || !Number.isInteger(turns) || turns < 1) {
  say(`generate: expected a case of ${CASES.map(({ name }) => name).join(', ')} and turns above 0, got ${values.case ?? 'all'} and ${values.turns}`);
  process.exit(2);
}
await llamaCpp(say);
const folder = await mkdtemp(join(tmpdir(), 'stillhouse-bench-'));
try {
  const results: Awaited<ReturnType<typeof measure>>[] = [];
  for (const measured of chosen) results.push(await measure(measured, folder));
  process.stdout.write(`${JSON.stringify({ bench: 'generate', model: MODEL, threads: THREADS, results }, undefined, values.json ? 2 : 0)}\n`);
  const wrong = results.flatMap((result) => result.results.filter((one) => 'agreement' in one && one.exact && one.agreement.equal < one.agreement.rows).map(({ name }) => `${result.case}, ${name}`));
  if (wrong.length > 0) {
    say(`expected equal answers, got others: ${wrong.join('; ')}`);
    process.exitCode = 1;
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
