/**
 * The two example campaigns with a hosted teacher, whole, against an OpenAI-compatible server on a real
 * socket: the teacher's words are scripted, everything else (Temporal, ledger, engine, student) is real.
 * Sizes are cut so that a processor is done in minutes.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parse } from 'yaml';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import type { RejectedSample, Sample } from '../../src/contracts/records.ts';
import { CAMPAIGNS, chineseTeacher, codeTeacher, schemaNameOf, writeChinesePairs } from '../support/example-teachers.ts';
import { temporaryFolder } from '../support/folder.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';
import type { ChatCall, OpenAIServer, ScriptedAnswer } from '../support/openai-server.ts';
import { Stack } from '../support/stack.ts';

const CAMPAIGN_TIMEOUT_MS = 300_000;
const WRONG_KEY = 'sk-wrong-9876543210fedcba';

function example(name: string): CampaignSpecInput {
  return parse(readFileSync(join(CAMPAIGNS, `${name}.yaml`), 'utf8')) as CampaignSpecInput;
}

/** A call that shows the teacher its own broken answer. */
const isRepair = (call: ChatCall): boolean => call.messages.at(-2)?.role === 'assistant' && schemaNameOf(call) === 'training_pairs';

/** Cuts two of its answers short: it mends one of them and not the other. */
function cuttingTeacher(call: ChatCall, index: number): string | ScriptedAnswer {
  if (isRepair(call)) return call.messages.at(-2)?.content === cutShort(3) ? writeChinesePairs(3) : '还是不行';
  const content = chineseTeacher(call, index);
  return schemaNameOf(call) === 'training_pairs' && (index === 3 || index === 5) ? { content, fault: 'truncated-json' } : content;
}

/** What the server leaves of an answer that is cut short. */
const cutShort = (call: number): string => writeChinesePairs(call).slice(0, Math.ceil(writeChinesePairs(call).length / 2));

/** The files below a folder that hold a text: its database of workflow histories, its logs and artifacts among them. */
async function filesWith(folder: string, text: string): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile() && (await readFile(join(entry.parentPath, entry.name))).includes(text)) found.push(join(entry.parentPath, entry.name));
  }
  return found;
}

/** After the stack has stopped: the keys are nowhere, though what stood beside them is found. */
async function assertKeysAreNowhere(home: string, campaign: string): Promise<void> {
  const named = await filesWith(home, campaign);
  for (const kind of [/temporal/, /\.log$/, /ledger/]) assert.ok(named.some((path) => kind.test(path.slice(home.length))), `expected ${campaign} in a file like ${kind.source}, got ${named.join(', ')}`);
  assert.ok((await filesWith(home, 'OPENAI_API_KEY')).length > 0, 'the key is referred to by its name');
  for (const key of [TEST_KEY, WRONG_KEY]) assert.deepEqual(await filesWith(home, key), []);
}

async function artifactRows<T>(stack: Stack, campaign: string, kind: string): Promise<T[]> {
  const { text } = await stack.artifact(campaign, kind);
  return text.trim().split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as T);
}

