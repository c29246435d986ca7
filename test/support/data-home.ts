/** The stages from spec to dataset, run one after the other as a campaign would, against a server on a socket. */
import { join } from 'node:path';
import type { BuiltDataset, CampaignContext, PlannedRequests, PreparedData, SampledBatch } from '../../src/contracts/activities.ts';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpec, CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import type { RejectedSample, Sample, TeacherRequest } from '../../src/contracts/records.ts';
import { buildDataset } from '../../src/dataset/build.ts';
import type { OpenLengths } from '../../src/dataset/lengths.ts';
import { prepareCampaign } from '../../src/dataset/prepare.ts';
import type { Ledger } from '../../src/ledger/ledger.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { getRows, putJson, putRows } from '../../src/store/jsonl.ts';
import type { ArtifactStore } from '../../src/store/store.ts';
import { createAnswerFinder, createAnswerReader } from '../../src/teacher/answers.ts';
import { planRequests } from '../../src/teacher/plan.ts';
import { sampleBatch } from '../../src/teacher/sample.ts';
import { importCompletions } from '../../src/teacher/stored-completions.ts';
import { temporaryFolder, writeRows } from './folder.ts';
import { hostedDirectory } from './hosted-directory.ts';
import { startOpenAIServer, TEST_KEY } from './openai-server.ts';
import type { OpenAIServer, OpenAIServerOptions } from './openai-server.ts';

export interface Round {
  readonly planned: PlannedRequests;
  /** How many times something had to be asked before the round could be planned. */
  readonly preliminary: number;
  readonly batches: readonly SampledBatch[];
  readonly requests: readonly TeacherRequest[];
  readonly samples: readonly Sample[];
  readonly rejected: readonly RejectedSample[];
  readonly built: BuiltDataset;
}

export class DataHome implements AsyncDisposable {
  readonly server: OpenAIServer;
  readonly store: ArtifactStore;
  readonly ledger: Ledger;
  readonly directory: ReturnType<typeof hostedDirectory>;
  readonly folder: string;

  private constructor(server: OpenAIServer, folder: string) {
    this.server = server;
    this.folder = folder;
    this.store = createFileStore(join(folder, 'objects'));
    this.ledger = createLedger(join(folder, 'ledger.sqlite'));
    this.directory = hostedDirectory({ timings: { firstRetryDelayMs: 5, maxRetryDelayMs: 20 } });
  }

  static async start(options: OpenAIServerOptions = {}): Promise<DataHome> {
    return new DataHome(await startOpenAIServer(options), temporaryFolder());
  }

  /** Writes a data file and says where it is. */
  file(name: string, rows: readonly object[]): string {
    return writeRows(join(this.folder, name), rows);
  }

  /** A campaign with gold rows of its own, asked of this home's server. */
  spec(changes: Partial<Omit<CampaignSpecInput, 'teacher'>> & { readonly teacher?: Partial<CampaignSpecInput['teacher']> } = {}): CampaignSpec {
    const gold = this.file('gold.jsonl', [{ input: 'A held-out review that praises', gold: 'positive' }, { input: 'Another one kept apart, and it complains', gold: 'negative' }]);
    return campaignSpecSchema.parse({
      name: 'data',
      task: { description: 'Tell good from bad.', instruction: 'Review: {input}\nSentiment:', output: { kind: 'label', labels: ['negative', 'positive'] } },
      sampling: { source: { kind: 'description', attributes: {} }, rows: 4 },
      student: { model: 'student' },
      evaluation: { source: { kind: 'dataset', dataset: gold }, developmentRows: 1, testRows: 1, scorer: { kind: 'label' } },
      ...changes,
      teacher: { provider: 'openai', model: 'gpt-4o-mini', baseUrl: this.server.baseUrl, ...changes.teacher },
    } as CampaignSpecInput);
  }

  async context(spec: CampaignSpec): Promise<CampaignContext> {
    return { campaign: spec.name, spec: await putJson(this.store, 'spec', spec) };
  }

  async prepare(spec: CampaignSpec): Promise<PreparedData> {
    const context = await this.context(spec);
    const { store, ledger, directory } = this;
    const imported = JSON.stringify(spec.sampling.source).includes('stored-completions') ? await importCompletions({ store, ledger, directory, readSecret: () => TEST_KEY }, context) : undefined;
    return prepareCampaign({ store, assets: { dataset: (name) => Promise.resolve(name) } }, { ...context, ...(imported === undefined ? {} : { completions: imported.completions }) });
  }

  /** Plans, asks and filters one round. */
  async round(spec: CampaignSpec, data: PreparedData, earlier: readonly Round[] = [], lengths?: OpenLengths): Promise<Round> {
    const { store, ledger, directory } = this;
    const context = await this.context(spec);
    const before = earlier.flatMap(({ requests }) => requests);
    const input = { ...context, data, purpose: 'train' as const, round: earlier.length + 1, ...(before.length === 0 ? {} : { earlier: await putRows(store, 'requests', before) }) };
    const batches: SampledBatch[] = [];
    for (let preliminary = 0; ; preliminary += 1) {
      const planned = await planRequests({ store, directory, find: createAnswerFinder({ ledger, directory }) }, input);
      for (let from = 0; from < planned.count; from += planned.batchSize) {
        const range = { from, to: Math.min(planned.count, from + planned.batchSize) };
        batches.push(await sampleBatch({ store, ledger, directory }, { ...context, requests: planned.requests, ...range }, { run: `${spec.name} ${input.round}` }));
      }
      if (planned.preliminary === true) continue;
      const refs: ArtifactRef[] = [...earlier.map((round) => round.planned.requests), planned.requests];
      const built = await buildDataset({ store, answers: createAnswerReader({ ledger, directory }), ...(lengths === undefined ? {} : { lengths }) }, { ...context, round: input.round, data, requests: refs });
      return {
        planned, preliminary, batches, built,
        requests: await getRows<TeacherRequest>(store, planned.requests),
        samples: await getRows<Sample>(store, built.dataset),
        rejected: await getRows<RejectedSample>(store, built.rejected),
      };
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.directory[Symbol.asyncDispose]();
    await this.ledger.close();
    await this.server[Symbol.asyncDispose]();
  }
}

/** What a call was asked with, in one text. */
export const asked = (call: { readonly messages: readonly { readonly content: string }[] }): string => call.messages.map(({ content }) => content).join('\n');
