/** Batches of chat completions at half the price. https://platform.openai.com/docs/api-reference/batch */
import type { Model } from './chat.ts';
import type { Files } from './files.ts';
import { ApiError, jsonBody, newId, nowSeconds, ok, page } from './http.ts';
import type { Background, Exchange, Reply } from './http.ts';
import type { ChatCall, OpenAIServerOptions } from './options.ts';
import { checkMetadata } from './stored.ts';

type Status = 'validating' | 'failed' | 'in_progress' | 'finalizing' | 'completed' | 'expired' | 'cancelling' | 'cancelled';

interface Batch {
  readonly id: string;
  readonly object: 'batch';
  readonly endpoint: string;
  readonly input_file_id: string;
  readonly completion_window: string;
  readonly created_at: number;
  readonly expires_at: number;
  readonly metadata: Readonly<Record<string, string>> | null;
  status: Status;
  errors: { readonly object: 'list'; readonly data: readonly BatchProblem[] } | null;
  output_file_id: string | null;
  error_file_id: string | null;
  in_progress_at: number | null;
  finalizing_at: number | null;
  completed_at: number | null;
  failed_at: number | null;
  expired_at: number | null;
  cancelling_at: number | null;
  cancelled_at: number | null;
  request_counts: { total: number; completed: number; failed: number };
}
interface BatchProblem {
  readonly code: string;
  readonly message: string;
  readonly param: string | null;
  readonly line: number | null;
}
interface Line {
  readonly custom_id: string;
  readonly method: string;
  readonly url: string;
  readonly body: ChatCall;
}

const ENDPOINT = '/v1/chat/completions';
const DAY_SECONDS = 86_400;
/** A running batch answers its lines in so many steps, so that a cancellation finds it half done. */
const STEPS = 4;
const MAX_LINES = 50_000;

export class Batches {
  readonly #options: () => OpenAIServerOptions;
  readonly #model: Model;
  readonly #files: Files;
  readonly #background: Background;
  readonly #batches = new Map<string, Batch>();

  constructor(options: () => OpenAIServerOptions, model: Model, files: Files, background: Background) {
    this.#options = options;
    this.#model = model;
    this.#files = files;
    this.#background = background;
  }

  get all(): readonly Batch[] {
    return [...this.#batches.values()];
  }

  handle(exchange: Exchange): Reply | undefined {
    const match = /^\/v1\/batches(?:\/([^/]+))?(\/cancel)?$/.exec(exchange.path);
    if (match === null) return undefined;
    const [, id, cancel] = match;
    const { method } = exchange;
    if (id === undefined) {
      if (method === 'POST') return ok(this.#create(exchange));
      return method === 'GET' ? page(this.all, exchange.query, 'desc') : undefined;
    }
    const batch = this.#batches.get(id);
    if (batch === undefined) throw new ApiError(404, `No batch found with id '${id}'.`);
    if (cancel === undefined) return method === 'GET' ? ok(batch) : undefined;
    if (method !== 'POST') return undefined;
    if (!['validating', 'in_progress'].includes(batch.status)) throw new ApiError(409, `Cannot cancel a batch with status '${batch.status}'.`);
    batch.status = 'cancelling';
    batch.cancelling_at = nowSeconds();
    return ok(batch);
  }

  #create(exchange: Exchange): Batch {
    const body = jsonBody<{ input_file_id: string; endpoint: string; completion_window: string; metadata?: Record<string, string> | null }>(exchange);
    if (body.endpoint !== ENDPOINT) throw new ApiError(400, `Invalid 'endpoint': expected ${ENDPOINT}, got '${body.endpoint}'.`, { param: 'endpoint' });
    if (body.completion_window !== '24h') throw new ApiError(400, "Invalid 'completion_window': expected 24h.", { param: 'completion_window' });
    checkMetadata(body.metadata);
    const text = this.#files.text(body.input_file_id, 'input_file_id');
    const created_at = nowSeconds();
    const batch: Batch = {
      id: newId('batch_'), object: 'batch', endpoint: body.endpoint, errors: null, input_file_id: body.input_file_id, completion_window: body.completion_window, status: 'validating',
      output_file_id: null, error_file_id: null, created_at, in_progress_at: null, expires_at: created_at + DAY_SECONDS, finalizing_at: null, completed_at: null, failed_at: null,
      expired_at: null, cancelling_at: null, cancelled_at: null, request_counts: { total: 0, completed: 0, failed: 0 }, metadata: body.metadata ?? null,
    };
    this.#batches.set(batch.id, batch);
    this.#background.after(this.#options().batches?.validatingMs ?? 10, () => this.#validate(batch, text, exchange.key));
    return batch;
  }

  #validate(batch: Batch, text: string, key: string): void {
    const { lines, problems } = parseLines(text);
    const failure = this.#options().batches?.failure;
    if (failure !== undefined) problems.push({ code: 'invalid_request', message: failure, param: null, line: null });
    if (problems.length > 0) {
      batch.status = 'failed';
      batch.failed_at = nowSeconds();
      batch.errors = { object: 'list', data: problems };
      return;
    }
    if (batch.status === 'validating') batch.status = 'in_progress';
    batch.in_progress_at = nowSeconds();
    batch.request_counts.total = lines.length;
    this.#step(batch, lines, { key, output: [], errors: [], expired: false });
  }

