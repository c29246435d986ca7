/** Fine-tuning jobs at a provider, each made once: found again by its key before it is created. https://platform.openai.com/docs/api-reference/fine-tuning */
import { toFile } from 'openai';
import type { FineTuningJob, JobCreateParams } from 'openai/resources/fine-tuning/jobs/jobs';
import type { HostedStudentSpec } from '../../contracts/campaign-spec.ts';
import { StillhouseError } from '../../contracts/errors.ts';
import type { ChatFile } from './chat-files.ts';
import type { Provider } from './provider.ts';

/** Under which metadata a job keeps the key that it was ordered with. */
const METADATA_KEY = 'stillhouse_key';
/** Of file names, so that a job is known by its files where a provider keeps no metadata. */
const KEY_CHARACTERS = 32;
/** The API reference's limit. */
const MAX_SUFFIX_CHARACTERS = 64;

export interface JobOrder {
  /** 64 hex digits: everything that decides the model. */
  readonly key: string;
  readonly student: HostedStudentSpec;
  readonly epochs: number;
  readonly seed: number;
  /** For people: a part of the model's name. */
  readonly suffix: string;
  readonly training: ChatFile;
  readonly validation?: ChatFile;
}

const isLive = ({ status }: FineTuningJob): boolean => status !== 'failed' && status !== 'cancelled';
export const isOver = ({ status }: FineTuningJob): boolean => status === 'succeeded' || status === 'failed' || status === 'cancelled';

const fileName = (order: JobOrder, part: 'training' | 'validation'): string => `stillhouse-${order.key.slice(0, KEY_CHARACTERS)}-${part}.jsonl`;

/** The ids of the uploaded files of that name. */
async function findFiles(provider: Provider, name: string): Promise<readonly string[]> {
  return await provider.call(async (client) => {
    const ids: string[] = [];
    for await (const file of client.files.list({ purpose: 'fine-tune' })) if (file.filename === name) ids.push(file.id);
    return ids;
  });
}

/** The order's jobs, the oldest first. */
async function findJobs(provider: Provider, order: JobOrder): Promise<readonly FineTuningJob[]> {
  const files = new Set(await findFiles(provider, fileName(order, 'training')));
  if (files.size === 0) return [];
  return await provider.call(async (client) => {
    const found: FineTuningJob[] = [];
    for await (const job of client.fineTuning.jobs.list({ limit: 100, metadata: { [METADATA_KEY]: order.key } })) {
      const key = job.metadata?.[METADATA_KEY];
      if (key === order.key || (key === undefined && files.has(job.training_file))) found.push(job);
    }
    return found.sort((a, b) => a.created_at - b.created_at);
  });
}

export interface FoundJob {
  /** The job that goes on or has succeeded. */
  readonly live?: FineTuningJob;
  /** The newest that failed or was cancelled. */
  readonly ended?: FineTuningJob;
}

export async function findJob(provider: Provider, order: JobOrder): Promise<FoundJob> {
  const jobs = await findJobs(provider, order);
  const live = jobs.find(isLive);
  const ended = jobs.findLast((job) => !isLive(job));
  return { ...(live === undefined ? {} : { live }), ...(ended === undefined ? {} : { ended }) };
}

/** Looks again for a while: the creation may have been on its way when whoever asked for it died. `before` is a job that ended earlier. */
export async function findJobInFlight(provider: Provider, order: JobOrder, before?: FineTuningJob): Promise<FoundJob> {
  const { settleMs } = provider.timings;
  const deadline = performance.now() + settleMs;
  for (;;) {
    const found = await findJob(provider, order);
    if (found.live !== undefined || found.ended?.id !== before?.id || performance.now() > deadline) return found;
    await provider.pause(Math.max(10, settleMs / 5));
  }
}

async function uploaded(provider: Provider, order: JobOrder, part: 'training' | 'validation', file: ChatFile): Promise<string> {
  const name = fileName(order, part);
  const [known] = await findFiles(provider, name);
  return known ?? (await provider.call(async (client) => (await client.files.create({ file: await toFile(file.bytes, name), purpose: 'fine-tune' })).id));
}

/**
 * Creates the job, its files first. A creation whose answer was lost is looked for before it is tried
 * again; `before`, a job that ended earlier, is not it.
 */
