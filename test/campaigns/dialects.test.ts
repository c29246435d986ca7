/**
 * The example campaigns whole, with their teacher and judge at a model that reasons unseen and refuses what other
 * models take, and at vLLM whose reasoning stands in the answers. The teachers' words and the student's weights are
 * small; everything else (Temporal, ledger, engine, commands) is real. Sizes are cut, all campaigns run at once.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parse, stringify } from 'yaml';
import type { CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import type { RejectedSample, Sample } from '../../src/contracts/records.ts';
import { DIALECT_KEY, DIALECT_PRICE, DIALECTS, startDialectServer } from '../support/dialects/index.ts';
import type { Dialect, DialectServer } from '../support/dialects/index.ts';
import { CAMPAIGNS, chineseTeacher, codeTeacher, reviewTeacher, ticketTeacher } from '../support/example-teachers.ts';
import type { ExampleTeacher } from '../support/example-teachers.ts';
import { temporaryFolder } from '../support/folder.ts';
import { Stack } from '../support/stack.ts';
import { writeTinyLlama } from '../support/tiny-llama.ts';

const CAMPAIGN_TIMEOUT_MS = 400_000;
/** Of one campaign: its first questions learn what the endpoint does not take. More would be trying. */
const MOST_REFUSALS = 6;
/** Reasons of rows that an endpoint did not answer, or not in a way that could be read. */
const FAULTY: ReadonlySet<RejectedSample['reason']> = new Set(['rejected', 'unreadable', 'refusal', 'truncated', 'empty']);
const MARKS = /<\/?think|Let think/;

const example = (name: string): CampaignSpecInput => parse(readFileSync(join(CAMPAIGNS, `${name}.yaml`), 'utf8')) as CampaignSpecInput;
const data = (file: string): string => join(CAMPAIGNS, 'data', file);

interface Example {
  readonly teacher: ExampleTeacher;
  /** Sizes, and data by their whole paths. */
  readonly cut: (spec: CampaignSpecInput) => Pick<CampaignSpecInput, 'sampling' | 'evaluation'>;
}
const EXAMPLES: Readonly<Record<string, Example>> = {
  'sentiment-zh': {
    teacher: chineseTeacher,
    cut: ({ sampling, evaluation }) => ({
      sampling: { ...sampling, rows: 12, rowsPerLaterRound: 6, batchSize: 6 },
      evaluation: { ...evaluation, source: { kind: 'dataset', dataset: data('sentiment-zh.gold.jsonl') }, developmentRows: 6, testRows: 6 },
    }),
  },
  'ticket-routing': {
    teacher: ticketTeacher,
    cut: ({ sampling, evaluation }) => ({
      sampling: {
        ...sampling, rows: 12, rowsPerLaterRound: 6, batchSize: 6,
        source: { kind: 'mixed', sources: [{ kind: 'inputs', dataset: data('tickets.jsonl'), share: 1 }, { kind: 'description', pairsPerCall: 8, plan: { attributes: ['product area', 'tone'], values: 6 }, share: 1 }] },
      },
      evaluation: { ...evaluation, source: { kind: 'dataset', dataset: data('tickets.gold.jsonl') }, developmentRows: 4, testRows: 4 },
    }),
  },
  'code-assistant': {
    teacher: codeTeacher,
    cut: ({ sampling, evaluation }) => ({
      sampling: { ...sampling, source: { kind: 'tasks', dataset: data('code-assistant.tasks.jsonl') }, rows: 8, batchSize: 8 },
      evaluation: { ...evaluation, source: { kind: 'held-out', rows: 4 }, developmentRows: 2, testRows: 2 },
    }),
  },
  'review-sentiment': {
    teacher: reviewTeacher,
    cut: ({ sampling, evaluation }) => ({ sampling: { ...sampling, rows: 16, batchSize: 8 }, evaluation: { ...evaluation, developmentRows: 6, testRows: 6 } }),
  },
};

const folder = temporaryFolder();
const stack = new Stack({ home: join(folder, 'home'), environment: { OPENAI_API_KEY: DIALECT_KEY, MALFORMED_KEY: `“${DIALECT_KEY}”` } });

/** The smallest student, with room for the longest of the examples' rows in bytes. */
function writeStudent(): string {
  const student = writeTinyLlama(join(folder, 'student'));
  const config = join(student, 'config.json');
  writeFileSync(config, JSON.stringify({ ...(JSON.parse(readFileSync(config, 'utf8')) as object), max_position_embeddings: 2_048 }));
  return student;
}

