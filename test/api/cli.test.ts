import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { buildApp } from '../../src/api/app.ts';
import { listen } from '../../src/api/server.ts';
import type { ListeningServer } from '../../src/api/server.ts';
import { createScreen } from '../../src/cli/follow.ts';
import { bar, duration, table } from '../../src/cli/format.ts';
import { withAbsolutePaths } from '../../src/cli/spec-file.ts';
import type { CampaignSpec } from '../../src/contracts/campaign-spec.ts';
import { parseSpec } from '../../src/contracts/parse-spec.ts';
import type { CampaignState, RoundSummary } from '../../src/contracts/state.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getJson, putJson } from '../../src/store/jsonl.ts';
import { temporaryFolder } from '../support/folder.ts';
import { MemoryCampaigns, scriptedEstimate } from '../support/memory-campaigns.ts';

const STILL = fileURLToPath(new URL('../../src/cli/still.ts', import.meta.url));
const SPEC = fileURLToPath(new URL('../../campaigns/review-sentiment.yaml', import.meta.url));
const KEY = 'test-key-0123456789';
const folder = temporaryFolder();
const store = createFileStore(join(folder, 'artifacts'));
let campaigns: MemoryCampaigns;
let server: ListeningServer;

after(async () => {
  await server.close();
});
beforeEach(async () => {
  campaigns = new MemoryCampaigns();
  await (server as ListeningServer | undefined)?.close();
  server = await listen(await buildApp({ campaigns, store, apiKey: KEY, hasSecret: () => false, estimate: scriptedEstimate }), { host: '127.0.0.1', port: 0 });
});

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}
function still(args: readonly string[], environment: Record<string, string> = {}): Promise<Outcome> {
  const child = spawn(process.execPath, [STILL, ...args], {
    env: { ...process.env, STILLHOUSE_HOME: join(folder, 'home'), STILLHOUSE_API_URL: server.url, STILLHOUSE_API_KEY: KEY, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr })));
}

test('wrong use ends with 2 and a message on standard error', async () => {
  const bad = join(folder, 'bad.yaml');
  await writeFile(bad, (await readFile(SPEC, 'utf8')).replace('epochs: 2', 'epoch: 2'));
  const cases: [string[], RegExp][] = [
    [['nonsense'], /unknown command 'nonsense'/],
    [['show'], /missing required argument 'campaign'/],
    [['list', '--nope'], /unknown option '--nope'/],
    [['budget', 'x', '--usd', 'five'], /expected a number above 0, got "five"/],
    [['budget', 'x'], /expected at least one of --usd, --tokens, --hours/],
    [['teacher', 'x'], /expected at least one option, got none/],
    [['teacher', 'x', '--input-price', '1'], /expected --input-price and --output-price together/],
    [['fork', 'x'], /required option '--from-round <round>' not specified/],
    [['fork', 'x', '--from-round', '1'], /expected --name for the new campaign, or --spec/],
    [['run', join(folder, 'none.yaml')], /expected a campaign file/],
    [['run', bad], /bad\.yaml: line \d+, training\.epoch: expected one of the keys/],
  ];
  for (const [args, message] of cases) {
    const outcome = await still(args);
    assert.equal(outcome.code, 2, args.join(' '));
    assert.match(outcome.stderr, message);
    assert.equal(outcome.stdout, '');
  }
  assert.equal((await still(['--help'])).code, 0);
  assert.equal(campaigns.started.size, 0);
});

test('a bad environment lists every bad key', async () => {
  const outcome = await still(['list'], { STILLHOUSE_API_PORT: 'x', STILLHOUSE_LOG_LEVEL: 'loud' });
  assert.equal(outcome.code, 2);
  assert.match(outcome.stderr, /STILLHOUSE_API_PORT.*STILLHOUSE_LOG_LEVEL/s);
});

test('failures end with 1: no such campaign, a wrong key, nobody there', async () => {
  const unknown = await still(['show', 'none']);
  assert.deepEqual([unknown.code, unknown.stdout], [1, '']);
  assert.match(unknown.stderr, /campaign none/);
  const key = await still(['list'], { STILLHOUSE_API_KEY: 'another-key-0123456' });
  assert.equal(key.code, 1);
  assert.match(key.stderr, /another key/);
  const away = await still(['list'], { STILLHOUSE_API_URL: 'http://127.0.0.1:1' });
  assert.equal(away.code, 1);
  assert.match(away.stderr, /expected the REST API to answer at http:\/\/127\.0\.0\.1:1/);
});

/** A round as small as the commands need it. */
const round = { round: 1, requests: 40, accepted: 30, rejected: 10, lossFirstNats: 1.5, lossLastNats: 0.25, teacherScore: 0.9, studentScore: 0.88, retention: { mean: 0.978, low: 0.95, high: 1.01 }, stageMs: { sampling: 61_000, training: 5_000 } } as unknown as RoundSummary;