describe('example campaigns with a hosted teacher', { concurrency: 1 }, () => {
  const home = temporaryFolder();
  const chinese = example('sentiment-zh');
  let stack = new Stack({ home, environment: { OPENAI_API_KEY: WRONG_KEY } });
  let server: OpenAIServer;
  before(async () => {
    server = await startOpenAIServer({ answer: cuttingTeacher });
  });
  after(async () => {
    await stack.stop();
    await server[Symbol.asyncDispose]();
  });

  it('a wrong key pauses the campaign with the reason', async () => {
    await stack.start();
    await stack.submit({
      ...chinese,
      teacher: { ...chinese.teacher, baseUrl: server.baseUrl },
      sampling: { ...chinese.sampling, source: { kind: 'description', pairsPerCall: 6 }, rows: 10, batchSize: 5 },
      training: { ...chinese.training, epochs: 1 },
      evaluation: { ...chinese.evaluation, source: { kind: 'dataset', dataset: join(CAMPAIGNS, 'data', 'sentiment-zh.gold.jsonl') }, developmentRows: 6, testRows: 9 },
      iterate: { maxRounds: 1 },
    });
    const { state } = await stack.watch(chinese.name, CAMPAIGN_TIMEOUT_MS, (campaign) => campaign.state?.status === 'paused');
    assert.match(state?.pauseReason ?? '', /OPENAI_API_KEY/);
    assert.ok(!(state?.pauseReason ?? '').includes(WRONG_KEY), 'the key is not in the reason');
    assert.equal(server.counts.billedCalls, 0);
  });

  it('with the right one it goes on where it was. sentiment-zh: the teacher plans attributes, writes pairs as JSON from the description, and the student learns Chinese labels', async (context) => {
    await stack.stop();
    stack = new Stack({ home, environment: { OPENAI_API_KEY: TEST_KEY } });
    await stack.start();
    await stack.watch(chinese.name, CAMPAIGN_TIMEOUT_MS, (campaign) => campaign.state?.status === 'paused');
    await stack.steer(chinese.name, 'resume');
    const { state } = await stack.finished(chinese.name, CAMPAIGN_TIMEOUT_MS);
    const samples = await artifactRows<Sample>(stack, chinese.name, 'dataset');
    const rejected = await artifactRows<RejectedSample>(stack, chinese.name, 'rejected');
    assert.ok(samples.length >= 15, `expected at least 15 rows, got ${samples.length}`);
    assert.ok(samples.every(({ output }) => ['积极', '消极', '中性'].includes(output)));
    assert.ok(samples.every(({ messages }) => messages.at(-1)?.role === 'assistant' && messages[0]?.role === 'system'));
    assert.equal(rejected.filter(({ reason }) => reason === 'truncated').length, 1, 'of two answers that were cut short one was mended and the other kept as a rejected row');
    assert.equal(server.received.filter(isRepair).length, 2);
    assert.equal(state?.spending.callsBought, server.counts.billedCalls, 'every billed call is in the books');
    assert.ok(Math.abs((state?.spending.usd ?? 0) - server.counts.usd) < 1e-9, `spent ${state?.spending.usd}, billed ${server.counts.usd}`);
    assert.ok((state?.test?.teacherScore ?? 0) > 0.99, 'the scripted teacher knows the gold labels');
    context.diagnostic(`${samples.length} rows, ${rejected.length} rejected, ${server.counts.billedCalls} calls, student ${state?.test?.studentScore}, untuned ${state?.test?.untunedScore}`);
  });

  it('code-assistant: tasks become chats, code that does not parse is turned away, a judge scores free text', async (context) => {
    await using coder = await startOpenAIServer({ answer: codeTeacher });
    const spec = example('code-assistant');
    assert.equal(spec.evaluation.scorer.kind, 'judge');
    const { rubric } = spec.evaluation.scorer as { readonly rubric: string };
    await stack.submit({
      ...spec,
      teacher: { ...spec.teacher, baseUrl: coder.baseUrl, maxTokens: 24 },
      sampling: { source: { kind: 'tasks', dataset: join(CAMPAIGNS, 'data', 'code-assistant.tasks.jsonl') }, rows: 10, batchSize: 5 },
      training: { ...spec.training, epochs: 1 },
      evaluation: { source: { kind: 'held-out', rows: 6 }, developmentRows: 3, testRows: 3, scorer: { kind: 'judge', judge: { provider: 'openai', model: 'gpt-4o', baseUrl: coder.baseUrl, maxTokens: 100 }, rubric, compare: true } },
    });
    const { state } = await stack.finished(spec.name, CAMPAIGN_TIMEOUT_MS);
    const samples = await artifactRows<Sample>(stack, spec.name, 'dataset');
    const rejected = await artifactRows<RejectedSample>(stack, spec.name, 'rejected');
    assert.ok(samples.length > 0 && samples.every(({ messages }) => messages.map(({ role }) => role).join() === 'system,user,assistant'));
    assert.ok(rejected.some(({ reason }) => reason === 'does-not-parse'), 'code that does not parse is turned away');
    assert.ok((state?.test?.teacherScore ?? 0) > (state?.test?.untunedScore ?? 1), 'the judge prefers code that compiles');
    assert.equal(state?.spending.callsBought, coder.counts.billedCalls);
    assert.match((await stack.artifact(spec.name, 'report')).text, /Compared in pairs.*Student against teacher/s);
    context.diagnostic(`${samples.length} chats, ${rejected.length} rejected, teacher ${state?.test?.teacherScore}, student ${state?.test?.studentScore}, untuned ${state?.test?.untunedScore}`);
  });

  it('keeps no key in anything that it writes', async () => {
    await stack.stop();
    await assertKeysAreNowhere(home, chinese.name);
  });
});