  #step(batch: Batch, lines: readonly Line[], run: BatchRun): void {
    const { runningMs = 20, finalizingMs = 10 } = this.#options().batches ?? {};
    const done = run.output.length + run.errors.length;
    if (batch.status === 'cancelling' || done >= lines.length) {
      if (batch.status !== 'cancelling') {
        batch.status = 'finalizing';
        batch.finalizing_at = nowSeconds();
      }
      this.#background.after(finalizingMs, () => this.#finish(batch, run));
      return;
    }
    this.#background.after(runningMs / STEPS, () => {
      const next = lines.slice(done, done + Math.ceil(lines.length / STEPS));
      void Promise.all(next.map((line) => this.#answer(batch, line, run))).then(() => this.#step(batch, lines, run));
    });
  }

  async #answer(batch: Batch, line: Line, run: BatchRun): Promise<void> {
    const { batches, random = Math.random } = this.#options();
    const entry = { id: newId('batch_req_'), custom_id: line.custom_id };
    if (batches?.expiringShare !== undefined && random() < batches.expiringShare) {
      run.expired = true;
      run.errors.push({ ...entry, response: null, error: { code: 'batch_expired', message: 'This request could not be executed before the completion window expired.' } });
      batch.request_counts.failed += 1;
      return;
    }
    const reply = await this.#reply(line.body, run.key);
    const good = reply.status === 200;
    const body: unknown = typeof reply.body === 'string' ? JSON.parse(reply.body) : reply.body;
    (good ? run.output : run.errors).push({ ...entry, response: { status_code: reply.status, request_id: newId('req_'), body }, error: null });
    batch.request_counts[good ? 'completed' : 'failed'] += 1;
  }

  /** What breaks a connection has no meaning inside a batch: such a line is answered with a 500. */
  async #reply(call: ChatCall, key: string): Promise<Reply> {
    try {
      this.#model.check(call);
      const outcome = await this.#model.answer(call, key, true);
      return outcome.kind === 'reply' ? outcome.reply : new ApiError(500, 'The server had an error while processing your request.', { type: 'server_error' }).reply;
    } catch (error) {
      if (error instanceof ApiError) return error.reply;
      throw error;
    }
  }

  #finish(batch: Batch, { output, errors, expired }: BatchRun): void {
    const { outputLine = (line: string) => line } = this.#options().batches ?? {};
    const file = (name: string, lines: readonly object[]): string | null => {
      const written = lines.map((line) => JSON.stringify(line)).flatMap((line, index) => (name === 'output' ? (outputLine(line, index) ?? []) : line));
      return lines.length === 0 ? null : this.#files.add(`${batch.id}_${name}.jsonl`, 'batch_output', `${written.join('\n')}\n`).id;
    };
    batch.output_file_id = file('output', output);
    batch.error_file_id = file('error', errors);
    const atSeconds = nowSeconds();
    if (batch.status === 'cancelling') {
      batch.status = 'cancelled';
      batch.cancelled_at = atSeconds;
    } else if (expired) {
      batch.status = 'expired';
      batch.expired_at = atSeconds;
    } else {
      batch.status = 'completed';
      batch.completed_at = atSeconds;
    }
  }
}

interface BatchRun {
  readonly key: string;
  readonly output: object[];
  readonly errors: object[];
  expired: boolean;
}

function parseLines(text: string): { readonly lines: readonly Line[]; readonly problems: BatchProblem[] } {
  const lines: Line[] = [];
  const problems: BatchProblem[] = [];
  const seen = new Set<string>();
  const reject = (line: number, code: string, message: string, param: string | null = null): void => void problems.push({ code, message, param, line });
  text.split('\n').forEach((source, index) => {
    if (source.trim() === '') return;
    let line: Partial<Line>;
    try {
      line = JSON.parse(source) as Partial<Line>;
    } catch {
      reject(index + 1, 'invalid_json_line', 'This line is not parseable as valid JSON.');
      return;
    }
    if (typeof line.custom_id !== 'string') reject(index + 1, 'missing_required_parameter', "Missing required parameter: 'custom_id'.", 'custom_id');
    else if (seen.has(line.custom_id)) reject(index + 1, 'duplicate_custom_id', `The custom_id '${line.custom_id}' appears more than once.`, 'custom_id');
    else if (line.method !== 'POST') reject(index + 1, 'invalid_method', "Expected 'POST'.", 'method');
    else if (line.url !== ENDPOINT) reject(index + 1, 'mismatched_url', `Expected '${ENDPOINT}'.`, 'url');
    else if (line.body === undefined) reject(index + 1, 'missing_required_parameter', "Missing required parameter: 'body'.", 'body');
    else lines.push(line as Line);
    seen.add(line.custom_id ?? '');
  });
  if (lines.length === 0 && problems.length === 0) problems.push({ code: 'empty_file', message: 'The input file is empty.', param: 'input_file_id', line: null });
  if (lines.length > MAX_LINES) problems.push({ code: 'too_many_tasks', message: `At most ${MAX_LINES} requests.`, param: 'input_file_id', line: null });
  return { lines, problems };
}