function dialectNamed(name: string): Dialect {
  const found = DIALECTS.find((dialect) => dialect.name === name);
  assert.ok(found !== undefined, `expected the dialect ${name}`);
  return found;
}

/** The example with its teacher and its judge at the server. */
function specAt(name: string, server: DialectServer, student: string): CampaignSpecInput {
  const spec = example(name);
  const endpoint = { provider: 'openai' as const, model: server.dialect.model, baseUrl: server.baseUrl, price: DIALECT_PRICE };
  const cut = (EXAMPLES[name] as Example).cut(spec);
  const { scorer } = cut.evaluation;
  return {
    ...spec,
    ...cut,
    name: `${name}-${server.dialect.name.replaceAll('.', '-')}`,
    // What a local teacher's labels are weighed by needs log-probabilities of all of them.
    teacher: { ...spec.teacher, ...endpoint, calibration: 'none' },
    student: { model: student },
    training: { ...spec.training, epochs: 1, maxTokens: 1_024 },
    evaluation: { ...cut.evaluation, bootstrapResamples: 100, scorer: scorer.kind === 'judge' ? { ...scorer, judge: { ...scorer.judge, ...endpoint } } : scorer },
  };
}

async function serverOf(dialect: Dialect, teacher: ExampleTeacher): Promise<DialectServer> {
  let index = 0;
  return await startDialectServer(dialect, { say: (body) => teacher(body, index++) });
}

async function rowsOf<T>(campaign: string, kind: string): Promise<readonly T[]> {
  const { text } = await stack.artifact(campaign, kind);
  return text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as T);
}

/** A question that was refused is asked again in another form, and answered. */
function assertRefusalsCostNoRow({ received, refused, unknownKeys }: DialectServer): void {
  assert.ok(refused.length <= MOST_REFUSALS, `expected at most ${MOST_REFUSALS} refusals, got ${refused.map(({ by }) => by).join(', ')}`);
  for (const { question, by } of refused) {
    const asked = received.filter(({ messages }) => messages.some(({ content }) => content === question)).length;
    assert.ok(asked > refused.filter((other) => other.question === question).length, `expected the question that was refused by ${by} to be answered, got refusals alone: ${question.slice(0, 80)}`);
  }
  assert.deepEqual([...unknownKeys], []);
}

