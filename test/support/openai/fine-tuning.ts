/** Supervised fine-tuning jobs; what is learned is what was in the file. https://platform.openai.com/docs/api-reference/fine-tuning */
import { questionOf } from './chat.ts';
import type { Model } from './chat.ts';
import type { Files } from './files.ts';
import { ApiError, jsonBody, newId, nowSeconds, ok, page } from './http.ts';
import type { Background, Exchange, Reply } from './http.ts';
import { tokensOf } from './options.ts';
import type { ChatCall, OpenAIServerCounts, OpenAIServerOptions } from './options.ts';
import { checkMetadata } from './stored.ts';

interface Hyperparameters {
  readonly n_epochs?: number | 'auto';
  readonly batch_size?: number | 'auto';
  readonly learning_rate_multiplier?: number | 'auto';
}
interface JobRequest {
  readonly model: string;
  readonly training_file: string;
  readonly validation_file?: string | null;
  readonly suffix?: string | null;
  readonly seed?: number | null;
  readonly hyperparameters?: Hyperparameters;
  readonly method?: { readonly type: string; readonly supervised?: { readonly hyperparameters?: Hyperparameters } };
  readonly metadata?: Readonly<Record<string, string>> | null;
}
interface Job {
  readonly id: string;
  readonly object: 'fine_tuning.job';
  readonly model: string;
  readonly training_file: string;
  readonly validation_file: string | null;
  readonly created_at: number;
  readonly organization_id: string;
  readonly seed: number;
  readonly integrations: readonly [];
  readonly metadata: Readonly<Record<string, string>> | null;
  hyperparameters: Hyperparameters;
  method: unknown;
  status: 'validating_files' | 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled';
  error: { readonly code: string; readonly message: string; readonly param: string | null } | null;
  fine_tuned_model: string | null;
  finished_at: number | null;
  estimated_finish: number | null;
  trained_tokens: number | null;
  result_files: readonly string[];
}
interface JobEvent {
  readonly id: string;
  readonly object: 'fine_tuning.job.event';
  readonly created_at: number;
  readonly level: 'info' | 'warn' | 'error';
  readonly message: string;
  readonly type: 'message' | 'metrics';
  readonly data: Readonly<Record<string, unknown>>;
}
interface Example {
  readonly messages: ChatCall['messages'];
}

const MIN_EXAMPLES = 10;
const ORGANIZATION = 'test-org';

export class FineTuningJobs {
  readonly #options: () => OpenAIServerOptions;
  readonly #counts: OpenAIServerCounts;
  readonly #model: Model;
  readonly #files: Files;
  readonly #background: Background;
  readonly #jobs = new Map<string, { readonly job: Job; readonly suffix: string; readonly events: JobEvent[]; readonly checkpoints: { readonly id: string }[] }>();

  constructor(options: () => OpenAIServerOptions, counts: OpenAIServerCounts, model: Model, files: Files, background: Background) {
    this.#options = options;
    this.#counts = counts;
    this.#model = model;
    this.#files = files;
    this.#background = background;
  }