async function finishSoon(): Promise<void> {
  while (!campaigns.started.has('review-sentiment')) await new Promise((resolve) => setTimeout(resolve, 20));
  campaigns.change('review-sentiment', { stage: 'sampling', progress: 0.5 });
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const report = await store.put('report', '<!doctype html><title>r</title>');
  campaigns.roundsSoFar = [round];
  const retention = { mean: 1.01, low: 0.98, high: 1.04 };
  campaigns.change('review-sentiment', { status: 'completed', stage: 'finished', progress: 1, report, bestRound: 1, stopReason: 'max-rounds', test: { rows: 400, teacherScore: 0.9, untunedScore: 0.85, studentScore: 0.91, retention } });
  campaigns.status = 'completed';
}

test('run follows to the end in plain lines, saves the report and ends with scores, phases and commands', async () => {
  const [outcome] = await Promise.all([still(['run', SPEC, '--json']), finishSoon()]);
  assert.equal(outcome.code, 0, outcome.stderr);
  const document = JSON.parse(outcome.stdout) as { status: string; reportPath: string; state: CampaignState };
  assert.equal(document.status, 'completed');
  assert.equal(document.state.test?.rows, 400);
  assert.equal(await readFile(document.reportPath, 'utf8'), '<!doctype html><title>r</title>');
  assert.match(outcome.stderr, /estimate for review-sentiment: .*\n.*\n.*\ntraining rows +smollm2-135m-instruct +10 +1000 +\$0\.2000/);
  assert.match(outcome.stderr, /campaign review-sentiment started/);
  assert.match(outcome.stderr, /sampling 50\.0 %/);
  assert.ok(!outcome.stderr.includes('\u001b'), 'no control characters off a terminal');

  const text = await still(['run', SPEC]);
  assert.equal(text.code, 0);
  for (const piece of [/exists already with this spec/, /untuned student\s+85\.0 %/, /student\s+91\.0 %\s+1\.010 \[0\.980, 1\.040\]/, /1\s+sampling\s+1 min 1 s/, /Report: .*review-sentiment\.html/, /npm run still -- show review-sentiment/]) {
    assert.match(text.stdout, piece);
  }
});

