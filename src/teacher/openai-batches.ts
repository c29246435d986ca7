/** OpenAI's batch service. https://platform.openai.com/docs/api-reference/batch */
import { setTimeout as sleep } from 'node:timers/promises';
import { APIError, toFile } from 'openai';
import type { OpenAI } from 'openai';
import type { Batch } from 'openai/resources/batches';
import type { ChatCompletionCreateParamsNonStreaming } from 'openai/resources/chat/completions';
import { z } from 'zod';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherAnswer, TeacherRequest } from '../contracts/records.ts';
import type { LedgerKey } from '../ledger/ledger.ts';
import type { RecordedQuestion } from '../ledger/submissions.ts';
import type { BatchLine, BatchService } from './batch-service.ts';
import { readErrorBody } from './error-body.ts';
import { callFailure } from './openai-failure.ts';
import type { CallContext, CallFailure } from './openai-failure.ts';

const ENDPOINT = '/v1/chat/completions';
const METADATA_KEY = 'stillhouse_submission';
const PAGE = 100;
/** Clocks differ by so much at most. */
const CLOCK_TOLERANCE_MS = 3_600_000;
const RETRIES = 6;
const LINES_AT_ONCE = 500;
/** The organization's queue is full: it empties as other batches end. */
const QUEUE_FULL = 'token_limit_exceeded';
const QUEUE_RETRY_MS = 300_000;

export interface OpenAIBatchesOptions {
  readonly client: OpenAI;
  readonly context: CallContext;
  readonly body: (request: TeacherRequest) => ChatCompletionCreateParamsNonStreaming;
  /** At the price of a batch call; of what is no completion, no answer and the most that it may have cost. */
  readonly read: (request: TeacherRequest, completion: unknown) => Pick<AnsweredLine, 'answer' | 'lost'>;
  /** An answer for a question that the provider will never take; learns what the endpoint lacks. Undefined: neither. */
  readonly settle: (failure: CallFailure, request: TeacherRequest) => TeacherAnswer | 'learned' | undefined;
  readonly firstRetryDelayMs: number;
  readonly signal: AbortSignal | undefined;
}

type AnsweredLine = Extract<BatchLine, { readonly answer: TeacherAnswer }>;

/** A line of an output or error file. */
const resultLineSchema = z.object({
  custom_id: z.string(),
  response: z.object({ status_code: z.coerce.number(), body: z.unknown().optional() }).nullish(),
  error: z.unknown().optional(),
});
/** Of a line that is cut or damaged: whose it is. */
const CUSTOM_ID = /"custom_id"\s*:\s*"([^"]*)"/;

const asRequest = (id: string, { task, sampleIndex }: RecordedQuestion): TeacherRequest => ({ id, purpose: 'train', task, sampleIndex });

export function createOpenAIBatches(options: OpenAIBatchesOptions): BatchService {
  const { client, context } = options;
  const patiently = <T>(call: (signal: AbortSignal | undefined) => Promise<T>): Promise<T> => retried(call, options);
  return {
    async submit(id, questions) {
      const lines = [...questions].map(([key, question]) => JSON.stringify({ custom_id: key, method: 'POST', url: ENDPOINT, body: options.body(asRequest(key, question)) }));
      const file = await patiently(async (signal) => client.files.create({ file: await toFile(Buffer.from(`${lines.join('\n')}\n`), `${id}.jsonl`), purpose: 'batch' }, { signal }));
      // Not tried again by itself: an answer that was lost may have created the batch, and that is looked for first.
      const batch = await once((signal) => client.batches.create({ input_file_id: file.id, endpoint: ENDPOINT, completion_window: '24h', metadata: { [METADATA_KEY]: id } }, { signal }), options);
      return batch.id;
    },
    async find(id, sinceMs) {
      for (let after: string | undefined; ; ) {
        const page = await patiently((signal) => client.batches.list({ limit: PAGE, ...(after === undefined ? {} : { after }) }, { signal }));
        const found = page.data.find(({ metadata }) => metadata?.[METADATA_KEY] === id);
        if (found !== undefined) return found.id;
        const last = page.data.at(-1);
        // The newest come first.
        if (last === undefined || page.has_more !== true || last.created_at * 1_000 < sinceMs - CLOCK_TOLERANCE_MS) return undefined;
        after = last.id;
      }
    },
    async poll(providerId) {
      const batch = await patiently((signal) => client.batches.retrieve(providerId, { signal }));
      if (batch.status === 'failed') return { kind: 'refused', error: fileRefused(batch, context) };
      if (['completed', 'expired', 'cancelled'].includes(batch.status)) return { kind: 'ended' };
      const { completed = 0, failed = 0, total = 0 } = batch.request_counts ?? {};
      return { kind: 'running', done: completed + failed, total, cancelling: batch.status === 'cancelling' };
    },
    cancel: async (providerId) => {
      await patiently((signal) => client.batches.cancel(providerId, { signal })).catch((error: unknown) => {
        // It ended by itself in the meantime.
        if (!(error instanceof StillhouseError) || error.details['status'] !== 409) throw error;
      });
    },
    async collect(providerId, questions, onLines) {
      const batch = await patiently((signal) => client.batches.retrieve(providerId, { signal }));
      let fatal: StillhouseError | undefined;
      let damaged = 0;
      const silent = new Set(questions.keys());
      for (const fileId of [batch.output_file_id, batch.error_file_id]) {
        if (fileId === undefined || fileId === null) continue;
        const text = await patiently(async (signal) => (await client.files.content(fileId, { signal })).text());
        const rows = text.split('\n').filter((line) => line.trim() !== '');
        for (let from = 0; from < rows.length; from += LINES_AT_ONCE) {
          const lines = rows.slice(from, from + LINES_AT_ONCE).flatMap((row) => readLine(row, questions, options, (error) => (fatal ??= error)));
          damaged += lines.filter((line) => line === 'damaged').length;
          const known = lines.filter((line) => line !== 'damaged');
          for (const { key } of known) silent.delete(key);
          if (known.length > 0) await onLines(known);
        }
      }
      if (fatal !== undefined) throw fatal;
      if (batch.status === 'completed') {
        // It has answered all: what has no line of its own was paid for as well, perhaps.
        if (silent.size > 0 && silent.size === questions.size) throw new StillhouseError('BAD_INPUT', `expected the answers of the batch ${providerId} of ${context.baseUrl}, got no line of its questions`);
        const lost = [...questions].flatMap(([key, question]) => (silent.has(key) ? [{ key, ...options.read(asRequest(key, question), undefined) }] : []));
        if (lost.length > 0) await onLines(lost);
      } else if (damaged === 0 && silent.size > 0) {
        // Only what was done before the end is billed, and all of that has a line.
        await onLines([...silent].map((key) => ({ key, unanswered: true })));
      }
    },
  };
}

