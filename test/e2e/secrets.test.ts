/**
 * Keys are referred to by name: after campaigns with a key in Azure's header, a gateway's secret, batches and a
 * wrong key, none of their values is in a workflow's history, a log, an artifact, the ledger, a report, an
 * error or the output of a command, though all their names are.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { promisify } from 'node:util';
import { Client, Connection } from '@temporalio/client';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { campaignWorkflowId } from '../../src/contracts/names.ts';
import { temporaryFolder, writeRows } from '../support/folder.ts';
import { startOpenAIServer } from '../support/openai-server.ts';
import { Stack } from '../support/stack.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const CANARIES = { AZURE_CANARY: 'azure-canary-51f0c2d98b7a', GATEWAY_CANARY: 'gateway-canary-e83a40b617dc', BATCH_CANARY: 'sk-batchcanary-0d93be55a1f2', WRONG_CANARY: 'wrong-canary-77ac19e2f640' } as const;
const LABELS = ['negative', 'positive'];
const API_VERSION = '2024-10-21';
const LIMIT_MS = 180_000;

const folder = temporaryFolder();

const text = (index: number): string => ((index + 1) * 2_654_435_761).toString(36).repeat(2);
// Written once: a campaign may be reading when the next is submitted.
const POOL = writeRows(join(folder, 'pool.jsonl'), Array.from({ length: 40 }, (_, index) => ({ input: text(index) })));
const GOLD = writeRows(join(folder, 'gold.jsonl'), Array.from({ length: 16 }, (_, index) => ({ input: text(index + 1_000), gold: LABELS[index % 2] })));
const STUDENT = writeTinyLlama(join(folder, 'student'));

function specOf(name: string, teacher: CampaignSpecInput['teacher']): CampaignSpecInput {
  return {
    name,
    task: { description: 'Tell good from bad.', instruction: 'Review: {input}\nSentiment:', output: { kind: 'label', labels: LABELS } },
    teacher,
    sampling: { source: { kind: 'inputs', dataset: POOL }, rows: 16 },
    filter: { nearDuplicateSimilarity: 1 },
    student: { model: STUDENT },
    training: { epochs: 1, batchSize: 8, maxTokens: 256 },
    evaluation: { source: { kind: 'dataset', dataset: GOLD }, developmentRows: 4, testRows: 4, scorer: { kind: 'label' }, bootstrapResamples: 100 },
  };
}

/** Everything that the stack left or says, by where it was found. */
async function everything(stack: Stack, campaigns: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  const connection = await Connection.connect({ address: stack.temporalAddress });
  for (const campaign of campaigns) {
    const handle = new Client({ connection }).workflow.getHandle(campaignWorkflowId(campaign));
    const history = await handle.fetchHistory();
    const payloads = JSON.stringify(history, (_key, value: unknown) => (value instanceof Uint8Array ? Buffer.from(value).toString('utf8') : value));
    found.set(`history of ${campaign}`, payloads);
    found.set(`API of ${campaign}`, JSON.stringify(await stack.campaign(campaign)));
  }
  await connection.close();
  const still = join(import.meta.dirname, '..', '..', 'src', 'cli', 'still.ts');
  for (const args of [['ledger'], ['limits'], ['ledger', '--json'], ['limits', '--json']]) {
    found.set(`still ${args.join(' ')}`, (await promisify(execFile)(process.execPath, [still, ...args], { env: { ...process.env, STILLHOUSE_HOME: stack.home } })).stdout);
  }
  return found;
}

async function filesOf(home: string): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  for (const entry of await readdir(home, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) found.set(path.slice(home.length), await readFile(path, 'latin1'));
  }
  return found;
}

it('the values of keys are nowhere, their names are', async () => {
  const answer = (call: { readonly messages: readonly { readonly content: string }[] }): string => LABELS[(call.messages.at(-1)?.content.length ?? 0) % 2] ?? '';
  await using azure = await startOpenAIServer({ answer, keys: [CANARIES.AZURE_CANARY], azure: { apiVersion: API_VERSION }, requiredHeaders: { 'x-gateway-token': CANARIES.GATEWAY_CANARY } });
  await using plain = await startOpenAIServer({ answer, keys: [CANARIES.BATCH_CANARY] });
  await using stack = new Stack({ home: join(folder, 'home'), environment: CANARIES });
  const model = 'gpt-4o-mini';
  await stack.start();
  await stack.submit(specOf('azure', {
    provider: 'openai', model, baseUrl: `${azure.origin}/openai/deployments/${model}`, apiKeyEnv: 'AZURE_CANARY', keyHeader: 'api-key', query: { 'api-version': API_VERSION }, headers: { 'x-gateway-token': '${GATEWAY_CANARY}' },
  }));
  await stack.submit(specOf('batch', { provider: 'openai', model, baseUrl: plain.baseUrl, apiKeyEnv: 'BATCH_CANARY', batch: {} }));
  await stack.submit(specOf('wrong', { provider: 'openai', model, baseUrl: plain.baseUrl, apiKeyEnv: 'WRONG_CANARY', temperature: 0.5 }));
  const refused = await stack.watch('wrong', LIMIT_MS, ({ state }) => state?.status === 'paused');
  assert.match(refused.state?.pauseReason ?? '', /accept the key in WRONG_CANARY .* 401: Incorrect API key provided: \[key\]/);
  await stack.finished('azure', LIMIT_MS);
  await stack.finished('batch', LIMIT_MS);
  assert.ok(azure.counts.billedCalls > 0 && plain.counts.billedInBatches > 0);
  const said = await everything(stack, ['azure', 'batch', 'wrong']);
  await stack.stop();
  const places = new Map([...said, ...(await filesOf(stack.home)), ...plain.files.all.map((file) => [`uploaded ${file.filename}`, plain.files.text(file.id, 'file')] as const)]);
  for (const kind of [/^history of batch/, /^API of wrong/, /^still ledger/, /temporal/, /worker-teacher.*log/, /ledger\.sqlite/, /limits\.sqlite/, /artifacts/, /^uploaded/]) {
    assert.ok([...places.keys()].some((place) => kind.test(place)), `expected a place like ${kind.source} to be searched`);
  }
  assert.ok([...places.values()].some((text) => text.includes('<!doctype html>') || text.includes('<!DOCTYPE html>')), 'reports are among what is searched');
  for (const [name, value] of Object.entries(CANARIES)) {
    assert.ok([...places.values()].some((text) => text.includes(name)), `${name} is referred to`);
    assert.deepEqual([...places].filter(([, text]) => text.includes(value)).map(([place]) => place), [], `the value of ${name}`);
  }
});