describe('example campaigns with teachers that reason', { concurrency: true }, () => {
  let student = '';
  before(async () => {
    student = writeStudent();
    await stack.start();
  });
  after(() => stack.stop());

  /** What the first questions find out that the endpoint does not take. */
  const cases: readonly { readonly dialect: string; readonly learns: (spec: CampaignSpecInput) => readonly RegExp[] }[] = [
    { dialect: 'openai-gpt-5', learns: ({ teacher }) => [/tokenLimit is max_completion_tokens/, ...(teacher.temperature === 1 ? [] : [/temperature is false/])] },
    { dialect: 'vllm-think', learns: () => [] },
    { dialect: 'vllm-think-unopened', learns: () => [] },
  ];
  for (const { dialect, learns } of cases) {
    for (const [name, { teacher }] of Object.entries(EXAMPLES)) {
      it(`${name} completes at ${dialect}`, async (context) => {
        await using server = await serverOf(dialectNamed(dialect), teacher);
        const spec = specAt(name, server, student);
        await stack.submit(spec);
        const { state } = await stack.finished(spec.name, CAMPAIGN_TIMEOUT_MS);
        assert.ok(state !== undefined);
        const samples = await rowsOf<Sample>(spec.name, 'dataset');
        const rejected = await rowsOf<RejectedSample>(spec.name, 'rejected');
        context.diagnostic(`${samples.length} rows, ${rejected.length} rejected, ${server.refused.length} refusals, ${server.bill.calls} calls for $${server.bill.usd.toFixed(4)}, in the books $${state.spending.usd.toFixed(4)}, ${state.spending.reasoningTokens} tokens for reasoning`);
        assert.equal(state.status, 'completed');
        assert.ok(samples.length > 0, 'expected rows, got none');
        assert.deepEqual(rejected.filter(({ reason }) => FAULTY.has(reason)), [], 'no row was lost to how the endpoint answers');
        assert.deepEqual(samples.filter((sample) => MARKS.test(JSON.stringify(sample))), [], 'no reasoning is in any row');
        assert.doesNotMatch((await stack.artifact(spec.name, 'report')).text, /<\/?think|&lt;\/?think/);
        const { answers = [], learned = [] } = state.firstAnswers ?? {};
        assert.ok(answers.length > 0 && answers.every(({ problem, usd }) => problem === undefined && usd > 0), `expected first answers that can be used, got ${JSON.stringify(answers)}`);
        if (name === 'code-assistant') assert.ok(answers.some(({ who }) => who === 'judge'), 'the judge was asked first, too');
        for (const lesson of learns(spec)) assert.ok(learned.some((line) => lesson.test(line)), `expected to have learned ${lesson.source}, got ${learned.join('; ')}`);
        assert.ok((state.spending.reasoningTokens ?? 0) > 0, 'expected tokens for reasoning in the spending, got none');
        const books = state.spending.usd + (state.uncertain?.usd ?? 0);
        assert.ok(books >= server.bill.usd - 1e-9, `expected books of at least $${server.bill.usd}, got $${books}`);
        assertRefusalsCostNoRow(server);
      });
    }
  }

  /** The example as a user's file, at a server that is asked by `still check`. */
  function specFile(spec: CampaignSpecInput): string {
    const path = join(folder, `${spec.name}.yaml`);
    writeFileSync(path, stringify(spec));
    return path;
  }
  const listed = async (name: string): Promise<boolean> => ((JSON.parse((await stack.still('list', '--json')).stdout) as { readonly campaigns: readonly { readonly name: string }[] }).campaigns).some((campaign) => campaign.name === name);

  it('still check: a table of first questions and exit code 0, or one message and exit code 1; nothing is started', async () => {
    await using server = await serverOf(dialectNamed('vllm-think'), codeTeacher);
    const spec = { ...specAt('code-assistant', server, student), name: 'checked' };
    const good = specFile(spec);
    const text = await stack.still('check', good);
    assert.equal(text.code, 0, text.stderr);
    assert.match(text.stdout, /^check of checked: 36 rows to ask about, 2 development rows, 2 test rows; nothing was started\nfirst question +model +prompt +tokens written/);
    for (const who of [/\nteacher: text +deepseek/, /\nteacher: text, to be judged +deepseek/, /\njudge +deepseek/, / \(\d+ for reasoning\) /, /\nevery answer can be used\n$/]) assert.match(text.stdout, who);
    assert.doesNotMatch(text.stdout, MARKS);
    const bought = server.bill.calls;
    const json = await stack.still('check', good, '--json');
    assert.equal(json.code, 0, json.stderr);
    const document = JSON.parse(json.stdout) as { readonly campaign: string; readonly problem?: string; readonly answers: readonly { readonly who: string; readonly reasoningTokens?: number }[] };
    assert.deepEqual([document.campaign, document.problem, document.answers.map(({ who }) => who)], ['checked', undefined, ['teacher: text', 'teacher: text, to be judged', 'judge']]);
    assert.ok(document.answers.every(({ reasoningTokens = 0 }) => reasoningTokens > 0));
    assert.equal(server.bill.calls, bought, 'the ledger answers the second time');

    const wrong = [
      { spec: { ...spec, name: 'no-model', teacher: { ...spec.teacher, model: 'no-such/model' } }, message: /expected the model no-such\/model at http:\S+, got 404: The model `no-such\/model` does not exist\./ },
      { spec: { ...spec, name: 'bad-key', teacher: { ...spec.teacher, apiKeyEnv: 'MALFORMED_KEY' } }, message: /MALFORMED_KEY: expected a key of printable ASCII characters without spaces, got one with quotation marks around it/ },
    ];
    for (const { spec: bad, message } of wrong) {
      const refused = await stack.still('check', specFile(bad));
      assert.equal(refused.code, 1, refused.stdout);
      assert.match(refused.stderr + refused.stdout, message);
      assert.equal(`${refused.stdout}${refused.stderr}`.trim().split('\n').length, 1, `expected one message, got ${refused.stdout}${refused.stderr}`);
      assert.ok(!`${refused.stdout}${refused.stderr}`.includes(DIALECT_KEY), 'the key is not shown');
    }
    for (const name of ['checked', 'no-model', 'bad-key']) assert.ok(!(await listed(name)), `${name} was not started`);
    assert.equal(server.bill.calls, bought);
  });
});
