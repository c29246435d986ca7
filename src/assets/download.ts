/** Downloads over HTTP that go on after a cut, are verified, and appear whole or not at all. */
import { mkdir, open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { StillhouseError } from '../contracts/errors.ts';
import { gitBlobSha1OfFile, placeFile, sha256OfFile, sizeOf, stampVerified, storageError } from './files.ts';

export interface DownloadRequest {
  /** Shown to people: never holds a credential. */
  readonly name: string;
  readonly url: string;
  readonly target: string;
  /** At least one checksum should be known; without any, the size alone is checked. */
  readonly sha256?: string;
  readonly gitBlobSha1?: string;
  readonly sizeBytes?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly onProgress?: (doneBytes: number, totalBytes?: number) => void;
  readonly signal?: AbortSignal;
  /** Attempts in a row that bring no byte before it gives up. */
  readonly maxFruitlessAttempts?: number;
  readonly retryDelayMs?: number;
  /** Silence after which a connection counts as dead. */
  readonly stallTimeoutMs?: number;
}

const MAX_RETRY_DELAY_MS = 30_000;

function failureOfStatus(status: number, name: string, retryAfter: string | null): StillhouseError {
  const got = `${name}: expected the file, got HTTP ${status}`;
  if (status === 401 || status === 403) return new StillhouseError('UNAUTHORIZED', `${got}; the server wants a (different) access token`);
  if (status === 404 || status === 410) return new StillhouseError('NOT_FOUND', got);
  if (status === 408 || status === 429 || status >= 500) {
    const seconds = Number(retryAfter);
    return new StillhouseError('UNAVAILABLE', got, retryAfter !== null && Number.isFinite(seconds) ? { retryAfterMs: seconds * 1_000 } : {});
  }
  return new StillhouseError('BAD_INPUT', got);
}

/** One connection: appends to `part` from where it ends. Returns the total size if the server said it. */
async function receive(request: DownloadRequest, part: string): Promise<void> {
  const offset = (await sizeOf(part)) ?? 0;
  const stall = new AbortController();
  const signal = request.signal === undefined ? stall.signal : AbortSignal.any([stall.signal, request.signal]);
  const timer = setTimeout(() => stall.abort(new Error('no data for too long')), request.stallTimeoutMs ?? 60_000);
  try {
    const response = await fetch(request.url, {
      signal,
      // A compressed body would make byte offsets meaningless.
      headers: { ...request.headers, 'accept-encoding': 'identity', ...(offset > 0 ? { range: `bytes=${offset}-` } : {}) },
    });
    if (response.status === 416) {
      await response.body?.cancel();
      if (offset === request.sizeBytes) return;
      await rm(part, { force: true });
      throw new StillhouseError('UNAVAILABLE', `${request.name}: the server refused to go on at byte ${offset}`);
    }
    if (response.status !== 200 && response.status !== 206) {
      await response.body?.cancel();
      throw failureOfStatus(response.status, request.name, response.headers.get('retry-after'));
    }
    const startsAt = Number(/^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1] ?? 0);
    const resumed = response.status === 206 && startsAt === offset;
    if (response.status === 206 && !resumed) {
      await response.body?.cancel();
      await rm(part, { force: true });
      throw new StillhouseError('UNAVAILABLE', `${request.name}: expected bytes from ${offset}, got them from ${startsAt}`);
    }
    const length = Number(response.headers.get('content-length') ?? Number.NaN);
    const startedAt = resumed ? offset : 0;
    const total = request.sizeBytes ?? (Number.isFinite(length) ? startedAt + length : undefined);
    let done = startedAt;
    const handle = await open(part, resumed ? 'a' : 'w');
    try {
      for await (const chunk of response.body ?? []) {
        timer.refresh();
        await handle.writeFile(chunk as Uint8Array);
        done += (chunk as Uint8Array).byteLength;
        request.onProgress?.(done, total);
      }
    } finally {
      await handle.close();
    }
    if (total !== undefined && done < total) throw new StillhouseError('UNAVAILABLE', `${request.name}: the connection ended after ${done} of ${total} bytes`);
  } finally {
    clearTimeout(timer);
  }
}

