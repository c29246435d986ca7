/** OpenAI's batch service. https://platform.openai.com/docs/api-reference/batch */
import { setTimeout as sleep } from 'node:timers/promises';
import { APIError, toFile } from 'openai';
import type { OpenAI } from 'openai';
import type { Batch } from 'openai/resources/batches';
import type { ChatCompletion, ChatCompletionCreateParamsNonStreaming } from 'openai/resources/chat/completions';
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
  /** At the price of a batch call. */
  readonly read: (request: TeacherRequest, completion: unknown) => TeacherAnswer;
  /** An answer for a question that the provider will never take; learns what the endpoint lacks. Undefined: neither. */
  readonly settle: (failure: CallFailure, request: TeacherRequest) => TeacherAnswer | 'learned' | undefined;
  readonly firstRetryDelayMs: number;
  readonly signal: AbortSignal | undefined;
}

/** A line of an output or error file. */
interface ResultLine {
  readonly custom_id: string;
  readonly response: { readonly status_code: number; readonly body: ChatCompletion & { readonly error?: object } } | null;
  readonly error: { readonly code: string; readonly message: string } | null;
}

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
      for (const fileId of [batch.output_file_id, batch.error_file_id]) {
        if (fileId === undefined || fileId === null) continue;
        const text = await patiently(async (signal) => (await client.files.content(fileId, { signal })).text());
        const rows = text.split('\n').filter((line) => line.trim() !== '');
        for (let from = 0; from < rows.length; from += LINES_AT_ONCE) {
          const lines = rows.slice(from, from + LINES_AT_ONCE).flatMap((row) => readLine(row, questions, options, (error) => (fatal ??= error)));
          if (lines.length > 0) await onLines(lines);
        }
      }
      if (fatal !== undefined) throw fatal;
    },
  };
}

function readLine(row: string, questions: ReadonlyMap<LedgerKey, RecordedQuestion>, options: OpenAIBatchesOptions, onFatal: (error: StillhouseError) => void): readonly BatchLine[] {
  const { custom_id: key, response, error } = JSON.parse(row) as ResultLine;
  const question = questions.get(key);
  // Answered by now, or a line of somebody else's making.
  if (question === undefined) return [];
  if (response === null || error !== null) return [{ key, unanswered: true }];
  if (response.status_code === 200) {
    return [{ key, answer: options.read(asRequest(key, question), response.body) }];
  }
  const failure = callFailure(APIError.generate(response.status_code, { error: readErrorBody(JSON.stringify(response.body)) }, undefined, new Headers()), options.context);
  const settled = options.settle(failure, asRequest(key, question));
  if (settled !== undefined && settled !== 'learned') return [{ key, answer: settled }];
  if (settled === undefined && !failure.retry) onFatal(failure.error);
  return [{ key, unanswered: true }];
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