  /** The jobs as they stand, the first one first. */
  get all(): readonly Readonly<Job>[] {
    return [...this.#jobs.values()].map(({ job }) => job);
  }

  /** Ends a running job well, now. */
  finish(id: string): void {
    const entry = this.#jobs.get(id);
    if (entry?.job.status !== 'running') throw new Error(`expected a running job, got ${entry?.job.status ?? 'none'}`);
    const epochs = Number(entry.job.hyperparameters.n_epochs);
    const examples = parseExamples(this.#files.text(entry.job.training_file, 'training_file'));
    if (typeof examples !== 'string') this.#finish(entry.job, examples, this.#nameOf(entry.job), epochs);
  }

  async handle(exchange: Exchange): Promise<Reply | undefined> {
    const match = /^\/v1\/fine_tuning\/jobs(?:\/([^/]+))?(?:\/(events|checkpoints|cancel))?$/.exec(exchange.path);
    if (match === null) return undefined;
    const [, id, part] = match;
    const { method, query } = exchange;
    if (id === undefined) {
      if (method === 'POST') {
        const job = this.#create(exchange);
        await new Promise((resolve) => setTimeout(resolve, this.#options().fineTuning?.creationReplyMs ?? 0));
        return ok(job);
      }
      return method === 'GET' ? page(this.all, query, 'desc') : undefined;
    }
    const entry = this.#jobs.get(id);
    if (entry === undefined) throw new ApiError(404, `Could not find fine tune: ${id}`, { param: 'fine_tune_id', code: 'fine_tune_not_found' });
    if (part === 'cancel') return method === 'POST' ? this.#cancel(entry.job) : undefined;
    if (method !== 'GET') return undefined;
    if (part === 'events') return page(entry.events, query, 'desc');
    return part === 'checkpoints' ? page(entry.checkpoints, query, 'desc') : ok(entry.job);
  }

  #create(exchange: Exchange): Job {
    const request = jsonBody<JobRequest>(exchange);
    const { fineTuning = {} } = this.#options();
    if (fineTuning.closed === true) throw new ApiError(403, 'Fine-tuning is no longer available to your organization.', { code: 'fine_tuning_unavailable' });
    if (this.#model.price(request.model) === undefined) throw new ApiError(400, `Model ${request.model} is not available for fine-tuning.`, { param: 'model', code: 'model_not_available' });
    if (request.method !== undefined && request.method.type !== 'supervised') throw new ApiError(400, `Invalid 'method.type': expected supervised, got '${request.method.type}'.`, { param: 'method.type' });
    if ((request.suffix ?? '').length > 64) throw new ApiError(400, "Invalid 'suffix': at most 64 characters.", { param: 'suffix' });
    checkMetadata(request.metadata);
    const text = this.#files.text(request.training_file, 'training_file');
    if (request.validation_file != null) this.#files.text(request.validation_file, 'validation_file');
    const wanted = request.method?.supervised?.hyperparameters ?? request.hyperparameters ?? {};
    const hyperparameters: Hyperparameters = { n_epochs: 'auto', batch_size: 'auto', learning_rate_multiplier: 'auto', ...wanted };
    const job: Job = {
      id: newId('ftjob-'), object: 'fine_tuning.job', model: request.model, training_file: request.training_file, validation_file: request.validation_file ?? null,
      created_at: nowSeconds(), organization_id: ORGANIZATION, seed: request.seed ?? 42, integrations: [], metadata: request.metadata ?? null,
      hyperparameters, method: { type: 'supervised', supervised: { hyperparameters } }, status: 'validating_files', error: null,
      fine_tuned_model: null, finished_at: null, estimated_finish: null, trained_tokens: null, result_files: [],
    };
    this.#jobs.set(job.id, { job, suffix: request.suffix ?? '', events: [], checkpoints: [] });
    this.#say(job, `Created fine-tuning job: ${job.id}`);
    this.#say(job, `Validating training file: ${job.training_file}`);
    this.#background.after(fineTuning.validatingMs ?? 10, () => this.#validated(job, text));
    return job;
  }

  #say(job: Job, message: string, data: Readonly<Record<string, unknown>> = {}, level: JobEvent['level'] = 'info'): void {
    const type = Object.keys(data).length === 0 ? 'message' : 'metrics';
    this.#jobs.get(job.id)?.events.push({ id: newId('ftevent-'), object: 'fine_tuning.job.event', created_at: nowSeconds(), level, message, type, data });
  }

  #fail(job: Job, code: string, message: string, param: string | null): void {
    job.status = 'failed';
    job.error = { code, message, param };
    job.finished_at = nowSeconds();
    this.#say(job, message, {}, 'error');
  }

  #validated(job: Job, text: string): void {
    if (job.status !== 'validating_files') return;
    const examples = parseExamples(text);
    if (typeof examples === 'string') {
      this.#fail(job, 'invalid_training_file', examples, 'training_file');
      return;
    }
    const { queuedMs = 10, runningMs = 30 } = this.#options().fineTuning ?? {};
    job.status = 'queued';
    this.#say(job, 'Files validated, moving job to queued state');
    this.#background.after(queuedMs, () => {
      if (job.status !== 'queued') return;
      job.status = 'running';
      job.estimated_finish = nowSeconds() + Math.ceil(runningMs / 1_000);
      const { n_epochs, batch_size, learning_rate_multiplier } = job.hyperparameters;
      const chosen = { n_epochs: n_epochs === 'auto' ? 3 : n_epochs, batch_size: batch_size === 'auto' ? 1 : batch_size, learning_rate_multiplier: learning_rate_multiplier === 'auto' ? 1.8 : learning_rate_multiplier } as const;
      job.hyperparameters = chosen as Hyperparameters;
      job.method = { type: 'supervised', supervised: { hyperparameters: chosen } };
      this.#say(job, 'Fine-tuning job started');
      this.#epoch(job, examples, 1, Number(chosen.n_epochs), runningMs);
    });
  }

  #epoch(job: Job, examples: readonly Example[], epoch: number, epochs: number, runningMs: number): void {
    this.#background.after(runningMs / epochs, () => {
      if (job.status !== 'running') return;
      const { failure } = this.#options().fineTuning ?? {};
      if (failure !== undefined) {
        this.#fail(job, failure.code, failure.message, null);
        return;
      }
      const entry = this.#jobs.get(job.id);
      const step = epoch * Math.ceil(examples.length / Number(job.hyperparameters.batch_size));
      const metrics = { step, train_loss: 2 / (1 + epoch), train_mean_token_accuracy: epoch / (1 + epoch) };
      this.#say(job, `Step ${step}: training loss=${metrics.train_loss.toFixed(2)}`, metrics);
      const name = this.#nameOf(job);
      if (epoch < epochs) {
        entry?.checkpoints.push({ id: newId('ftckpt_'), object: 'fine_tuning.job.checkpoint', created_at: nowSeconds(), fine_tuned_model_checkpoint: `${name}:ckpt-step-${step}`, fine_tuning_job_id: job.id, metrics, step_number: step } as { readonly id: string });
        this.#epoch(job, examples, epoch + 1, epochs, runningMs);
        return;
      }
      this.#finish(job, examples, name, epochs);
    });
  }

  #nameOf(job: Job): string {
    return `ft:${job.model}:${ORGANIZATION}:${this.#jobs.get(job.id)?.suffix ?? ''}:${job.id.slice(-8)}`;
  }

  #finish(job: Job, examples: readonly Example[], name: string, epochs: number): void {
    const counted = examples.reduce((sum, { messages }) => sum + messages.reduce((tokens, { content }) => tokens + tokensOf(content), 0), 0) * epochs;
    job.trained_tokens = counted;
    this.#counts.trainedTokens += counted;
    this.#counts.usd += (counted * (this.#model.price(job.model)?.training ?? 0)) / 1e6;
    this.#model.tuned.set(name, { base: job.model, answers: new Map(examples.map(({ messages }) => [questionOf({ messages: messages.slice(0, -1) }), messages.at(-1)?.content ?? ''])) });
    const metrics = `step,train_loss,train_accuracy\n${epochs},${(2 / (1 + epochs)).toFixed(4)},${(epochs / (1 + epochs)).toFixed(4)}\n`;
    job.result_files = [this.#files.add('step_metrics.csv', 'fine-tune-results', metrics).id];
    job.fine_tuned_model = name;
    job.finished_at = nowSeconds();
    job.status = 'succeeded';
    this.#say(job, `New fine-tuned model created: ${name}`);
    this.#say(job, 'The job has successfully completed');
  }

  #cancel(job: Job): Reply {
    if (!['validating_files', 'queued', 'running'].includes(job.status)) throw new ApiError(400, `Job has already ${job.status}.`, { code: 'job_already_finished' });
    job.status = 'cancelled';
    job.finished_at = nowSeconds();
    this.#say(job, 'Fine-tuning job cancelled');
    return ok(job);
  }
}

/** The examples, or what is wrong with the file. */
function parseExamples(text: string): readonly Example[] | string {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  if (lines.length < MIN_EXAMPLES) return `Training file has ${lines.length} example(s), but must have at least ${MIN_EXAMPLES} examples`;
  const examples: Example[] = [];
  for (const [index, line] of lines.entries()) {
    let example: Partial<Example>;
    try {
      example = JSON.parse(line) as Partial<Example>;
    } catch {
      return `Invalid file format. Line ${index + 1} is not valid JSON.`;
    }
    const { messages } = example;
    if (!Array.isArray(messages) || (messages as { role?: string }[]).at(-1)?.role !== 'assistant') return `Invalid file format. Example ${index + 1} does not end with an assistant message.`;
    examples.push(example as Example);
  }
  return examples;
}