/** Why a request failed: `fetch` itself says that it did, and its cause why. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

function explain(error: unknown, request: DownloadRequest): StillhouseError {
  if (error instanceof StillhouseError) return error;
  if (request.signal?.aborted === true) return new StillhouseError('CANCELLED', `${request.name}: the download was stopped`, { cause: error });
  const stored = storageError(error, request.target);
  if (stored instanceof StillhouseError) return stored;
  const errno = (error as NodeJS.ErrnoException).syscall;
  // A failed system call of ours (no right to write, a folder in the way) does not pass by itself.
  if (errno === 'open' || errno === 'write' || errno === 'mkdir') return new StillhouseError('BAD_INPUT', `${request.target}: expected a writable place for the download, got ${reasonOf(error)}`, { cause: error });
  return new StillhouseError('UNAVAILABLE', `${request.name}: ${reasonOf(error)}`, { cause: error });
}

/** Fetches until the body is complete; gives up after several attempts in a row without progress. */
async function receiveAll(request: DownloadRequest, part: string): Promise<void> {
  const maxFruitless = request.maxFruitlessAttempts ?? 5;
  let fruitless = 0;
  for (;;) {
    const before = (await sizeOf(part)) ?? 0;
    try {
      await receive(request, part);
      return;
    } catch (error) {
      const failure = explain(error, request);
      if (failure.code !== 'UNAVAILABLE') throw failure;
      fruitless = ((await sizeOf(part)) ?? 0) > before ? 0 : fruitless + 1;
      if (fruitless >= maxFruitless) throw failure;
      const delayMs = failure.retryAfterMs ?? (request.retryDelayMs ?? 1_000) * 2 ** fruitless;
      await sleep(Math.min(delayMs, MAX_RETRY_DELAY_MS), undefined, request.signal === undefined ? {} : { signal: request.signal }).catch((cause: unknown) => {
        throw new StillhouseError('CANCELLED', `${request.name}: the download was stopped`, { cause });
      });
    }
  }
}

/** What is wrong with the received bytes, or undefined; and their SHA-256. */
async function inspect(request: DownloadRequest, part: string): Promise<{ readonly sha256: string; readonly fault?: string }> {
  const [sha256, size] = [await sha256OfFile(part), (await sizeOf(part)) ?? 0];
  if (request.sizeBytes !== undefined && size !== request.sizeBytes) return { sha256, fault: `expected ${request.sizeBytes} bytes, got ${size}` };
  if (request.sha256 !== undefined && sha256 !== request.sha256) return { sha256, fault: `expected SHA-256 ${request.sha256}, got ${sha256}` };
  if (request.gitBlobSha1 !== undefined) {
    const blob = await gitBlobSha1OfFile(part);
    if (blob !== request.gitBlobSha1) return { sha256, fault: `expected git blob ${request.gitBlobSha1}, got ${blob}` };
  }
  return { sha256 };
}

/**
 * Fetches `url` to `target` and returns its SHA-256. A leftover part of an earlier try is continued
 * by a range request; when the joined bytes turn out wrong they are dropped and fetched once from the
 * start. The caller holds a lock on `target`.
 *
 * CORRUPT: the bytes are not the expected ones (the file is removed). NOT_FOUND, UNAUTHORIZED,
 * UNAVAILABLE: from the server. DISK_FULL: what arrived so far is kept for the next try.
 */
export async function download(request: DownloadRequest): Promise<string> {
  const part = `${request.target}.part`;
  await mkdir(dirname(request.target), { recursive: true });
  let leftover = ((await sizeOf(part)) ?? 0) > 0;
  for (;;) {
    await receiveAll(request, part);
    const { sha256, fault } = await inspect(request, part);
    if (fault === undefined) {
      await placeFile(part, request.target);
      await stampVerified(request.target, sha256);
      return sha256;
    }
    await rm(part, { force: true });
    if (!leftover) {
      throw new StillhouseError('CORRUPT', `${request.name}: ${fault}; the file was removed, try again`, { details: { name: request.name } });
    }
    leftover = false;
  }
}
