/** First questions: what makes an answer unusable, and what is looked at though the ledger answers. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { readFirstAnswers } from '../../src/evaluation/first-questions.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { putJson, putRows } from '../../src/store/jsonl.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import { temporaryFolder } from '../support/folder.ts';
import { hostedDirectory } from '../support/hosted-directory.ts';
import { startOpenAIServer, TEST_KEY } from '../support/openai-server.ts';
import { answer, labelSpec, reader, request, row, workspace } from '../support/rows.ts';
import { labelSpec as hostedSpec, planWork } from '../support/sampling-soak.ts';

describe('first questions', () => {
  it('calibration: prior needs log-probabilities, which one answer shows before all are bought', async () => {
    const { store } = workspace();
    const asked = request(row('It is a joy.'));
    const problemOf = async (calibration: 'none' | 'prior', found: ReturnType<typeof answer>): Promise<string | undefined> => {
      const spec = labelSpec({ teacher: { provider: 'openai', model: 'gpt-4o-mini', calibration } });
      const input = { campaign: 'test', spec: await putJson(store, 'spec', spec), requests: await putRows(store, 'requests', [asked]) };
      return (await readFirstAnswers({ store, answers: reader({ [asked.id]: found }) }, input)).answers[0]?.problem;
    };
    assert.match((await problemOf('prior', answer('positive'))) ?? '', /^teacher\.calibration: prior needs answers with the log-probabilities of the labels, got none; set calibration: none for this teacher$/);
    assert.equal(await problemOf('prior', answer('positive', { labelLogProbs: [-3, -0.05] })), undefined);
    assert.equal(await problemOf('none', answer('positive')), undefined);
    assert.match((await problemOf('prior', answer('I cannot say'))) ?? '', /^unknown-label/);
    assert.match((await problemOf('prior', answer('', { finishReason: 'refusal' }))) ?? '', /^refusal/, 'what is wrong with the row itself comes first');
  });

  for (const key of [`“${TEST_KEY}”`, 'two words', ' \n']) {
    it(`a key like ${JSON.stringify(key)} is named though the ledger has the answers; nobody is called`, async () => {
      await using server = await startOpenAIServer({ answer: () => 'positive' });
      const { store, order, context, planned } = await planWork(join(temporaryFolder(), 'work'), hostedSpec('keys', server.baseUrl, 2, 2));
      const ledger = createLedger(order.ledgerPath);
      const sample = async (readSecret: () => string, direct: boolean): Promise<number> => {
        await using directory = hostedDirectory({ readSecret });
        return (await sampleBatch({ store, ledger, directory }, { ...context, requests: planned.requests, from: 0, to: planned.count, ...(direct ? { direct } : {}) })).answered;
      };
      try {
        assert.equal(await sample(() => TEST_KEY, true), planned.count);
        const { calls } = await ledger.totals();
        await assert.rejects(sample(() => key, true), { code: 'UNAUTHORIZED', message: /expected a key of printable ASCII characters without spaces, got one with / });
        assert.equal(await sample(() => key, false), planned.count, 'what is answered needs no key');
        assert.equal(await sample(() => TEST_KEY, true), planned.count);
        assert.equal((await ledger.totals()).calls, calls);
        assert.equal(server.counts.billedCalls, calls);
      } finally {
        await ledger.close();
      }
    });
  }
});