export async function createJob(provider: Provider, order: JobOrder, before?: FineTuningJob): Promise<FineTuningJob> {
  const { student, epochs, seed, key, suffix, training, validation } = order;
  const { batchSize, learningRateMultiplier } = student.fineTuning;
  const hyperparameters = {
    n_epochs: epochs,
    ...(batchSize === undefined ? {} : { batch_size: batchSize }),
    ...(learningRateMultiplier === undefined ? {} : { learning_rate_multiplier: learningRateMultiplier }),
  };
  const body: JobCreateParams = {
    model: student.model,
    training_file: await uploaded(provider, order, 'training', training),
    ...(validation === undefined ? {} : { validation_file: await uploaded(provider, order, 'validation', validation) }),
    method: { type: 'supervised', supervised: { hyperparameters } },
    suffix: suffix.slice(0, MAX_SUFFIX_CHARACTERS),
    seed,
    metadata: { [METADATA_KEY]: key },
  };
  let lost = false;
  return await provider.retried(async () => {
    if (lost) {
      const { live, ended } = await findJobInFlight(provider, order, before);
      if (live !== undefined) return live;
      if (ended !== undefined && ended.id !== before?.id) return ended;
    }
    lost = true;
    return await provider.once((client) => client.fineTuning.jobs.create(body));
  });
}

/** One point of the provider's own measurements; steps count from 1 through all epochs. */
export interface JobMetric {
  readonly step: number;
  readonly lossNats: number;
  readonly validationNats?: number;
  /** Steps of the whole job, where the provider says. */
  readonly steps?: number;
}

export interface JobView {
  readonly job: FineTuningJob;
  /** What the provider said last. */
  readonly message?: string;
  readonly metric?: JobMetric;
}

export async function viewJob(provider: Provider, id: string): Promise<JobView> {
  const job = await provider.call((client) => client.fineTuning.jobs.retrieve(id));
  const { data: events } = await provider.call(async (client) => await client.fineTuning.jobs.listEvents(id, { limit: 20 }));
  const message = events[0]?.message;
  const metric = events.map(({ data }) => metricOf(data)).find((found) => found !== undefined);
  return { job, ...(message === undefined ? {} : { message }), ...(metric === undefined ? {} : { metric }) };
}

/** Every point, from the events or from the job's own table, whichever tells more. */
export async function jobMetrics(provider: Provider, job: FineTuningJob): Promise<readonly JobMetric[]> {
  const fromEvents = await provider.call(async (client) => {
    const found: JobMetric[] = [];
    for await (const { data } of client.fineTuning.jobs.listEvents(job.id, { limit: 100 })) {
      const metric = metricOf(data);
      if (metric !== undefined) found.push(metric);
    }
    return found;
  });
  const [table] = job.result_files;
  const fromTable = table === undefined ? [] : metricsOfCsv(await provider.call(async (client) => await (await client.files.content(table)).text()).catch(() => ''));
  const points = fromTable.length > fromEvents.length ? fromTable : fromEvents;
  return [...new Map(points.map((point) => [point.step, point])).values()].sort((a, b) => a.step - b.step);
}

function metricOf(data: unknown): JobMetric | undefined {
  if (typeof data !== 'object' || data === null) return undefined;
  const fields = data as Readonly<Record<string, unknown>>;
  const number = (name: string): number | undefined => (typeof fields[name] === 'number' && Number.isFinite(fields[name]) ? fields[name] : undefined);
  const [step, lossNats, validationNats, steps] = [number('step'), number('train_loss'), number('valid_loss') ?? number('full_valid_loss'), number('total_steps')];
  if (step === undefined || step < 1 || lossNats === undefined) return undefined;
  return { step, lossNats, ...(validationNats === undefined ? {} : { validationNats }), ...(steps === undefined ? {} : { steps }) };
}

/** `step,train_loss,…` with a header; a text that is none has no points. */
function metricsOfCsv(text: string): readonly JobMetric[] {
  const [header = '', ...lines] = text.trim().split(/\r?\n/);
  const names = header.split(',');
  return lines.flatMap((line) => {
    const cells = line.split(',');
    const data = Object.fromEntries(names.flatMap((name, index) => (cells[index] === undefined || cells[index] === '' ? [] : [[name, Number(cells[index])]])));
    return metricOf(data) ?? [];
  });
}

/** Ends a job that is not over; one that is stays as it is. The job as it was left. */
export async function cancelJob(provider: Provider, job: FineTuningJob): Promise<FineTuningJob> {
  if (isOver(job)) return job;
  try {
    return await provider.call((client) => client.fineTuning.jobs.cancel(job.id));
  } catch (error) {
    // It may have ended in between.
    const now = await provider.call((client) => client.fineTuning.jobs.retrieve(job.id));
    if (isOver(now)) return now;
    throw error instanceof StillhouseError ? error : new StillhouseError('INTERNAL', `job ${job.id}: ${String(error)}`, { cause: error });
  }
}
