/** Asks a dialect's server with the real client, and gathers what came of it: answers, failure, books, and what the server counted. */
import type { CampaignSpec, CampaignSpecInput, EndpointSpec } from '../../src/contracts/campaign-spec.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { TeacherAnswer, TeacherRequest } from '../../src/contracts/records.ts';
import { createOpenAITeacher } from '../../src/teacher/openai.ts';
import type { CallTimings } from '../../src/teacher/openai.ts';
import { DIALECT_KEY, DIALECT_PRICE, startDialectServer } from '../support/dialects/index.ts';
import type { Dialect, DialectServer, DialectServerOptions } from '../support/dialects/index.ts';

export const FAST: Partial<CallTimings> = { attemptTimeoutMs: 5_000, retryBudgetMs: 3_000, firstRetryDelayMs: 5, maxRetryDelayMs: 40, stopGraceMs: 200 };

/** A spec whose teacher and judge are `endpoint`. */
export function specAt(endpoint: Omit<EndpointSpec, 'apiKeyEnv' | 'provider'>, parts: { readonly task: CampaignSpecInput['task']; readonly sampling?: Partial<CampaignSpecInput['sampling']>; readonly temperature: number }): CampaignSpec {
  const model = { ...endpoint, provider: 'openai' as const, apiKeyEnv: 'TEST_KEY', temperature: parts.temperature };
  return campaignSpecSchema.parse({
    name: 'dialect', task: parts.task, teacher: model,
    sampling: { source: { kind: 'inputs', dataset: 'a.jsonl' }, rows: 10, ...parts.sampling },
    student: { model: 'smollm2-135m-instruct' },
    evaluation: { source: { kind: 'dataset', dataset: 'b.jsonl' }, developmentRows: 1, testRows: 1, scorer: parts.task.output.kind === 'label' ? { kind: 'label' } : { kind: 'judge', judge: { ...model, temperature: 0 }, rubric: 'Is it right?' } },
  });
}

export function endpointAt(server: DialectServer): Omit<EndpointSpec, 'apiKeyEnv' | 'provider'> {
  const { auth, query, model } = server.dialect;
  return { model, baseUrl: server.baseUrl, temperature: 0, maxTokens: 512, concurrency: 1, price: DIALECT_PRICE, ...(auth === 'api-key' ? { keyHeader: 'api-key' } : {}), ...(Object.keys(query).length === 0 ? {} : { query }) };
}

export interface Asked {
  readonly server: DialectServer;
  readonly answers: ReadonlyMap<string, TeacherAnswer>;
  /** Whatever the client threw at last. */
  readonly error: StillhouseError | undefined;
  /** Requests that the client says were not bought. */
  readonly refused: readonly string[];
  /** Dollars: of the answers, and at most of what was billed and lost. */
  readonly books: number;
}

export interface Asking extends DialectServerOptions {
  readonly spec: (endpoint: ReturnType<typeof endpointAt>) => CampaignSpec;
  readonly requests: (spec: CampaignSpec) => readonly TeacherRequest[];
  readonly key?: string;
  readonly model?: string;
  readonly stored?: boolean;
  readonly timings?: Partial<CallTimings>;
  readonly concurrency?: number;
}

/** The server has ended when this returns; its counts stay. */
export async function ask(dialect: Dialect, { spec: specOf, requests: requestsOf, key = DIALECT_KEY, model, stored = false, timings, concurrency = 1, ...serverOptions }: Asking): Promise<Asked> {
  await using server = await startDialectServer(dialect, serverOptions);
  const spec = specOf({ ...endpointAt(server), concurrency, ...(model === undefined ? {} : { model }) });
  const { shots: _shots, calibration: _calibration, ...endpoint } = spec.teacher;
  await using teacher = createOpenAITeacher({ endpoint, readKey: () => key, timings: { ...FAST, ...timings } });
  const answers = new Map<string, TeacherAnswer>();
  const refused: string[] = [];
  let lost = 0;
  const options = {
    onRefused: async (list: readonly TeacherRequest[]) => void refused.push(...list.map(({ id }) => id)),
    onLost: async (list: readonly { readonly bound: { readonly usd: number } }[]) => {
      for (const { bound } of list) lost += bound.usd;
    },
    onAnswers: async (list: readonly { readonly request: TeacherRequest; readonly answer: TeacherAnswer }[]) => list.forEach(({ request, answer }) => answers.set(request.id, answer)),
    ...(stored ? { metadata: ({ id }: TeacherRequest) => ({ request: id }) } : {}),
  };
  let error: StillhouseError | undefined;
  await teacher.ask(requestsOf(spec), options).catch((caught: unknown) => {
    if (!(caught instanceof StillhouseError)) throw caught;
    error = caught;
  });
  const books = [...answers.values()].reduce((sum, { costUsd }) => sum + costUsd, lost);
  return { server, answers, error, refused, books };
}