test('run ends with 1 when the campaign failed, and when it waits for a person', async () => {
  await still(['run', SPEC, '--detach']);
  campaigns.change('review-sentiment', { status: 'paused', pauseKind: 'budget', pauseReason: 'the next batch needs $2, $1 is left', needs: { usd: 2.5, hours: 3 } });
  const paused = await still(['run', SPEC]);
  assert.equal(paused.code, 1);
  assert.match(paused.stdout, /paused: the next batch needs \$2/);
  assert.match(paused.stdout, /budget review-sentiment --usd 2\.5 --hours 3/);
  // The commands that are proposed are those that help.
  const remedies = [{ command: 'still set review-sentiment training.maxTokens=1024', effect: 'takes longer rows' }, { command: 'still resume review-sentiment', effect: 'after there is space' }];
  campaigns.change('review-sentiment', { pauseKind: 'failure', pauseReason: 'rows.jsonl:61: expected JSON', pauseCode: 'BAD_INPUT', pausedBy: 'failure', pausedAtMs: 0, remedies });
  const failed = await still(['run', SPEC]);
  assert.match(failed.stdout, /Go on with\n  npm run still -- set review-sentiment training\.maxTokens=1024     # takes longer rows\n  npm run still -- resume review-sentiment     # after there is space\n*$/);
  const shown = await still(['show', 'review-sentiment']);
  assert.match(shown.stdout, /paused: rows\.jsonl:61: expected JSON\n  by failure, since 1970-01-01 00:00 UTC, BAD_INPUT\n  to go on: still set review-sentiment training\.maxTokens=1024/);
  campaigns.status = 'failed';
  assert.equal((await still(['run', SPEC])).code, 1);
});

test('list, show, pause, resume, budget, cancel and report; --json prints one document', async () => {
  assert.match((await still(['list'])).stdout, /no campaigns so far/);
  assert.equal((await still(['run', SPEC, '--detach'])).code, 0);
  const json = async (...args: string[]) => JSON.parse((await still([...args, '--json'])).stdout) as Record<string, unknown>;
  assert.equal(((await json('list'))['campaigns'] as unknown[]).length, 1);
  assert.match((await still(['show', 'review-sentiment'])).stdout, /round 1 of at most 2, preparing/);
  assert.equal((await json('pause', 'review-sentiment', '--reason', 'lunch'))['pauseReason'], 'lunch');
  assert.equal((await json('resume', 'review-sentiment'))['status'], 'running');
  assert.deepEqual((await json('budget', 'review-sentiment', '--usd', '5', '--tokens', '1000'))['budget'], { usd: 5, tokens: 1000 });
  assert.equal((await json('cancel', 'review-sentiment'))['status'], 'cancelled');
  const early = await still(['report', 'review-sentiment']);
  assert.equal(early.code, 1);
  assert.match(early.stderr, /expected a finished report/);
});

test('estimate prints what a campaign would cost', async () => {
  const text = await still(['estimate', SPEC]);
  assert.equal(text.code, 0, text.stderr);
  assert.match(text.stdout, /in all +10 +1000 +\$0\.2000\nthe calls take 30 min 0 s; 3 more questions are answered by the ledger and cost nothing/);
  assert.equal((JSON.parse((await still(['estimate', SPEC, '--json'])).stdout) as { usd: { high: number } }).usd.high, 0.2);
  assert.equal(campaigns.started.size, 0);
});

test('set sends settings as a patch, and says when they count', async () => {
  await still(['run', SPEC, '--detach']);
  const text = await still(['set', 'review-sentiment', 'training.learningRate=0.002', 'filter.minConfidence=0.4']);
  assert.equal(text.code, 0, text.stderr);
  assert.match(text.stdout, /^review-sentiment: running\n  a training that is under way begins anew .*training\.learningRate was .* and is 0\.002\n  rows are filtered by it/);
  const changed = await getJson<CampaignSpec>(store, campaigns.set[0]?.spec ?? assert.fail());
  assert.deepEqual([changed.training.learningRate, changed.filter.minConfidence], [0.002, 0.4]);
  const wrong = await still(['set', 'review-sentiment', 'budget.usd=3']);
  assert.deepEqual([wrong.code, /still budget review-sentiment/.test(wrong.stderr)], [2, true]);
  assert.equal((await still(['set', 'review-sentiment'])).code, 2);
});

test('teacher and fork send what their options say', async () => {
  await still(['run', SPEC, '--detach']);
  const change = await still(['teacher', 'review-sentiment', '--concurrency', '3', '--input-price', '1', '--output-price', '2.5', '--json']);
  assert.equal(change.code, 0, change.stderr);
  const changed = await getJson<CampaignSpec>(store, (JSON.parse(change.stdout) as CampaignState).changedSpec ?? assert.fail());
  assert.deepEqual([changed.teacher.concurrency, changed.teacher.price], [3, { inputUsdPerMillion: 1, outputUsdPerMillion: 2.5 }]);
  const early = await still(['fork', 'review-sentiment', '--from-round', '1', '--name', 'again']);
  assert.equal(early.code, 1);
  assert.match(early.stderr, /expected at least one finished round/);
  const ref = await store.put('requests', '');
  campaigns.change('review-sentiment', { history: await putJson(store, 'history', { rounds: [round], requests: [ref], developmentEvaluations: [ref] }) });
  const forked = await still(['fork', 'review-sentiment', '--from-round', '1', '--name', 'again']);
  assert.equal(forked.code, 0, forked.stderr);
  assert.match(forked.stdout, /^again: started from round 1 of review-sentiment/);
  assert.equal(campaigns.started.get('again')?.input.fork?.round, 1);
});

test('paths of a spec are relative to its file; names stay names', async () => {
  const spec = parseSpec(await readFile(SPEC, 'utf8'));
  const mine = { ...spec, student: { provider: 'local' as const, model: './m.gguf' }, sampling: { ...spec.sampling, source: { kind: 'inputs' as const, dataset: 'rows.jsonl' } } };
  const absolute = withAbsolutePaths(mine, '/campaigns');
  assert.equal(absolute.student.model, '/campaigns/m.gguf');
  assert.deepEqual(absolute.sampling.source, { kind: 'inputs', dataset: '/campaigns/rows.jsonl' });
  assert.equal(absolute.teacher.model, 'smollm2-135m-instruct');
  assert.deepEqual(absolute.evaluation, spec.evaluation);
});

test('a terminal gets one live line below the lines that stay', () => {
  let written = '';
  const screen = createScreen({ isTTY: true, columns: 20, write: (text) => Boolean((written += text)) });
  screen.live('a live line that is longer than the terminal');
  screen.line('kept');
  assert.equal(written, '\r\u001b[2Ka live line that i…\r\u001b[2Kkept\na live line that i…');
});

test('bars, durations and tables', () => {
  assert.deepEqual([bar(0, 4), bar(0.5, 4), bar(2, 4)], ['░░░░', '██░░', '████']);
  assert.deepEqual([1_234, 59_000, 61_000, 7_260_000].map(duration), ['1.2 s', '59 s', '1 min 1 s', '2 h 1 min']);
  assert.equal(table(['a', 'bb'], [['ccc', 'd']]), 'a    bb\n---  --\nccc  d');
});