/** What a line says of its question; nothing where that is answered by now, or the line is of somebody else's making. */
function readLine(row: string, questions: ReadonlyMap<LedgerKey, RecordedQuestion>, options: OpenAIBatchesOptions, onFatal: (error: StillhouseError) => void): readonly (BatchLine | 'damaged')[] {
  const line = parsedLine(row);
  const key = line?.custom_id ?? CUSTOM_ID.exec(row)?.[1];
  if (key === undefined) return ['damaged'];
  const question = questions.get(key);
  if (question === undefined) return [];
  const request = asRequest(key, question);
  if (line === undefined) return [{ key, ...options.read(request, row) }];
  const { response, error } = line;
  if (response === null || response === undefined || (error !== null && error !== undefined)) return [{ key, unanswered: true }];
  if (response.status_code === 200) return [{ key, ...options.read(request, response.body) }];
  const failure = callFailure(APIError.generate(response.status_code, { error: readErrorBody(JSON.stringify(response.body ?? null)) }, undefined, new Headers()), options.context);
  const settled = options.settle(failure, request);
  if (settled !== undefined && settled !== 'learned') return [{ key, answer: settled }];
  if (settled === undefined && !failure.retry) onFatal(failure.error);
  return [{ key, unanswered: true }];
}

function parsedLine(row: string): z.output<typeof resultLineSchema> | undefined {
  try {
    return resultLineSchema.safeParse(JSON.parse(row)).data;
  } catch {
    return undefined;
  }
}

function fileRefused({ id, errors }: Batch, { baseUrl, redact }: CallContext): StillhouseError {
  const problems = errors?.data ?? [];
  const words = redact(problems.slice(0, 3).map(({ message, line }) => `${line == null ? '' : `line ${line}: `}${message ?? ''}`).join('; ')).slice(0, 500);
  const message = `expected ${baseUrl} to take the batch ${id}, got ${words === '' ? 'no reason' : words}`;
  if (problems.some(({ code }) => code === QUEUE_FULL)) return new StillhouseError('RATE_LIMITED', message, { retryAfterMs: QUEUE_RETRY_MS });
  return new StillhouseError('BAD_INPUT', message);
}

async function once<T>(call: (signal: AbortSignal | undefined) => Promise<T>, { context, signal }: OpenAIBatchesOptions): Promise<T> {
  try {
    return await call(signal);
  } catch (error) {
    if (signal?.aborted === true) throw new StillhouseError('CANCELLED', 'stopped while speaking to the batch service');
    throw callFailure(error, context).error;
  }
}

async function retried<T>(call: (signal: AbortSignal | undefined) => Promise<T>, options: OpenAIBatchesOptions): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await once(call, options);
    } catch (error) {
      const passing = error instanceof StillhouseError && (error.code === 'UNAVAILABLE' || error.code === 'RATE_LIMITED');
      if (!passing || attempt >= RETRIES) throw error;
      await sleep(Math.max(options.firstRetryDelayMs * 2 ** attempt, error.retryAfterMs ?? 0), undefined, options.signal === undefined ? {} : { signal: options.signal }).catch(() => undefined);
    }
  }
}
